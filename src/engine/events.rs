//! Events: dated facts, aggregated as client-go's event correlator does (PROBES section 12).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::time::{Mono, Time};
use super::view::{Event, EventKind};
use crate::unit::Name;

/// How many records of one unit are kept; the one that was seen longest ago goes first.
const PER_UNIT: usize = 100;
/// So many different texts of one type and reason stand for themselves; what comes beside them is combined.
const PER_REASON: usize = 9;
/// A longer silence of a type and reason starts the count of its texts afresh.
const SILENCE: Duration = Duration::from_secs(600);

const COMBINED: &str = "(combined from similar events): ";

/// The record of all units.
#[derive(Debug, Clone, Default)]
pub(super) struct Events {
    pub(super) seq: u64,
    units: BTreeMap<Name, Records>,
    /// Recorded since they were last taken, by unit and `seq`.
    fresh: Vec<(Name, u64)>,
}

#[derive(Debug, Clone, Default)]
struct Records {
    /// By `seq`, oldest first.
    events: Vec<Event>,
    families: Vec<Family>,
}

/// The events of one type and reason.
#[derive(Debug, Clone)]
struct Family {
    kind: EventKind,
    reason: Cow<'static, str>,
    /// Hashes of the texts that stand for themselves.
    texts: Vec<u64>,
    last: Mono,
}

impl Events {
    /// Records it, as a new event or as one more of an old one.
    pub(super) fn record(
        &mut self,
        now: Time,
        unit: &Name,
        kind: EventKind,
        reason: &'static str,
        message: &str,
    ) -> Event {
        self.seq += 1;
        let records = self.units.entry(unit.clone()).or_default();
        let combined = records.is_combined(now, kind, reason, message);
        let same = records.events.iter().position(|event| {
            event.kind == kind
                && event.reason == reason
                && if combined { event.message.starts_with(COMBINED) } else { event.message == message }
        });
        let text = if combined { format!("{COMBINED}{message}") } else { message.to_owned() };
        let event = match same {
            Some(at) => {
                let old = records.events.remove(at);
                let count = old.count.saturating_add(1);
                Event { seq: self.seq, count, last_at: now.wall, message: text, ..old }
            }
            None => Event {
                seq: self.seq,
                unit: unit.clone(),
                kind,
                reason: reason.to_owned(),
                message: text,
                count: 1,
                first_at: now.wall,
                last_at: now.wall,
            },
        };
        if records.events.len() >= PER_UNIT {
            records.events.remove(0);
        }
        records.events.push(event.clone());
        self.fresh.push((unit.clone(), self.seq));
        event
    }

    /// Those that were recorded since this was last asked, as they stand now.
    pub(super) fn take_fresh(&mut self) -> Vec<Event> {
        let fresh = std::mem::take(&mut self.fresh);
        let find = |(unit, seq): &(Name, u64)| {
            let records = self.units.get(unit)?;
            records.events.iter().rev().find(|event| event.seq == *seq).cloned()
        };
        fresh.iter().filter_map(find).collect()
    }

    /// The record that these made, oldest first; a later one replaces what it counted on.
    pub(super) fn restored(now: Time, seq: u64, events: Vec<Event>) -> Events {
        let mut all = Events { seq, ..Events::default() };
        for event in events {
            all.units.entry(event.unit.clone()).or_default().take_back(now, event);
        }
        all
    }

    /// Those of one unit or of all above `since`, by `seq`.
    pub(super) fn list(&self, unit: Option<&Name>, since: u64) -> Vec<Event> {
        let all = self.units.iter().filter(|(name, _)| unit.is_none_or(|unit| unit == *name));
        let mut events: Vec<Event> =
            all.flat_map(|(_, records)| &records.events).filter(|event| event.seq > since).cloned().collect();
        events.sort_unstable_by_key(|event| event.seq);
        events
    }

    /// The unit is gone, and so is what was said of it.
    pub(super) fn forget(&mut self, unit: &Name) {
        self.units.remove(unit);
    }
}

impl Records {
    /// As it was recorded.
    fn take_back(&mut self, now: Time, event: Event) {
        let combined = event.message.starts_with(COMBINED);
        self.events.retain(|old| {
            let same =
                if combined { old.message.starts_with(COMBINED) } else { old.message == event.message };
            !(same && old.kind == event.kind && old.reason == event.reason)
        });
        if self.events.len() >= PER_UNIT {
            self.events.remove(0);
        }
        let (kind, reason, text) = (event.kind, Cow::from(event.reason.clone()), hash(&event.message));
        self.events.push(event);
        if combined {
            return;
        }
        match self.families.iter_mut().find(|family| family.kind == kind && family.reason == reason) {
            None => self.families.push(Family { kind, reason, texts: vec![text], last: now.mono }),
            Some(family) => {
                // More than stood for themselves at a time: there was a silence between, after which these did.
                family.texts.retain(|old| *old != text);
                family.texts.push(text);
                let surplus = family.texts.len().saturating_sub(PER_REASON);
                family.texts.drain(..surplus);
            }
        }
    }

    fn is_combined(&mut self, now: Time, kind: EventKind, reason: &'static str, message: &str) -> bool {
        let text = hash(message);
        let found = self.families.iter_mut().find(|family| family.kind == kind && family.reason == reason);
        let Some(family) = found else {
            self.families.push(Family { kind, reason: reason.into(), texts: vec![text], last: now.mono });
            return false;
        };
        if now.mono - family.last > SILENCE {
            family.texts.clear();
        }
        family.last = now.mono;
        if family.texts.contains(&text) {
            return false;
        }
        if family.texts.len() < PER_REASON {
            family.texts.push(text);
            return false;
        }
        true
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::time::Wall;
    use super::*;

    fn at(seconds: u64) -> Time {
        let nanos = seconds * 1_000_000_000;
        Time { mono: Mono(nanos), wall: Wall::from_nanos(nanos.into()) }
    }

    fn warn(events: &mut Events, seconds: u64, message: &str) -> Event {
        let name = Name::new("web").unwrap();
        events.record(at(seconds), &name, EventKind::Warning, "Unhealthy", message)
    }

    #[test]
    fn the_same_text_is_counted_and_keeps_when_it_was_first_seen() {
        let mut events = Events::default();
        warn(&mut events, 1, "403");
        warn(&mut events, 2, "500");
        let third = warn(&mut events, 5, "403");
        assert_eq!((third.count, third.first_at, third.last_at), (2, at(1).wall, at(5).wall));
        let listed: Vec<_> = events.list(None, 0).into_iter().map(|e| (e.seq, e.message)).collect();
        assert_eq!(listed, [(2, "500".to_owned()), (3, "403".to_owned())]);
        assert_eq!(events.list(None, 2).len(), 1);
    }

    #[test]
    fn the_tenth_different_text_is_combined_and_the_nine_before_stay() {
        let mut events = Events::default();
        for i in 1..=9 {
            assert_eq!(warn(&mut events, i, &format!("text {i}")).message, format!("text {i}"));
        }
        assert_eq!(warn(&mut events, 10, "text 10").message, "(combined from similar events): text 10");
        let next = warn(&mut events, 11, "text 11");
        assert_eq!((next.count, next.message.as_str()), (2, "(combined from similar events): text 11"));
        assert_eq!(warn(&mut events, 12, "text 3").count, 2);
        assert_eq!(events.list(None, 0).len(), 10);
    }

    #[test]
    fn ten_minutes_of_silence_start_the_texts_afresh() {
        let mut events = Events::default();
        for i in 1..=12 {
            warn(&mut events, 1, &format!("text {i}"));
        }
        assert_eq!(warn(&mut events, 602, "text 13").message, "text 13");
    }

    #[test]
    fn a_unit_keeps_its_last_hundred() {
        let mut events = Events::default();
        for i in 0..300 {
            warn(&mut events, i * 1000, &format!("text {i}"));
        }
        let kept = events.list(None, 0);
        assert_eq!((kept.len(), kept[0].message.as_str()), (100, "text 200"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_said_stays_within_its_bounds(
            said in proptest::collection::vec((0_u64..2000, 0_usize..6, 0_u32..40), 1..600),
        ) {
            const REASONS: [&str; 6] = ["Started", "Unhealthy", "Killing", "BackOff", "Exited", "Stopped"];
            let (mut events, mut now, web) = (Events::default(), 0, Name::new("web").unwrap());
            for (after, reason, text) in &said {
                now += after;
                let text = format!("text {text}");
                let event = events.record(at(now), &web, EventKind::Warning, REASONS[*reason], &text);
                assert!(event.message.ends_with(&text) && event.first_at <= event.last_at);
            }
            let kept = events.list(None, 0);
            assert!(kept.len() <= PER_UNIT);
            assert!(kept.is_sorted_by(|a, b| a.seq < b.seq));
            assert!(kept.iter().map(|event| event.count).sum::<u64>() <= said.len() as u64);
            let records = &events.units[&web];
            assert!(records.families.len() <= REASONS.len());
            assert!(records.families.iter().all(|family| family.texts.len() <= PER_REASON));
        }
    }
}
