//! Where a service can be reached, and whether it should be: what a proxy in front of it goes by (PROBES
//! section 14, M3). The states are those of a Kubernetes EndpointSlice.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::input::Effect;
use super::instance::{Born, Instance, Life, State};
use super::time::{Time, Wall};
use crate::unit::{self, Check, DEFAULT_HOST, Kind, Name, Unit};

/// The content of `endpoints/NAME.json` in the runtime directory. Field names are part of the interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The unit's name.
    pub unit: Name,
    /// Send it requests: it serves, and is not being stopped.
    pub ready: bool,
    /// What the readiness probe says; without one, yes once up. While it is being stopped, this goes on
    /// until its main process has ended: who is connected may stay so.
    pub serving: bool,
    /// It is being stopped.
    pub terminating: bool,
    /// Where it listens: what a tcp or http readiness probe checks; without one, each of `[ports]` on
    /// 127.0.0.1, in the order of their names; else nothing is known.
    pub addresses: Vec<Address>,
    /// Since when `ready`, `serving` and `terminating` are as they are.
    pub since: Wall,
    /// Why it is not ready, in a word of [`View::reason`](super::View::reason); null when it is.
    pub reason: Option<String>,
}

/// One place to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Address {
    /// TCP.
    Port {
        /// An address or a name, as the unit has it; IPv6 without brackets.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// A stream socket.
    Unix {
        /// Its absolute path.
        unix: String,
    },
}

/// What was last told of an instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Offer {
    ready: bool,
    serving: bool,
    terminating: bool,
    since: Wall,
    #[serde(skip)]
    reason: Option<&'static str>,
    /// `None`: an uphold before has told it.
    #[serde(skip)]
    unit: Option<Arc<Unit>>,
}

impl Engine {
    /// What was last told of each instance, for who has lost it; nothing of those of which only an uphold
    /// before has told.
    pub fn endpoints(&self) -> Vec<(Name, Option<Box<Endpoints>>)> {
        let told = self.instances.iter().filter_map(|(name, instance)| {
            let endpoints = instance.offered.as_ref()?.endpoints()?;
            Some((name.clone(), Some(Box::new(endpoints))))
        });
        told.collect()
    }

    /// Tells of an instance whose endpoints are not what was told last.
    pub(super) fn offer(&mut self, now: Time, effects: &mut Vec<Effect>, name: &Name) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let new = instance.offer(now);
        let differ = differ(instance.offered.as_ref(), new.as_ref());
        if !differ && new.is_some() {
            return;
        }
        let endpoints = new.as_ref().and_then(Offer::endpoints).map(Box::new);
        instance.offered = new;
        if !differ {
            return;
        }
        effects.push(Effect::Endpoints { instance: name.clone(), endpoints });
    }
}

impl Instance {
    /// Nothing before its first start, and nothing where there is no service.
    fn offer(&self, now: Time) -> Option<Offer> {
        match (self.unit.kind, self.last_run) {
            (Kind::Simple, Some(_)) => {}
            (Kind::Simple, None) | (Kind::Oneshot | Kind::Group, _) => return None,
        }
        let terminating = matches!(self.state, State::Stopping(_));
        let serves = |(life, born): (&Life, &Born)| life.up.is_some() && born.workers.ready().unwrap_or(true);
        let serving = self.main().is_some_and(serves);
        let ready = serving && !terminating;
        let before = self.offered.as_ref();
        let same =
            |offer: &&Offer| (offer.ready, offer.serving, offer.terminating) == (ready, serving, terminating);
        Some(Offer {
            ready,
            serving,
            terminating,
            reason: self.reason(),
            since: before.filter(same).map_or(now.wall, |offer| offer.since),
            unit: Some(self.unit.clone()),
        })
    }
}

fn differ(old: Option<&Offer>, new: Option<&Offer>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old.is_some() != new.is_some() };
    let (Some(before), Some(now)) = (&old.unit, &new.unit) else { return true };
    let facts = |offer: &Offer| (offer.ready, offer.serving, offer.terminating, offer.reason);
    facts(old) != facts(new) || !Arc::ptr_eq(before, now) && addresses(before) != addresses(now)
}

impl Offer {
    fn endpoints(&self) -> Option<Endpoints> {
        let unit = self.unit.as_ref()?;
        Some(Endpoints {
            unit: unit.name.clone(),
            ready: self.ready,
            serving: self.serving,
            terminating: self.terminating,
            addresses: addresses(unit),
            since: self.since,
            reason: self.reason.map(str::to_owned),
        })
    }
}

/// A port that the unit only names may not be where requests go; the one that its readiness is asked at is.
fn addresses(unit: &Unit) -> Vec<Address> {
    let probed = unit.readiness.as_ref().and_then(|probe| match &probe.check {
        Check::Tcp(endpoint) => Some(endpoint),
        Check::Http(http) => Some(&http.endpoint),
        Check::Exec { .. } => None,
    });
    let local = |port: &u16| Address::Port { host: DEFAULT_HOST.to_owned(), port: *port };
    match probed {
        Some(unit::Endpoint::Port { host, port, .. }) => {
            let host = host.as_deref().unwrap_or(DEFAULT_HOST).to_owned();
            vec![Address::Port { host, port: *port }]
        }
        Some(unit::Endpoint::Unix(path)) => vec![Address::Unix { unix: path.display().to_string() }],
        None => unit.ports.values().map(local).collect(),
    }
}
