//! Which keys there are, where they stand, and what other programs call them.

use super::*;

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
fn a_key_beside_its_table_is_sent_there_and_not_to_all_of_its_name() {
    let tcp = "tcp = { port = 80 }";
    for (text, help) in [
        ("[liveness]\nexec = { command = [\"a\"], timeout = 3 }".to_owned(), "it belongs in [liveness]"),
        (format!("[liveness]\n{tcp}\ncommand = [\"a\"]"), "it belongs in [liveness.exec]"),
        ("[restart]\ncommand = [\"a\"]".to_owned(), "or above the first table"),
    ] {
        let said = said(&with(&text));
        assert!(
            said.len() == 1 && said[0].ends_with(help) && !said[0].contains("[stop]"),
            "{text}: {said:#?}"
        );
    }
}

#[test]
fn a_key_that_is_our_own_is_not_explained_as_another_program_s() {
    let help = "this is TOML: strings stand in quotes, lists in [ ]";
    assert!(said("umask = \"022\n")[0].ends_with(help), "{:?}", said("umask = \"022\n"));
    assert!(said("ExecStart=/bin/a\n")[0].ends_with("systemd's `ExecStart` is `command` here"));
}
