//! Which files make a set of units, and who may have written them.

use super::*;

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

    assert!(!set.changed_on_disk(&name("web"), &sources).unwrap());
    let more = place.write("a/web.toml.d/40.toml", "");
    assert!(set.changed_on_disk(&name("web"), &sources).unwrap(), "a new drop-in was not seen");
    fs::remove_file(more).unwrap();
    assert!(!set.changed_on_disk(&name("web"), &sources).unwrap());
    place.write("b/web.toml", "command = [\"c\"]");
    assert!(set.changed_on_disk(&name("web"), &sources).unwrap());
    fs::remove_file(place.dir.path().join("b/web.toml")).unwrap();
    assert!(set.changed_on_disk(&name("web"), &sources).unwrap());
}

#[test]
fn what_cannot_be_looked_at_is_no_change_and_no_unit_without_its_drop_ins() {
    let place = Place::new();
    let file = place.write("a/web.toml", "command = [\"a\"]");
    let sources = place.sources(&["a"]);
    let (set, _) = load(&sources);
    let drop_ins = place.dir.path().join("a/web.toml.d");
    symlink(&drop_ins, &drop_ins).unwrap();
    let unseen = set.changed_on_disk(&name("web"), &sources).unwrap_err();
    assert_eq!(unseen.path, drop_ins);
    let (again, problems) = load(&sources);
    assert_eq!((again.units.len(), again.broken), (0, vec![name("web")]));
    assert!(problems.iter().any(|p| p.file == drop_ins && p.severity == Severity::Error), "{problems:?}");
    fs::remove_file(drop_ins).unwrap();
    assert!(!set.changed_on_disk(&name("web"), &sources).unwrap());

    fs::remove_file(&file).unwrap();
    symlink(&file, &file).unwrap();
    assert!(set.changed_on_disk(&name("web"), &sources).is_err());
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(set.changed_on_disk(&name("web"), &sources).unwrap(), "a directory stands in its place");
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
    assert!(!set.changed_on_disk(&name("web"), &sources).unwrap());
    fs::remove_file(place.dir.path().join("b/web.toml")).unwrap();
    assert!(set.changed_on_disk(&name("web"), &sources).unwrap());
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

#[test]
fn what_another_program_would_read_and_uphold_does_not_is_said() {
    let place = Place::new();
    let web = place.write("u/web.toml", "command = [\"a\"]");
    for file in ["web.toml.d/a.conf", "web.toml.d/b.toml", "web.toml.d/.c", "web.toml.d/d~"] {
        place.write(&format!("u/{file}"), "");
    }
    place.write("u/web.d/x.toml", "");
    place.write("u/web.service.d/x.conf", "");
    place.write("u/other.d/x", "");
    symlink("/nonexistent", place.dir.path().join("u/gone.toml")).unwrap();
    let sources = place.sources(&["u"]);
    let (set, problems) = load(&sources);
    assert_eq!(set.units.len(), 1);
    let mut said: Vec<_> = problems
        .iter()
        .map(|p| {
            let file = p.file.strip_prefix(place.dir.path().join("u")).unwrap().display();
            format!("{file}: {:?}; {}", p.severity, p.help.as_deref().unwrap_or("-"))
        })
        .collect();
    said.sort();
    assert_eq!(
        said,
        [
            "gone.toml: Error; it is a link to /nonexistent, which is not there",
            "web.d: Warning; rename it to web.toml.d",
            "web.service.d: Warning; rename it to web.toml.d",
            "web.toml.d/a.conf: Warning; rename it",
        ]
    );
    let (_, problems) = check_files(&place.sources(&[]), &[web]);
    assert!(problems.len() == 1 && problems[0].file.ends_with("a.conf"), "{problems:?}");
}

#[test]
fn a_name_that_means_something_else_to_the_client_is_a_warning() {
    let place = Place::new();
    for name in ["all", "uphold", "allo"] {
        place.write(&format!("u/{name}.toml"), "command = [\"a\"]");
    }
    let (set, problems) = load(&place.sources(&["u"]));
    assert_eq!(set.units.len(), 3);
    let warned: Vec<_> = problems.iter().map(|p| (p.severity, p.unit.clone())).collect();
    let warning = |text| (Severity::Warning, Some(name(text)));
    assert!(warned.len() == 2 && warned.contains(&warning("all")) && warned.contains(&warning("uphold")));
}
