//! What a load says.

mod check;
mod config;
mod files;
mod keys;
mod kinds;
mod random;
mod shown;
mod values;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::trust::Trust;
use super::*;

/// A place for files, trusted.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        Place { dir }
    }

    /// Writes a file; its directories are made.
    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        for dir in path
            .parent()
            .unwrap()
            .ancestors()
            .take_while(|dir| !dir.exists())
            .collect::<Vec<_>>()
            .iter()
            .rev()
        {
            fs::create_dir(dir).unwrap();
            fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn sources(&self, dirs: &[&str]) -> Sources {
        let uid = fs::metadata(self.dir.path()).unwrap().uid();
        Sources {
            dirs: dirs.iter().map(|dir| Dir { path: self.dir.path().join(dir), named: false }).collect(),
            config: Config::default(),
            main: None,
            trust: Trust { uid, owners: Vec::new(), lenient: false, read_only: |_| false },
            environment: BTreeMap::from([("DB".to_owned(), "db1".to_owned())]),
            partial: false,
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Loads one unit, named `web`.
fn loading(text: &str) -> (Option<Arc<Loaded>>, Vec<Problem>) {
    loading_with(text, |_| {})
}

fn loading_with(text: &str, change: impl FnOnce(&mut Sources)) -> (Option<Arc<Loaded>>, Vec<Problem>) {
    let place = Place::new();
    place.write("u/web.toml", text);
    let mut sources = place.sources(&["u"]);
    change(&mut sources);
    let (set, problems) = load(&sources);
    (set.units.get(&name("web")).cloned(), problems)
}

fn good(text: &str) -> Unit {
    let (loaded, problems) = loading(text);
    assert_eq!(problems, [], "{text}");
    Unit::clone(&loaded.unwrap().unit)
}

/// A unit with a command and this.
fn with(text: &str) -> String {
    format!("command = [\"a\"]\n{text}")
}

/// The problems of a unit as they are shown, less the directory.
fn shown(text: &str) -> String {
    let (_, problems) = loading(text);
    let shown: Vec<_> = problems
        .iter()
        .map(|problem| {
            let file = problem.file.file_name().unwrap().into();
            Problem { file, ..problem.clone() }.to_string()
        })
        .collect();
    shown.join("\n")
}

/// Each problem in one line: message, then help.
fn said(text: &str) -> Vec<String> {
    let (_, problems) = loading(text);
    problems.iter().map(|p| format!("{}; {}", p.message, p.help.as_deref().unwrap_or("-"))).collect()
}

#[track_caller]
fn refused(text: &str, message: &str) {
    let (loaded, problems) = loading(text);
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(
        messages.iter().any(|found| found.contains(message)),
        "{text}\nsays {messages:?}, not {message:?}"
    );
    assert!(problems.iter().all(|problem| problem.at.is_some()), "a problem without a place: {problems:?}");
    assert!(loaded.is_none(), "{text} was loaded");
}

const WHOLE: &str = r#"
description = "The shop"
command = ["/usr/sbin/nginx", "-g", "daemon off;"]
type = "simple"
autostart = false
working_dir = "/srv"
user = "www-data"
group = 33
umask = "027"
directories = ["/run/app", { path = "/run/b", mode = "0700" }]
environment = { PORT = "80", EMPTY = "" }
environment_files = ["/etc/default/app", "-/etc/optional.env"]
inherit_environment = ["PATH"]
requires = ["db"]
wants = ["cache"]
after = ["net"]
up_after = 0.0
start_timeout = 0
on_end = "none"
ports = { http = 8080 }
[restart]
policy = "on-failure"
delay = "1s"
factor = 3
max_delay = "1m30s"
jitter = 0
reset_after = 5
limit = 4
success_exit_codes = [0, 3, "SIGTERM"]
except_codes = [78]
[stop]
signal = "QUIT"
scope = "group"
timeout = "300ms"
leave = true
[liveness]
http = { port = "http", path = "healthz?x=1", host = "::1", scheme = "HTTPS", headers = { X-B = "1", X-A = ["2", "3"] } }
initial_delay = "5s"
period = "200ms"
timeout = 2
success_threshold = 0
failure_threshold = 5
stop_timeout = "2s"
[readiness]
tcp.unix = "/run/app.sock"
success_threshold = 2
[startup.exec]
command = "cat '/tmp/a b'"
[logs]
stdout = "/var/log/a.log"
stderr = "null"
timestamps = false
prefix = false
max_line = "1KiB"
max_size = 0
keep = 1
[limits]
nofile = [1024, "unlimited"]
core = 0
memlock = "64MiB"
"#;
