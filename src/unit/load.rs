//! From directories of files to a [`Set`] of units.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::field::Context;
use super::files::{self, Files, Fingerprint, Unseen};
use super::tree::{At, Entry, Source, Table, Value};
use super::trust::Trust;
use super::{Config, Name, Problem, Severity, Unit, cat, diagnose, parse, schema, tree};

/// A directory of unit files.
#[derive(Debug, Clone)]
pub struct Dir {
    /// Where.
    pub path: PathBuf,
    /// It was named with `--units`: its owner is trusted, and it must exist.
    pub named: bool,
}

/// Everything that decides what a load finds.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Later wins, whole-file by name.
    pub dirs: Vec<Dir>,
    /// The daemon config's `[defaults]`, merged under every unit.
    pub config: Config,
    /// `--main`: that unit is read as if it said `on_end = "shutdown"`. Without it, that of the config.
    pub main: Option<Name>,
    /// Who may have written the files.
    pub trust: Trust,
    /// uphold's own environment, for `{env:NAME}`.
    pub environment: BTreeMap<String, String>,
    /// The daemon config could not be read: what its defaults would give to units is not known, and no unit
    /// is blamed for the want of it.
    pub partial: bool,
}

/// What a load found.
#[derive(Debug, Clone, Default)]
pub struct Set {
    /// The units that are right, masked ones among them.
    pub units: BTreeMap<Name, Arc<Loaded>>,
    /// Names of units whose files are wrong.
    pub broken: Vec<Name>,
    /// What could be read of these: for what else is wrong with them, and never to be run.
    pub wrong: BTreeMap<Name, Arc<Loaded>>,
}

/// One unit with where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub unit: Arc<Unit>,
    /// A symlink to /dev/null stands in its place: it exists and cannot be started.
    pub masked: bool,
    /// The file, then its drop-ins in order.
    pub files: Vec<PathBuf>,
    /// The merged keys, each with its place.
    table: Option<Arc<Table>>,
    fingerprint: Fingerprint,
    /// It stands in no file that could be read: it is what ran before.
    remembered: bool,
}

impl Loaded {
    /// A unit that stands in no file, as `init -- COMMAND` makes one.
    pub fn synthetic(unit: Unit) -> Loaded {
        let (unit, files, fingerprint) = (Arc::new(unit), Vec::new(), Vec::new());
        Loaded { unit, masked: false, files, table: None, fingerprint, remembered: false }
    }

    /// A unit as an uphold before knew it. These files, if any, are there for it and cannot be used now or say
    /// something else. One that was masked says nothing.
    pub fn remembered(unit: Arc<Unit>, masked: bool, files: Vec<PathBuf>) -> Loaded {
        let fingerprint = Vec::new();
        let unit = if masked { Arc::new(Unit::new(unit.name.clone())) } else { unit };
        Loaded { unit, masked, files, table: None, fingerprint, remembered: true }
    }

    /// It stands in no file that could be read: it is what an uphold before knew.
    pub fn is_remembered(&self) -> bool {
        self.remembered
    }

    /// It means the same as this.
    pub fn says(&self, unit: &Unit, masked: bool) -> bool {
        self.masked == masked && (masked || *self.unit == *unit)
    }

    /// The merged unit as TOML, each line with the file and line that its value came from. One that is remembered
    /// has none: comments say what is in effect.
    pub fn cat(&self) -> String {
        if let Some(table) = &self.table {
            return cat::render(table);
        }
        match self.files.first() {
            _ if self.remembered && self.masked => {
                "# masked, as it was before uphold was started again\n".to_owned()
            }
            _ if self.remembered => cat::of_before(&self.unit),
            Some(file) => format!("# masked by {}\n", file.display()),
            None => {
                let words: Vec<_> = self.unit.command.iter().map(|word| cat::quoted(word)).collect();
                format!("command = [{}]  # from the command line\n", words.join(", "))
            }
        }
    }

    /// A problem with the key at this path (`requires`), or with one item of its list, at the place where
    /// that was written (drop-ins included); without a place, of the unit's file.
    pub fn problem(
        &self,
        severity: Severity,
        key: &str,
        item: Option<&str>,
        message: String,
        help: Option<String>,
    ) -> Problem {
        let unit = Some(&self.unit.name);
        let problem = match self.find(key) {
            Some(entry) => Problem::at(self.item(entry, item), unit, message, help),
            None => Problem::file(self.files.first().cloned().unwrap_or_default(), unit, message, help),
        };
        Problem { severity, ..problem }
    }

    /// Where the key at this path (`restart.delay`) was written, as `web.toml:7:1`.
    pub fn place(&self, key: &str) -> Option<String> {
        self.find(key).map(|entry| entry.key.place())
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        self.table.as_ref()?.find(key)
    }

    /// The place of an item of a list, of the whole list if it was written with a placeholder, or of the key.
    fn item<'e>(&self, entry: &'e Entry, item: Option<&str>) -> &'e At {
        let (Some(wanted), Value::Array(items)) = (item, &entry.node.value) else { return &entry.key };
        let is_it = |value: &Value| matches!(value, Value::String(text) if text.replace("{name}", &self.unit.name) == wanted);
        items.iter().find(|node| is_it(&node.value)).map_or(&entry.key, |node| &node.at)
    }
}

impl Set {
    /// The set as if nothing were wrong with what could be read: for `check`, which says all.
    pub fn with_wrong(&self) -> Set {
        let mut all = self.clone();
        all.units.extend(std::mem::take(&mut all.wrong));
        all
    }

    /// The unit whose name is nearest to one that no unit has, if it is near: `web.service` means `web`.
    pub fn nearest(&self, missing: &Name) -> Option<&Name> {
        let bare = [".service", ".toml"].iter().find_map(|end| Name::new(missing.strip_suffix(end)?).ok());
        if let Some((name, _)) = bare.and_then(|bare| self.units.get_key_value(&bare)) {
            return Some(name);
        }
        let near = diagnose::nearest(missing, self.units.keys().map(|name| name.as_str()))?;
        self.units.keys().find(|name| name.as_str() == near)
    }

    /// Whether the files of this unit differ by now from what was loaded (contents, drop-ins added or gone).
    /// Reads the disk: not for the deciding thread. An error says nothing of the files, only that they could
    /// not be looked at.
    pub fn changed_on_disk(&self, name: &Name, sources: &Sources) -> Result<bool, Unseen> {
        let Some(loaded) = self.units.get(name) else { return Ok(false) };
        // What is remembered is not what the files say, and a unit of the command line has none.
        if loaded.remembered || loaded.files.is_empty() {
            return Ok(loaded.remembered);
        }
        let files = files::of(name, &sources.dirs)?;
        Ok(files.masked != loaded.masked || files::fingerprint(&files)?.as_ref() != Some(&loaded.fingerprint))
    }
}

/// The files that there are for this unit, if they can be looked at.
pub fn files_of(name: &Name, dirs: &[Dir]) -> Vec<PathBuf> {
    files::of(name, dirs)
        .map_or_else(|_| Vec::new(), |files| files.file.into_iter().chain(files.drop_ins).collect())
}

/// Reads all unit files and drop-ins. The problems are all problems of all files; a unit with an error is
/// not in the set.
pub fn load(sources: &Sources) -> (Set, Vec<Problem>) {
    let (mut set, mut problems) = (Set::default(), Vec::new());
    for name in files::names(&sources.dirs, &mut problems) {
        match files::of(&name, &sources.dirs) {
            Ok(files) => one(sources, name, files, &sources.dirs, &mut set, &mut problems),
            Err(unseen) => cannot_look(name, unseen, &mut set, &mut problems),
        }
    }
    (set, problems)
}

/// Whether this unit has files cannot be told.
pub(super) fn cannot_look(name: Name, unseen: Unseen, set: &mut Set, problems: &mut Vec<Problem>) {
    let Unseen { path, error } = unseen;
    problems.push(Problem::file(path, Some(&name), format!("cannot look at it: {error}"), None));
    set.units.remove(&name);
    set.wrong.remove(&name);
    set.broken.push(name);
}

/// Reads one unit into the set. Its files are trusted by those of the directories that they stand in.
pub(super) fn one(
    sources: &Sources,
    name: Name,
    files: Files,
    dirs: &[Dir],
    set: &mut Set,
    problems: &mut Vec<Problem>,
) {
    let before = problems.len();
    let loaded = loaded(sources, &name, &files, dirs, problems);
    let broken = problems[before..].iter().any(|problem| problem.severity == Severity::Error);
    match loaded.map(Arc::new) {
        Some(loaded) if !broken => {
            set.wrong.remove(&name);
            set.units.insert(name, loaded);
        }
        loaded => {
            set.units.remove(&name);
            set.wrong.remove(&name);
            set.wrong.extend(loaded.map(|loaded| (name.clone(), loaded)));
            if !set.broken.contains(&name) {
                set.broken.push(name);
            }
        }
    }
}

fn loaded(
    sources: &Sources,
    name: &Name,
    files: &Files,
    dirs: &[Dir],
    problems: &mut Vec<Problem>,
) -> Option<Loaded> {
    let file = files.file.as_ref()?;
    if files.masked {
        let (unit, paths) = (Arc::new(Unit::new(name.clone())), vec![file.clone()]);
        let fingerprint = files::fingerprint(files).ok().flatten().unwrap_or_default();
        let files = paths;
        return Some(Loaded { unit, masked: true, files, table: None, fingerprint, remembered: false });
    }
    let paths: Vec<PathBuf> = std::iter::once(file).chain(&files.drop_ins).cloned().collect();
    let mut read = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let trust = files::trust_in(&sources.trust, files::dir_of(path, dirs));
        read.push(text(path, index + 1, &trust, name, problems));
    }
    // Of a whole of which one file cannot be read, the rest is judged for itself.
    let read: Vec<(Arc<Source>, Table)> = read.into_iter().flatten().collect();
    let partial = sources.partial || read.len() < paths.len();
    let mut merged = sources.config.defaults().cloned().unwrap_or_default();
    for (_, table) in &read {
        merged.merge(table);
    }
    let (first, _) = read.first()?;
    let top = At { source: first.clone(), span: 0..1 };
    let main = sources.main.as_ref().or(sources.config.main.as_ref()) == Some(name);
    let mut cx = Context { name, environment: &sources.environment, partial, problems: Vec::new() };
    let unit = parse::unit(&mut cx, &merged, &top, main);
    problems.append(&mut cx.problems);
    let fingerprint =
        read.iter().map(|(source, _)| (source.path.clone(), files::hash(source.text.as_bytes()))).collect();
    Some(Loaded {
        unit: Arc::new(unit),
        masked: false,
        files: paths,
        table: Some(Arc::new(merged)),
        fingerprint,
        remembered: false,
    })
}

/// Reads one file, and finds what is wrong with its keys by themselves.
fn text(
    path: &Path,
    rank: usize,
    trust: &Trust,
    name: &Name,
    problems: &mut Vec<Problem>,
) -> Option<(Arc<Source>, Table)> {
    let source = files::read(path, rank, trust, Some(name), problems)?;
    let table = tree::parse(&source, Some(name), problems)?;
    diagnose::keys(&table, schema::UNIT, Some(name), problems);
    Some((source, table))
}
