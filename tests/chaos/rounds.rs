//! What happens to uphold, round after round, and what has to hold after each.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::dsl::{Uphold, pause};
use crate::ledger::{self, Ledger};
use crate::sampler::Sampler;
use crate::units::{self, Fate, Kind};

/// How long it is waited that uphold comes to the point at which it is to fail.
const TO_THE_POINT: Duration = Duration::from_secs(3);
/// Crashes of one process of uphold; a third within a minute would leave it without its API, as it should.
const CRASHES: u32 = 2;
/// What the whole may take: so much, and so much a round.
const LONGEST: Duration = Duration::from_secs(120);
const LONGEST_ROUND: Duration = Duration::from_secs(10);

/// Where uphold is killed, on any thread,
const KILLED_AT: [&str; 17] = [
    "decided",
    "recorded",
    "exited",
    "emptied",
    "tick",
    "spawned",
    "probed",
    "cloning",
    "cloned",
    "born",
    "exit-recorded",
    "reaped",
    "releasing",
    "rotating",
    "command",
    "telling",
    "journal-begun",
];
/// where a recovery is,
const RECOVERY: [&str; 6] = ["locked", "journal-written", "journal-begun", "adopting", "adopted", "load"];
/// and where the deciding thread crashes.
const CRASHES_AT: [&str; 7] = ["decided", "recorded", "exited", "emptied", "tick", "spawned", "probed"];
/// Where other threads do, or the deciding one in the middle of something of the host's. A panic of a spawning
/// thread is caught there.
const FAULTS_AT: [&str; 5] = ["cloning", "cloned", "born", "rotating", "journal-begun"];

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

pub struct Chaos {
    dice: Dice,
    uphold: Uphold,
    kinds: Vec<Kind>,
    ledger: Ledger,
    /// Of what lives from the beginning to the end.
    pids: BTreeMap<String, i64>,
    /// What an operator has asked of a unit, and was answered.
    wishes: BTreeMap<String, &'static str>,
    /// Crashes of this process of uphold.
    crashes: u32,
    /// How often each thing was done.
    done: BTreeMap<&'static str, u64>,
    /// Descriptors and KiB of resident memory of uphold after each round.
    sizes: Vec<(u64, u64)>,
}

impl Chaos {
    pub fn new(seed: u64) -> Chaos {
        let mut uphold = Uphold::fallible();
        if std::env::var_os("UPHOLD_CHAOS_KEEP").is_some() {
            uphold.dir.disable_cleanup(true);
            println!("chaos: everything is in {}", uphold.dir.path().display());
        }
        for name in ["locks", "ledger"] {
            fs::create_dir(uphold.path(name)).unwrap();
        }
        let kinds = units::all(uphold.dir.path());
        for kind in &kinds {
            uphold = uphold.unit(&kind.name, &kind.text);
        }
        let uphold = uphold.start();
        let ledger = Ledger::new(uphold.dir.path(), &kinds);
        let mut chaos = Chaos {
            dice: Dice::new(seed),
            uphold,
            kinds,
            ledger,
            pids: BTreeMap::new(),
            wishes: BTreeMap::new(),
            crashes: 0,
            done: BTreeMap::new(),
            sizes: Vec::new(),
        };
        chaos.until_all("up for the first time", |kind, view| match kind.fate {
            Fate::Completed => view["state"] == "completed",
            Fate::Crashes => view["up"] == true || view["restarts"].as_u64() > Some(0),
            Fate::Lives | Fate::Operated => view["state"] == "running",
        });
        let views = chaos.views();
        let living = chaos.kinds.iter().filter(|kind| kind.fate == Fate::Lives);
        chaos.pids =
            living.map(|kind| (kind.name.clone(), views[&kind.name]["pid"].as_i64().unwrap())).collect();
        chaos
    }

    pub fn run(mut self, rounds: u64) {
        let sampler = Sampler::start(&self.token());
        let begun = Instant::now();
        for round in 1..=rounds {
            let what = self.round();
            self.holds(&format!("round {round}, {what}"));
            assert!(begun.elapsed() < LONGEST + LONGEST_ROUND * round as u32, "{round} rounds take too long");
        }
        let took = begun.elapsed();
        self.calm_down();
        self.restarts_are_counted();
        self.is_no_larger();
        self.uphold.signal(Signal::SIGTERM);
        assert_eq!(self.uphold.exit().code(), Some(0), "{}", self.said());
        let (samples, doubled) = sampler.end();
        let said = fs::read_to_string(self.uphold.path("wrong")).unwrap_or_default();
        assert!(doubled.is_empty() && said.is_empty(), "{doubled:#?}\n{said}");
        let sum = self.ledger.close();
        println!(
            "chaos: {rounds} rounds in {}s: {:?}; {samples} samples; {} lines of {} runs; {} of \
             them ended while no uphold ran, with {} lines that nobody read",
            took.as_secs(),
            self.done,
            sum.lines,
            sum.runs,
            sum.unread_runs,
            sum.unread
        );
        assert!(sum.wrong.is_empty(), "{:#?}", sum.wrong);
    }

    fn round(&mut self) -> String {
        if self.dice.percent(40) {
            self.operate();
        }
        let pause = self.dice.below(300);
        rest(pause);
        match self.dice.below(100) {
            0..30 => self.kill(),
            30..55 => self.kill_at_a_point(),
            55..75 => self.upgrade(),
            _ if self.crashes >= CRASHES => self.kill(),
            _ => self.crash(),
        }
    }

    fn did(&mut self, what: &'static str) -> String {
        *self.done.entry(what).or_default() += 1;
        what.to_owned()
    }

    fn kill(&mut self) -> String {
        self.uphold.kill();
        self.come_back();
        self.did("killed")
    }

    fn kill_at_a_point(&mut self) -> String {
        let (point, count) = (self.dice.of(&KILLED_AT), 1 + self.dice.below(6));
        let plan = format!("{point} {count} kill");
        self.uphold.fail(&plan);
        let until = Instant::now() + TO_THE_POINT;
        while !self.uphold.has_ended() && Instant::now() < until {
            pause();
        }
        if !self.uphold.has_ended() {
            self.uphold.signal(Signal::SIGKILL);
        }
        let end = self.uphold.exit();
        assert_eq!(end.signal(), Some(9), "{plan}: {}", self.said());
        self.come_back();
        self.did("killed at a point");
        plan
    }

    /// uphold is gone. It is started again, and some of these new ones are killed before they have taken over.
    fn come_back(&mut self) {
        self.uphold.fail("");
        self.crashes = 0;
        if self.dice.percent(30) {
            self.kill_one();
        }
        let pause = self.dice.below(200);
        rest(pause);
        while self.dice.percent(25) {
            let plan = format!("{} {} kill", self.dice.of(&RECOVERY), 1 + self.dice.below(2));
            self.uphold.fail(&plan);
            self.uphold.again_blind();
            let until = Instant::now() + TO_THE_POINT;
            while !self.uphold.has_ended() && Instant::now() < until {
                crate::dsl::pause();
            }
            self.uphold.fail("");
            if !self.uphold.has_ended() {
                self.uphold.signal(Signal::SIGKILL);
            }
            self.uphold.exit();
            self.did("killed while it took over");
        }
        self.uphold.again();
    }

    /// One that crashes anyhow is killed while no uphold runs.
    fn kill_one(&mut self) {
        let crashing: Vec<&Kind> = self.kinds.iter().filter(|kind| kind.fate == Fate::Crashes).collect();
        let kind = crashing[self.dice.below(crashing.len() as u64) as usize];
        let marker = format!("UPHOLD_RUN={}:", kind.name).into_bytes();
        for pid in crate::dsl::marked(&self.token()) {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            // It has noted its run: one that has not cannot be counted.
            let run = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(&marker[..]));
            let run = run.and_then(|rest| std::str::from_utf8(rest).ok()?.split(':').next()?.parse().ok());
            let runs = ledger::runs(self.uphold.dir.path(), &kind.name);
            if run.is_some_and(|run: u64| runs.get(&run).is_some_and(|written| *written > 0)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    fn upgrade(&mut self) -> String {
        // To a later release, or to an earlier one.
        let versions = self.dice.of(&["1", "1 2"]);
        let (code, out, err) = self.uphold.reads(versions).ctl(&["upgrade"]);
        assert_eq!(code, 0, "{out}{err}\n{}", self.said());
        self.did("upgraded")
    }

    fn crash(&mut self) -> String {
        let before = self.image();
        let (points, actions): (&[&str], &[&str]) = if self.dice.percent(30) {
            (&FAULTS_AT, &["segv", "abort"])
        } else {
            (&CRASHES_AT, &["panic", "segv", "abort"])
        };
        let (point, count) = (self.dice.of(points), 1 + self.dice.below(4));
        let plan = format!("{point} {count} {}", self.dice.of(actions));
        self.uphold.fail(&plan);
        let until = Instant::now() + TO_THE_POINT;
        while self.image() == before && Instant::now() < until {
            pause();
        }
        self.uphold.fail("");
        if self.uphold.has_ended() {
            panic!("{plan}: uphold ended: {:?}\n{}", self.uphold.exit(), self.said());
        }
        self.uphold
            .eventually(&format!("it answers after {plan}"), |uphold| uphold.get("/v1/version").is_some());
        if self.image() == before {
            self.did("came to no crash");
        } else {
            self.crashes += 1;
            self.did("crashed");
        }
        plan
    }

    /// Stops or starts one of the operator's, without waiting for it.
    fn operate(&mut self) {
        let ours: Vec<&Kind> = self.kinds.iter().filter(|kind| kind.fate == Fate::Operated).collect();
        let name = ours[self.dice.below(ours.len() as u64) as usize].name.clone();
        let (verb, wish) = if self.dice.percent(50) { ("start", "up") } else { ("stop", "down") };
        let answer = self.uphold.http(&format!("POST /v1/units/{name}/{verb}"));
        assert!(answer.as_ref().is_some_and(|(status, _)| (200..300).contains(status)), "{answer:?}");
        self.wishes.insert(name, wish);
    }

    /// The end of what uphold says, without backtraces.
    fn said(&self) -> String {
        let text = self.uphold.stderr();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("20")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn image(&self) -> u64 {
        let image = |version: Value| {
            version["image"].as_u64().unwrap_or_else(|| panic!("no image: {version:#}\n{}", self.said()))
        };
        self.uphold.get("/v1/version").map_or(0, image)
    }

    fn token(&self) -> String {
        let state = fs::read_to_string(self.uphold.path("run/private/state")).unwrap();
        let head: Value = serde_json::from_str(&state.lines().next().unwrap()[9..]).unwrap();
        head["token"].as_str().unwrap().to_owned()
    }

    fn views(&self) -> BTreeMap<String, Value> {
        let all = self.uphold.get("/v1/units").unwrap_or_else(|| panic!("no units: {}", self.said()));
        let named = |view: &Value| (view["name"].as_str().unwrap().to_owned(), view.clone());
        all["units"].as_array().unwrap().iter().map(named).collect()
    }

    fn until_all(&self, what: &str, is: impl Fn(&Kind, &Value) -> bool) {
        self.uphold.eventually(&format!("all are {what}"), |_| {
            let views = self.views();
            self.kinds.iter().all(|kind| is(kind, &views[&kind.name]))
        });
    }

    /// What has to hold after a round.
    fn holds(&mut self, round: &str) {
        let views = self.views();
        for (name, pid) in &self.pids {
            let view = &views[name];
            let is = (view["pid"].as_i64(), view["state"].as_str(), view["restarts"].as_u64());
            assert_eq!(is, (Some(*pid), Some("running"), Some(0)), "{round}: {view:#}\n{}", self.said());
        }
        for (name, wish) in &self.wishes {
            assert_eq!(views[name]["wanted"], *wish, "{round}: {:#}\n{}", views[name], self.said());
        }
        for kind in self.kinds.iter().filter(|kind| kind.fate == Fate::Completed) {
            assert_eq!(views[&kind.name]["state"], "completed", "{round}: {:#}", views[&kind.name]);
        }
        let wrong = self.ledger.read_on();
        assert!(wrong.is_empty(), "{round}: {wrong:#?}\n{}", self.said());
        let said = fs::read_to_string(self.uphold.path("wrong")).unwrap_or_default();
        assert!(said.is_empty(), "{round}: {said}\n{}", self.said());
        self.measure();
    }

    /// A uphold that has taken over has a pidfd of each service, and one that has started them has none: the first
    /// kill makes the difference.
    fn measure(&mut self) {
        if !self.done.keys().any(|what| what.starts_with("killed")) {
            return;
        }
        let pid = self.uphold.pid();
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let links: Vec<PathBuf> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        let ends =
            |end: &[u8]| links.iter().filter(|link| link.as_os_str().as_bytes().ends_with(end)).count();
        // A stream that was within a line when uphold was killed has a file for that until it ends: one at most.
        let parts = ends(b".part");
        assert!(parts <= ends(b".out"), "{links:?}");
        let open = (links.len() - parts) as u64;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = resident.split_whitespace().next().unwrap().parse().unwrap();
        self.sizes.push((open, resident));
    }

    /// Nobody crashes any more; all that should be up is.
    fn calm_down(&self) {
        fs::write(self.uphold.path("calm"), "").unwrap();
        // Each has said since that it lives: none is on its way to its end.
        let written = || -> BTreeMap<String, (u64, u64)> {
            let crashing = self.kinds.iter().filter(|kind| kind.fate == Fate::Crashes);
            let last = |kind: &Kind| {
                let runs = ledger::runs(self.uphold.dir.path(), &kind.name);
                runs.last_key_value().map(|(run, written)| (*run, *written)).unwrap_or_default()
            };
            crashing.map(|kind| (kind.name.clone(), last(kind))).collect()
        };
        let before = written();
        self.uphold.eventually("all that crash go on", |_| {
            written().iter().all(|(name, (run, lines))| {
                let (old, had) = before[name];
                if *run == old { *lines >= had + 2 } else { *lines >= 2 }
            })
        });
        self.until_all("up", |kind, view| match kind.fate {
            Fate::Completed => view["state"] == "completed",
            Fate::Crashes | Fate::Lives => view["state"] == "running",
            Fate::Operated => true,
        });
    }

    fn restarts_are_counted(&self) {
        let views = self.views();
        for kind in &self.kinds {
            let runs = ledger::runs(self.uphold.dir.path(), &kind.name).len() as u64;
            let restarts = views[&kind.name]["restarts"].as_u64().unwrap();
            match kind.fate {
                Fate::Crashes => assert_eq!(restarts + 1, runs, "{}", kind.name),
                Fate::Lives | Fate::Completed => assert_eq!((restarts, runs), (0, 1), "{}", kind.name),
                Fate::Operated => assert_eq!(restarts, 0, "{}", kind.name),
            }
        }
    }

    /// The last quarter of the rounds against the first.
    fn is_no_larger(&self) {
        let quarter = self.sizes.len().div_ceil(4);
        let median = |sizes: &[(u64, u64)], which: fn(&(u64, u64)) -> u64| {
            let mut values: Vec<u64> = sizes.iter().map(which).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        let (first, last) = (&self.sizes[..quarter], &self.sizes[self.sizes.len() - quarter..]);
        let fds = (median(first, |size| size.0), median(last, |size| size.0));
        let kib = (median(first, |size| size.1), median(last, |size| size.1));
        println!("chaos: descriptors {} and {}, resident {} and {} KiB", fds.0, fds.1, kib.0, kib.1);
        // How many of those that crash were started by this one is up to the dice.
        let crashing = self.kinds.iter().filter(|kind| kind.fate == Fate::Crashes).count() as u64;
        assert!(fds.1 <= fds.0 + crashing, "descriptors: {:?}", self.sizes);
        // The state has up to 100 events a unit.
        assert!(kib.1 <= kib.0 * 5 / 4 + 4096, "KiB: {:?}", self.sizes);
    }
}

fn rest(milliseconds: u64) {
    let until = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < until {
        pause();
    }
}
