//! uphold: a process supervisor for bare hosts and containers.
//!
//! ```text
//! TOML text ──unit──▶ Unit ──plan──▶ Plan ──┐
//! exit statuses, probe results, requests,   ├──▶ engine ──▶ effects ──▶ host: spawn, signal, reap, cgroup
//! deadlines ────────────────────────────────┘    (pure)             ├─▶ probe: tcp, http
//!                                                   │               └─▶ logs: pump, rotate
//!                                                   └── views ──▶ control ──▶ ctl
//! ```
//!
//! - [`cli`]: arguments to a mode. [`daemon`]: the loop that carries inputs in and effects out.
//! - [`mod@unit`]: text to a checked unit. [`plan`]: units in an order, and what differs between two.
//! - [`engine`]: the only decisions.
//! - [`host`], [`probe`], [`logs`], [`control`]: adapters; they do as they are told and report.
//! - [`api`]: bodies of the control API. [`ctl`]: the client.

#[cfg(test)]
mod alone;
pub mod api;
pub mod cli;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod engine;
pub mod failpoint;
mod file_id;
pub mod host;
pub mod logs;
pub mod plan;
pub mod probe;
mod task;
pub mod unit;
mod wire;
