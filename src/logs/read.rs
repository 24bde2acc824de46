//! Answering a [`Query`]: on a thread of its own, because files are read, and they may be on a slow disk.

use std::collections::VecDeque;
use std::future::pending;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::cursor::Cursor;
use super::position::{Place, Position};
use super::target::Target;
use super::{Here, Item, Line, Query, Settings, Shared, stamp};
use crate::engine::Wall;

/// One of the files that a query reads.
struct Log {
    cursor: Cursor,
    stream: &'static str,
    growth: watch::Receiver<u64>,
    /// Of the last line that had one: what has none belongs to it.
    stamp: Option<Wall>,
    /// Behind the last line that was taken.
    place: Option<Place>,
}

/// The files of a query, and what of them it wants.
pub(super) struct Reader {
    query: Query,
    logs: Vec<Log>,
    /// For output that no file keeps: what is in memory.
    kept: Vec<String>,
    /// The file of the position to go on from is gone.
    gap: bool,
}

impl Reader {
    /// Must be made after the pump has read everything up to now. Watches the files before it lists them, so
    /// that nothing falls between.
    pub(super) fn new(settings: &Settings, shared: &Arc<Shared>, query: Query) -> Reader {
        let target = |stderr| Target::of(settings, &query.instance, &query.logs, stderr);
        let mut targets = vec![("stdout", target(false))];
        if query.logs.stderr.is_some() && target(true) != target(false) {
            targets.push(("stderr", target(true)));
        }
        let mut logs = Vec::new();
        for (stream, target) in targets {
            if let Target::File(path) = target {
                let growth = shared.watch(&path);
                logs.push(Log { cursor: Cursor::new(&path), stream, growth, stamp: None, place: None });
            }
        }
        let mut gap = false;
        let lines = query.lines.filter(|_| query.after.is_none());
        let query = Query { lines, ..query };
        if let Some(Position(after)) = &query.after {
            for (log, place) in logs.iter_mut().zip(after) {
                gap |= !log.cursor.seek(*place);
            }
        }
        let kept = if logs.is_empty() { shared.kept.tail(&query.instance) } else { Vec::new() };
        Reader { query, logs, kept, gap }
    }

    /// Sends what there is, then goes on with what comes, if that is wanted.
    pub(super) async fn run(mut self, lines: mpsc::Sender<Item>) {
        let done = self.send_kept(&lines).await.is_break() || self.send_written(&lines).await.is_break();
        if done
            || !self.query.follow
            || self.logs.is_empty()
            || self.send_here(&lines, false).await.is_break()
        {
            return;
        }
        while self.grown(&lines).await.is_continue() {
            if self.send_new(&lines).await.is_break() {
                return;
            }
        }
    }

    async fn send_kept(&mut self, lines: &mpsc::Sender<Item>) -> ControlFlow<()> {
        let kept = std::mem::take(&mut self.kept);
        let surplus = self.query.lines.map_or(0, |count| kept.len().saturating_sub(count));
        for line in kept.into_iter().skip(surplus) {
            send(lines, Line { at: None, stream: "stdout".to_owned(), line, position: None }).await?;
        }
        ControlFlow::Continue(())
    }

    /// All that is in the files, the streams in the order of their stamps.
    async fn send_written(&mut self, lines: &mpsc::Sender<Item>) -> ControlFlow<()> {
        if let (Some(count), None) = (self.query.lines, self.query.until) {
            self.logs.iter_mut().for_each(|log| log.cursor.seek_last(count));
        }
        self.logs.iter_mut().for_each(|log| log.place = log.cursor.place());
        if self.gap {
            self.send_here(lines, true).await?;
        }
        let mut last = VecDeque::new();
        let mut heads: Vec<Option<(Line, Option<Place>)>> = Vec::new();
        for log in &mut self.logs {
            heads.push(log.next(&self.query));
        }
        // A line without a stamp goes first: it cannot wait for one.
        while let Some((_, first)) = (0..heads.len())
            .filter_map(|at| heads[at].as_ref().map(|(line, _)| (line.at, at)))
            .min_by_key(|(stamp, at)| (*stamp, *at))
        {
            let next = self.logs[first].next(&self.query);
            let Some((mut line, place)) = std::mem::replace(&mut heads[first], next) else { break };
            self.logs[first].place = place;
            line.position = self.position();
            match self.query.lines {
                Some(count) => {
                    last.push_back(line);
                    if last.len() > count {
                        last.pop_front();
                    }
                }
                None => send(lines, line).await?,
            }
        }
        for line in last {
            send(lines, line).await?;
        }
        ControlFlow::Continue(())
    }

    async fn send_new(&mut self, lines: &mpsc::Sender<Item>) -> ControlFlow<()> {
        for at in 0..self.logs.len() {
            self.logs[at].cursor.advance();
            while let Some((mut line, place)) = self.logs[at].next(&self.query) {
                self.logs[at].place = place;
                line.position = self.position();
                send(lines, line).await?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Behind the last line that was taken of each log, if that is wanted.
    fn position(&self) -> Option<String> {
        let places = || self.logs.iter().map(|log| log.place).collect();
        self.query.positions.then(|| Position(places()).to_string())
    }

    async fn send_here(&self, lines: &mpsc::Sender<Item>, gap: bool) -> ControlFlow<()> {
        let Some(position) = self.position() else { return ControlFlow::Continue(()) };
        give(lines, Item::Here(Here { position, gap })).await
    }

    /// Waits until something was written; breaks when nobody listens, or nobody writes, any more.
    async fn grown(&mut self, lines: &mpsc::Sender<Item>) -> ControlFlow<()> {
        let mut logs = self.logs.iter_mut();
        let (first, second) = (logs.next(), logs.next());
        let grew = tokio::select! {
            outcome = changed(first) => outcome.is_ok(),
            outcome = changed(second) => outcome.is_ok(),
            () = lines.closed() => false,
        };
        if grew { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

async fn changed(log: Option<&mut Log>) -> Result<(), watch::error::RecvError> {
    match log {
        Some(log) => log.growth.changed().await,
        None => pending().await,
    }
}

async fn send(lines: &mpsc::Sender<Item>, line: Line) -> ControlFlow<()> {
    give(lines, Item::Line(line)).await
}

async fn give(lines: &mpsc::Sender<Item>, item: Item) -> ControlFlow<()> {
    if lines.send(item).await.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

impl Log {
    /// The next line that the query wants, and the place behind it.
    fn next(&mut self, query: &Query) -> Option<(Line, Option<Place>)> {
        loop {
            let line = self.cursor.next_line()?;
            let (at, text) = if query.logs.timestamps { stamp::split(&line) } else { (None, &line[..]) };
            self.stamp = at.or(self.stamp);
            if self.stamp.is_none_or(|stamp| wanted(stamp, query)) {
                let line = String::from_utf8_lossy(text).into_owned();
                let line = Line { at, stream: self.stream.to_owned(), line, position: None };
                return Some((line, self.cursor.place()));
            }
        }
    }
}

/// Stamps count microseconds: `since` and `until` are taken as far.
fn wanted(stamp: Wall, query: &Query) -> bool {
    let micros = |wall: Wall| wall.timestamp().as_microsecond();
    query.since.is_none_or(|since| micros(stamp) >= micros(since))
        && query.until.is_none_or(|until| micros(stamp) < micros(until))
}
