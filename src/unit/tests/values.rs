//! Values: which are right, and what is said of one that is wrong.

use super::*;

#[test]
fn a_wrong_value_is_told_what_would_do() {
    for (text, wanted) in [
        ("restart.policy = \"no\"", "not \"no\"; write \"never\""),
        ("restart.policy = \"unless-stopped\"", "; write \"always\""),
        ("restart = true", "not a boolean; write [restart] and below it policy = \"always\""),
        ("restart.limit = \"3\"", "not a string; write 3 without quotes"),
        ("restart.factor = \"1.5\"", "not a string; write 1.5 without quotes"),
        ("restart.limit = 1.5", "must be a whole number, not a decimal number; -"),
        (
            "restart.except_codes = [1.5]",
            "exit codes and signals, not a decimal number; write numbers, and signals in quotes",
        ),
        (
            "ports = { http = \"80\" }",
            "`ports.http` must be a whole number, not a string; write 80 without quotes",
        ),
        ("type = \"exec\"", "; write \"simple\""),
        ("on_end = \"exit\"", "; write \"shutdown\""),
        ("stop.scope = \"process\"", "; write \"main\""),
        ("start_timeout = \"infinity\"", "; write 0, for no limit"),
        ("up_after = \"infinity\"", "; write \"300ms\""),
        ("logs.stdout = \"journal\"", "; write \"inherit\", for uphold's own output"),
        ("logs.stderr = \"none\"", "; write \"null\""),
        ("logs.stdout = \"fil\"", "; did you mean \"file\"?"),
        ("logs.stdout = \"logs/a.log\"", "not \"logs/a.log\"; begin it with /"),
        (
            "logs.stdout = \"/var/log/\"",
            "must be a file, not the directory \"/var/log/\"; write \"/var/log/web.log\", or \"file\"",
        ),
        ("directories = { path = \"/a\" }", "not a table; write directories = [\"/run/app\"]"),
        ("directories = [{ path = \"/a\", mode = 755 }]", "; write \"0755\""),
        ("user = \"web:log\"", "; write user = \"web\" and group = \"log\""),
        ("group = \"4294967295\"", "from 0 to 4294967294; -"),
        ("user = \"99999999999\"", "from 0 to 4294967294; -"),
        (
            "limits.nofile = \"many\"",
            "`limits.nofile` must be a limit: `many` is no size; write a number, \"unlimited\" or [soft, hard]",
        ),
        ("limits.nofile = \"1024:4096\"", "; write [1024, 4096]"),
        ("limits.nofile = \"infinity\"", "; write \"unlimited\""),
    ] {
        let said = said(&with(text));
        assert!(said.len() == 1 && said[0].contains(wanted), "{text}\nsays {said:#?}, not {wanted}");
    }
}

#[test]
fn a_name_that_stands_twice_is_one_and_a_unit_of_systemd_means_the_one_without_its_ending() {
    assert_eq!(good(&with("after = [\"a\", \"b\", \"a\"]")).after, [name("a"), name("b")]);
    let (loaded, _) = loading(&with(""));
    let set = Set { units: BTreeMap::from([(name("web"), loaded.unwrap())]), ..Set::default() };
    assert_eq!(set.nearest(&name("web.service")), Some(&name("web")));
    assert_eq!(set.nearest(&name("wbe")), Some(&name("web")));
    assert_eq!(set.nearest(&name("nothing")), None);
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
        ("logs.max_line = 0", "from 1 byte to 16MiB"),
        ("logs.max_line = \"17MiB\"", "from 1 byte to 16MiB"),
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
        ("tcp = { port = 80, host = \"münchen.example\" }".to_owned(), "host name"),
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
fn placeholders_are_replaced_and_other_braces_stay() {
    let unit = good("command = \"a {name} {env:DB} {x} {{name}} {\"\nrequires = [\"{env:DB}\"]");
    assert_eq!(unit.command, ["a", "web", "db1", "{x}", "{web}", "{"]);
    assert_eq!(unit.requires, [name("db1")]);
    refused("command = [\"a\", \"{env:NOPE}\"]", "NOPE is not in uphold's environment");
    refused("command = [\"a\", \"{instance}\"]", "no `instances`");
    refused("command = [\"a\", \"{instance:02}\"]", "no `instances`");
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
