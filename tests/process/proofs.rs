//! Whose a process is: what uphold takes over and what it leaves alone where a pid tells too little.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dsl::*;
use crate::goes_on::until_image;

/// Root that may look into nobody else's processes, in a mount namespace in which there is nothing to make a cgroup
/// in: as Docker has it, with its own set of capabilities and a cgroup that is read-only.
fn as_in_docker() -> Option<Uphold> {
    as_in_docker_and("")
}

/// And with what this shell line does.
fn as_in_docker_and(line: &str) -> Option<Uphold> {
    if !is_root() {
        skip("only root can mount, and run a unit as another user");
        return None;
    }
    let line = format!(
        "set -e; for at in $(awk '$3 ~ /^cgroup/ {{print $2}}' /proc/mounts); do umount -l $at; done; \
        ! grep -q cgroup2 /proc/mounts; {line} \
        exec setpriv --bounding-set=-sys_ptrace,-sys_admin,-perfmon,-checkpoint_restore,-sys_resource \
        --inh-caps=-sys_ptrace \"$@\""
    );
    let uphold = Uphold::new();
    let plan = format!("UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
    Some(uphold.under(&["unshare", "-m", "sh", "-c", &line, "sh", "env", &plan]))
}

/// The head of the state.
fn head(uphold: &Uphold) -> serde_json::Value {
    let state = fs::read_to_string(uphold.path("run/private/state")).unwrap();
    serde_json::from_str(&state.lines().next().unwrap()[9..]).unwrap()
}

/// What this line of upholds has started and lives.
fn started(uphold: &Uphold) -> Vec<i32> {
    marked(head(uphold)["token"].as_str().unwrap())
}

/// The directory of its cgroups.
fn cgroups(uphold: &Uphold) -> Option<PathBuf> {
    let base = head(uphold)["cgroups"].as_str().map(PathBuf::from);
    if base.is_none() {
        skip("there is no cgroup of its own");
    }
    base
}

/// A unit of another user, of which uphold is killed when the process executes its command and nothing else is on
/// record: its pid.
fn killed_at_its_birth(uphold: Uphold) -> (Uphold, i32) {
    let text =
        "command = [\"sleep\", \"600\"]\nuser = \"daemon\"\nautostart = false\n[stop]\ntimeout = \"200ms\"\n";
    let mut uphold = uphold.unit("web", text).start();
    uphold.fail("cloned 1 kill");
    let _ = uphold.http("POST /v1/units/web/start");
    uphold.exit();
    let pids = started(&uphold);
    assert_eq!(pids.len(), 1, "{pids:?}");
    (uphold, pids[0])
}

#[test]
fn what_uphold_may_not_look_into_is_taken_over_though_uphold_was_killed_at_its_birth() {
    let Some(uphold) = as_in_docker() else { return };
    let (mut uphold, pid) = killed_at_its_birth(uphold);
    uphold.again().until("web", "running");
    assert_eq!((uphold.main_pid("web"), started(&uphold)), (pid, vec![pid]));
    assert_eq!(uphold.view("web")["restarts"], 0);
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    assert!(!is_alive(pid));
}

/// Field 22 of /proc/PID/stat as the child itself has stored it (src/host/slots.rs).
const EARLY: u64 = 40;

#[test]
fn what_nothing_proves_gets_no_signal_and_nothing_is_started_beside_it() {
    let Some(uphold) = as_in_docker() else { return };
    let (mut uphold, pid) = killed_at_its_birth(uphold);
    // As where there was no /proc for the child to look at.
    let slots = fs::File::options().write(true).open(uphold.path("run/private/runs")).unwrap();
    for slot in 1..16 {
        slots.write_all_at(&[0; 8], slot * 64 + EARLY).unwrap();
    }
    uphold.again().until_event("web", "Unproven");
    assert_eq!((uphold.main_pid("web"), started(&uphold)), (pid, vec![pid]));
    let (code, _, said) = uphold.ctl(&["stop", "web"]);
    assert_eq!(code, 1, "{said}");
    uphold.until_event("web", "Unkillable");
    assert!(is_alive(pid));
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    uphold.until("web", "inactive");
    assert_eq!(uphold.ctl(&["start", "--no-wait", "web"]).0, 0);
    uphold.until_view("web", "another process", |view| view["state"] == "running" && view["pid"] != pid);
}

#[test]
fn what_is_hidden_from_uphold_is_not_taken_for_gone() {
    let Some(uphold) = as_in_docker_and("mount -t proc -o hidepid=2,gid=45673 proc /proc;") else { return };
    let mut uphold = uphold.unit("web", "command = [\"sleep\", \"600\"]\nuser = \"daemon\"\n").start();
    let pid = uphold.main_pid("web");
    uphold.kill().again().until_event("web", "Unproven");
    assert_eq!((uphold.main_pid("web"), started(&uphold)), (pid, vec![pid]));
    // The other way to tell: it ends.
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    uphold.until_view("web", "another process", |view| view["state"] == "running" && view["pid"] != pid);
}

/// A console, a runner of jobs: whoever starts uphold again from there starts it among the processes of a service.
#[test]
fn an_uphold_that_was_started_by_a_service_of_its_own_outlives_the_stop_of_that() {
    for scope in ["main", "group"] {
        let uphold = Uphold::new();
        let (dir, binary) = (uphold.dir.path().display().to_string(), binary());
        let script = format!(
            "until [ -e {dir}/go ]; do sleep 0.02; done; sleep 600 & echo $! >> {dir}/beside; \
             {binary} run --units {dir}/units --runtime-dir {dir}/run --log-dir {dir}/log 2>> {dir}/stderr & \
             exec sleep 600"
        );
        let mut uphold = uphold
            .unit(
                "shell",
                &format!("command = [\"sh\", \"-c\", \"{script}\"]\n[stop]\ntimeout = \"2s\"\nscope = \"{scope}\"\n"),
            )
            .unit("other", "command = [\"sleep\", \"600\"]\n")
            .start();
        let (shell, other) = (uphold.main_pid("shell"), uphold.main_pid("other"));
        uphold.kill();
        fs::write(uphold.path("go"), "").unwrap();
        uphold.eventually("the control API answers again", |uphold| uphold.get("/v1/version").is_some());
        assert_eq!((uphold.main_pid("shell"), uphold.main_pid("other")), (shell, other));
        let beside: i32 = fs::read_to_string(uphold.path("beside")).unwrap().trim().parse().unwrap();
        let own: i32 =
            fs::read_to_string(uphold.path("run/lock")).unwrap().split(' ').next().unwrap().parse().unwrap();
        let (code, _, said) = uphold.ctl(&["stop", "shell"]);
        assert_eq!(code, 0, "{scope}: {said}");
        assert!(!is_alive(shell) && !is_alive(beside) && is_alive(own), "{scope}");
        assert_eq!((uphold.state("shell").as_str(), uphold.main_pid("other")), ("inactive", other));
        if head(&uphold)["cgroups"].is_string() {
            uphold.until_event("shell", "OwnCgroup");
        }
        let token = head(&uphold)["token"].as_str().unwrap().to_owned();
        assert_eq!(uphold.ctl(&["start", "--no-wait", "shell"]).0, 0);
        uphold.until("shell", "running");
        kill(Pid::from_raw(own), Signal::SIGTERM).unwrap();
        uphold.eventually("it ends", |_| !is_alive(own));
        assert!(marked(&token).is_empty(), "{scope}");
    }
}

/// A child that is frozen between clone and exec: it lies in a cgroup in which nothing runs.
#[test]
fn what_was_stopped_before_it_had_begun_does_not_begin_under_the_next_uphold() {
    if !is_root() {
        return skip("only root can freeze a cgroup");
    }
    let uphold = Uphold::new();
    let text = format!(
        "type = \"oneshot\"\nautostart = false\ncommand = [\"touch\", \"{}\"]\n",
        uphold.path("ran").display()
    );
    let mut uphold = uphold.unit("job", &text).start();
    let Some(base) = cgroups(&uphold) else { return };
    let freeze = |word: &str| fs::write(base.join("cgroup.freeze"), word).unwrap();
    freeze("1");
    assert_eq!(uphold.ctl(&["start", "--no-wait", "job"]).0, 0);
    let hanging = |uphold: &Uphold| children_of(uphold.pid());
    uphold.eventually("a child hangs before its exec", |uphold| !hanging(uphold).is_empty());
    let child = hanging(&uphold)[0];
    assert_eq!(uphold.ctl(&["stop", "--no-wait", "job"]).0, 0);
    uphold.until("job", "stopping");
    uphold.kill().again_blind();
    uphold.eventually("the child is ended", |_| !is_alive(child));
    freeze("0");
    uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
    uphold.until("job", "inactive");
    let events = uphold.events("job");
    assert!(!events.iter().any(|(line, _)| line.starts_with("Started ")), "{events:#?}");
    assert!(!uphold.path("ran").exists());
    assert_eq!(uphold.view("job")["reason"], "StoppedByOperator");
    // The operator's next word holds.
    assert_eq!(uphold.ctl(&["start", "job"]).0, 0);
    assert!(uphold.path("ran").exists());
}

#[test]
fn a_cgroup_of_a_run_that_is_over_goes_with_its_last_process_whatever_uphold_there_is_by_then() {
    let text = "command = [\"sh\", \"-c\", \"sleep 600 & echo $!; exec sleep 600\"]\n[stop]\nleave = true\ntimeout = \"2s\"\n";
    let mut uphold = Uphold::with_unit("cron", text);
    let Some(base) = cgroups(&uphold) else { return };
    let jobs =
        |uphold: &Uphold| uphold.log("cron").iter().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>();
    for run in 1..=3 {
        uphold.eventually("it has begun a job", |uphold| jobs(uphold).len() == run);
        if run < 3 {
            assert_eq!(uphold.ctl(&["restart", "cron"]).0, 0);
        }
    }
    let leaves = |base: &Path| -> Vec<String> {
        let entries = fs::read_dir(base).into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        dirs.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    assert_eq!(leaves(&base).len(), 3);
    uphold.kill().again();
    let jobs = jobs(&uphold);
    for job in &jobs[..2] {
        assert!(is_alive(*job));
        kill(Pid::from_raw(*job), Signal::SIGKILL).unwrap();
    }
    uphold.eventually("their cgroups are gone", |_| leaves(&base) == ["cron.3"]);
    assert!(is_alive(jobs[2]));
    // What was empty by then goes too.
    uphold.kill();
    fs::create_dir(base.join("cron.7")).unwrap();
    uphold.again();
    uphold.eventually("that is gone", |_| leaves(&base) == ["cron.3"]);
    assert_eq!(uphold.ctl(&["stop", "cron"]).0, 0);
    kill(Pid::from_raw(jobs[2]), Signal::SIGKILL).unwrap();
    uphold.eventually("the last is gone", |_| leaves(&base).is_empty());
    uphold.signal(Signal::SIGTERM);
    uphold.exit();
    assert!(!base.exists());
}

#[test]
fn how_a_process_that_is_no_child_ends_while_uphold_becomes_another_image_is_known() {
    let text = "command = [\"sh\", \"-c\", \"trap 'exit 7' TERM; echo here; while :; do sleep 0.01; done\"]
[restart]
policy = \"never\"
";
    let mut uphold = Uphold::fallible().unit("web", text).start();
    uphold.eventually("it listens", |uphold| uphold.log("web") == ["here"]);
    let pid = uphold.main_pid("web");
    uphold.kill().again();
    // Of two images, and of the second the note, too.
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    uphold.fail("decided 1 panic").signal(Signal::SIGSTOP);
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let gone = || !Path::new(&format!("/proc/{pid}")).exists();
    while !gone() {
        pause();
    }
    // It crashes before it has heard of that.
    uphold.signal(Signal::SIGUSR2).signal(Signal::SIGCONT);
    until_image(&uphold, 3);
    let exit = uphold.until_view("web", "its end", |view| view["state"] == "failed").view("web")["last_exit"]
        .clone();
    assert!(exit["code"] == 7 || !the_kernel_tells_of_the_dead(), "{exit}");
}

#[test]
fn what_a_stop_waits_for_is_waited_for_by_the_next_image_where_nothing_but_a_number_tells_of_it() {
    if !is_root() {
        return skip("only root can mount");
    }
    let no_cgroups = "for at in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do umount -l $at; done";
    // It has neither its environment nor its output, and does not go when it is told.
    let left =
        "env -i sh -c 'trap : TERM; while :; do sleep 0.05; done' >/dev/null 2>&1 & echo $!; exec sleep 600";
    let text = format!("command = [\"sh\", \"-c\", \"{left}\"]\n[stop]\ntimeout = \"3s\"\n");
    let uphold = Uphold::new().after_mounting(no_cgroups).unit("web", &text).start();
    uphold.until("web", "running");
    uphold.eventually("it has said it", |uphold| uphold.log("web").len() == 1);
    let (main, left) = (uphold.main_pid("web"), uphold.log("web")[0].parse::<i32>().unwrap());
    assert_eq!(uphold.ctl(&["stop", "--no-wait", "web"]).0, 0);
    uphold.eventually("its main process is over", |_| !is_alive(main));
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert!(uphold.state("web") == "stopping" || !is_alive(left), "{}", uphold.stderr());
    uphold.until("web", "inactive");
    assert!(!is_alive(left), "{}", uphold.stderr());
}

/// Without cgroups, a unit with a child that has a session of its own, neither its environment nor its output, and
/// does not go when it is told: it is known by descent alone, which is lost with the main process.
fn with_a_descendant(timeout: &str) -> Option<(Uphold, i32, i32)> {
    if !is_root() {
        skip("only root can mount");
        return None;
    }
    let left = "setsid env -i sh -c 'trap : TERM; while :; do sleep 0.05; done' >/dev/null 2>&1 & echo $!";
    let text =
        format!("command = [\"sh\", \"-c\", \"{left}; exec sleep 600\"]\n[stop]\ntimeout = \"{timeout}\"\n");
    let line =
        "for at in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do umount -l $at; done; exec \"$@\"";
    let uphold = Uphold::fallible().further_under(&["unshare", "-m", "sh", "-c", line, "sh"]);
    let uphold = uphold.unit("web", &text).start();
    uphold.until("web", "running");
    uphold.eventually("it has said it", |uphold| uphold.log("web").len() == 1);
    let (main, left) = (uphold.main_pid("web"), uphold.log("web")[0].parse::<i32>().unwrap());
    // It is not what it will be before that.
    let session = |pid: i32| nix::unistd::getsid(Some(Pid::from_raw(pid))).map(Pid::as_raw);
    uphold.eventually("it has its session", |_| session(left) == Ok(left));
    Some((uphold, main, left))
}

/// What is kept of it for the next uphold.
fn kept_kin(uphold: &Uphold) -> Vec<String> {
    let files = fs::read_dir(uphold.path("run/private")).unwrap().flatten();
    let names = files.map(|file| file.file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".kin")).collect()
}

#[test]
fn a_stop_that_the_next_image_or_uphold_goes_on_with_waits_for_who_is_known_by_descent_alone() {
    for (how, verb) in [("upgrade", "stop"), ("segv", "stop"), ("kill", "stop"), ("upgrade", "restart")] {
        let Some((mut uphold, main, left)) = with_a_descendant("1s") else { return };
        if how != "upgrade" {
            uphold.fail(&format!("reaped 1 {how}"));
        }
        // uphold may be gone before it answers.
        let _ = uphold.ctl(&[verb, "--no-wait", "web"]);
        match how {
            "kill" => {
                uphold.exit();
                uphold.again();
            }
            "segv" => until_image(&uphold, 2),
            _ => {
                uphold.eventually("its main process is over", |_| !is_alive(main));
                assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
            }
        }
        if verb == "stop" {
            uphold.until("web", "inactive");
        } else {
            uphold.until_view("web", "another process", |view| {
                view["state"] == "running" && view["pid"] != main
            });
        }
        let outlives = is_alive(left);
        // It is nobody's any more.
        if outlives {
            let _ = kill(Pid::from_raw(left), Signal::SIGKILL);
        }
        assert!(!outlives, "{how} {verb}: {}", uphold.stderr());
        assert_eq!(kept_kin(&uphold), [""; 0], "{how} {verb}");
    }
}

#[test]
fn who_is_known_by_descent_alone_is_kept_again_where_somebody_has_taken_the_file_or_the_directory() {
    let Some((uphold, main, left)) = with_a_descendant("30s") else { return };
    assert_eq!(uphold.ctl(&["stop", "--no-wait", "web"]).0, 0);
    uphold.eventually("its main process is over", |_| !is_alive(main));
    uphold.eventually("it is kept", |uphold| !kept_kin(uphold).is_empty());
    let path = uphold.path("run/private").join(&kept_kin(&uphold)[0]);
    let is_back = |_: &Uphold| fs::read(&path).is_ok_and(|words| words.len() >= 8);
    fs::remove_file(&path).unwrap();
    uphold.eventually("the file is back", is_back);
    fs::rename(uphold.path("run"), uphold.path("elsewhere")).unwrap();
    uphold.eventually("all is back", is_back);
    kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    uphold.until("web", "inactive");
    assert_eq!(kept_kin(&uphold), [""; 0]);
}

#[test]
fn children_are_known_again_where_proc_shows_another_pid_namespace() {
    if !is_root() {
        return skip("a pid namespace needs root");
    }
    let sleeps = "command = [\"sleep\", \"600\"]\n";
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let uphold = Uphold::new().mode(&["init"]).under(&["unshare", "--fork", "--pid", "--kill-child"]);
    let uphold = names.iter().fold(uphold, |uphold, name| uphold.unit(name, sleeps)).start();
    let pids = |uphold: &Uphold| names.map(|name| uphold.until(name, "running").main_pid(name));
    let before = pids(&uphold);
    // Another process has the number of one of them here.
    assert!(before.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()), "{before:?}");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert_eq!(pids(&uphold), before, "{}", uphold.stderr());
}

/// A session and what is in it beside its leader, outside of what a test makes; ended with this.
struct Outside {
    leader: std::process::Child,
    member: i32,
}

impl Outside {
    fn session() -> Outside {
        let mut command = std::process::Command::new("setsid");
        command
            .args(["sh", "-c", "sleep 600 >/dev/null & echo $!; wait"])
            .stdout(std::process::Stdio::piped());
        let mut leader = command.spawn().unwrap();
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(leader.stdout.take().unwrap()), &mut said)
            .unwrap();
        Outside { leader, member: said.trim().parse().unwrap() }
    }

    fn leader(&self) -> i32 {
        self.leader.id().cast_signed()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.member), Signal::SIGKILL);
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

/// In a pid namespace without cgroups whose /proc is that of the outer one, run by this line of its PID 1.
fn where_proc_shows_another_namespace(mode: &str, line: &str) -> Option<Uphold> {
    if !is_root() || !have("nsenter") {
        skip("a pid namespace needs root");
        return None;
    }
    let line = format!(
        "for at in $(awk '$3 ~ /^cgroup/ {{print $2}}' /proc/mounts); do umount -l $at; done; \
        ! grep -q cgroup2 /proc/mounts && {line}"
    );
    let words = ["unshare", "-m", "--fork", "--pid", "--kill-child", "sh", "-c", &line, "sh"];
    Some(Uphold::new().mode(&[mode]).under(&words))
}

/// The process in that namespace that is so many generations below unshare.
fn below(uphold: &Uphold, generations: u32) -> i32 {
    (0..generations).fold(uphold.pid(), |pid, _| match children_of(pid)[..] {
        [child] => child,
        ref children => panic!("{pid} has not one child: {children:?}"),
    })
}

/// Starts a unit so that its main process has this number in the pid namespace of uphold.
fn start_as(uphold: &Uphold, of_uphold: i32, unit: &str, pid: i32) {
    // A thread that starts it may take a number before.
    for before in [2, 1].repeat(5) {
        let line = format!("echo {} >/proc/sys/kernel/ns_last_pid", pid - before);
        let mut command = std::process::Command::new("nsenter");
        command.args(["-t", &of_uphold.to_string(), "-p", "sh", "-c", &line]);
        assert!(command.status().unwrap().success());
        assert_eq!(uphold.ctl(&["start", unit]).0, 0, "{}", uphold.stderr());
        if uphold.main_pid(unit) == pid {
            return;
        }
        assert_eq!(uphold.ctl(&["stop", unit]).0, 0);
    }
    panic!("{unit} never is {pid}");
}

const SLEEPS: &str = "command = [\"sleep\", \"600\"]\nautostart = false\n[stop]\ntimeout = \"1s\"\n";
const FOREIGN: &str = "only main processes are found; mount the /proc of this pid namespace";

#[test]
fn as_pid_1_whose_proc_shows_another_namespace_a_stop_does_not_wait_for_what_has_its_numbers_there() {
    let Some(uphold) = where_proc_shows_another_namespace("init", "exec \"$@\"") else { return };
    let outside = Outside::session();
    let mut uphold = uphold.unit("web", SLEEPS).start();
    start_as(&uphold, below(&uphold, 1), "web", outside.leader());
    assert_eq!(uphold.ctl(&["stop", "--no-wait", "web"]).0, 0);
    uphold.until("web", "inactive").until_said(FOREIGN);
    assert_eq!(uphold.stderr().matches(FOREIGN).count(), 1, "{}", uphold.stderr());
    kill(Pid::from_raw(below(&uphold, 1)), Signal::SIGTERM).unwrap();
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
    assert!(is_alive(outside.leader()) && is_alive(outside.member));
}

#[test]
fn where_proc_shows_another_namespace_nobody_gets_a_signal_for_the_number_of_another_there() {
    let Some(uphold) = where_proc_shows_another_namespace("run", "\"$@\"; exit $?") else { return };
    let outside = Outside::session();
    let mut uphold = uphold.unit("web", SLEEPS).unit("stranger", SLEEPS).start();
    let inner = below(&uphold, 2);
    start_as(&uphold, inner, "web", outside.leader());
    // It is none of web's; what has its number outside is in a session that has the number of web's main process.
    start_as(&uphold, inner, "stranger", outside.member);
    assert_eq!(uphold.ctl(&["stop", "--no-wait", "web"]).0, 0);
    uphold.until("web", "inactive");
    let stranger = uphold.view("stranger");
    assert!(stranger["state"] == "running" && stranger["pid"] == outside.member, "{stranger:#}");
    kill(Pid::from_raw(inner), Signal::SIGTERM).unwrap();
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
}

#[test]
fn where_proc_shows_another_namespace_services_are_taken_over_after_a_kill_and_can_be_stopped() {
    let outside = Outside::session();
    // uphold has the number of one that lives outside.
    let number = outside.leader() - 1;
    let line = format!("echo {number} >/proc/sys/kernel/ns_last_pid && while :; do \"$@\"; done");
    let Some(uphold) = where_proc_shows_another_namespace("run", &line) else { return };
    let uphold = uphold.unit("web", &SLEEPS.replace("autostart = false", "")).start();
    let main = uphold.until("web", "running").main_pid("web");
    let inner = below(&uphold, 2);
    let lock = || fs::read_to_string(uphold.path("run/lock")).unwrap();
    assert!(lock().starts_with(&format!("{} ", outside.leader())), "{}", lock());
    kill(Pid::from_raw(inner), Signal::SIGKILL).unwrap();
    uphold.until_said("Took over process web").until("web", "running");
    assert_eq!(uphold.main_pid("web"), main, "{}", uphold.stderr());
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0, "{}", uphold.stderr());
    assert_eq!(uphold.state("web"), "inactive", "{}", uphold.stderr());
    // The next one is no other's: it has a start and a lock of its own.
    assert_eq!(uphold.ctl(&["start", "web"]).0, 0);
    let main = uphold.main_pid("web");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0, "{}", uphold.stderr());
    assert_eq!(uphold.until("web", "running").main_pid("web"), main);
}
