//! Unit files that are named one by one, for `check`: read as a load would read them from where they lie.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{self, Files};
use super::load::{self, Dir, Set, Sources};
use super::{Name, Problem, Severity};

/// Reads these files as units, each named by its file name. The directories serve for what they lead to:
///
/// - a file that lies in one of them has the drop-ins of all of them; any other has those beside it;
/// - units that it names and that are not among the files are looked up there, then beside the files, and
///   only the errors of these are told;
/// - a file is trusted as in a load, one that lies elsewhere as if its directory were named with `--units`.
///
/// Of two files of one name the later is in the set; the problems are those of all.
pub fn check_files(sources: &Sources, files: &[PathBuf]) -> (Set, Vec<Problem>) {
    let (mut set, mut problems) = (Set::default(), Vec::new());
    for dir in sources.dirs.iter().filter(|dir| dir.named) {
        if let Err(error) = fs::read_dir(&dir.path) {
            problems.push(files::unreadable(dir, &error));
        }
    }
    let mut dirs = sources.dirs.clone();
    for file in files {
        let Some(name) = named_by(file) else {
            problems.push(nameless(file));
            continue;
        };
        let around = around(file, &sources.dirs);
        let found = files::of(&name, &around).and_then(|found| {
            let masked = files::is_null(file)?;
            Ok(Files { file: Some(file.clone()), drop_ins: found.drop_ins, masked })
        });
        // Its own directory stands first, and once more if it is one of several.
        for dir in around.iter().skip(usize::from(around.len() > 1)) {
            files::no_drop_ins(&dir.path.join(format!("{name}.toml.d")), &mut problems);
        }
        match found {
            Ok(found) => load::one(sources, name, found, &around, &mut set, &mut problems),
            Err(unseen) => load::cannot_look(name, unseen, &mut set, &mut problems),
        }
        dirs.extend(around.into_iter().next().filter(|own| dirs.iter().all(|dir| dir.path != own.path)));
    }
    look_up(sources, &dirs, &mut set, &mut problems);
    (set, problems)
}

/// The name of the unit that a file is; `None`: it cannot be one.
pub fn named_by(file: &Path) -> Option<Name> {
    Name::new(file.file_name()?.to_str()?.strip_suffix(".toml")?).ok()
}

/// Why a file cannot be a unit.
fn nameless(file: &Path) -> Problem {
    let text = file.file_name().unwrap_or_default().to_string_lossy();
    let (message, help) = match text.strip_suffix(".toml").map(Name::new) {
        Some(Err(bad)) => (bad.to_string(), Some("rename the file".to_owned())),
        None if file.is_dir() => {
            let help = format!("for all that is in it: uphold check --units {}", file.display());
            ("cannot read a directory as a unit file".to_owned(), Some(help))
        }
        // Of a name that is right here, what is no UTF-8 was replaced.
        Some(Ok(_)) | None => ("a unit file's name ends in .toml".to_owned(), None),
    };
    Problem::file(file.to_path_buf(), None, message, help)
}

/// The directories whose drop-ins a file has: its own first, then all, if it is one of them.
fn around(file: &Path, dirs: &[Dir]) -> Vec<Dir> {
    let path = file.parent().unwrap_or(Path::new("/")).to_path_buf();
    let real = |path: &Path| fs::canonicalize(files::place(path)).ok();
    let own = real(&path);
    match dirs.iter().find(|dir| own.is_some() && real(&dir.path) == own) {
        Some(same) => std::iter::once(Dir { path, named: same.named }).chain(dirs.iter().cloned()).collect(),
        None => vec![Dir { path, named: true }],
    }
}

/// Adds the units that those in the set name, and those that these name.
fn look_up(sources: &Sources, dirs: &[Dir], set: &mut Set, problems: &mut Vec<Problem>) {
    let mut looked = BTreeSet::new();
    loop {
        let named = |name: &Name| !set.units.contains_key(name) && !set.broken.contains(name);
        let units = set.units.values().chain(set.wrong.values()).map(|loaded| &loaded.unit);
        let others = units.flat_map(|unit| unit.requires.iter().chain(&unit.wants).chain(&unit.after));
        let mut names = BTreeSet::new();
        names.extend(others.filter(|name| named(name) && !looked.contains(*name)).cloned());
        if names.is_empty() {
            return;
        }
        for name in names {
            let mut theirs = Vec::new();
            match files::of(&name, dirs) {
                Ok(found) if found.file.is_none() => {}
                Ok(found) => load::one(sources, name.clone(), found, dirs, set, &mut theirs),
                Err(unseen) => load::cannot_look(name.clone(), unseen, set, &mut theirs),
            }
            problems.extend(theirs.into_iter().filter(|problem| problem.severity == Severity::Error));
            looked.insert(name);
        }
    }
}
