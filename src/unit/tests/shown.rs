//! How a problem is shown: its place, its line, and what would do.

use super::*;

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
