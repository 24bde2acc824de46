//! Who may ask what: by uid and groups of the peer, as the kernel knows them.

use super::{Peer, Permissions};
use crate::api::Problem;
use crate::engine::View;

/// What the kernel shows for a uid that has no number in this user namespace, unless it was set otherwise.
const OVERFLOW_UID: u32 = 65534;

/// What a peer may do. Each allows what those before it allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// Nothing.
    Nothing,
    /// Look at everything but units' configuration, which may hold secrets.
    Read,
    /// Everything.
    Everything,
}

impl Permissions {
    /// What this peer may do. `overflow` is the uid that stands for everyone who has none here: nobody can
    /// say who that is, so it may do nothing, whatever its groups and even if the daemon runs as it.
    pub(super) fn access(&self, peer: &Peer, overflow: u32) -> Access {
        let one_of = |groups: &[u32]| peer.gids.iter().any(|gid| groups.contains(gid));
        if peer.uid == overflow {
            Access::Nothing
        } else if peer.uid == 0 || peer.uid == self.uid || one_of(&self.admin) {
            Access::Everything
        } else if one_of(&self.read) {
            Access::Read
        } else {
            Access::Nothing
        }
    }
}

/// The kernel's overflow uid (proc(5), `/proc/sys/kernel/overflowuid`).
pub(super) fn overflow_uid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(OVERFLOW_UID)
}

/// The answer to a peer that may not do `act`.
pub(super) fn not_permitted(act: &str, peer: &Peer, access: Access, overflow: u32) -> Problem {
    let uid = peer.uid;
    let detail = if uid == overflow {
        format!(
            "cannot {act}: uid {uid} stands for users that have no number in the daemon's user namespace, and \
             none of them is permitted; map the user into that namespace"
        )
    } else if access == Access::Read {
        format!(
            "cannot {act}: uid {uid} is in one of control.read_groups, which may only look, and not at units' \
             configuration; add one of its groups to control.admin_groups in uphold.toml"
        )
    } else {
        format!(
            "cannot {act}: uid {uid} is not permitted; add one of its groups to control.admin_groups in \
             uphold.toml, or to control.read_groups if looking is enough"
        )
    };
    super::respond::problem("not-permitted", 403, detail)
}

/// Takes out of a view what comes from the unit's configuration and may hold a secret: the command lines of
/// the main process and of exec probes. Messages, and those of events, have none in them: they name a program
/// and not its arguments. What a service or a probe wrote is for every reader, as its logs are.
pub(super) fn hide_configuration(view: &mut View) {
    view.command.clear();
    let probes = &mut view.probes;
    for probe in [&mut probes.liveness, &mut probes.readiness, &mut probes.startup].into_iter().flatten() {
        if probe.spec.starts_with("exec [") {
            let rest = probe.spec.rfind("] delay=").map_or("]", |at| &probe.spec[at..]);
            probe.spec = format!("exec [...{rest}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(uid: u32, gids: &[u32]) -> Access {
        let permissions = Permissions { uid: 500, admin: vec![10, 11], read: vec![20] };
        permissions.access(&Peer { pid: None, uid, gids: gids.to_vec() }, 65534)
    }

    #[test]
    fn root_the_daemons_user_and_admin_groups_do_everything() {
        assert_eq!(access(0, &[]), Access::Everything);
        assert_eq!(access(500, &[1]), Access::Everything);
        assert_eq!(access(1000, &[1, 20, 11]), Access::Everything);
    }

    #[test]
    fn a_reader_reads_and_a_stranger_does_nothing() {
        assert_eq!(access(1000, &[1, 20]), Access::Read);
        assert_eq!(access(1000, &[0, 1, 1000]), Access::Nothing);
        assert_eq!(access(1000, &[]), Access::Nothing);
    }

    #[test]
    fn the_overflow_uid_does_nothing_whatever_else_it_is() {
        assert_eq!(access(65534, &[10, 20]), Access::Nothing);
        let permissions = Permissions { uid: 65534, ..Permissions::default() };
        let peer = Peer { pid: None, uid: 65534, gids: vec![] };
        assert_eq!(permissions.access(&peer, 65534), Access::Nothing);
    }

    #[test]
    fn a_refusal_names_the_uid_and_what_would_do() {
        let peer = Peer { pid: Some(7), uid: 1000, gids: vec![] };
        let problem = not_permitted("stop it", &peer, Access::Nothing, 65534);
        assert_eq!((problem.kind.as_str(), problem.status), ("not-permitted", 403));
        assert!(problem.detail.contains("uid 1000") && problem.detail.contains("control.admin_groups"));
    }
}
