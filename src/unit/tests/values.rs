//! What is said of a value that is wrong: by itself it tells what would do.

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
    let set = Set { units: BTreeMap::from([(name("web"), loaded.unwrap())]), broken: Vec::new() };
    assert_eq!(set.nearest(&name("web.service")), Some(&name("web")));
    assert_eq!(set.nearest(&name("wbe")), Some(&name("web")));
    assert_eq!(set.nearest(&name("nothing")), None);
}
