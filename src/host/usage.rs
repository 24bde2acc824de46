//! What an instance uses.

use nix::unistd::{SysconfVar, sysconf};

use super::cgroup::Leaf;
use super::runs::FoundBy;
use super::{Host, Usage, kin};
use crate::engine::Run;
use crate::unit::Name;

impl Host {
    /// Of the instance's cgroup; without one of its main process if `main_too`.
    pub fn usage(&self, instance: &Name, main_too: bool) -> Usage {
        let runs = self.runs.range((instance.clone(), Run(0))..=(instance.clone(), Run(u64::MAX)));
        let Some((_, living)) = runs.last() else { return Usage::default() };
        let group = match &living.found_by {
            FoundBy::Cgroup(leaf) => of_leaf(leaf),
            FoundBy::Kin(_) => Usage::default(),
        };
        if !main_too || !living.main_alive {
            return group;
        }
        let main = of_process(living.pid);
        Usage {
            memory_bytes: group.memory_bytes.or(main.memory_bytes),
            cpu_seconds: group.cpu_seconds.or(main.cpu_seconds),
            tasks: group.tasks.or(main.tasks),
        }
    }
}

fn of_leaf(leaf: &Leaf) -> Usage {
    let number = |file| leaf.read(file)?.trim().parse().ok();
    Usage {
        memory_bytes: number("memory.current"),
        cpu_seconds: leaf.keyed("cpu.stat", "usage_usec").map(|micros| micros as f64 / 1e6),
        tasks: number("pids.current").or_else(|| u64::try_from(leaf.pids().len()).ok()),
    }
}

fn of_process(pid: i32) -> Usage {
    let unit = |variable| sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let stat = kin::read(pid, "stat").unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat).into_owned();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_ascii_whitespace().collect();
    // Counted from the state, which is field 3 of proc_pid_stat(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Usage {
        memory_bytes: field(24).zip(unit(SysconfVar::PAGE_SIZE)).map(|(pages, size)| pages * size),
        cpu_seconds: field(14)
            .zip(field(15))
            .zip(unit(SysconfVar::CLK_TCK))
            .map(|((user, system), ticks)| (user + system) as f64 / ticks.max(1) as f64),
        tasks: field(20),
    }
}
