//! Claims about a real daemon with real processes.

#![allow(missing_docs, reason = "tests are claims, and their names say them")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail")]

mod bad_input;
mod begins_again;
mod bounds;
mod check;
mod control;
mod ctl;
mod dsl;
mod endpoints;
mod endurance;
mod faults;
mod files;
mod goes_on;
mod in_flight;
mod installed;
mod log_dir;
mod logs;
mod lost;
mod messages;
mod moved;
mod nginx;
mod passes_over;
mod pid1;
mod probes;
mod proofs;
mod read_only;
mod readers;
mod reload;
mod restarts;
mod scarcity;
mod setup;
mod stopping;
mod stored;
mod stuck;
mod survives;
mod versions;
mod windows;
mod without;
