//! Reaping: every child that ends is heard of once. Known ones are news, others are orphans that were
//! handed to uphold.

use nix::errno::Errno;

use super::{Host, News, Role, kin, machine, sys};
use crate::engine::Exit;
use crate::failpoint;
use crate::unit::Signal;

impl Host {
    /// Reaps every child that has ended. Call it on SIGCHLD.
    pub fn reap(&mut self) {
        let mut orphans = false;
        let childless = loop {
            match sys::wait(sys::Child::Any, true, false) {
                Err(errno) => break errno == Errno::ECHILD,
                Ok(None) => break false,
                Ok(Some((pid, exit))) if self.children.contains_key(&pid) => self.ended(pid, exit),
                // It may be one that a spawning thread has just made, or has failed to make and reaps itself.
                // It stays a zombie, so its pid stays its own, until the launch was heard of: that reaps again.
                Ok(Some((pid, _))) if self.cloning.may_be(pid) => {
                    self.reap_known();
                    break false;
                }
                Ok(Some((pid, _))) => {
                    orphans = true;
                    let _ = sys::wait(sys::Child::Pid(pid), false, false);
                }
            }
        };
        if orphans {
            self.settle_all(true);
        }
        if childless && std::mem::take(&mut self.sweeping) {
            self.say(News::Childless);
        }
    }

    /// An unknown zombie hides those behind it: asks for each known child.
    fn reap_known(&mut self) {
        let pids: Vec<i32> = self.children.keys().copied().collect();
        for pid in pids {
            if let Ok(Some((pid, exit))) = sys::wait(sys::Child::Pid(pid), true, false) {
                self.ended(pid, exit);
            }
        }
    }

    /// A known child is a zombie.
    fn ended(&mut self, pid: i32, exit: Exit) {
        let Some(role) = self.children.remove(&pid) else { return };
        if let Role::Probe(id) = &role {
            let id = *id;
            self.probe_exited(id, pid, exit);
        }
        if let Role::Main((_, run)) = &role
            && let Some(slot) = self.slots.get(*run)
        {
            // Before the process is gone: nobody could be asked after that.
            slot.ended(exit);
        }
        failpoint::reach("exit-recorded");
        let _ = sys::wait(sys::Child::Pid(pid), false, false);
        failpoint::reach("reaped");
        if let Role::Main(key) = role {
            self.main_exited(key, exit);
        }
    }

    /// A signal to every process that descends from uphold; `Childless` follows once none is left.
    pub fn sweep(&mut self, signal: Signal) {
        self.sweeping = true;
        if machine::is_pid1() {
            let _ = sys::kill(-1, signal);
            if signal != Signal::KILL {
                let _ = sys::kill(-1, Signal::CONT);
            }
        } else {
            for pid in kin::descendants(std::process::id().cast_signed()) {
                let _ = sys::kill(pid, signal);
                let _ = sys::kill(pid, Signal::CONT);
            }
        }
        self.reap();
    }
}
