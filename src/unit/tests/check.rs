//! What `check FILE` reads, and by what it judges.

use super::*;

fn paths(place: &Place, files: &[&str]) -> Vec<PathBuf> {
    files.iter().map(|file| place.dir.path().join(file)).collect()
}

#[test]
fn a_file_in_a_search_directory_has_the_drop_ins_of_all_and_another_those_beside_it() {
    let place = Place::new();
    place.write("a/web.toml", "command = [\"a\"]");
    place.write("a/web.toml.d/10.toml", "umask = \"010\"\nuser = \"low\"");
    place.write("b/web.toml.d/20.toml", "umask = \"020\"");
    place.write("c/web.toml", "command = [\"c\"]");
    place.write("d/web.toml", "command = [\"d\"]");
    place.write("d/web.toml.d/x.toml", "group = \"beside\"");
    let sources = place.sources(&["a", "b"]);
    let read = |file: &str| {
        let (set, problems) = check_files(&sources, &paths(&place, &[file]));
        assert_eq!(problems, [], "{file}");
        set.units[&name("web")].clone()
    };
    let unit = read("a/web.toml").unit.clone();
    assert_eq!((unit.umask, unit.user.as_deref()), (0o020, Some("low")));
    assert_eq!(read("b/../a/web.toml").unit, unit, "the directory is the same by another path");
    assert_eq!(read("c/web.toml").files.len(), 1, "a drop-in of elsewhere was merged");
    let unit = read("d/web.toml").unit.clone();
    assert_eq!((unit.umask, unit.group.as_deref()), (0o022, Some("beside")));
    place.write("d/web.toml.d/x.toml", "nonsense = 1");
    let (set, problems) = check_files(&sources, &paths(&place, &["d/web.toml"]));
    assert!(set.broken == [name("web")] && problems[0].file.ends_with("d/web.toml.d/x.toml"), "{problems:?}");
}

#[test]
fn what_a_file_names_is_looked_up_and_only_its_errors_are_told() {
    let place = Place::new();
    place.write("a/db.toml", "command = [\"a\"]\nrequires = [\"disk\"]\ntype = \"oneshot\"\nup_after = 3");
    place.write("a/disk.toml", "command = [\"a\"]\numask = 1");
    place.write("a/web.toml", "command = [\"wrong\"]\nnonsense = 1");
    place.write("c/web.toml", "command = [\"a\"]\nrequires = [\"db\"]\nafter = [\"beside\", \"nobody\"]");
    place.write("c/beside.toml", "type = \"group\"");
    let (set, problems) = check_files(&place.sources(&["a"]), &paths(&place, &["c/web.toml"]));
    assert_eq!(set.units.keys().collect::<Vec<_>>(), [&name("beside"), &name("db"), &name("web")]);
    assert_eq!(set.units[&name("web")].unit.command, ["a"], "the file that was named is read, no other");
    assert_eq!(set.broken, [name("disk")]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].file.ends_with("a/disk.toml") && problems[0].severity == Severity::Error);
}

#[test]
fn a_named_file_is_trusted_as_in_a_load() {
    let place = Place::new();
    let path = place.write("u/web.toml", "command = [\"a\"]");
    let mut sources = place.sources(&[]);
    sources.trust.uid += 1;
    assert_eq!(check_files(&sources, std::slice::from_ref(&path)).1, [], "its directory's owner is trusted");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let (set, problems) = check_files(&sources, &[path]);
    assert_eq!(set.broken, [name("web")]);
    assert!(problems[0].message.starts_with("not to be trusted: "), "{problems:?}");
}

#[test]
fn what_is_no_unit_file_and_a_named_directory_that_is_missing_are_said() {
    let place = Place::new();
    place.write("u/x/y", "");
    place.write("u/.web.toml", "");
    let mut sources = place.sources(&["missing"]);
    sources.dirs[0].named = true;
    let files = paths(&place, &["u/x/y", "no.toml", "u", "u/.web.toml"]);
    let (set, problems) = check_files(&sources, &files);
    assert!(set.units.is_empty());
    assert_eq!(problems.len(), 5, "{problems:?}");
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(messages[0].starts_with("cannot read the directory: "), "{messages:?}");
    assert_eq!(messages[3], "cannot read a directory as a unit file");
}

#[test]
fn of_a_unit_with_a_file_that_cannot_be_read_the_rest_is_judged() {
    let place = Place::new();
    place.write("u/web.toml", "command = [\"a\"\n");
    place.write("u/web.toml.d/1.toml", "user = \"{env:NONE}\"\n[liveness]\nperiod = 3");
    place.write("u/web.toml.d/2.toml", "[restart]\ndelay = \"1x\"");
    fs::create_dir(place.dir.path().join("u/web.toml.d/3.toml")).unwrap();
    let (set, problems) = load(&place.sources(&["u"]));
    assert_eq!(set.broken, [name("web")]);
    // Nothing is missed that the file may say which cannot be read.
    let said: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[0].contains("TOML") && said[1].contains("regular") && said[2].contains("1x"), "{said:#?}");
}

#[test]
fn what_a_wrong_unit_requires_is_still_known() {
    let place = Place::new();
    place.write("u/web.toml", "command = [\"a\"]\nnonsense = 1\nrequires = [\"db\"]");
    let (set, _) = load(&place.sources(&["u"]));
    assert_eq!((set.units.len(), set.with_wrong().units.len()), (0, 1));
    assert_eq!(set.with_wrong().units[&name("web")].unit.requires, [name("db")]);
}
