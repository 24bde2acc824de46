//! The plan: units in an order, and what differs between two plans.
//!
//! Pure. A [`Plan`] that exists has no cycle, and every name that a unit requires is in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::unit::{Loaded, Name, Problem, Set, Unit};

/// Units with their dependencies resolved.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    units: BTreeMap<Name, Planned>,
}

/// One unit of a plan.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The unit and where it came from.
    pub loaded: Arc<Loaded>,
    /// `requires`, all of them in the plan.
    pub requires: Vec<Name>,
    /// `wants`, those in the plan.
    pub wants: Vec<Name>,
    /// `after`, those in the plan.
    pub after: Vec<Name>,
}

/// What differs between two texts of one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that means anything.
    Same,
    /// Only keys that take effect without a new process.
    Live,
    /// A key that only a new process can see.
    Restart,
}

impl Plan {
    /// Orders the units of a set. Errors: a required name that no unit has, a cycle (named whole), and
    /// contradictions between units. Warnings come beside a good plan: a name in `wants` or `after` that
    /// no unit has.
    pub fn new(_set: &Set) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
        todo!()
    }

    /// The units by name.
    pub fn units(&self) -> &BTreeMap<Name, Planned> {
        &self.units
    }
}

/// Compares two texts of a unit, key by key.
pub fn compare(_old: &Unit, _new: &Unit) -> Change {
    todo!()
}
