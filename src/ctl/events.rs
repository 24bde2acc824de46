//! `ctl events`: what happened, a line each.

use jiff::tz::TimeZone;

use super::failure::{Code, Failure};
use super::http::Lines;
use super::{Context, json, units, words};
use crate::engine::Event;
use crate::unit::Name;

/// Prints what happened to these units, or to all, and on wish what comes.
pub(super) async fn run(context: &Context, patterns: &[String], follow: bool) -> Result<Code, Failure> {
    let (names, missing) = match patterns {
        [] => (Vec::new(), false),
        some => units::expand(context, some).await?,
    };
    let one = if names.len() == 1 { names.first() } else { None };
    let mut lines = context.client.follow(&target(one, follow)).await?;
    let zone = TimeZone::system();
    while let Some((event, text)) = next(&mut lines).await? {
        if !names.is_empty() && !names.contains(&event.unit) {
            continue;
        }
        let line = if context.json { json::compact(&text) } else { render(&event, &zone) };
        context.out.line(&line)?;
    }
    Ok(if missing { Code::NoSuchUnit } else { Code::Fine })
}

/// What happened up to now to this unit, or to all.
pub(super) async fn of(context: &Context, unit: Option<&Name>) -> Result<Vec<Event>, Failure> {
    let mut lines = context.client.follow(&target(unit, false)).await?;
    let mut events = Vec::new();
    while let Some((event, _)) = next(&mut lines).await? {
        events.push(event);
    }
    Ok(events)
}

/// The number of the latest event, 0 if there is none.
pub(super) async fn latest(context: &Context) -> Result<u64, Failure> {
    Ok(of(context, None).await?.iter().map(|event| event.seq).max().unwrap_or(0))
}

fn target(unit: Option<&Name>, follow: bool) -> String {
    let unit = unit.map(|name| format!("&unit={name}")).unwrap_or_default();
    format!("/v1/events?follow={follow}{unit}")
}

/// The next event and its text. Empty lines keep a connection alive and say nothing.
pub(super) async fn next(lines: &mut Lines) -> Result<Option<(Event, String)>, Failure> {
    while let Some(line) = lines.next().await? {
        if !line.trim().is_empty() {
            let event = serde_json::from_str(&line)
                .map_err(|error| Failure::Failed(format!("cannot read an event of the daemon: {error}")))?;
            return Ok(Some((event, line)));
        }
    }
    Ok(None)
}

/// One line.
fn render(event: &Event, zone: &TimeZone) -> String {
    let count = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
    format!(
        "{}  {:<12}  {:<7}  {:<12}  {}{count}",
        words::short_time(event.last_at, zone),
        event.unit,
        event.kind.as_str(),
        words::clean(&event.reason),
        words::clean(event.message.trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, event};
    use super::*;
    use crate::engine::EventKind;

    #[test]
    fn an_event_is_one_line_whatever_its_message_holds() {
        let happened = event(1, EventKind::Warning, "Unhealthy", "bad\nnews\x1b[0m", 3, at(0), at(60));
        assert_eq!(
            render(&happened, &TimeZone::UTC),
            "1970-01-01 00:01:00  web           Warning  Unhealthy     bad\\nnews\\x1b[0m (x3)"
        );
    }
}
