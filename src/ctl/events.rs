//! `ctl events`: what happened, a line each.

use jiff::tz::TimeZone;

use super::failure::{Code, Failure};
use super::http::Lines;
use super::patience::Patience;
use super::{Context, json, units, words};
use crate::api::Version;
use crate::engine::Event;
use crate::unit::Name;

/// Events, over every replacement of the daemon: each once, none left out.
pub(super) struct Feed<'c> {
    context: &'c Context,
    unit: Option<Name>,
    follow: bool,
    /// The number of the last one.
    last: u64,
    /// Of the daemon that numbers them; empty where nothing is followed.
    life: String,
    lines: Option<Lines>,
    patience: Patience,
}

impl<'c> Feed<'c> {
    /// Those of one unit, or all, above this number.
    pub(super) async fn open(
        context: &'c Context,
        unit: Option<Name>,
        follow: bool,
        last: u64,
    ) -> Result<Feed<'c>, Failure> {
        let life = if follow { life(context).await? } else { String::new() };
        let mut feed = Feed { context, unit, follow, last, life, lines: None, patience: Patience::new() };
        feed.lines = Some(context.client.follow(&feed.target()).await?);
        Ok(feed)
    }

    fn target(&self) -> String {
        let since = if self.last > 0 { format!("&since={}", self.last) } else { String::new() };
        let unit = self.unit.as_ref().map(|name| format!("&unit={name}")).unwrap_or_default();
        format!("/v1/events?follow={}{unit}{since}", self.follow)
    }

    /// The next event and its text; `None` when the daemon has ended the stream.
    pub(super) async fn next(&mut self) -> Result<Option<(Event, String)>, Failure> {
        loop {
            let failure = match &mut self.lines {
                Some(lines) => match next(lines).await {
                    Ok(None) => return Ok(None),
                    Ok(Some((event, text))) => {
                        self.patience.renew();
                        self.last = self.last.max(event.seq);
                        return Ok(Some((event, text)));
                    }
                    Err(failure) => failure,
                },
                None => Failure::Broken { why: "it was broken before".to_owned(), sent: true },
            };
            self.lines = None;
            self.context.client.mind(&mut self.patience, failure).await?;
            self.go_on().await?;
        }
    }

    /// Whether the daemon ends the stream that is open, in order, without another event to come after what
    /// it has sent.
    pub(super) async fn ends(&mut self) -> bool {
        let Some(lines) = &mut self.lines else { return false };
        loop {
            match next(lines).await {
                Ok(Some((event, _))) => self.last = self.last.max(event.seq),
                Ok(None) => return true,
                Err(_) => {
                    self.lines = None;
                    return false;
                }
            }
        }
    }

    /// Asks the daemon that is there now for what came after the last event.
    async fn go_on(&mut self) -> Result<(), Failure> {
        if self.follow {
            let life = life(self.context).await?;
            if life != self.life {
                self.context.out.complain(
                    "uphold was started anew and took nothing over: what follows are its events from their \
                     beginning",
                );
                (self.life, self.last) = (life, 0);
            }
        }
        self.lines = Some(self.context.client.follow(&self.target()).await?);
        Ok(())
    }
}

async fn life(context: &Context) -> Result<String, Failure> {
    Ok(context.client.get::<Version>("/v1/version").await?.0.life)
}

/// Prints what happened to these units, or to all, and on wish what comes.
pub(super) async fn run(context: &Context, patterns: &[String], follow: bool) -> Result<Code, Failure> {
    let (names, missing) = match patterns {
        [] => (Vec::new(), false),
        // uphold's own are filed under its name, which no unit need have.
        [own] if *own == Name::uphold().as_str() => (vec![Name::uphold()], false),
        some => units::expand(context, some).await?,
    };
    let one = if names.len() == 1 { names.first().cloned() } else { None };
    let mut feed = Feed::open(context, one, follow, 0).await?;
    let zone = TimeZone::system();
    while let Some((event, text)) = feed.next().await? {
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
    let mut feed = Feed::open(context, unit.cloned(), false, 0).await?;
    let mut events = Vec::new();
    while let Some((event, _)) = feed.next().await? {
        events.push(event);
    }
    Ok(events)
}

/// The number of the latest event, 0 if there is none.
pub(super) async fn latest(context: &Context) -> Result<u64, Failure> {
    Ok(of(context, None).await?.iter().map(|event| event.seq).max().unwrap_or(0))
}

/// The next event and its text. Empty lines keep a connection alive and say nothing.
async fn next(lines: &mut Lines) -> Result<Option<(Event, String)>, Failure> {
    while let Some(line) = lines.next().await? {
        if !line.trim().is_empty() {
            let event = serde_json::from_slice(line.as_bytes())
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
