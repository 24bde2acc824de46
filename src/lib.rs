//! uphold: a process supervisor for bare hosts and containers.

pub mod api;
pub mod control;
pub mod ctl;
pub mod engine;
pub mod host;
pub mod logs;
pub mod plan;
pub mod probe;
pub mod unit;
