//! Units: from TOML text to a checked [`Unit`].
//!
//! Text is read once, here, into types that cannot be wrong. Merging keeps where each value came from, and
//! every problem names its file, line and column. This module knows no other of the crate; it starts
//! nothing and decides nothing.

mod load;
mod name;
mod signal;
mod value;

pub mod envfile;
pub mod trust;

pub use load::{Config, Dir, Loaded, LogFormat, Problem, Set, Severity, Sources, config, load};
pub use name::{BadName, Name};
pub use signal::Signal;
pub use value::*;
