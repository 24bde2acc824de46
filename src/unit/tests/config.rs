//! `uphold.toml`, and what it says of every unit.

use super::*;

#[test]
fn defaults_are_merged_under_every_unit_and_contradict_none() {
    let place = Place::new();
    place.write("u/web.toml", "command = [\"a\"]\n[readiness]\ntcp.port = 80\n[restart]\ndelay = 20");
    place.write("u/job.toml", "command = [\"a\"]\ntype = \"oneshot\"");
    place.write("u/every.toml", "type = \"group\"");
    place.write("u/main.toml", "command = [\"a\"]\non_end = \"shutdown\"");
    let path = place.write(
        "uphold.toml",
        "main = \"main\"\nshutdown_timeout = \"5m\"\n[control]\nadmin_groups = [\"wheel\", 7]\n[log]\nlevel = \"debug\"\nformat = \"json\"\n[defaults]\nuser = \"{env:DB}\"\n[defaults.readiness]\nperiod = 3\n[defaults.restart]\npolicy = \"always\"\nlimit = 0\nmax_delay = 10\n",
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
        (unit("web").restart.policy, unit("web").restart.delay, unit("web").restart.max_delay),
        (Policy::Always, Duration::from_secs(20), Duration::from_secs(20))
    );
    assert_eq!(unit("job").restart.max_delay, Duration::from_secs(10));
    assert_eq!(unit("web").user.as_deref(), Some("db1"));
    assert_eq!((unit("job").restart.policy, unit("main").restart.policy), (Policy::Never, Policy::Never));
    assert!(unit("main").readiness.is_none());
}

#[test]
fn a_default_is_no_contradiction_of_what_one_unit_says() {
    let place = Place::new();
    place.write("u/web.toml", "command = [\"a\"]\n[restart]\nmax_delay = 5");
    let path = place.write("uphold.toml", "[defaults.restart]\ndelay = 10\nmax_delay = 60\n");
    let mut sources = place.sources(&["u"]);
    sources.config = config(&path, &sources.trust).unwrap();
    let (set, problems) = load(&sources);
    assert_eq!(problems, []);
    let restart = &set.units[&name("web")].unit.restart;
    assert_eq!((restart.delay, restart.max_delay), (Duration::from_secs(5), Duration::from_secs(5)));
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
fn a_config_that_is_the_null_device_is_empty() {
    let place = Place::new();
    let link = place.dir.path().join("uphold.toml");
    symlink("/dev/null", &link).unwrap();
    for path in [Path::new("/dev/null"), &link] {
        assert!(config(path, &place.sources(&[]).trust).is_ok(), "{}", path.display());
    }
    assert!(config(Path::new("/dev/zero"), &place.sources(&[]).trust).is_err());
}

#[test]
fn the_problem_of_a_config_s_value_stands_at_its_place() {
    let place = Place::new();
    let path = place.write("uphold.toml", "main = \"web\"\ncontrol.read_groups = [\"a\", 7]\n");
    let config = config(&path, &place.sources(&[]).trust).unwrap();
    let at = |key, item| config.problem(Severity::Warning, key, item, String::new(), None).at;
    assert_eq!(at("main", None), Some((1, 8)));
    assert_eq!(at("control.read_groups", Some("7")), Some((2, 29)));
    let nowhere = config.problem(Severity::Error, "shutdown_timeout", None, "m".to_owned(), None);
    assert_eq!(nowhere.to_string(), "error: m");
    let mut new = config.clone();
    assert_eq!(config.changed(&new), Vec::<&str>::new());
    (new.log_level, new.main) = (Some("warn".to_owned()), None);
    assert_eq!(config.changed(&new), ["log.level", "main"]);
}

#[test]
fn a_config_that_others_can_write_is_used_in_a_container_with_a_warning() {
    let place = Place::new();
    let path = place.write("uphold.toml", "[log]\nlevel = \"warn\"\n");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let mut trust = place.sources(&[]).trust;
    assert!(config(&path, &trust).is_err());
    trust.lenient = true;
    let config = config(&path, &trust).unwrap();
    assert_eq!(config.log_level.as_deref(), Some("warn"));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].message.contains("not to be trusted"), "{:?}", config.warnings);
}
