//! Units: from TOML text to a checked [`Unit`].
//!
//! Text is read once, here, into types that cannot be wrong. Merging keeps where each value came from, and
//! every problem names its file, line and column. This module knows no other of the crate; it starts
//! nothing and decides nothing.
//!
//! The way of a unit: `files` finds and reads, `tree` parses and merges, `diagnose` walks the keys along
//! `schema`, `parse` and `probe` give the values their types.

mod cat;
mod check;
mod command;
mod config;
mod diagnose;
mod field;
mod files;
mod foreign;
mod load;
mod name;
mod parse;
mod probe;
mod problem;
mod schema;
mod signal;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub mod envfile;
pub mod quantity;
pub mod trust;

pub use check::{check_files, named_by};
pub use config::{Config, LogFormat, config};
pub use files::Unseen;
pub use load::{Dir, Loaded, Set, Sources, files_of, load};
pub use name::{BadName, Name};
pub use problem::{Problem, Severity};
pub use signal::Signal;
pub use value::*;
