//! Keys that mean nothing, or contradict, for what the unit is: most of them for a group, which has no process.

use super::*;

/// Each key of a unit with a value that is right for it.
fn every_key() -> Vec<(&'static str, String)> {
    let value = |name: &str| match name {
        "description" => "\"d\"",
        "type" => "\"group\"",
        "command" => "[\"a\"]",
        "autostart" => "true",
        "inherit_environment" => "false",
        "working_dir" => "\"/\"",
        "user" | "group" => "\"root\"",
        "umask" => "\"022\"",
        "directories" | "environment_files" | "requires" | "wants" | "after" => "[]",
        "up_after" => "0",
        "start_timeout" => "3",
        "on_end" => "\"none\"",
        "liveness" | "readiness" | "startup" => "{ tcp = { port = 80 } }",
        "environment" | "ports" | "restart" | "stop" | "logs" | "limits" => "{}",
        other => panic!("what would be right for `{other}`?"),
    };
    let keys = schema::UNIT.iter().filter(|key| !matches!(key.shape, schema::Shape::Later));
    keys.map(|key| (key.name, format!("{} = {}\n", key.name, value(key.name)))).collect()
}

const MEANT: [&str; 7] = ["description", "type", "autostart", "requires", "wants", "after", "start_timeout"];

#[test]
fn a_key_that_means_nothing_for_a_group_is_refused_with_its_place() {
    for (key, text) in every_key() {
        let (loaded, problems) = match key {
            "type" => loading(&text),
            _ => loading(&format!("type = \"group\"\n{text}")),
        };
        if MEANT.contains(&key) {
            assert!(loaded.is_some() && problems.is_empty(), "{key}: {problems:?}");
            continue;
        }
        assert!(loaded.is_none() && problems.len() == 1, "{key}: {problems:?}");
        let wanted = format!("`{key}` means nothing for a group");
        assert!(problems[0].message.starts_with(&wanted), "{problems:?}");
        assert_eq!((problems[0].at, problems[0].width), (Some((2, 1)), key.len()), "{problems:?}");
    }
}

#[test]
fn a_drop_in_says_no_more_of_a_group_than_its_file() {
    let place = Place::new();
    place.write("u/every.toml", "type = \"group\"\n");
    place.write("u/every.toml.d/a.toml", "description = \"d\"\n[restart]\nlimit = 3\n");
    let (set, problems) = load(&place.sources(&["u"]));
    assert_eq!(set.broken, [name("every")]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].file.ends_with("every.toml.d/a.toml") && problems[0].at == Some((2, 2)),
        "{problems:?}"
    );
}

#[test]
fn what_the_defaults_say_is_no_contradiction_of_a_group() {
    let text: String =
        every_key().into_iter().filter(|(key, _)| *key != "type").map(|(_, text)| text).collect();
    let place = Place::new();
    let path = place.write("uphold.toml", &format!("[defaults]\n{text}"));
    place.write("u/every.toml", "type = \"group\"\nrequires = [\"db\"]\n");
    let mut sources = place.sources(&["u"]);
    sources.config = config(&path, &sources.trust).unwrap();
    let (set, problems) = load(&sources);
    assert_eq!(problems, []);
    let unit = &set.units[&name("every")].unit;
    assert!(unit.command.is_empty() && unit.liveness.is_none(), "{unit:?}");
}

#[test]
fn what_changes_nothing_for_a_oneshot_is_said_unless_the_defaults_say_it() {
    let keys = "ports = { http = 80 }\nrestart.reset_after = 3\n";
    let text = with(&format!("type = \"oneshot\"\n{keys}"));
    let (loaded, problems) = loading(&text);
    assert!(loaded.is_some(), "{problems:?}");
    let said: Vec<_> =
        problems.iter().map(|p| (p.severity, p.at, p.message.split(':').next().unwrap())).collect();
    assert_eq!(
        said,
        [
            (Severity::Warning, Some((4, 23)), "`restart.reset_after` changes nothing"),
            (Severity::Warning, Some((3, 9)), "`ports` changes nothing"),
        ]
    );
    good(&with(keys));
    let place = Place::new();
    let path = place.write("uphold.toml", &format!("[defaults]\n{keys}"));
    let trust = place.sources(&[]).trust;
    let (_, problems) = loading_with(&with("type = \"oneshot\""), |sources| {
        sources.config = config(&path, &trust).unwrap();
    });
    assert_eq!(problems, []);
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
