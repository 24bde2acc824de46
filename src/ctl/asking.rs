//! One act on one unit, asked for once. Where uphold is replaced before it has answered, what it took is
//! waited for at the one that goes on, and what it did not take is said to be not done: nothing is asked for
//! twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::Method;

use super::act::{Act, Order};
use super::failure::Failure;
use super::http::Client;
use super::out::Out;
use super::patience::Patience;
use super::{now, words};
use crate::engine::{Done, DoneResult, Event, LastExit, StateName, View, Wall, Wanted};
use crate::unit::Name;

/// How long what has come up without probes is watched, as the engine does it.
const WATCH: Duration = Duration::from_secs(1);

/// One unit of a command.
pub(super) struct Asking {
    pub(super) client: Client,
    pub(super) out: Out,
    pub(super) name: Name,
    pub(super) order: Order,
    /// From when on a time limit counts.
    pub(super) begun: Instant,
    /// Whether it was said already that uphold was replaced.
    pub(super) replaced: Arc<AtomicBool>,
}

impl Asking {
    /// To the answer.
    pub(super) async fn run(self) -> Result<(Done, String), Failure> {
        let Order { act, wait, timeout, .. } = self.order;
        if act == Act::Wait {
            return self.wait(timeout).await;
        }
        let asked_at = now();
        // Only a restart cannot be told by what is wanted then.
        let before = if act == Act::Restart { self.view().await.ok() } else { None };
        let mut query = String::new();
        if act != Act::Signal {
            query = format!("?wait={wait}");
            if let Some(timeout) = timeout {
                query.push_str(&format!("&timeout={}", words::query_duration(timeout)));
            }
        }
        let target = format!("/v1/units/{}/{}{query}", self.name, act.as_str());
        match self.client.post(&target, &self.order.body).await {
            Err(Failure::Broken { why, .. }) => self.go_on(asked_at, before, &why).await,
            answered => answered,
        }
    }

    /// uphold was replaced before it answered.
    async fn go_on(
        &self,
        asked_at: Wall,
        before: Option<View>,
        why: &str,
    ) -> Result<(Done, String), Failure> {
        let act = self.order.act;
        if !matches!(act, Act::Start | Act::Stop | Act::Restart) {
            return Err(Failure::Failed(format!(
                "{}: cannot say whether uphold took the {}: it was replaced before it answered ({why}); `uphold \
                 ctl describe {}` says how it stands",
                self.name,
                act.as_str(),
                self.name
            )));
        }
        let now = self.view().await?;
        if !taken(act, before.as_ref(), &now) {
            let why = not_taken(self.crashed(asked_at).await);
            return Err(Failure::Failed(format!("{}: the {} was not done: {why}", self.name, act.as_str())));
        }
        if !self.replaced.swap(true, Ordering::Relaxed) {
            self.out.complain("uphold was replaced meanwhile; going on with the one that is there now");
        }
        if !self.order.wait {
            return begun(now);
        }
        let limit = self.order.timeout.or_else(|| usual_limit(act, &now));
        let (done, text) = self.wait(limit).await?;
        if done.result != DoneResult::Ok || act == Act::Stop {
            return Ok((done, text));
        }
        self.watch(done).await
    }

    /// What came up and has no probes to say so is watched for a moment, as the daemon does it.
    async fn watch(&self, mut done: Done) -> Result<(Done, String), Failure> {
        let up = self.view().await?;
        let age = now().since(up.since);
        let probed = up.probes.readiness.is_some() || up.probes.startup.is_some();
        if up.kind == "simple" && up.state == StateName::Running && !probed && age < WATCH {
            tokio::time::sleep(WATCH - age).await;
        }
        let after = self.view().await?;
        (done.pid, done.state) = (after.pid, after.state);
        match (up.pid, after.pid) {
            (before, pid) if before != pid => {
                done.result = DoneResult::Failed;
                done.message = format!("{} as soon as it was up", ended(after.last_exit.as_ref()));
                done.output = after.output;
            }
            (_, Some(pid)) => done.message = format!("started, pid {pid}"),
            (_, None) => {}
        }
        told(done)
    }

    /// Waits for the goal, within what is left of the time.
    async fn wait(&self, limit: Option<Duration>) -> Result<(Done, String), Failure> {
        let mut patience = Patience::new();
        loop {
            let mut target = format!("/v1/units/{}/wait?for={}", self.name, self.order.goal.as_str());
            if let Some(limit) = limit {
                let left = limit.saturating_sub(self.begun.elapsed());
                target.push_str(&format!("&timeout={}", words::query_duration(left)));
            }
            match self.client.once(&Method::GET, &target, "").await {
                Ok(answer) => return answer.read(),
                Err(failure) => self.client.mind(&mut patience, failure).await?,
            }
        }
    }

    /// Whether uphold has crashed since then; `None`: nobody says.
    async fn crashed(&self, since: Wall) -> Option<bool> {
        let answer = self.client.repeat(Method::GET, "/v1/events?unit=uphold").await.ok()?;
        let mut crashed = false;
        for line in answer.text.lines() {
            let event: Event = serde_json::from_slice(line.as_bytes()).ok()?;
            crashed |= event.reason == "Crashed" && event.last_at >= since;
        }
        Some(crashed)
    }

    async fn view(&self) -> Result<View, Failure> {
        Ok(self.client.get::<View>(&format!("/v1/units/{}", self.name)).await?.0)
    }
}

/// Whether uphold has taken an act before it was replaced: it records what it takes before it does it.
fn taken(act: Act, before: Option<&View>, now: &View) -> bool {
    match act {
        Act::Start => now.wanted == Wanted::Up,
        Act::Stop => now.wanted == Wanted::Down,
        Act::Restart => {
            let facts = |view: &View| (view.state, view.since, view.pid, view.started_at);
            now.wanted == Wanted::Up && before.is_none_or(|before| facts(before) != facts(now))
        }
        Act::Reload | Act::Reset | Act::Signal | Act::Wait => false,
    }
}

/// Why an act was not taken, and what would do. One that has crashed uphold must not be asked for again and again:
/// three crashes within a minute leave no control API.
fn not_taken(crashed: Option<bool>) -> &'static str {
    match crashed {
        Some(false) => "uphold was replaced before it took it; ask again",
        Some(true) => {
            "uphold crashed, and that may be why; see `uphold ctl events uphold` before you ask again"
        }
        None => {
            "uphold was upgraded or crashed meanwhile; see `uphold ctl events uphold` before you ask again"
        }
    }
}

/// How long the daemon waits where nobody says.
fn usual_limit(act: Act, view: &View) -> Option<Duration> {
    let start = || view.start_timeout_seconds.and_then(|limit| Duration::try_from_secs_f64(limit).ok());
    let stop = || Duration::try_from_secs_f64(view.stop_timeout_seconds).ok();
    match act {
        Act::Start => start(),
        Act::Restart => start().map(|start| start + stop().unwrap_or_default()),
        Act::Stop | Act::Reload | Act::Reset | Act::Signal | Act::Wait => None,
    }
}

fn ended(exit: Option<&LastExit>) -> String {
    match exit.map(|exit| (exit.code, &exit.signal)) {
        Some((Some(code), _)) => format!("exit {code}"),
        Some((None, Some(signal))) => format!("killed by {signal}"),
        Some((None, None)) | None => "it ended".to_owned(),
    }
}

/// What has begun and is not waited for.
fn begun(now: View) -> Result<(Done, String), Failure> {
    told(Done {
        name: now.name,
        result: DoneResult::Ok,
        message: now.message.unwrap_or_else(|| now.state.as_str().to_owned()),
        state: now.state,
        pid: now.pid,
        also: Vec::new(),
        output: Vec::new(),
    })
}

fn told(done: Done) -> Result<(Done, String), Failure> {
    let text = serde_json::to_string(&done)
        .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))?;
    Ok((done, text))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, view};
    use super::*;
    use crate::engine::StateName;

    #[test]
    fn what_was_taken_shows_in_the_state() {
        let up = view("web");
        let mut down = view("web");
        (down.wanted, down.state, down.pid) = (Wanted::Down, StateName::Inactive, None);
        assert!(taken(Act::Start, None, &up) && !taken(Act::Start, None, &down));
        assert!(taken(Act::Stop, None, &down) && !taken(Act::Stop, None, &up));
        let mut other = view("web");
        other.started_at = Some(at(5));
        let mut stopping = view("web");
        stopping.state = StateName::Stopping;
        assert!(!taken(Act::Restart, Some(&up), &up));
        assert!(taken(Act::Restart, Some(&up), &other) && taken(Act::Restart, Some(&up), &stopping));
        assert!(!taken(Act::Restart, Some(&up), &down));
    }

    #[test]
    fn the_time_that_is_left_is_of_the_units_own_limit() {
        let web = view("web");
        assert_eq!(usual_limit(Act::Start, &web), Some(Duration::from_secs(90)));
        assert_eq!(usual_limit(Act::Restart, &web), Some(Duration::from_secs(120)));
        assert_eq!(usual_limit(Act::Stop, &web), None);
    }
}
