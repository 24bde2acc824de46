//! `ctl status`: the table of units.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::events::{self, Feed};
use super::failure::{Code, Failure};
use super::{Context, json, now, units, words};
use crate::api::Units;
use crate::engine::{StateName, View, Wall, Wanted};
use crate::unit::Name;

const HEADER: [&str; 6] = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "WHY"];
const GAP: usize = 2;
/// WHY keeps so many columns before NAME is cut.
const LEAST_WHY: usize = 10;
const STATUS: usize = 2;
/// How long the end of the events may take once the daemon answers no more.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// Prints the table once. Its exit code says whether all is up.
pub(super) async fn once(context: &Context, patterns: &[String]) -> Result<Code, Failure> {
    let (views, text) = units::list(context).await?;
    let (views, missing) = narrow(patterns, views);
    missing.iter().for_each(|text| context.out.complain(text));
    if context.json {
        // What is shown whole is shown as it came.
        let text = if patterns.is_empty() { text } else { text_of(&Units { units: views.clone() })? };
        context.out.line(&json::pretty(&text))?;
    } else if !views.is_empty() {
        context.out.print(&table(&views, now(), context.out.width, context.out.colour))?;
    } else if missing.is_empty() {
        context.out.complain("there are no units");
    }
    let code = code(&views, !patterns.is_empty());
    Ok(if missing.is_empty() { code } else { code.min(Code::NoSuchUnit) })
}

/// Prints the table, then each row again that an event changed, until the daemon ends.
pub(super) async fn watch(context: &Context, patterns: &[String]) -> Result<Code, Failure> {
    let seen = events::latest(context).await?;
    let mut feed = Feed::open(context, None, true, seen).await?;
    let mut shown: BTreeMap<Name, View> = BTreeMap::new();
    let mut widths: Option<Widths> = None;
    loop {
        let views = match context.client.get_now::<Units>("/v1/units").await {
            Ok((listed, _)) => listed.units,
            // A daemon that answers no more may be about to end what is followed in order: then all is well.
            Err(_) if matches!(tokio::time::timeout(LAST_EVENTS, feed.ends()).await, Ok(true)) => {
                return Ok(Code::Fine);
            }
            Err(_) => units::list(context).await?.0,
        };
        let (views, missing) = narrow(patterns, views);
        if widths.is_none() && !missing.is_empty() {
            return Err(Failure::NoSuchUnit(missing.join("\n")));
        }
        let changed: Vec<&View> =
            views.iter().filter(|view| shown.get(&view.name).is_none_or(|old| differs(old, view))).collect();
        if context.json {
            for view in &changed {
                context.out.line(&json::compact(&text_of(view)?))?;
            }
        } else {
            let (now, colour) = (now(), context.out.colour);
            if widths.is_none() {
                context.out.line(header(&Widths::roomy(&views, now, context.out.width)).as_str())?;
            }
            let widths = widths.get_or_insert_with(|| Widths::roomy(&views, now, context.out.width));
            let rows: String = changed.iter().map(|view| row(view, now, widths, colour)).collect();
            context.out.print(&rows)?;
        }
        shown.clear();
        shown.extend(views.into_iter().map(|view| (view.name.clone(), view)));
        if feed.next().await?.is_none() {
            return Ok(Code::Fine);
        }
    }
}

fn text_of(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))
}

fn narrow(patterns: &[String], views: Vec<View>) -> (Vec<View>, Vec<String>) {
    if patterns.is_empty() {
        return (views, Vec::new());
    }
    let selection = units::select(patterns, &views);
    let found = selection.names.iter().filter_map(|name| views.iter().find(|view| view.name == *name));
    (found.cloned().collect(), selection.missing)
}

/// More than its age is new.
fn differs(old: &View, new: &View) -> bool {
    let facts = |view: &View| {
        (view.state, view.wanted, view.ready, view.pid, view.restarts, view.restart_needed, view.removed)
    };
    facts(old) != facts(new) || old.reason != new.reason || old.changed_on_disk != new.changed_on_disk
}

/// 3 where a named unit, or without names one that should be up, is not; completed counts as up.
pub(super) fn code(views: &[View], named: bool) -> Code {
    let down = |view: &View| !view.up && view.state != StateName::Completed;
    let asked = |view: &View| named || view.wanted == Wanted::Up;
    if views.iter().any(|view| asked(view) && down(view)) { Code::NotUp } else { Code::Fine }
}

/// The whole table.
pub(super) fn table(views: &[View], now: Wall, width: usize, colour: bool) -> String {
    let widths = Widths::of(&views.iter().map(|view| cells(view, now)).collect::<Vec<_>>(), width);
    let rows = views.iter().map(|view| row(view, now, &widths, colour));
    std::iter::once(header(&widths) + "\n").chain(rows).collect()
}

/// How many columns each has.
struct Widths([usize; 6]);

impl Widths {
    fn of(rows: &[[String; 6]], width: usize) -> Widths {
        let mut widths = HEADER.map(str::len);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let fixed: usize = widths[1..5].iter().sum::<usize>() + GAP * 5;
        let least = widths[5].min(LEAST_WHY);
        widths[0] = widths[0].min(width.saturating_sub(fixed + least).max(HEADER[0].len()));
        widths[5] = width.saturating_sub(fixed + widths[0]).max(HEADER[5].len());
        Widths(widths)
    }

    /// With room for what later rows may hold.
    fn roomy(views: &[View], now: Wall, width: usize) -> Widths {
        let mut rows: Vec<[String; 6]> = views.iter().map(|view| cells(view, now)).collect();
        rows.push(["", "", "Completed", "99 (119s ago)", "7d23h", "a sentence"].map(str::to_owned));
        Widths::of(&rows, width)
    }
}

fn header(widths: &Widths) -> String {
    pad(&HEADER.map(str::to_owned), widths, None)
}

fn row(view: &View, now: Wall, widths: &Widths, colour: bool) -> String {
    pad(&cells(view, now), widths, colour.then(|| paint(view))) + "\n"
}

fn cells(view: &View, now: Wall) -> [String; 6] {
    let ready = match view.ready {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    let restarts = match &view.last_exit {
        Some(exit) if view.restarts > 0 => {
            format!("{} ({} ago)", view.restarts, words::age(now.since(exit.finished_at)))
        }
        Some(_) | None => view.restarts.to_string(),
    };
    [
        view.name.to_string(),
        ready.to_owned(),
        words::capital(view.state.as_str()),
        restarts,
        words::age(now.since(view.started_at.unwrap_or(view.since))),
        words::clean(&why(view)),
    ]
}

/// Why it is not up; where it is, what an operator may want to do about it.
fn why(view: &View) -> String {
    let notes = [
        (view.removed, "its file is gone"),
        (view.restart_needed, "restart needed"),
        (view.changed_on_disk, "changed on disk"),
    ];
    match (&view.message, &view.reason) {
        (Some(message), _) => words::beside(&view.name, message).to_owned(),
        (None, Some(reason)) => reason.clone(),
        (None, None) => {
            let said: Vec<&str> = notes.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
            said.join(", ")
        }
    }
}

fn pad(cells: &[String; 6], widths: &Widths, colour: Option<&str>) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths.0).enumerate() {
        let text = words::cut(cell, width);
        match colour.filter(|_| column == STATUS) {
            Some(colour) => line.push_str(&format!("\x1b[{colour}m{text}\x1b[0m")),
            None => line.push_str(&text),
        }
        let blanks = width.saturating_sub(text.chars().count()) + GAP;
        line.extend(std::iter::repeat_n(' ', blanks));
    }
    line.trim_end().to_owned()
}

/// The colour of its status: an SGR parameter.
fn paint(view: &View) -> &'static str {
    match view.state {
        StateName::Running if view.ready == Some(false) => "33",
        StateName::Running | StateName::Completed => "32",
        StateName::Waiting | StateName::Starting | StateName::Stopping => "33",
        StateName::Backoff | StateName::Failed => "31",
        StateName::Inactive => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, exit, view};
    use super::*;
    use crate::engine::ExitReason;

    fn sample() -> Vec<View> {
        let mut web = view("web");
        web.restarts = 1;
        web.last_exit = Some(exit(ExitReason::Error, 25));
        web.started_at = Some(at(30));
        let mut db = view("db");
        db.state = StateName::Backoff;
        db.up = false;
        db.ready = Some(false);
        db.started_at = None;
        db.since = at(95);
        db.restarts = 12;
        db.last_exit = Some(exit(ExitReason::Error, 95));
        db.reason = Some("CrashLoopBackOff".to_owned());
        db.message = Some("exit 1 after 0.3s, 13th restart, next in 12s: \x1b[31mpanic".to_owned());
        let mut job = view("job");
        job.state = StateName::Completed;
        job.up = false;
        job.ready = None;
        job.since = at(0);
        job.started_at = None;
        vec![db, job, web]
    }

    #[test]
    fn the_table_fits_its_width_and_says_where_it_was_cut() {
        let expected = "\
NAME  READY  STATUS     RESTARTS     AGE   WHY
db    no     Backoff    12 (5s ago)  5s    exit 1 after 0.3s, 13th restart, nex…
job   -      Completed  0            100s
web   yes    Running    1 (75s ago)  70s
";
        assert_eq!(table(&sample(), at(100), 80, false), expected);
        let wide = table(&sample(), at(100), 120, false);
        assert!(wide.contains("next in 12s: \\x1b[31mpanic\n"), "{wide}");
    }

    #[test]
    fn a_name_of_64_bytes_is_cut_before_the_table_leaves_80_columns() {
        let mut views = sample();
        views[0].name = Name::new(&"x".repeat(64)).unwrap();
        let text = table(&views, at(100), 80, false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("x…  no"), "{text}");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let plain = table(&sample(), at(100), 80, false);
        let coloured = table(&sample(), at(100), 80, true);
        assert!(coloured.contains("\x1b[31mBackoff\x1b[0m    12"), "{coloured}");
        let mut stripped = coloured.replace("\x1b[0m", "");
        for colour in ["2", "31", "32", "33"] {
            stripped = stripped.replace(&format!("\x1b[{colour}m"), "");
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn status_is_3_where_a_named_unit_or_one_that_should_be_up_is_not() {
        let views = sample();
        assert_eq!(code(&views, false), Code::NotUp);
        assert_eq!(code(&views[1..], true), Code::Fine, "completed counts as up");
        let mut stopped = view("old");
        stopped.state = StateName::Inactive;
        stopped.up = false;
        stopped.wanted = Wanted::Down;
        assert_eq!(code(&[stopped.clone()], false), Code::Fine);
        assert_eq!(code(&[stopped], true), Code::NotUp);
    }

    #[test]
    fn a_row_is_new_when_more_than_its_age_is() {
        let old = view("web");
        let mut new = old.clone();
        new.uptime_seconds = Some(99.0);
        new.message = Some("next in 3s".to_owned());
        assert!(!differs(&old, &new));
        new.ready = Some(false);
        assert!(differs(&old, &new));
    }
}
