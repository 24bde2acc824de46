//! What has crashed uphold twice: known again by a number, dropped, and said to be.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::answers::{Inward, problem, send};
use super::{AFTER_A_PANIC, Daemon, Wake};
use crate::control::{Call, Reply};
use crate::engine::{Input, Verb};
use crate::host::{self, News};
use crate::unit::{Name, Signal};

impl Daemon {
    /// What has crashed uphold twice is not tried a third time.
    pub(super) async fn drop_poison(&mut self, wake: Wake) {
        let now = host::now().mono;
        let due = match wake {
            Wake::Deadline => self.engine.due(now).cloned(),
            _ => None,
        };
        if self.poison.insert(self.key(&wake)) {
            self.say_dropped(&wake, due.as_ref());
        }
        if due.is_some() {
            self.engine.pass_by(now);
        }
        // What is due stays so, and would come before whatever is asked for.
        match wake {
            Wake::Incomplete => self.ground.put_off(),
            Wake::Unrecorded => self.journal.put_off(),
            Wake::Request(request) => {
                let detail = format!(
                    "cannot answer: the {} has crashed uphold twice and is dropped until {}",
                    asked(&request.call),
                    way_out(&request.call)
                );
                let problem = problem("internal", "The request was dropped", 500, detail);
                send(request.reply, Reply::Problem(problem));
            }
            _ => {}
        }
        // It may come again at once, for ever.
        tokio::time::sleep(AFTER_A_PANIC).await;
    }

    /// To those who look after a unit, if it is one's; else to those who look after uphold.
    fn say_dropped(&mut self, wake: &Wake, due: Option<&Name>) {
        let reason = "InputDropped";
        match of_unit(wake, due).filter(|(unit, _)| self.engine.unit(unit).is_some()) {
            Some((unit, message)) => {
                self.handle(Input::Notice { instance: unit.clone(), reason, warning: true, message });
            }
            None => {
                let message = format!(
                    "dropped what has crashed uphold twice: {}, until {}",
                    wake.name(),
                    wake.way_out()
                );
                self.own_event(reason, true, message);
            }
        }
    }

    /// The same for what is the same, in every image of this binary. 0, which is never dropped: reaping, without
    /// which no end of a process would be heard of.
    pub(super) fn key(&self, wake: &Wake) -> u64 {
        let mut hasher = DefaultHasher::new();
        match wake {
            Wake::Signal(Signal::CHLD) => return 0,
            Wake::News(news) => news.subject().hash(&mut hasher),
            Wake::Notice(notice) => (&notice.instance, notice.reason).hash(&mut hasher),
            Wake::Request(request) => format!("{:?}", request.call).hash(&mut hasher),
            Wake::Signal(signal) => signal.hash(&mut hasher),
            Wake::Inward(inward) => inward.name().hash(&mut hasher),
            Wake::Host => 1.hash(&mut hasher),
            Wake::Deadline => (2, self.engine.due(host::now().mono)).hash(&mut hasher),
            Wake::Watchdog => 3.hash(&mut hasher),
            Wake::Unrecorded => 4.hash(&mut hasher),
            Wake::Gone(_) => 5.hash(&mut hasher),
            Wake::Incomplete => 6.hash(&mut hasher),
        }
        hasher.finish() | 1
    }
}

/// What it means for the unit that it is about, and what would do; `None`: it is about none. `due`: whose deadline
/// it is.
fn of_unit<'w>(wake: &'w Wake, due: Option<&'w Name>) -> Option<(&'w Name, String)> {
    let crashed = "uphold has crashed twice on";
    let noticed = |reason: &str| format!("{crashed} a notice of this unit ({reason}) and has dropped it");
    match wake {
        // Every one of them has the same key.
        Wake::Deadline => due.map(|unit| {
            let off = "its probes, restarts after backoff and timeouts are off until `uphold ctl upgrade`";
            (unit, format!("{crashed} a timer of this unit: {off}"))
        }),
        Wake::News(News::Probed { instance, .. }) | Wake::Inward(Inward::Probed { instance, .. }) => {
            let off = "its probes may be off until it is restarted, or until `uphold ctl upgrade`";
            Some((instance, format!("{crashed} what a probe of this unit said and has dropped that: {off}")))
        }
        Wake::News(News::Notice { instance, reason, .. }) => {
            instance.as_ref().map(|unit| (unit, noticed(reason)))
        }
        Wake::News(news) => {
            let (what, unit, run) = news.subject();
            let may = "what is shown of the unit may be wrong until `uphold ctl upgrade`";
            unit.map(|unit| (unit, format!("{crashed} news of run {run} ({what}) and has dropped it: {may}")))
        }
        Wake::Notice(notice) => Some((&notice.instance, noticed(notice.reason))),
        _ => None,
    }
}

/// A request, in words that follow "the".
fn asked(call: &Call) -> String {
    match call {
        Call::Command { unit, verb, .. } => match verb {
            Verb::Start => format!("start of {unit}"),
            Verb::Stop => format!("stop of {unit}"),
            Verb::Restart => format!("restart of {unit}"),
            Verb::Reset => format!("reset of {unit}"),
            Verb::Signal(signal) => format!("{signal} to {unit}"),
            Verb::Wait(_) => format!("wait for {unit}"),
        },
        Call::Get(unit) => format!("view of {unit}"),
        Call::Config(unit) => format!("configuration of {unit}"),
        Call::Logs { unit, .. } => format!("log of {unit}"),
        Call::Events { unit: Some(unit), .. } => format!("list of events of {unit}"),
        Call::Events { unit: None, .. } => "list of events".to_owned(),
        Call::List => "list of units".to_owned(),
        Call::Load { update: true, .. } => "update".to_owned(),
        Call::Load { update: false, .. } => "daemon-reload".to_owned(),
        Call::Shutdown => "shutdown".to_owned(),
        Call::Upgrade => "upgrade".to_owned(),
        Call::Version => "version".to_owned(),
        Call::Health { .. } => "health".to_owned(),
    }
}

/// Till when a request is dropped.
fn way_out(call: &Call) -> &'static str {
    if matches!(call, Call::Upgrade) { "an upgrade by SIGUSR2" } else { "`uphold ctl upgrade`" }
}

impl Wake {
    /// Till when it is dropped. What an upgrade needs keeps that from being the way.
    fn way_out(&self) -> &'static str {
        match self {
            Wake::Request(request) => way_out(&request.call),
            Wake::News(News::Probed { .. }) | Wake::Inward(Inward::Execute(_) | Inward::NotExecuted(_)) => {
                "uphold is started anew"
            }
            _ => "`uphold ctl upgrade`",
        }
    }

    fn name(&self) -> String {
        match self {
            Wake::News(news) => format!("news ({})", news.subject().0),
            Wake::Notice(notice) => format!("a notice ({}) of {}", notice.reason, notice.instance),
            Wake::Request(request) => format!("the {}", asked(&request.call)),
            Wake::Signal(signal) => signal.name(),
            Wake::Inward(inward) => inward.name(),
            Wake::Host => "something at the host".to_owned(),
            Wake::Deadline => "a deadline".to_owned(),
            Wake::Watchdog => "the watchdog".to_owned(),
            Wake::Unrecorded => "a state that could not be written".to_owned(),
            Wake::Gone(_) => "what was removed of the runtime directory".to_owned(),
            Wake::Incomplete => "a look at the runtime directory".to_owned(),
        }
    }
}
