//! `ctl logs`: what units wrote.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::mpsc;

use super::args::LogWish;
use super::failure::{Code, Failure};
use super::http::Client;
use super::patience::Patience;
use super::{Context, json, now, units, words};
use crate::engine::Wall;
use crate::task;
use crate::unit::Name;

/// So many lines may wait to be printed.
const AHEAD: usize = 64;

/// One line of the stream, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Line {
    line: String,
}

/// The same, as far as it says where the stream stands. What has no text says nothing else.
#[derive(Debug, Deserialize)]
struct Stand {
    line: Option<IgnoredAny>,
    position: Option<String>,
    #[serde(default)]
    gap: bool,
}

/// What comes of the log of one unit.
#[derive(Debug)]
enum News {
    /// A line, as JSON.
    Line(String),
    /// Some lines are gone.
    Gap,
    /// Nothing more comes.
    Failed(Failure),
}

/// Prints the lines of each unit; those of several that are followed come as they are written.
pub(super) async fn run(context: &Context, wish: LogWish) -> Result<Code, Failure> {
    let (names, missing) = units::expand(context, &wish.units).await?;
    let since = wish.since.map(|ago| Wall::from_nanos(now().timestamp().as_nanosecond() - nanos(ago)));
    let several = names.len() > 1;
    let mut code = if missing { Code::NoSuchUnit } else { Code::Fine };
    if wish.follow {
        let (sender, mut received) = mpsc::channel(AHEAD);
        for name in names {
            task::detached(pump(context.client.clone(), target(&name, &wish, since), name, sender.clone()));
        }
        drop(sender);
        while let Some((name, got)) = received.recv().await {
            code = code.min(show(context, &name, several, got)?);
        }
        return Ok(code);
    }
    for name in names {
        let (sender, mut received) = mpsc::channel(AHEAD);
        let target = target(&name, &wish, since);
        let mut quiet = true;
        let asked = name.clone();
        task::detached(pump(context.client.clone(), target, name, sender));
        while let Some((name, got)) = received.recv().await {
            quiet = false;
            code = code.min(show(context, &name, several, got)?);
        }
        if quiet && !several {
            context.out.complain(&format!(
                "{asked}: no such lines; `uphold ctl describe {asked}` says whether it ran"
            ));
        }
    }
    Ok(code)
}

fn nanos(length: std::time::Duration) -> i128 {
    i128::try_from(length.as_nanos()).unwrap_or(i128::MAX / 2)
}

fn target(name: &Name, wish: &LogWish, since: Option<Wall>) -> String {
    let mut target = format!("/v1/units/{name}/logs?follow={}&positions=true", wish.follow);
    if let Some(lines) = wish.tail {
        target.push_str(&format!("&lines={lines}"));
    }
    if let Some(since) = since {
        target.push_str(&format!("&since={since}"));
    }
    if wish.previous {
        target.push_str("&previous=true");
    }
    target
}

/// Carries the lines of one unit, or why there are none, to where they are printed; over every replacement of
/// the daemon, each once.
async fn pump(client: Client, target: String, name: Name, sender: mpsc::Sender<(Name, News)>) {
    if let Err(failure) = carry(&client, target, &name, &sender).await {
        // Nobody is left to tell where this fails.
        let _ = sender.send((name, News::Failed(failure))).await;
    }
}

async fn carry(
    client: &Client,
    mut target: String,
    name: &Name,
    sender: &mpsc::Sender<(Name, News)>,
) -> Result<(), Failure> {
    let mut patience = Patience::new();
    let (first, mut unplaced) = (target.clone(), false);
    loop {
        let mut lines = client.follow(&target).await?;
        let failure = loop {
            let line = match lines.next().await {
                Ok(Some(line)) if line.trim().is_empty() => continue,
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(failure) => break failure,
            };
            patience.renew();
            let stand: Stand = serde_json::from_slice(line.as_bytes()).map_err(|error| unreadable(&error))?;
            match &stand.position {
                Some(position) => target = format!("{first}&after={position}"),
                None => unplaced = true,
            }
            let news = match (&stand.line, stand.gap) {
                (Some(_), _) => News::Line(line),
                (None, true) => News::Gap,
                (None, false) => continue,
            };
            if sender.send((name.clone(), news)).await.is_err() {
                return Ok(());
            }
        };
        if unplaced {
            // These lines are in no file: nobody can tell which of them were printed.
            return Err(failure);
        }
        client.mind(&mut patience, failure).await?;
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::Failed(format!("cannot read a log line of the daemon: {error}"))
}

/// A failure of one of several is said, and the others go on.
fn show(context: &Context, name: &Name, several: bool, got: News) -> Result<Code, Failure> {
    let text = match got {
        News::Line(text) => text,
        News::Gap => {
            context.out.complain(&format!(
                "{name}: some lines may be missing here: uphold was replaced, and their file went meanwhile"
            ));
            return Ok(Code::Fine);
        }
        News::Failed(failure) if several => {
            failure.text().iter().for_each(|text| context.out.complain(text));
            return Ok(failure.code());
        }
        News::Failed(failure) => return Err(failure),
    };
    let prefix = several.then_some(name);
    let line = if context.json {
        json_line(&text, prefix)
    } else {
        let line: Line = serde_json::from_slice(text.as_bytes()).map_err(|error| unreadable(&error))?;
        render(&line, prefix, context.out.terminal)
    };
    context.out.line(&line)?;
    Ok(Code::Fine)
}

/// Into a file or a pipe a line goes as it was written; a terminal is shielded from it.
fn render(line: &Line, prefix: Option<&Name>, terminal: bool) -> String {
    let text = if terminal { words::clean_lines(&line.line) } else { line.line.clone() };
    match prefix {
        Some(name) => format!("{name} | {text}"),
        None => text,
    }
}

/// As it came; of several units, with whose it is.
fn json_line(text: &str, prefix: Option<&Name>) -> String {
    let line = json::compact(text);
    match (prefix, line.strip_prefix('{')) {
        (Some(name), Some(rest)) => format!("{{\"unit\":\"{name}\",{rest}"),
        (Some(_) | None, _) => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_into_a_pipe_as_it_was_written_and_to_a_terminal_escaped() {
        let name = Name::new("web").unwrap();
        let line: Line =
            serde_json::from_str(r#"{"at":null,"stream":"stdout","line":"\u001b[31mred\tx"}"#).unwrap();
        assert_eq!(render(&line, None, false), "\x1b[31mred\tx");
        assert_eq!(render(&line, Some(&name), true), "web | \\x1b[31mred\tx");
        assert_eq!(json_line(r#"{"line":"x"}"#, Some(&name)), r#"{"unit":"web","line":"x"}"#);
    }

    #[test]
    fn a_wish_is_a_query() {
        let wish = LogWish { units: vec![], follow: true, tail: Some(5), since: None, previous: true };
        let since = Wall::from_nanos(1_500_000_000);
        assert_eq!(
            target(&Name::new("web@1").unwrap(), &wish, Some(since)),
            "/v1/units/web@1/logs?follow=true&positions=true&lines=5&since=1970-01-01T00:00:01.500Z&previous=true"
        );
    }
}
