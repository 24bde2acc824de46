//! The image of `packaging/Dockerfile` under podman and crun, with a shell and units of each test's own.
//!
//! All of podman lives in one pid and mount namespace, which ends with the tests and takes every container
//! along; on the machine itself nothing is mounted and no cgroup made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::dsl::{have, is_root, skip};
use crate::running::Running;
use crate::{scratch, static_binary};

/// A seccomp profile as Docker's, for what matters: without CAP_SYS_ADMIN clone3 does not exist.
const NO_CLONE3: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
    [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;

struct Podman {
    dir: PathBuf,
    /// Holds the namespaces.
    holder: Running,
}

fn podman() -> Option<&'static Podman> {
    static ONE: OnceLock<Option<Podman>> = OnceLock::new();
    ONE.get_or_init(|| {
        if !is_root() {
            skip("only root can make podman's namespaces");
            return None;
        }
        for program in ["podman", "crun", "busybox", "nsenter"] {
            if !have(program) {
                skip(&format!("{program} is not installed; tests/environments/prepare does that"));
                return None;
            }
        }
        Some(Podman::start())
    })
    .as_ref()
}

impl Podman {
    fn start() -> Podman {
        let dir = scratch("podman");
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--fork",
            "--pid",
            "--mount-proc",
            "--kill-child",
            "--mount",
            "--propagation",
            "private",
        ]);
        // `cat` ends when the tests do, however that is; the shell reaps what podman leaves behind.
        let script =
            "umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo on; cat & wait";
        let script = format!("exec 3<&0; {}", script.replace("cat &", "cat <&3 & "));
        unshare.args(["sh", "-c", &script]);
        let mut holder = Running::start(unshare, &dir, "holder");
        holder.until("on\n");
        let podman = Podman { dir, holder };
        podman.build();
        podman
    }

    /// First what is shipped, then on top of it what the tests need.
    fn build(&self) {
        let context = self.dir.join("context");
        fs::create_dir(&context).unwrap();
        fs::copy(static_binary(), context.join("uphold")).unwrap();
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/Dockerfile");
        fs::copy(shipped, context.join("Dockerfile")).unwrap();
        fs::copy("/bin/busybox", context.join("busybox")).unwrap();
        let further =
            "FROM localhost/uphold\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV PATH=/bin\n";
        fs::write(context.join("Further"), further).unwrap();
        fs::write(self.dir.join("no-clone3.json"), NO_CLONE3).unwrap();
        for (tag, file) in [("uphold", "Dockerfile"), ("test", "Further")] {
            let mut command = self.command(&["build", "--quiet", "--isolation=chroot", "--tag", tag]);
            command.arg("--file").arg(context.join(file)).arg(&context);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{tag}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// podman, where all of it lives.
    fn command(&self, arguments: &[&str]) -> Command {
        let outer = self.holder.pid();
        let inner = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target", inner.trim(), "podman", "--cgroup-manager=cgroupfs"]);
        command.arg("--root").arg(self.dir.join("root")).arg("--runroot").arg(self.dir.join("runroot"));
        command.args(["--storage-driver", "vfs", "--runtime", "crun"]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A container that is to be started: its name, options of podman, units.
struct Container {
    podman: &'static Podman,
    name: &'static str,
    options: Vec<String>,
}

impl Container {
    fn new(podman: &'static Podman, name: &'static str) -> Container {
        let units = podman.dir.join(name);
        fs::create_dir(&units).unwrap();
        let volume = format!("{}:/etc/uphold/units:ro", units.display());
        Container { podman, name, options: vec!["--volume".to_owned(), volume] }
    }

    fn unit(self, unit: &str, text: &str) -> Container {
        fs::write(self.podman.dir.join(self.name).join(format!("{unit}.toml")), text).unwrap();
        self
    }

    fn option(mut self, options: &[&str]) -> Container {
        self.options.extend(options.iter().map(|word| (*word).to_owned()));
        self
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments), &self.podman.dir, self.name)
    }

    /// With these arguments after `init`.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.podman.command(&["run", "--rm", "--name", self.name]);
        // No more than such a host allows, and nothing of its network or cgroups.
        command.args(["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=20000:20000"]);
        command.args(["--network", "none", "--cgroups=disabled"]);
        command.args(&self.options).arg("localhost/test").args(arguments);
        command
    }
}

/// A service that says how it is and when it is told to end.
fn says(word: &str) -> String {
    format!(
        "command = [\"sh\", \"-c\", \"trap 'echo {word} told; exit 0' TERM; echo {word} on; while :; do sleep 0.05; done\"]\n"
    )
}

#[test]
fn the_status_of_the_main_unit_is_the_containers() {
    let Some(podman) = podman() else { return };
    let container = Container::new(podman, "main")
        .unit("side", &says("side"))
        .unit("job", "command = [\"sh\", \"-c\", \"exit 7\"]\nrequires = [\"side\"]\n");
    let mut run = container.start(&["--main", "job"]);
    assert_eq!(run.exit(), Some(7), "{}", run.err());
}

#[test]
fn podman_stop_ends_all_in_the_reverse_of_their_order_with_0() {
    let Some(podman) = podman() else { return };
    // Slower than the other: without an order it would be the second to end.
    let web = says("web").replace("trap '", "trap 'sleep 0.3; ") + "requires = [\"db\"]\n";
    let container = Container::new(podman, "stop").unit("db", &says("db")).unit("web", &web);
    let mut run = container.start(&[]);
    run.until("db on").until("web on");
    // The client is in the image, too, and finds the daemon.
    let status = podman.run(&["exec", "stop", "/sbin/uphold", "ctl", "status"]);
    assert_eq!(status.status.code(), Some(0), "{}", String::from_utf8_lossy(&status.stderr));
    podman.done(&["stop", "--time", "50", "stop"]);
    assert_eq!(run.exit(), Some(0), "{}", run.err());
    // Output goes to the container's own, each line with the name of its unit.
    let mut lines: Vec<String> = run.out().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["db | db on", "db | db told", "web | web on", "web | web told"]);
    let said = run.err();
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("no `{text}`:\n{said}"));
    assert!(at("Stopped process web") < at("Stopped process db"), "{said}");
}

#[test]
fn podman_kill_reaches_command_and_what_outlives_it_is_ended() {
    let Some(podman) = podman() else { return };
    let script =
        "setsid sh -c 'trap \"echo orphan told; exit\" TERM; echo orphan on; while :; do sleep 0.05; done' &
        trap 'echo usr1' USR1; trap 'echo hup; exit 9' HUP; while :; do sleep 0.05; done";
    let mut run = Container::new(podman, "kill").start(&["--", "sh", "-c", script]);
    run.until("orphan on\n");
    podman.done(&["kill", "--signal", "USR1", "kill"]);
    run.until("usr1\n");
    podman.done(&["kill", "--signal", "HUP", "kill"]);
    assert_eq!(run.exit(), Some(9), "{}", run.err());
    assert_eq!(run.out(), "orphan on\nusr1\nhup\norphan told\n");
}

#[test]
fn a_sighup_without_command_reads_the_units_again() {
    let Some(podman) = podman() else { return };
    let container = Container::new(podman, "hup").unit("web", &says("web"));
    let mut run = container.start(&[]);
    run.until("web on");
    let _container = container.unit("new", &says("new"));
    podman.done(&["kill", "--signal", "HUP", "hup"]);
    run.until("new on");
    podman.done(&["kill", "--signal", "INT", "hup"]);
    assert_eq!(run.exit(), Some(0), "{}", run.err());
}

#[test]
fn the_end_of_command_is_the_containers() {
    let Some(podman) = podman() else { return };
    let container = Container::new(podman, "command");
    fs::write(podman.dir.join("command/no-program"), "text").unwrap();
    fs::set_permissions(podman.dir.join("command/no-program"), fs::Permissions::from_mode(0o644)).unwrap();
    for (command, code) in [
        (&["sh", "-c", "exit 0"][..], 0),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["no-such-program"], 127),
        (&["/etc/uphold/units/no-program"], 126),
    ] {
        let mut run = container.start(&[&["--"], command].concat());
        assert_eq!(run.exit(), Some(code), "{command:?}: {}", run.err());
    }
}

#[test]
fn command_keeps_the_containers_directory_environment_user_and_output() {
    let Some(podman) = podman() else { return };
    let container = Container::new(podman, "kept");
    let container = container.option(&["--user", "1000:1000", "--workdir", "/bin", "--env", "MARK=kept"]);
    let mut run = container.start(&["--", "sh", "-c", "pwd; echo $MARK; busybox id -u; echo err >&2"]);
    assert_eq!(run.exit(), Some(0), "{}", run.err());
    assert_eq!(run.out(), "/bin\nkept\n1000\n");
    assert!(run.err().lines().any(|line| line == "err"), "{}", run.err());
}

#[test]
fn command_has_the_terminal_and_its_ctrl_c() {
    let Some(podman) = podman() else { return };
    let container = Container::new(podman, "terminal").unit("side", &says("side")).option(&["-it"]);
    let script = "trap 'echo int; exit 5' INT; busybox tty; while :; do sleep 0.05; done";
    // script(1) makes the terminal and hands its stdin on to it.
    let words = format!("{:?}", container.command(&["--", "sh", "-c", script]));
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &words, "/dev/null"]);
    let mut run = Running::start(terminal, &podman.dir, "terminal");
    run.until("/dev/pts/0").write(b"\x03");
    assert_eq!(run.exit(), Some(5), "{}", run.out());
    assert!(run.out().contains("^Cint"), "{}", run.out());
}

/// A service that is probed, killed by its probe, started again and stopped, by whatever uphold has.
/// What it lacks it says once.
fn a_life(name: &'static str, options: &[&str], lacks: &[&str]) {
    let Some(podman) = podman() else { return };
    let web = says("web")
        + "[restart]\ndelay = \"10ms\"\nmax_delay = \"10ms\"\n[liveness]\nexec = { command = [\"sh\", \"-c\", \"exit 1\"] }
initial_delay = \"300ms\"\nperiod = \"100ms\"\nfailure_threshold = 1\n";
    let container = Container::new(podman, name).unit("web", &web).option(options);
    let mut run = container.start(&["--units", "/etc/uphold/units"]);
    run.eventually("a restart", |run| run.out().matches("web | web on\n").count() == 2);
    podman.done(&["stop", "--time", "50", name]);
    assert_eq!(run.exit(), Some(0), "{}", run.err());
    let said = run.err();
    assert!(lacks.iter().all(|text| said.matches(text).count() == 1), "not {lacks:?}:\n{said}");
    assert!(run.out().matches("web | web told\n").count() >= 2, "{}\n{}", run.out(), run.err());
}

#[test]
fn units_live_where_nothing_can_be_written() {
    a_life(
        "read-only",
        &["--read-only", "--read-only-tmpfs=false"],
        &["cannot use /run/uphold", "cannot use /var/log/uphold"],
    );
}

#[test]
fn an_upgrade_and_a_crash_are_survived_where_nothing_can_be_written() {
    let Some(podman) = podman() else { return };
    for (name, further) in [("keeps", &[][..]), ("keeps-less", &["--user", "1000:1000", "--cap-drop", "all"])]
    {
        let plan = podman.dir.join(format!("{name}-plan"));
        fs::create_dir(&plan).unwrap();
        fs::set_permissions(&plan, fs::Permissions::from_mode(0o777)).unwrap();
        let volume = format!("{}:/plan", plan.display());
        let web = "command = [\"sh\", \"-c\", \"echo pid $$; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.005; done\"]\n";
        let container = Container::new(podman, name).unit("web", web).option(further).option(&[
            "--read-only",
            "--read-only-tmpfs=false",
            "--volume",
            &volume,
            "--env",
            "UPHOLD_FAILPOINTS=/plan/fail",
        ]);
        let mut run = container.start(&["--units", "/etc/uphold/units"]);
        run.until("line 10\n");
        for (reason, signal) in [("Upgraded", "USR2"), ("Crashed", "HUP")] {
            if reason == "Crashed" {
                fs::write(plan.join("fail.made"), "recorded 1 panic\n").unwrap();
                fs::rename(plan.join("fail.made"), plan.join("fail")).unwrap();
            }
            podman.done(&["kill", "--signal", signal, name]);
            run.eventually(reason, |run| run.err().contains(&format!("reason=\"{reason}\"")));
            let next = run.out().lines().count() + 10;
            run.until(&format!("line {next}\n"));
        }
        podman.done(&["stop", "--time", "50", name]);
        assert_eq!(run.exit(), Some(0), "{}", run.err());
        let said = run.out();
        let mut lines = said.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("web | pid ")), "{said}");
        let wrong = lines.zip(1..).find(|(line, number)| *line != format!("web | line {number}"));
        assert_eq!(wrong, None, "{said}");
    }
}

#[test]
fn units_live_as_another_user() {
    a_life("user", &["--user", "1000:1000"], &["no cgroup of its own"]);
}

#[test]
fn units_live_without_capabilities() {
    a_life("no-caps", &["--cap-drop", "all"], &["no cgroup of its own"]);
}

#[test]
fn units_live_without_clone3() {
    let Some(podman) = podman() else { return };
    let profile = format!("seccomp={}", podman.dir.join("no-clone3.json").display());
    a_life("no-clone3", &["--security-opt", &profile], &["no cgroup of its own"]);
}

#[test]
fn units_live_without_all_of_these() {
    let Some(podman) = podman() else { return };
    let profile = format!("seccomp={}", podman.dir.join("no-clone3.json").display());
    let mut options =
        vec!["--read-only", "--read-only-tmpfs=false", "--user", "1000:1000", "--cap-drop", "all"];
    options.extend(["--security-opt", &profile, "--security-opt", "no-new-privileges"]);
    a_life("nothing", &options, &["no cgroup of its own", "there is no control socket until then"]);
}

#[test]
fn what_needs_a_capability_fails_and_says_so() {
    let Some(podman) = podman() else { return };
    let container = Container::new(podman, "refused").option(&["--cap-drop", "all"]);
    let other = "command = [\"sh\"]\nuser = \"1000\"\n";
    let mut run = container.unit("other", other).start(&["--main", "other"]);
    assert_eq!(run.exit(), Some(126), "{}", run.err());
    let said = run.err();
    assert!(said.contains("cannot start other: ") && said.contains("not permitted"), "{said}");
}
