//! How many connections there may be, of one uid and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Peer;
use super::permissions::Access;
use crate::api::Problem;

/// Connections of one uid that is not an administrator's.
const PER_UID: usize = 16;
/// Connections in all.
const TOTAL: usize = 512;
/// Of these, those that only root and the daemon's own user may take, so that nobody can lock them out.
const RESERVED: usize = 32;
/// Connections that are being told that there is no place for them.
const REFUSALS: usize = 32;

/// The places that are taken.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    refusals: usize,
    by_uid: HashMap<u32, usize>,
}

/// One place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    holder: Holder,
}

#[derive(Debug, Clone, Copy)]
enum Holder {
    Uid(u32),
    Refusal,
}

/// What a new connection gets.
#[derive(Debug)]
pub(super) enum Admission {
    /// To be served.
    Place(Place),
    /// To be told why not, and closed.
    Refused(Place, Problem),
    /// Not even that.
    Full(Problem),
}

impl Places {
    /// Takes a place for a connection of this peer. `own` is the daemon's own uid.
    pub(super) fn admit(self: &Arc<Places>, peer: &Peer, access: Access, own: u32) -> Admission {
        let mut taken = self.lock();
        let of_uid = taken.by_uid.get(&peer.uid).copied().unwrap_or(0);
        let owner = access == Access::Everything && (peer.uid == 0 || peer.uid == own);
        let why = if access != Access::Everything && of_uid >= PER_UID {
            Some(format!("uid {} has {PER_UID} connections already; close one", peer.uid))
        } else if taken.total >= if owner { TOTAL } else { TOTAL - RESERVED } {
            Some("the daemon has as many connections as it serves; close some, or try again later".to_owned())
        } else {
            None
        };
        let Some(why) = why else {
            taken.total += 1;
            *taken.by_uid.entry(peer.uid).or_default() += 1;
            return Admission::Place(Place { places: self.clone(), holder: Holder::Uid(peer.uid) });
        };
        let detail = format!("cannot serve this connection: {why}");
        let problem = super::respond::problem("too-many-connections", 503, detail);
        if taken.refusals >= REFUSALS {
            return Admission::Full(problem);
        }
        taken.refusals += 1;
        Admission::Refused(Place { places: self.clone(), holder: Holder::Refusal }, problem)
    }

    /// The counts are right after every statement, so a panic elsewhere while they were locked did no harm.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match self.holder {
            Holder::Refusal => taken.refusals = taken.refusals.saturating_sub(1),
            Holder::Uid(uid) => {
                taken.total = taken.total.saturating_sub(1);
                let left = taken.by_uid.get(&uid).map_or(0, |count| count.saturating_sub(1));
                if left == 0 {
                    taken.by_uid.remove(&uid);
                } else {
                    taken.by_uid.insert(uid, left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(places: &Arc<Places>, uid: u32, access: Access) -> Admission {
        places.admit(&Peer { pid: None, uid, gids: vec![] }, access, 500)
    }

    fn is_place(admission: &Admission) -> bool {
        matches!(admission, Admission::Place(_))
    }

    #[test]
    fn a_uid_gets_sixteen_places_and_one_more_for_each_it_gives_back() {
        let places = Arc::new(Places::default());
        let mut held: Vec<_> = (0..16).map(|_| admit(&places, 1000, Access::Read)).collect();
        assert!(held.iter().all(is_place));
        assert!(matches!(admit(&places, 1000, Access::Read), Admission::Refused(..)));
        assert!(is_place(&admit(&places, 1001, Access::Nothing)));
        held.pop();
        assert!(is_place(&admit(&places, 1000, Access::Read)));
        drop(held);
        let taken = places.lock();
        assert_eq!((taken.total, taken.refusals, taken.by_uid.len()), (0, 0, 0));
    }

    #[test]
    fn an_administrator_is_bound_by_the_total_only_and_root_has_room_left() {
        let places = Arc::new(Places::default());
        let held: Vec<_> = (0..480).map(|_| admit(&places, 1000, Access::Everything)).collect();
        assert!(held.iter().all(is_place));
        assert!(matches!(admit(&places, 1000, Access::Everything), Admission::Refused(..)));
        let root: Vec<_> = (0..16).map(|_| admit(&places, 0, Access::Everything)).collect();
        let own: Vec<_> = (0..16).map(|_| admit(&places, 500, Access::Everything)).collect();
        assert!(root.iter().chain(&own).all(is_place));
        assert!(matches!(admit(&places, 0, Access::Everything), Admission::Refused(..)));
    }

    #[test]
    fn refusals_are_bounded_too() {
        let places = Arc::new(Places::default());
        let _held: Vec<_> = (0..48).map(|_| admit(&places, 1000, Access::Read)).collect();
        assert!(matches!(admit(&places, 1000, Access::Read), Admission::Full(_)));
    }
}
