//! Commands that act on units, and `wait`: asked for all units at once, answered unit by unit.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::args::{Goal, On};
use super::asking::Asking;
use super::failure::{Code, Failure};
use super::{Context, json, units, words};
use crate::engine::{Done, DoneResult, StateName, View};
use crate::unit::{Name, Signal};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// `start`
    Start,
    /// `stop`
    Stop,
    /// `restart`
    Restart,
    /// `reload`
    Reload,
    /// `reset`
    Reset,
    /// `signal`
    Signal,
    /// `wait`
    Wait,
}

impl Act {
    /// The word of the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Act::Start => "start",
            Act::Stop => "stop",
            Act::Restart => "restart",
            Act::Reload => "reload",
            Act::Reset => "reset",
            Act::Signal => "signal",
            Act::Wait => "wait",
        }
    }

    /// What it does to those that require a unit.
    fn also(self) -> &'static str {
        match self {
            Act::Restart => "also restarted",
            Act::Start | Act::Stop | Act::Reload | Act::Reset | Act::Signal | Act::Wait => "also stopped",
        }
    }
}

/// What is asked for each unit.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) act: Act,
    /// Answer when it has come about.
    pub(super) wait: bool,
    /// How long to wait at most, where somebody said.
    pub(super) timeout: Option<Duration>,
    /// Of `wait`.
    pub(super) goal: Goal,
    pub(super) body: String,
}

/// `start`, `stop`, `restart`, `reload` and `reset`.
pub(super) async fn run(context: &Context, act: Act, on: On) -> Result<Code, Failure> {
    // What it comes to, where it is waited for after a replacement of uphold.
    let goal = if act == Act::Stop { Goal::Stopped } else { Goal::Up };
    let order = Order { act, wait: !on.no_wait, timeout: on.timeout, goal, body: String::new() };
    each(context, order, &on.units).await
}

/// `signal`
pub(super) async fn signal(
    context: &Context,
    signal: Signal,
    patterns: Vec<String>,
) -> Result<Code, Failure> {
    let body = format!(r#"{{"signal":"{signal}"}}"#);
    let order = Order { act: Act::Signal, wait: false, timeout: None, goal: Goal::Up, body };
    each(context, order, &patterns).await
}

/// `wait`
pub(super) async fn wait(
    context: &Context,
    goal: Goal,
    timeout: Option<Duration>,
    patterns: Vec<String>,
) -> Result<Code, Failure> {
    let order = Order { act: Act::Wait, wait: true, timeout, goal, body: String::new() };
    each(context, order, &patterns).await
}

async fn each(context: &Context, order: Order, patterns: &[String]) -> Result<Code, Failure> {
    let (names, missing) = units::expand(context, patterns).await?;
    let act = order.act;
    if matches!(act, Act::Stop | Act::Restart) && order.wait && !context.json {
        announce(context, act, &names).await?;
    }
    let replaced = Arc::new(AtomicBool::new(false));
    let ask = |name: &Name| {
        let asking = Asking {
            client: context.client.clone(),
            out: context.out,
            name: name.clone(),
            order: order.clone(),
            begun: Instant::now(),
            replaced: replaced.clone(),
        };
        tokio::spawn(asking.run())
    };
    let asked: Vec<_> = names.iter().map(ask).collect();
    let mut code = if missing { Code::NoSuchUnit } else { Code::Fine };
    for answer in asked {
        let answer = answer.await.map_err(|error| Failure::Failed(format!("cannot go on: {error}")))?;
        code = code.min(show(context, act, answer)?);
    }
    Ok(code)
}

/// Says what else is stopped while there is still time to think again: a stop may take long. Why a unit
/// cannot be looked at is said by what follows.
async fn announce(context: &Context, act: Act, names: &[Name]) -> Result<(), Failure> {
    for name in names {
        let Ok((view, _)) = context.client.get::<View>(&format!("/v1/units/{name}")).await else { continue };
        if let Some(text) = announcement(act, &view, names) {
            context.out.line(&text)?;
        }
    }
    Ok(())
}

/// `db: stops app and web first, which require it`, unless they were named too.
fn announcement(act: Act, view: &View, named: &[Name]) -> Option<String> {
    let runs = matches!(view.state, StateName::Starting | StateName::Running);
    let also: Vec<&str> = view.stops.iter().filter(|name| !named.contains(name)).map(Name::as_str).collect();
    // A restart of what does not run stops nobody.
    (!also.is_empty() && (act == Act::Stop || runs)).then(|| {
        let require = if also.len() == 1 { "which requires it" } else { "which require it" };
        format!("{}: first stops {}, {require}", view.name, also.join(", "))
    })
}

fn show(context: &Context, act: Act, answer: Result<(Done, String), Failure>) -> Result<Code, Failure> {
    let (done, text) = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            failure.text().iter().for_each(|text| context.out.complain(text));
            return Ok(failure.code());
        }
    };
    if context.json {
        context.out.line(&json::pretty(&text))?;
        return Ok(outcome(&done));
    }
    let code = outcome(&done);
    if code == Code::Fine {
        context.out.line(&render(act, &done))?;
    } else {
        context.out.complain(&render(act, &done));
    }
    Ok(code)
}

fn outcome(done: &Done) -> Code {
    match done.result {
        DoneResult::Ok => Code::Fine,
        DoneResult::Failed => Code::Failed,
        DoneResult::Timeout => Code::TimedOut,
    }
}

/// `web: started, pid 4711`, what else it meant, and beneath a failure the last lines of output.
fn render(act: Act, done: &Done) -> String {
    let mut text = format!("{}: {}", done.name, words::clean(words::beside(&done.name, &done.message)));
    if !done.also.is_empty() {
        let names: Vec<&str> = done.also.iter().map(Name::as_str).collect();
        text.push_str(&format!("; {}: {}", act.also(), names.join(", ")));
    }
    if done.result != DoneResult::Ok {
        for line in &done.output {
            text.push_str(&format!("\n    {}", words::clean(line)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;

    fn done(result: DoneResult, message: &str) -> Done {
        Done {
            name: Name::new("db").unwrap(),
            result,
            message: message.to_owned(),
            state: StateName::Running,
            pid: None,
            also: Vec::new(),
            output: vec!["last \x1b[1mwords".to_owned()],
        }
    }

    #[test]
    fn a_failure_has_its_output_beneath() {
        let failed = done(DoneResult::Failed, "exit 1 after 0.3s");
        assert_eq!(render(Act::Start, &failed), "db: exit 1 after 0.3s\n    last \\x1b[1mwords");
        assert_eq!(outcome(&failed).number(), 1);
        assert_eq!(outcome(&done(DoneResult::Timeout, "not up")).number(), 124);
    }

    #[test]
    fn a_stop_says_before_it_waits_what_else_it_stops() {
        let names = ["app", "db", "web"].map(|name| Name::new(name).unwrap());
        let mut db = view("db");
        assert_eq!(announcement(Act::Stop, &db, &names[1..2]), None);
        db.stops = vec![names[0].clone(), names[2].clone()];
        let said = |act, db: &View, named| announcement(act, db, named).unwrap_or_default();
        assert_eq!(said(Act::Stop, &db, &names[1..2]), "db: first stops app, web, which require it");
        assert_eq!(said(Act::Stop, &db, &names[1..]), "db: first stops app, which requires it");
        assert_eq!(said(Act::Restart, &db, &names), "");
        db.state = StateName::Backoff;
        assert_eq!(said(Act::Restart, &db, &names[1..2]), "");
    }

    #[test]
    fn a_stop_says_what_else_it_stops() {
        let mut stopped = done(DoneResult::Ok, "stopped");
        stopped.also = vec![Name::new("app").unwrap(), Name::new("web").unwrap()];
        assert_eq!(render(Act::Stop, &stopped), "db: stopped; also stopped: app, web");
        assert_eq!(render(Act::Restart, &stopped), "db: stopped; also restarted: app, web");
    }
}
