//! `ctl describe`: what `kubectl describe pod` prints, in its form (PROBES sections 13 and 15).

use jiff::tz::TimeZone;

use super::failure::{Code, Failure};
use super::{Context, events, json, now, units, words};
use crate::engine::{Event, LastExit, StateName, View, Wall};
use crate::unit::Signal;

const NONE: &str = "<none>";

/// Prints all about each unit.
pub(super) async fn run(context: &Context, patterns: &[String]) -> Result<Code, Failure> {
    let (names, missing) = units::expand(context, patterns).await?;
    let mut code = if missing { Code::NoSuchUnit } else { Code::Fine };
    let zone = TimeZone::system();
    let mut first = true;
    for name in names {
        let (view, text) = match context.client.get::<View>(&format!("/v1/units/{name}")).await {
            Ok(got) => got,
            Err(Failure::NoSuchUnit(text)) => {
                // It went between the list and this.
                context.out.complain(&words::clean_lines(&text));
                code = code.min(Code::NoSuchUnit);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        if context.json {
            context.out.line(&json::pretty(&text))?;
            continue;
        }
        let events = events::of(context, Some(&name)).await?;
        let gap = if std::mem::take(&mut first) { "" } else { "\n\n" };
        context.out.print(&format!("{gap}{}", render(&view, &events, now(), &zone)))?;
    }
    Ok(code)
}

/// The whole text for one unit.
pub(super) fn render(view: &View, events: &[Event], now: Wall, zone: &TimeZone) -> String {
    let mut text = head(view).text();
    text.push_str("Process:\n");
    text.push_str(&process(view, zone).text());
    text.push_str("Conditions:\n");
    let started = truth(started(view));
    text.push_str(&columns(&[
        row(["Type", "Status"]),
        row(["Started", started]),
        row(["Ready", truth(view.ready.unwrap_or(view.up))]),
    ]));
    text.push_str(&happened(events, now));
    if !view.output.is_empty() {
        text.push_str("Output (last 10 lines):\n");
        for line in &view.output {
            text.push_str(
                &format!("  {}", words::clean_lines(line.trim_end_matches('\n'))).replace('\n', "\n  "),
            );
            text.push('\n');
        }
    }
    text
}

/// Its process runs and its startup probe, if it has one, has succeeded; whether it is ready is another
/// matter (PROBES section 1). What has no process, as a group, is started once it is up.
fn started(view: &View) -> bool {
    match (view.pid, &view.probes.startup) {
        (None, _) => view.up,
        (Some(_), Some(startup)) => startup.result == "success",
        (Some(_), None) => true,
    }
}

fn head(view: &View) -> Lines {
    let mut lines = Lines::default();
    lines.add(0, "Name", view.name.as_str());
    lines.add_some(0, "Description", Some(view.description.as_str()).filter(|text| !text.is_empty()));
    lines.add_some(0, "Unit", (view.unit != view.name).then_some(view.unit.as_str()));
    lines.add(0, "Unit File", view.unit_file.as_deref().unwrap_or(NONE));
    lines.add(0, "Main PID", &view.pid.map_or(NONE.to_owned(), |pid| pid.to_string()));
    lines.add(0, "Status", &words::capital(view.state.as_str()));
    lines.add_some(0, "Reason", view.reason.as_deref());
    lines.add_some(0, "Message", view.message.as_deref());
    lines.add_some(0, "Changed On Disk", view.changed_on_disk.then_some("True"));
    lines.add_some(0, "Restart Needed", view.restart_needed.then_some("True"));
    lines.add_some(0, "Unit File Gone", view.removed.then_some("True"));
    lines
}

fn process(view: &View, zone: &TimeZone) -> Lines {
    let mut lines = Lines::default();
    let command = view.command.join(" ");
    lines.add_some(1, "Command", Some(command.as_str()).filter(|text| !text.is_empty()));
    let last = state(view, zone, &mut lines);
    if let Some(exit) = last {
        lines.add(1, "Last State", "Terminated");
        terminated(exit, zone, &mut lines);
    }
    lines.add(1, "Ready", truth(view.ready.unwrap_or(view.up)));
    lines.add(1, "Restart Count", &view.restarts.to_string());
    let probes = [
        ("Liveness", &view.probes.liveness),
        ("Readiness", &view.probes.readiness),
        ("Startup", &view.probes.startup),
    ];
    for (label, probe) in probes {
        lines.add_some(1, label, probe.as_ref().map(|probe| probe.spec.as_str()));
    }
    lines
}

/// The lines of the present state. Returns the exit that is the last state then.
fn state<'a>(view: &'a View, zone: &TimeZone, lines: &mut Lines) -> Option<&'a LastExit> {
    let waiting = |lines: &mut Lines, reason: &str| {
        lines.add(1, "State", "Waiting");
        lines.add(2, "Reason", reason);
    };
    match (view.state, view.started_at) {
        (_, Some(started)) => {
            lines.add(1, "State", "Running");
            lines.add(2, "Started", &words::long_time(started, zone));
            view.last_exit.as_ref()
        }
        // A group has no process.
        (StateName::Running, None) => {
            lines.add(1, "State", "Running");
            view.last_exit.as_ref()
        }
        (StateName::Backoff, None) => {
            waiting(lines, "CrashLoopBackOff");
            view.last_exit.as_ref()
        }
        (StateName::Waiting | StateName::Starting | StateName::Stopping, None) => {
            waiting(lines, view.reason.as_deref().unwrap_or(&words::capital(view.state.as_str())));
            view.last_exit.as_ref()
        }
        (StateName::Failed | StateName::Completed | StateName::Inactive, None) => match &view.last_exit {
            Some(exit) => {
                lines.add(1, "State", "Terminated");
                terminated(exit, zone, lines);
                view.exits.len().checked_sub(2).and_then(|before| view.exits.get(before))
            }
            None => {
                waiting(lines, view.reason.as_deref().unwrap_or(&words::capital(view.state.as_str())));
                None
            }
        },
    }
}

fn terminated(exit: &LastExit, zone: &TimeZone, lines: &mut Lines) {
    lines.add(2, "Reason", exit.reason.as_str());
    let number = exit.signal.as_deref().and_then(Signal::parse).map(|signal| 128 + signal.number());
    let code = exit.code.or(number).map_or("<unknown>".to_owned(), |code| code.to_string());
    lines.add(2, "Exit Code", &code);
    lines.add_some(2, "Signal", exit.signal.as_deref());
    lines.add_some(2, "Started", exit.started_at.map(|at| words::long_time(at, zone)).as_deref());
    lines.add(2, "Finished", &words::long_time(exit.finished_at, zone));
}

fn happened(events: &[Event], now: Wall) -> String {
    if events.is_empty() {
        return format!("Events:  {NONE}\n");
    }
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_unstable_by_key(|event| (event.last_at, event.seq));
    let titles = ["Type", "Reason", "Age", "From", "Message"];
    // Age has four dashes in kubectl too.
    let mut rows = vec![row(titles), row(["----", "------", "----", "----", "-------"])];
    rows.extend(events.into_iter().map(|event| {
        let last = words::age(now.since(event.last_at));
        let age = match event.count {
            0 | 1 => last,
            count => format!("{last} (x{count} over {})", words::age(now.since(event.first_at))),
        };
        let message = words::clean(event.message.trim());
        vec![event.kind.as_str().to_owned(), words::clean(&event.reason), age, "uphold".to_owned(), message]
    }));
    format!("Events:\n{}", columns(&rows))
}

fn truth(is: bool) -> &'static str {
    if is { "True" } else { "False" }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Rows under two blanks, each column as wide as its longest cell and two blanks.
fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0) + 2
    };
    let mut text = String::new();
    for row in rows {
        let mut line = "  ".to_owned();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            line.push_str(&format!("{cell:width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Adjacent `Label: value` lines: values are aligned to the longest label, indent included, and two blanks.
#[derive(Default)]
struct Lines(Vec<(String, String)>);

impl Lines {
    fn add(&mut self, depth: usize, label: &str, value: &str) {
        self.0.push((format!("{}{label}:", "  ".repeat(depth)), words::clean(value)));
    }

    fn add_some(&mut self, depth: usize, label: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(depth, label, value);
        }
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + 2;
        self.0.iter().map(|(label, value)| format!("{label:width$}{value}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, event, exit, probe, view};
    use super::*;
    use crate::engine::{EventKind, ExitReason};

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(9))
    }

    fn wall(text: &str) -> Wall {
        Wall::try_from(text.to_owned()).unwrap()
    }

    fn web() -> View {
        let mut web = view("web");
        web.unit_file = Some("/etc/uphold/units/web.toml".to_owned());
        web.pid = Some(4242);
        web.command = ["nginx", "-g", "daemon off;"].map(str::to_owned).to_vec();
        web.started_at = Some(wall("2021-02-08T04:02:28Z"));
        web.last_exit = Some(LastExit {
            code: Some(0),
            signal: None,
            reason: ExitReason::LivenessFailed,
            started_at: Some(wall("2021-02-08T03:55:58Z")),
            finished_at: wall("2021-02-08T04:02:24Z"),
        });
        web.restarts = 1;
        web.probes.liveness =
            probe("http-get http://:80/ delay=0s timeout=1s period=3s #success=1 #failure=3");
        web.probes.readiness =
            probe("exec [cat /tmp/healthy] delay=5s timeout=1s period=5s #success=1 #failure=3");
        web
    }

    #[test]
    fn describe_prints_what_kubectl_prints() {
        let now = wall("2021-02-08T04:02:38Z");
        let ago = |seconds: i64| {
            Wall::from_nanos(now.timestamp().as_nanosecond() - i128::from(seconds) * 1_000_000_000)
        };
        let unhealthy = "Liveness probe failed: HTTP probe failed with statuscode: 403";
        let failed = "Process web failed liveness probe, will be restarted";
        // Out of order on purpose: what was seen last stands last.
        let events = [
            event(3, EventKind::Normal, "Started", "Started process web", 2, ago(406), ago(10)),
            event(1, EventKind::Warning, "Unhealthy", unhealthy, 3, ago(20), ago(14)),
            event(2, EventKind::Normal, "Killing", failed, 1, ago(13), ago(13)),
        ];
        let expected = "\
Name:       web
Unit File:  /etc/uphold/units/web.toml
Main PID:   4242
Status:     Running
Process:
  Command:        nginx -g daemon off;
  State:          Running
    Started:      Mon, 08 Feb 2021 13:02:28 +0900
  Last State:     Terminated
    Reason:       LivenessFailed
    Exit Code:    0
    Started:      Mon, 08 Feb 2021 12:55:58 +0900
    Finished:     Mon, 08 Feb 2021 13:02:24 +0900
  Ready:          True
  Restart Count:  1
  Liveness:       http-get http://:80/ delay=0s timeout=1s period=3s #success=1 #failure=3
  Readiness:      exec [cat /tmp/healthy] delay=5s timeout=1s period=5s #success=1 #failure=3
Conditions:
  Type     Status
  Started  True
  Ready    True
Events:
  Type     Reason     Age                  From    Message
  ----     ------     ----                 ----    -------
  Warning  Unhealthy  14s (x3 over 20s)    uphold  Liveness probe failed: HTTP probe failed with statuscode: 403
  Normal   Killing    13s                  uphold  Process web failed liveness probe, will be restarted
  Normal   Started    10s (x2 over 6m46s)  uphold  Started process web
";
        assert_eq!(render(&web(), &events, now, &zone()), expected);
    }

    #[test]
    fn what_waits_in_backoff_says_why_and_shows_its_output() {
        let mut app = view("app");
        app.description = "The app".to_owned();
        app.state = StateName::Backoff;
        app.up = false;
        app.ready = Some(false);
        app.pid = None;
        app.started_at = None;
        app.reason = Some("LivenessFailed".to_owned());
        app.message = Some("killed after 3s: liveness probe failed: \x1b[2J".to_owned());
        app.last_exit =
            Some(LastExit { code: None, signal: Some("SIGKILL".to_owned()), ..exit(ExitReason::Killed, 60) });
        app.restarts = 7;
        app.output = vec!["one".to_owned(), "tw\x07o".to_owned()];
        let expected = "\
Name:         app
Description:  The app
Unit File:    <none>
Main PID:     <none>
Status:       Backoff
Reason:       LivenessFailed
Message:      killed after 3s: liveness probe failed: \\x1b[2J
Process:
  State:          Waiting
    Reason:       CrashLoopBackOff
  Last State:     Terminated
    Reason:       Killed
    Exit Code:    137
    Signal:       SIGKILL
    Started:      Thu, 01 Jan 1970 09:00:59 +0900
    Finished:     Thu, 01 Jan 1970 09:01:00 +0900
  Ready:          False
  Restart Count:  7
Conditions:
  Type     Status
  Started  False
  Ready    False
Events:  <none>
Output (last 10 lines):
  one
  tw\\x07o
";
        assert_eq!(render(&app, &[], at(100), &zone()), expected);
    }

    #[test]
    fn what_runs_is_started_once_its_startup_probe_has_succeeded_ready_or_not() {
        let mut web = web();
        (web.state, web.up, web.ready) = (StateName::Starting, false, Some(false));
        assert!(render(&web, &[], at(100), &zone()).contains("Started  True\n  Ready    False\n"));
        web.probes.startup = probe("exec [true] delay=0s timeout=1s period=3s #success=1 #failure=3");
        let startup = web.probes.startup.as_mut().unwrap();
        startup.result = "unknown".to_owned();
        assert!(render(&web, &[], at(100), &zone()).contains("Started  False\n  Ready    False\n"));
    }

    #[test]
    fn what_ended_for_good_is_terminated_and_its_exit_before_is_the_last_state() {
        let mut job = view("job");
        job.state = StateName::Failed;
        job.up = false;
        job.started_at = None;
        job.exits = vec![exit(ExitReason::LivenessFailed, 10), exit(ExitReason::Error, 60)];
        job.last_exit = job.exits.last().cloned();
        let text = render(&job, &[], at(100), &zone());
        let state = text.find("  State:          Terminated\n    Reason:       Error\n");
        let last = text.find("  Last State:     Terminated\n    Reason:       LivenessFailed\n");
        assert!(state.is_some() && last > state, "{text}");
    }
}
