//! The shipped `systemd/uphold.service`, with systemd as PID 1 of a Debian tree in namespaces of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::dsl::{is_root, pause, skip, the_kernel_tells_of_the_dead};
use crate::running::Running;
use crate::{scratch, static_binary, target};

/// A booted tree.
struct Host {
    systemd: Running,
    cgroup: String,
}

impl Host {
    /// With these files, by their paths from the root.
    fn boot(name: &str, files: &[(&str, &str)]) -> Option<Host> {
        let tree = target().join("environments/debian");
        if !is_root() || !tree.join("made").exists() {
            skip("only root can boot a tree, and tests/environments/prepare makes it");
            return None;
        }
        let dir = scratch(name);
        for (path, text) in files {
            let path = dir.join("files").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir(dir.join("at")).unwrap();
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cgroup = format!("{name}-{}", std::process::id());
        // The whole tree goes with whoever started it, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "sh"]);
        command.arg(own.join("tests/environments/systemd.sh")).arg(tree).arg(dir.join("at"));
        command
            .arg(static_binary())
            .arg(own.join("systemd/uphold.service"))
            .arg(dir.join("files"))
            .arg(&cgroup);
        let mut host = Host { systemd: Running::start(command, &dir, "systemd"), cgroup };
        host.until("uphold is active", &["systemctl", "is-active", "uphold"], |out| out == "active\n");
        Some(host)
    }

    /// What a command in the tree prints, whatever its status is.
    fn says(&self, words: &[&str]) -> String {
        says(&self.systemd, words)
    }

    fn succeeds(&self, words: &[&str]) -> bool {
        output(&self.systemd, words).unwrap().status.success()
    }

    #[track_caller]
    fn done(&self, words: &[&str]) {
        let output = output(&self.systemd, words).unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Asks until the answer is so.
    #[track_caller]
    fn until(&mut self, what: &str, words: &[&str], is: impl Fn(&str) -> bool) {
        self.systemd.eventually(what, |systemd| is(&says(systemd, words)));
    }

    fn write(&self, path: &str, text: &str) {
        self.done(&["sh", "-c", "printf %s \"$2\" > \"$1\"", "sh", path, text]);
    }

    fn property(&self, name: &str) -> String {
        self.says(&["systemctl", "show", "--value", "--property", name, "uphold"]).trim().to_owned()
    }

    #[track_caller]
    fn until_property(&mut self, name: &str, is: impl Fn(&str) -> bool) {
        let words = ["systemctl", "show", "--value", "--property", name, "uphold"];
        self.until(name, &words, |out| is(out.trim()));
    }

    fn view(&self, unit: &str) -> serde_json::Value {
        let text = self.says(&["uphold", "ctl", "--output", "json", "status", unit]);
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        list["units"][0].clone()
    }

    /// The main process of a unit, in the tree's numbers.
    fn main_pid(&self, unit: &str) -> String {
        let view = self.view(unit);
        view["pid"].as_u64().unwrap_or_else(|| panic!("{unit} does not run: {view}")).to_string()
    }

    /// What stands in a unit's log file, without stamps.
    fn log(&self, unit: &str) -> Vec<String> {
        let text = self.says(&["cat", &format!("/var/log/uphold/{unit}/stdout.log")]);
        text.lines().map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned()).collect()
    }

    fn kill_uphold(&self) {
        self.done(&["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "uphold"]);
    }
}

impl Drop for Host {
    /// The cgroups that systemd made, once all that was in them is gone.
    fn drop(&mut self) {
        self.systemd.end();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let Some(mount) = fields.into_iter().find(|fields| fields.get(2) == Some(&"cgroup2")) else { return };
        let dir = Path::new(mount[1]).join(&self.cgroup);
        for _ in 0..1000 {
            if remove_cgroups(&dir) {
                return;
            }
            pause();
        }
    }
}

/// From below; true once there is none.
fn remove_cgroups(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    for path in below {
        remove_cgroups(&path);
    }
    drop(fs::remove_dir(dir));
    !dir.exists()
}

/// A command in the tree, once systemd is up there.
fn output(systemd: &Running, words: &[&str]) -> Option<Output> {
    let outer = systemd.pid();
    let inner = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
    let inner = inner.trim();
    let name = fs::read_to_string(format!("/proc/{inner}/comm")).ok()?;
    if name != "systemd\n" {
        return None;
    }
    let mut command = Command::new("nsenter");
    command.args(["--target", inner, "--all", "--root", "--wd"]).args(words);
    Some(command.output().unwrap())
}

fn says(systemd: &Running, words: &[&str]) -> String {
    let text = |output: Output| String::from_utf8_lossy(&output.stdout).into_owned();
    output(systemd, words).map(text).unwrap_or_default()
}

const SLEEPS: &str = "command = [\"sleep\", \"600\"]\n";

#[test]
fn systemd_starts_reloads_and_stops_uphold_with_all_that_it_runs() {
    let ends = |word: &str| {
        format!("command = [\"sh\", \"-c\", \"trap 'echo {word} >> /run/ends; exit 0' TERM; echo on; while :; do sleep 0.05; done\"]
[readiness]\nexec = {{ command = [\"grep\", \"-q\", \"on$\", \"/var/log/uphold/{word}/stdout.log\"] }}\nperiod = \"50ms\"\n")
    };
    let web = format!("requires = [\"db\"]\n{}", ends("web"));
    let files = [("etc/uphold/units/db.toml", &*ends("db")), ("etc/uphold/units/web.toml", &web)];
    let Some(mut host) = Host::boot("systemd-life", &files) else { return };
    host.until("both are up", &["uphold", "ctl", "status"], |out| out.matches(" yes ").count() == 2);
    // Delegated: each service has a cgroup of its own below uphold's.
    let pid = host.main_pid("web");
    let cgroup = host.says(&["cat", &format!("/proc/{pid}/cgroup")]);
    assert!(cgroup.contains("/uphold.service/uphold-") && cgroup.contains("/web."), "{cgroup}");
    host.write("/etc/uphold/units/new.toml", SLEEPS);
    host.done(&["systemctl", "reload", "uphold"]);
    host.until("the new unit runs", &["uphold", "ctl", "status", "new"], |out| out.contains("Running"));
    assert_eq!(host.main_pid("web"), pid);
    host.write("/etc/uphold/units/bad.toml", "comand = 1\n");
    assert!(!host.succeeds(&["systemctl", "reload", "uphold"]), "a bad file is not told to who reloads");
    host.done(&["systemctl", "stop", "uphold"]);
    let state = ["ActiveState", "Result", "ExecMainStatus"].map(|name| host.property(name));
    assert_eq!(state, ["inactive", "success", "0"]);
    assert_eq!(host.says(&["cat", "/run/ends"]), "web\ndb\n");
}

#[test]
fn services_outlive_a_uphold_that_is_killed_and_systemd_starts_another() {
    let counts = "command = [\"sh\", \"-c\", \"i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done\"]\n";
    let files = [("etc/uphold/units/web.toml", SLEEPS), ("etc/uphold/units/counts.toml", counts)];
    let Some(mut host) = Host::boot("systemd-killed", &files) else { return };
    host.until("both run", &["uphold", "ctl", "status"], |out| out.matches("Running").count() == 2);
    let pids = ["web", "counts"].map(|unit| host.main_pid(unit));
    host.until_property("NFileDescriptorStore", |number| number == "4");
    for restarts in ["1", "2"] {
        let before = host.log("counts").len();
        host.kill_uphold();
        host.until_property("NRestarts", |now| now == restarts);
        host.until_property("ActiveState", |state| state == "active");
        host.until("both run again", &["uphold", "ctl", "status"], |out| out.matches("Running").count() == 2);
        assert_eq!(["web", "counts"].map(|unit| host.main_pid(unit)), pids);
        assert_eq!(["web", "counts"].map(|unit| host.view(unit)["restarts"].as_u64()), [Some(0); 2]);
        let file = ["wc", "-l", "/var/log/uphold/counts/stdout.log"];
        host.until("its log goes on", &file, |out| {
            out.split(' ').next().and_then(|count| count.parse::<usize>().ok()) > Some(before + 10)
        });
        // What was kept is not kept twice.
        assert_eq!(host.property("NFileDescriptorStore"), "4");
    }
    let log = host.log("counts");
    let wanted: Vec<String> = (1..=log.len()).map(|number| number.to_string()).collect();
    assert_eq!(log, wanted);
}

#[test]
fn what_ends_while_systemd_waits_to_start_uphold_again_loses_neither_its_last_line_nor_its_status() {
    let ends = "command = [\"sh\", \"-c\", \"echo first; until [ -e /run/gate ]; do sleep 0.02; done; echo last; exit 7\"]
[restart]\npolicy = \"never\"\n";
    let files = [
        ("etc/uphold/units/web.toml", ends),
        ("etc/systemd/system/uphold.service.d/late.conf", "[Service]\nRestartSec=5s\n"),
    ];
    let Some(mut host) = Host::boot("systemd-last-line", &files) else { return };
    let file = ["cat", "/var/log/uphold/web/stdout.log"];
    host.until("it has said it", &file, |out| out.ends_with(" first\n"));
    host.until_property("NFileDescriptorStore", |number| number == "2");
    let pid = host.main_pid("web");
    host.kill_uphold();
    host.until_property("SubState", |state| state == "auto-restart");
    host.write("/run/gate", "");
    host.until("it was reaped", &["sh", "-c", &format!("[ -e /proc/{pid} ] || echo gone")], |out| {
        out == "gone\n"
    });
    assert_eq!(host.property("SubState"), "auto-restart", "an uphold runs already: this shows nothing");
    host.until_property("ActiveState", |state| state == "active");
    host.until("its last line is there", &file, |out| out.ends_with(" last\n"));
    assert_eq!(host.log("web"), ["first", "last"]);
    let view = host.view("web");
    assert_eq!(view["state"], "failed", "{view}");
    assert!(view["last_exit"]["code"] == 7 || !the_kernel_tells_of_the_dead(), "{view}");
    host.until_property("NFileDescriptorStore", |number| number == "0");
}

#[test]
fn the_watchdog_is_fed_and_replaces_a_uphold_that_hangs() {
    let files = [
        ("etc/uphold/units/web.toml", SLEEPS),
        ("etc/systemd/system/uphold.service.d/watchdog.conf", "[Service]\nWatchdogSec=2s\n"),
    ];
    let Some(mut host) = Host::boot("systemd-watchdog", &files) else { return };
    for _ in 0..3 {
        let fed = host.property("WatchdogTimestampMonotonic");
        host.until_property("WatchdogTimestampMonotonic", |now| now != fed);
    }
    let (restarts, pid) = (host.property("NRestarts"), host.main_pid("web"));
    assert_eq!(restarts, "0");
    host.done(&["systemctl", "kill", "--signal=STOP", "--kill-whom=main", "uphold"]);
    host.until_property("NRestarts", |restarts| restarts == "1");
    host.until_property("ActiveState", |state| state == "active");
    assert_eq!(host.says(&["cat", &format!("/proc/{pid}/comm")]), "sleep\n");
}
