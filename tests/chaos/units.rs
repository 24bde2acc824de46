//! The fifty.

use std::path::Path;

/// What becomes of a unit in a run of the harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It lives from the beginning to the end, with one pid.
    Lives,
    /// It ends now and then, and is restarted.
    Crashes,
    /// It has ended well, once.
    Completed,
    /// An operator stops and starts it.
    Operated,
}

#[derive(Debug, Clone)]
pub struct Kind {
    pub name: String,
    pub fate: Fate,
    /// Its log is in many files.
    pub rotates: bool,
    pub text: String,
}

/// All units, whose files are below this directory.
pub fn all(dir: &Path) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut add = |stem: &str, number: usize, fate: Fate, rotates: bool, further: &str| {
        let name = format!("{stem}-{number:02}");
        let writes = match fate {
            Fate::Lives | Fate::Operated => "lives",
            Fate::Crashes => "crashes",
            Fate::Completed => "completes",
        };
        let program = std::env::current_exe().unwrap();
        let (program, place) = (program.display(), dir.display());
        let size = if rotates { "4KiB" } else { "0" };
        let head = format!("command = [\"{program}\", \"writer\", \"{writes}\", \"{place}\", \"{name}\"]\n");
        let logs = format!(
            "[logs]\nmax_size = \"{size}\"\nkeep = 10000\ntimestamps = {}\n",
            number.is_multiple_of(2)
        );
        let text = format!("{head}{further}{logs}[limits]\ncore = 0\n");
        kinds.push(Kind { name, fate, rotates, text });
    };
    let probe = |kind: &str, period: &str| {
        format!(
            "[{kind}]\nperiod = \"{period}\"\ntimeout = \"20s\"\nfailure_threshold = 5\nexec = {{ command = [\"true\"] }}\n"
        )
    };
    for number in 0..12 {
        add("steady", number, Fate::Lives, number >= 10, "");
    }
    for number in 0..6 {
        add("ready", number, Fate::Lives, false, &probe("readiness", "700ms"));
    }
    for number in 0..4 {
        add("alive", number, Fate::Lives, false, &probe("liveness", "900ms"));
    }
    for number in 0..10 {
        // A dependency that crashes and comes back does not touch them.
        let (key, on) = match number {
            0..4 => ("requires", "ready"),
            4..8 => ("requires", "crash"),
            _ => ("wants", "crash"),
        };
        add("dep", number, Fate::Lives, false, &format!("{key} = [\"{on}-{number:02}\"]\n"));
    }
    let restart = "[restart]\ndelay = \"50ms\"\nfactor = 1.0\nmax_delay = \"50ms\"\n";
    for number in 0..14 {
        add("crash", number, Fate::Crashes, number >= 10, restart);
    }
    for number in 0..2 {
        add("once", number, Fate::Completed, false, "type = \"oneshot\"\n");
    }
    for number in 0..2 {
        add("op", number, Fate::Operated, false, "");
    }
    kinds
}
