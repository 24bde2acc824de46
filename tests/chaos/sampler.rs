//! Looks all the time whether a unit has two main processes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Sampler {
    over: Arc<AtomicBool>,
    samples: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Sampler {
    /// Of the processes that carry this token.
    pub fn start(token: &str) -> Sampler {
        let (over, samples) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (end, count, token) = (over.clone(), samples.clone(), format!(":{token}"));
        let thread = std::thread::spawn(move || {
            let mut known = HashMap::new();
            let mut wrong = Vec::new();
            while !end.load(SeqCst) {
                wrong.extend(sample(&token, &mut known));
                count.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(40));
            }
            wrong
        });
        Sampler { over, samples, thread: Some(thread) }
    }

    /// How often it has looked, and what it has seen that must not be.
    pub fn end(mut self) -> (u64, Vec<String>) {
        self.over.store(true, SeqCst);
        let wrong = self.thread.take().unwrap().join().unwrap();
        (self.samples.load(SeqCst), wrong)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
    }
}

/// Whose main process each pid is. A process keeps its UPHOLD_RUN; one without it may still get one by an exec.
fn sample(token: &str, known: &mut HashMap<(i32, u64), String>) -> Vec<String> {
    let mut units: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    let mut seen = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        let (Some(state), Some(start)) = (fields.first(), fields.get(19)) else { continue };
        if matches!(*state, "Z" | "X") {
            continue;
        }
        let key = (pid, start.parse().unwrap());
        let unit = known.remove(&key).or_else(|| marked(pid, token));
        if let Some(unit) = unit {
            units.entry(unit.clone()).or_default().push(pid);
            seen.insert(key, unit);
        }
    }
    *known = seen;
    let doubled = units.into_iter().filter(|(_, pids)| pids.len() > 1);
    doubled.map(|(unit, pids)| format!("{unit} has the main processes {pids:?}")).collect()
}

fn marked(pid: i32, token: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let marker = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"UPHOLD_RUN="))?;
    let marker = std::str::from_utf8(marker).ok()?;
    marker.ends_with(token).then(|| marker.split(':').next().unwrap_or_default().to_owned())
}
