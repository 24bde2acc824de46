//! What a load says.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::trust::Trust;
use super::*;

mod check;

mod kinds;
mod values;

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

#[test]
fn a_unit_with_every_key_means_what_it_says() {
    let unit = good(WHOLE);
    assert_eq!(unit.command, ["/usr/sbin/nginx", "-g", "daemon off;"]);
    assert_eq!((unit.kind, unit.autostart, unit.umask), (Kind::Simple, false, 0o027));
    assert_eq!((unit.user.as_deref(), unit.group.as_deref()), (Some("www-data"), Some("33")));
    assert_eq!(unit.directories[1], Directory { path: "/run/b".into(), mode: 0o700 });
    assert_eq!(unit.environment["EMPTY"], "");
    assert_eq!(
        unit.environment_files[1],
        EnvironmentFile { path: "/etc/optional.env".into(), optional: true }
    );
    assert_eq!(unit.inherit_environment, Inherit::Names(vec!["PATH".to_owned()]));
    assert_eq!((unit.up_after, unit.start_timeout), (Duration::ZERO, None));
    assert_eq!((unit.restart.policy, unit.restart.limit, unit.restart.factor), (Policy::OnFailure, 4, 3.0));
    assert_eq!(unit.restart.max_delay, Duration::from_secs(90));
    assert_eq!(unit.restart.success[2], ExitMatch::Signal(Signal::TERM));
    assert_eq!(unit.stop.signal, Signal::QUIT);
    assert_eq!((unit.stop.scope, unit.stop.leave), (Scope::Group, true));
    assert_eq!(unit.logs.stderr, Some(Output::Null));
    assert_eq!((unit.logs.max_line, unit.logs.max_size, unit.logs.keep), (1024, 0, 1));
    assert_eq!(unit.limits[&Resource::Nofile], Limit { soft: Some(1024), hard: None });
    assert_eq!(unit.limits[&Resource::Memlock], Limit { soft: Some(64 << 20), hard: Some(64 << 20) });
    let liveness = unit.liveness.unwrap();
    let Check::Http(http) = &liveness.check else { panic!() };
    assert_eq!(
        http.headers.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>(),
        ["X-B:1", "X-A:2", "X-A:3"]
    );
    assert_eq!(
        liveness.spec(),
        "http-get https://[::1]:http/healthz?x=1 delay=5s timeout=2s period=200ms #success=1 #failure=5"
    );
    let attributes = "delay=0s timeout=1s period=10s";
    let readiness = unit.readiness.unwrap().spec();
    assert_eq!(readiness, format!("tcp-socket unix:/run/app.sock {attributes} #success=2 #failure=3"));
    assert_eq!(
        unit.startup.unwrap().spec(),
        format!("exec [cat /tmp/a b] {attributes} #success=1 #failure=3")
    );
}

#[test]
fn a_unit_with_a_command_only_has_every_default() {
    let unit = good("command = \"nginx -g 'daemon off;'\"");
    let expected =
        Unit { command: vec!["nginx".into(), "-g".into(), "daemon off;".into()], ..Unit::new(name("web")) };
    assert_eq!(unit, expected);
}

#[test]
fn probe_lines_are_those_of_describe() {
    for (text, spec) in [
        ("http = { port = 80 }", "http-get http://:80/"),
        ("http = { port = 80, host = \"[::1]\", path = \"/a\" }", "http-get http://[::1]:80/a"),
        ("http = { unix = \"/run/a.sock\", path = \"a\" }", "http-get http://unix:/run/a.sock:/a"),
        ("tcp = { port = 3306 }", "tcp-socket :3306"),
        ("tcp = { port = 80, host = \"::1\" }", "tcp-socket [::1]:80"),
        ("exec = { command = [\"cat\", \"/tmp/healthy\"] }", "exec [cat /tmp/healthy]"),
    ] {
        let unit = good(&with(&format!("[liveness]\nperiod = 3\n{text}")));
        let expected = format!("{spec} delay=0s timeout=1s period=3s #success=1 #failure=3");
        assert_eq!(unit.liveness.unwrap().spec(), expected);
    }
}

#[test]
fn an_unknown_key_is_shown_with_its_line_and_the_nearest_key() {
    let text = "command = [\"a\"]\n\n[restart]\n\tdelai = \"1s\"\n";
    let expected = "\
error: web.toml:4:2: unknown key `delai` in [restart]
  4 |  delai = \"1s\"
    |  ^^^^^
  help: did you mean `delay`?";
    assert_eq!(shown(text), expected);
}

#[test]
fn a_wrong_value_is_shown_with_a_caret_below_it() {
    let expected = "\
error: web.toml:2:13: `autostart` must be true or false, not a string
  2 | autostart = \"yes\"
    |             ^^^^^
  help: write true or false, without quotes";
    assert_eq!(shown(&with("autostart = \"yes\"")), expected);
}

#[test]
fn a_command_that_needs_a_shell_is_told_how() {
    let expected = "\
error: web.toml:1:11: `command` cannot be split into words: no shell runs, and there is an unquoted |
  1 | command = \"cat a | wc\"
    |           ^^^^^^^^^^^^
  help: write command = [\"sh\", \"-c\", \"cat a | wc\"]";
    assert_eq!(shown("command = \"cat a | wc\""), expected);
}

#[test]
fn text_that_is_no_toml_is_shown_where_it_ends_to_be() {
    let shown = shown("command = [\"a\"]\nExecStart=/bin/a\n");
    assert!(shown.starts_with("error: web.toml:2:"), "{shown}");
    assert!(shown.contains("cannot be read as TOML: "), "{shown}");
    assert!(shown.ends_with("help: systemd's `ExecStart` is `command` here"), "{shown}");
}

#[test]
fn a_control_character_and_a_long_line_do_not_reach_the_terminal_whole() {
    let problem = Problem {
        severity: Severity::Warning,
        file: "a\u{1b}.toml".into(),
        at: Some((3, 301)),
        line: Some("x".repeat(300) + "y\u{1b}" + &"z".repeat(300)),
        width: 900,
        message: "m\u{7}".into(),
        help: None,
        unit: None,
    };
    let shown = problem.to_string();
    assert!(!shown.contains(['\u{1b}', '\u{7}']));
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "warning: a\u{fffd}.toml:3:301: m\u{fffd}");
    assert_eq!(lines[1].chars().count(), 6 + 120);
    assert_eq!(lines[1].chars().position(|c| c == 'y'), lines[2].chars().position(|c| c == '^'));
    assert_eq!(lines[2].chars().count(), lines[1].chars().count());
}

#[test]
fn a_key_in_the_wrong_table_is_sent_to_its_own() {
    assert_eq!(said(&with("max_delay = 1")), ["unknown key `max_delay`; it belongs in [restart]"]);
    assert_eq!(
        said(&with("[restart]\nuser = \"a\"")),
        ["unknown key `user` in [restart]; it belongs above the first table"]
    );
    assert_eq!(said(&with("nofile = 1")), ["unknown key `nofile`; it belongs in [limits]"]);
    let timeout = &said(&with("timeout = 1"))[0];
    assert!(timeout.contains("[stop]") && timeout.contains("[liveness]"), "{timeout}");
}

#[test]
fn the_words_of_other_supervisors_are_understood() {
    for (word, here) in [
        ("ExecStart", "systemd's `ExecStart` is `command` here"),
        ("Restart", "`policy` in [restart]"),
        ("RestartSec", "`delay` in [restart]"),
        ("User", "`user`"),
        ("WorkingDirectory", "`working_dir`"),
        ("cwd", "`cwd` is `working_dir` here"),
        ("EnvironmentFile", "`environment_files`"),
        ("TimeoutStopSec", "`timeout` in [stop]"),
        ("LimitNOFILE", "`nofile` in [limits]"),
        ("directory", "supervisord's `directory` is `working_dir` here"),
        ("stopwaitsecs", "stop.timeout"),
        ("startretries", "`limit` in [restart]"),
        ("depends_on", "compose's `depends_on` is `requires`, a list here"),
        ("entrypoint", "`command`"),
        ("healthcheck", "[liveness]"),
        ("args", "`command`"),
        ("env", "`environment`"),
        ("periodSeconds", "`period` in [liveness], [readiness] or [startup]"),
        ("terminationGracePeriodSeconds", "`timeout` in [stop]"),
    ] {
        let said = said(&with(&format!("{word} = 1")));
        assert!(said.len() == 1 && said[0].contains(here), "{said:?}");
    }
}

#[test]
fn a_probe_of_kubernetes_is_translated_key_by_key() {
    let text =
        with("[livenessProbe]\nhttpGet = { path = \"/\", port = 80 }\nperiodSeconds = 3\ninitial_delay = 1");
    assert_eq!(
        said(&text),
        [
            "unknown key `livenessProbe`; Kubernetes' `livenessProbe` is [liveness] here",
            "unknown key `httpGet` in [liveness]; Kubernetes' `httpGet` is `liveness.http` here",
            "unknown key `periodSeconds` in [liveness]; Kubernetes' `periodSeconds` is `liveness.period` here",
        ]
    );
    let said = said(&with("[startup]\ntcp = { port = 1 }\nterminationGracePeriodSeconds = 3"));
    assert!(said[0].ends_with("is `startup.stop_timeout` here"), "{said:?}");
}

#[test]
fn a_value_where_a_table_goes_and_the_other_way_round_is_said() {
    assert_eq!(
        said(&with("restart = \"on-failure\"")),
        ["`restart` is a table, not a string; write [restart] and below it policy = \"on-failure\""]
    );
    assert_eq!(
        said(&with("liveness.http = 80")),
        ["`liveness.http` is a table, not a whole number; write http = { port = 80 }"]
    );
    assert!(said("[command]\nx = 1")[0].starts_with("`command` must be a list of strings, not a table"));
    assert!(
        said(&with("environment = [\"A=b\"]"))[0].starts_with("`environment` must be a table, not a list")
    );
    assert!(said(&with("requires = \"db\""))[0].ends_with("write [\"db\"]"));
}

#[test]
fn what_comes_later_is_refused_by_its_name() {
    for key in [
        "instances = 1",
        "restart_with = []",
        "watchdog = 1",
        "notify_fd = 1",
        "pid_file = \"/a\"",
        "remain = true",
        "restart_mode = \"a\"",
        "when = \"a\"",
        "[reload]",
        "[hooks]",
        "[cgroup]\nmemory_max = 1",
        "[process]",
        "[sandbox]",
        "[[listen]]\nx = 1",
        "[schedule]",
    ] {
        let word: String = key
            .chars()
            .skip_while(|c| *c == '[')
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect();
        let (loaded, problems) = loading(&with(key));
        assert!(loaded.is_none());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].message, format!("not supported yet: {word}"));
        assert!(problems[0].at.is_some());
    }
    refused(&with("type = \"notify\""), "not supported yet: type = \"notify\"");
    refused(&with("type = \"forking\""), "not supported yet: type");
    refused(&with("stop.command = [\"a\"]"), "not supported yet: stop.command");
    let (_, problems) = loading(&with("liveness.grpc = { port = 1 }"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].message, "not supported yet: liveness.grpc");
}

#[test]
fn every_key_is_read() {
    // No key takes a date: one that is not complained about is one that nobody reads.
    for (path, key) in schema::all(schema::UNIT) {
        if !matches!(key.shape, schema::Shape::Value) {
            continue;
        }
        let handler = match path.as_str() {
            "liveness" | "readiness" | "startup" => format!("{path}.tcp.port = 80\n"),
            _ => String::new(),
        };
        let key = schema::join(&path, key.name);
        let command = if key == "command" { "" } else { "command = [\"a\"]\n" };
        let (loaded, problems) = loading(&format!("{command}{handler}{key} = 2020-01-01\n"));
        assert!(loaded.is_none() && problems.iter().any(|p| p.message.contains(&key)), "{key}: {problems:?}");
    }
}

#[test]
fn an_up_after_that_changes_nothing_is_said() {
    let probe = |kind: &str, text: &str| with(&format!("[{kind}]\n{text}"));
    for (text, why) in [
        (probe("readiness", "tcp = { port = 80 }"), "the readiness probe says"),
        (probe("startup", "tcp = { port = 80 }"), "the startup probe says"),
        (with("type = \"oneshot\""), "a oneshot is up once"),
    ] {
        let (loaded, problems) = loading(&format!("up_after = 2\n{text}\n"));
        assert!(loaded.is_some() && problems.len() == 1, "{text}: {problems:?}");
        assert_eq!(problems[0].severity, Severity::Warning);
        assert!(problems[0].message.contains(why), "{}", problems[0].message);
    }
    let (loaded, problems) =
        loading(&format!("up_after = 1.5\n{}\n", probe("liveness", "tcp = { port = 80 }")));
    assert_eq!(loaded.unwrap().unit.up_after, Duration::from_millis(1500));
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn values_out_of_their_range_are_refused() {
    for (text, message) in [
        ("umask = \"1000\"", "octal number from 0 to 777"),
        ("umask = \"089\"", "octal"),
        ("umask = 22", "octal number in quotes, not a whole number"),
        ("working_dir = \"srv\"", "absolute path"),
        ("user = \"a:b\"", "name or a number"),
        ("user = -1", "from 0 to"),
        ("directories = [\"run\"]", "absolute path"),
        ("directories = [{ mode = \"0700\" }]", "must have a `path`"),
        ("directories = [{ path = \"/a\", mod = \"0700\" }]", "unknown key `mod`"),
        ("environment = { \"A=B\" = \"c\" }", "name of a variable"),
        ("environment = { A = 1 }", "`environment.A` must be a string"),
        ("environment_files = [\"-etc\"]", "absolute path"),
        ("inherit_environment = [\"\"]", "name of a variable"),
        ("description = \"a\\u0000b\"", "NUL"),
        ("requires = [\"a/b\"]", "no unit name"),
        ("up_after = \"10\"", "has no unit"),
        ("up_after = -1", "duration from 0"),
        ("up_after = nan", "duration from 0"),
        ("up_after = 1e30", "duration from 0"),
        ("restart.factor = 0.5", "from 1.0"),
        ("restart.jitter = 1.5", "from 0.0 to 1.0"),
        ("restart.limit = -1", "from 0"),
        ("restart.policy = \"allways\"", "must be one of"),
        ("restart = { delay = 10, max_delay = 5 }", "below `restart.delay`"),
        ("restart.except_codes = [256]", "0 to 255"),
        ("restart.except_codes = [\"1\"]", "without quotes"),
        ("restart.except_codes = [\"SIGFOO\"]", "no signal"),
        ("stop.signal = 99", "no signal"),
        ("logs.max_line = 0", "1 byte or more"),
        ("logs.stdout = \"stdout\"", "must be one of"),
        ("logs.max_size = \"10X\"", "no size"),
        ("limits.nofile = [2, 1]", "soft limit above"),
        ("limits.nofile = -1", "0 or more"),
        ("limits.nofile = \"infinity\"", "must be a limit"),
        ("ports = { http = 0 }", "between 1 and 65535"),
        ("ports = { 80 = 80 }", "no name of a port"),
        ("ports = { a--b = 80 }", "no name of a port"),
    ] {
        refused(&with(text), message);
    }
    refused("command = []", "`command` is empty");
    refused("command = \"  \"", "`command` is empty");
    refused("command = [\"\"]", "empty word");
    refused("command = \"a 'b\"", "left open");
    refused("description = \"a\"", "there is no `command`");
    refused("", "there is no `command`");
}

#[test]
fn probes_are_judged_by_a_kubelet_s_rules() {
    let probe = |kind: &str, text: &str| with(&format!("[{kind}]\n{text}"));
    let tcp = |text: &str| format!("tcp = {{ port = 80 }}\n{text}");
    for (text, message) in [
        ("period = 1".to_owned(), "must specify a handler type"),
        (tcp("exec = { command = [\"a\"] }"), "may not specify more than 1 handler type"),
        (tcp("period = \"5ms\""), "must be 10ms or more"),
        (tcp("failure_threshold = -1"), "must be greater than or equal to 0"),
        (tcp("stop_timeout = 0"), "must be greater than 0"),
        ("exec = { command = [] }".to_owned(), "is empty"),
        ("exec = {}".to_owned(), "must have a `command`"),
        ("tcp = {}".to_owned(), "must have `port` or `unix`"),
        ("tcp = { port = 80, unix = \"/a\" }".to_owned(), "both a `port` and a `unix`"),
        ("tcp = { unix = \"/a\", host = \"b\" }".to_owned(), "has a `host`"),
        (format!("tcp = {{ unix = \"/{}\" }}", "a".repeat(107)), "longer than 107 bytes"),
        ("tcp = { port = 65536 }".to_owned(), "between 1 and 65535, inclusive"),
        ("tcp = { port = \"http\" }".to_owned(), "no port is named"),
        ("http = { port = 80, scheme = \"FTP\" }".to_owned(), "must be \"http\" or \"https\""),
        ("http = { port = 80, host = \"a:80\" }".to_owned(), "host name"),
        ("http = { port = 80, headers = { a_b = \"c\" } }".to_owned(), "alphanumeric"),
        ("http = { port = 80, headers = { A = \"b\\r\\nC: d\" } }".to_owned(), "line ends"),
    ] {
        refused(&probe("liveness", &text), message);
    }
    refused(&probe("readiness", &tcp("stop_timeout = 1")), "must not be set");
    refused(&with("type = \"oneshot\"\n[liveness]\ntcp.port = 80"), "a oneshot cannot have probes");
    let (loaded, problems) = loading(&probe("liveness", &tcp("success_threshold = 2")));
    assert!(loaded.is_some());
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].severity, Severity::Warning);
    assert_eq!(good(&probe("startup", &tcp("success_threshold = 2"))).startup.unwrap().success_threshold, 2);
}

#[test]
fn a_policy_that_contradicts_the_unit_is_refused() {
    refused(&with("type = \"oneshot\"\nrestart.policy = \"always\""), "oneshot");
    refused(&with("on_end = \"shutdown\"\nrestart.policy = \"always\""), "could never end");
    let always = "on_end = \"shutdown\"\n[restart]\npolicy = \"always\"\n";
    good(&with(&format!("{always}limit = 3")));
    good(&with(&format!("{always}except_codes = [1]")));
    assert_eq!(good(&with("on_end = \"shutdown\"")).restart.policy, Policy::Never);
    assert_eq!(good(&with("type = \"oneshot\"")).restart.policy, Policy::Never);
    assert_eq!(good(&with("type = \"oneshot\"")).start_timeout, None);
    assert_eq!(good("type = \"group\"").restart.policy, Policy::Always);
    let (loaded, _) = loading_with(&with(""), |sources| sources.main = Some(name("web")));
    assert_eq!(loaded.unwrap().unit.on_end, OnEnd::Shutdown);
    let (loaded, problems) =
        loading_with(&with("restart.policy = \"always\""), |sources| sources.main = Some(name("web")));
    assert!(loaded.is_none() && problems[0].message.contains("the main unit"), "{problems:?}");
}

#[test]
fn placeholders_are_replaced_and_other_braces_stay() {
    let unit = good("command = \"a {name} {env:DB} {x} {{name}} {\"\nrequires = [\"{env:DB}\"]");
    assert_eq!(unit.command, ["a", "web", "db1", "{x}", "{web}", "{"]);
    assert_eq!(unit.requires, [name("db1")]);
    refused("command = [\"a\", \"{env:NOPE}\"]", "NOPE is not in uphold's environment");
    refused("command = [\"a\", \"{instance}\"]", "no `instances`");
    refused("command = [\"a\", \"{instance:02}\"]", "no `instances`");
}

#[test]
fn all_problems_of_all_files_are_reported() {
    let place = Place::new();
    place.write("u/a.toml", "comand = 1\numask = 1\nx = = 1");
    place.write("u/b.toml", "helth = 1\numask = 1\n");
    place.write("u/bad name.toml", "");
    place.write("u/.#a.toml", "");
    place.write("u/README", "");
    place.write("u/c.toml.d/x.toml", "");
    let (set, problems) = load(&place.sources(&["u", "missing"]));
    assert!(set.units.is_empty());
    assert_eq!(set.broken, [name("a"), name("b")]);
    let mut messages: Vec<_> =
        problems.iter().map(|problem| problem.message.split(',').next().unwrap()).collect();
    messages.sort();
    assert_eq!(messages.len(), 7, "{messages:#?}");
    assert!(messages.iter().any(|message| message.starts_with("`bad name` is no unit name")));
    assert!(messages.contains(&"there is no `command`"));
    assert_eq!(problems.iter().filter(|problem| problem.severity == Severity::Warning).count(), 2);
}

#[test]
fn a_later_directory_wins_and_drop_ins_of_all_are_merged_in_the_order_of_their_names() {
    let place = Place::new();
    place.write("a/web.toml", "command = [\"a\"]\nautostart = false");
    place.write("b/web.toml", "command = [\"b\"]\nrequires = [\"x\"]\n[restart]\ndelay = 1\nlimit = 1");
    place.write("a/web.toml.d/20.toml", "[restart]\nlimit = 2");
    place.write("b/web.toml.d/10.toml", "requires = [\"y\", \"z\"]\n[restart]\nlimit = 3");
    place.write("a/web.toml.d/30.toml", "umask = \"077\"");
    place.write("b/web.toml.d/30.toml", "user = \"u\"");
    let sources = place.sources(&["a", "b"]);
    let (set, problems) = load(&sources);
    assert_eq!(problems, []);
    let web = &set.units[&name("web")];
    let unit = &web.unit;
    assert_eq!(unit.command, ["b"]);
    assert!(unit.autostart, "the file of the earlier directory was merged");
    assert_eq!((unit.restart.limit, unit.restart.delay), (2, Duration::from_secs(1)));
    assert_eq!((unit.umask, unit.user.as_deref()), (0o022, Some("u")));
    assert_eq!(unit.requires, [name("y"), name("z")]);
    assert_eq!(web.files.len(), 4);
    assert_eq!(web.place("restart.limit").unwrap(), "20.toml:2:1");
    assert_eq!(web.place("restart.delay").unwrap(), "web.toml:4:1");
    assert_eq!(web.place("restart.jitter"), None);
    let problem = web.problem(Severity::Error, "requires", Some("z"), "m".into(), None);
    assert_eq!((problem.file, problem.at), (place.dir.path().join("b/web.toml.d/10.toml"), Some((1, 18))));
    assert_eq!(problem.width, 3);
    let problem = web.problem(Severity::Warning, "wants", None, "m".into(), None);
    assert_eq!((problem.file, problem.at), (place.dir.path().join("b/web.toml"), None));

    assert!(!set.changed_on_disk(&name("web"), &sources));
    let more = place.write("a/web.toml.d/40.toml", "");
    assert!(set.changed_on_disk(&name("web"), &sources), "a new drop-in was not seen");
    fs::remove_file(more).unwrap();
    assert!(!set.changed_on_disk(&name("web"), &sources));
    place.write("b/web.toml", "command = [\"c\"]");
    assert!(set.changed_on_disk(&name("web"), &sources));
    fs::remove_file(place.dir.path().join("b/web.toml")).unwrap();
    assert!(set.changed_on_disk(&name("web"), &sources));
}

#[test]
fn a_link_to_dev_null_masks_a_unit_and_a_drop_in() {
    let place = Place::new();
    place.write("a/web.toml", "command = [\"a\"]");
    place.write("a/db.toml", "command = [\"a\"]");
    place.write("a/db.toml.d/x.toml", "umask = \"0\"");
    fs::create_dir_all(place.dir.path().join("b/db.toml.d")).unwrap();
    symlink("/dev/null", place.dir.path().join("b/web.toml")).unwrap();
    symlink("/dev/null", place.dir.path().join("b/db.toml.d/x.toml")).unwrap();
    let sources = place.sources(&["a", "b"]);
    let (set, problems) = load(&sources);
    assert_eq!(problems, []);
    assert!(set.units[&name("web")].masked);
    assert!(set.units[&name("web")].cat().starts_with("# masked by "));
    assert_eq!(set.units[&name("db")].unit.umask, 0o022);
    assert!(!set.changed_on_disk(&name("web"), &sources));
    fs::remove_file(place.dir.path().join("b/web.toml")).unwrap();
    assert!(set.changed_on_disk(&name("web"), &sources));
}

#[test]
fn what_cat_prints_is_the_same_unit_with_its_places() {
    let place = Place::new();
    place.write("u/web.toml", WHOLE);
    place.write(
        "u/web.toml.d/a.toml",
        "description = \"q\\\"\\n\\u0001\"\n[environment]\n\"a b\" = \"{name}\"\n",
    );
    let mut sources = place.sources(&["u"]);
    let path = place.write("uphold.toml", "[defaults.limits]\nnproc = 7\n");
    sources.config = config(&path, &sources.trust).unwrap();
    let (set, problems) = load(&sources);
    assert_eq!(problems, []);
    let web = &set.units[&name("web")];
    let cat = web.cat();
    let dir = place.dir.path().display();
    assert!(cat.contains(&format!("\n[restart]\npolicy = \"on-failure\"  # {dir}/u/web.toml:22\n")), "{cat}");
    assert!(cat.contains(&format!("nproc = 7  # {dir}/uphold.toml:2\n")), "{cat}");
    assert!(
        cat.contains("[environment]\n") && cat.contains(&format!("# {dir}/u/web.toml.d/a.toml:3\n")),
        "{cat}"
    );
    let file = place.write("again/web.toml", &cat);
    sources.config = Config::default();
    let (again, problems) = check_files(&sources, &[file]);
    assert_eq!(problems, [], "{cat}");
    assert_eq!(again.units[&name("web")].unit, web.unit);
}

#[test]
fn defaults_are_merged_under_every_unit_and_contradict_none() {
    let place = Place::new();
    place.write("u/web.toml", "command = [\"a\"]\n[readiness]\ntcp.port = 80\n[restart]\ndelay = 2");
    place.write("u/job.toml", "command = [\"a\"]\ntype = \"oneshot\"");
    place.write("u/all.toml", "type = \"group\"");
    place.write("u/main.toml", "command = [\"a\"]\non_end = \"shutdown\"");
    let path = place.write(
        "uphold.toml",
        "main = \"main\"\nshutdown_timeout = \"5m\"\n[control]\nadmin_groups = [\"wheel\", 7]\n[log]\nlevel = \"debug\"\nformat = \"json\"\n[defaults]\nuser = \"{env:DB}\"\n[defaults.readiness]\nperiod = 3\n[defaults.restart]\npolicy = \"always\"\nlimit = 0\n",
    );
    let mut sources = place.sources(&["u"]);
    sources.config = config(&path, &sources.trust).unwrap();
    assert_eq!(sources.config.main, Some(name("main")));
    assert_eq!(sources.config.admin_groups, ["wheel", "7"]);
    assert_eq!(
        (sources.config.log_level.as_deref(), sources.config.log_format),
        (Some("debug"), LogFormat::Json)
    );
    assert_eq!(sources.config.shutdown_timeout, Some(Duration::from_secs(300)));
    let (set, problems) = load(&sources);
    assert_eq!(problems, []);
    let unit = |text: &str| set.units[&name(text)].unit.clone();
    assert_eq!(unit("web").readiness.as_ref().unwrap().period, Duration::from_secs(3));
    assert_eq!(
        (unit("web").restart.policy, unit("web").restart.delay),
        (Policy::Always, Duration::from_secs(2))
    );
    assert_eq!(unit("web").user.as_deref(), Some("db1"));
    assert_eq!((unit("job").restart.policy, unit("main").restart.policy), (Policy::Never, Policy::Never));
    assert!(unit("main").readiness.is_none());
}

#[test]
fn the_daemon_s_config_is_diagnosed_as_a_unit_is() {
    let place = Place::new();
    let path = place.write(
        "uphold.toml",
        "user = \"a\"\n[defaults]\numask = 1\nhooks = {}\n[control]\nadmin_group = []\n[log]\nlevel = \"loud\"\n",
    );
    let problems = config(&path, &place.sources(&[]).trust).unwrap_err();
    let said: Vec<_> = problems
        .iter()
        .map(|p| format!("{:?} {}; {}", p.at.unwrap(), p.message, p.help.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(said.len(), 5, "{said:#?}");
    assert!(said.contains(&"(1, 1) unknown key `user`; it belongs in [defaults]".to_owned()), "{said:#?}");
    assert!(said.contains(&"(4, 1) not supported yet: hooks; take it out".to_owned()), "{said:#?}");
    assert!(said[2].contains("did you mean `admin_groups`?"), "{said:#?}");
    assert!(problems.iter().all(|problem| problem.unit.is_none()));
    assert!(config(Path::new("/nonexistent/uphold.toml"), &place.sources(&[]).trust).is_ok());
}

#[test]
fn a_file_that_others_can_write_is_refused_or_warned_of() {
    let place = Place::new();
    let path = place.write("u/web.toml", "command = [\"a\"]");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let mut sources = place.sources(&["u"]);
    let (set, problems) = load(&sources);
    assert_eq!(set.broken, [name("web")]);
    assert!(problems[0].message.starts_with("not to be trusted: "), "{problems:?}");
    sources.trust.lenient = true;
    let (set, problems) = load(&sources);
    assert_eq!((set.units.len(), problems.len(), problems[0].severity), (1, 1, Severity::Warning));
}

#[test]
fn a_named_directory_must_be_there_and_a_unit_must_be_a_file() {
    let place = Place::new();
    place.write("u/x/y", "");
    fs::create_dir(place.dir.path().join("u/web.toml")).unwrap();
    fs::write(place.dir.path().join("u/latin.toml"), b"a\n# \xff").unwrap();
    let mut sources = place.sources(&["u", "missing"]);
    sources.dirs[1].named = true;
    let (_, problems) = load(&sources);
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(messages.iter().any(|m| m.starts_with("cannot read the directory: ")), "{messages:?}");
    assert!(messages.contains(&"cannot read the file: it is no regular file"), "{messages:?}");
    assert!(messages.contains(&"cannot read the file: line 2 is not UTF-8"), "{messages:?}");
}

/// Reads a text as a unit, shows everything, and prints it again.
fn whole_way(text: &str) {
    let place = Place::new();
    let file = place.write("web.toml", text);
    let sources = place.sources(&[]);
    let (set, problems) = check_files(&sources, std::slice::from_ref(&file));
    for problem in problems {
        let _ = problem.to_string();
    }
    let _ =
        config(&file, &sources.trust).map_err(|problems| problems.iter().for_each(|p| drop(p.to_string())));
    if let Some(loaded) = set.units.get(&name("web")) {
        let again = place.write("again/web.toml", &loaded.cat());
        let (again, problems) = check_files(&sources, &[again]);
        assert!(problems.iter().all(|problem| problem.severity == Severity::Warning), "{problems:?}");
        assert_eq!(again.units[&name("web")].unit, loaded.unit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*|[ -~\\n\\t\\r]*|[\\[\\]{}=.\"'#\\nà\\\\,0-9a-c]*") {
        whole_way(&text);
        let _ = envfile::parse(&text);
        let _ = quantity::duration(&text);
        let _ = quantity::size(&text);
        let _ = command::split(&text);
    }

    #[test]
    fn any_value_at_any_key_never_panics_and_what_loads_survives_cat(
        index in 0..200_usize,
        value in "(-?[0-9]{1,22}|[0-9]{1,3}\\.[0-9]e[0-9]{1,3}|nan|-inf|true|\"[a-z0-9{}:/.à-]{0,12}\"|'[a-zA-Z0-9 |$\"-]{0,9}'|\\[\\]|\\[1, 2\\]|\\[\"a\", \"b\"\\]|\\{\\}|\\{ a = 1 \\}|\\{ port = 80 \\}|1979-05-27)",
    ) {
        let all = schema::all(schema::UNIT);
        let (path, key) = &all[index % all.len()];
        whole_way(&format!("{} = {value}\n", schema::join(path, key.name)));
        let key = schema::join(path, key.name);
        if !key.starts_with("command") {
            whole_way(&format!("command = \"a\"\n{key} = {value}\n"));
        }
    }
}
