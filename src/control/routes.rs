//! From method, path and query to a [`Call`]. Pure: it asks nobody and knows no connection.

use std::time::Duration;

use hyper::Method;

use super::Call;
use super::permissions::Access;
use super::query::{Query, decode};
use super::respond::problem;
use crate::api::Problem;
use crate::engine::{Goal, Verb};
use crate::unit::{Name, Signal};

/// A request that can be made, as soon as its body is read.
#[derive(Debug, Clone)]
pub(super) struct Route {
    asked: Asked,
    /// `METHOD PATH`, for messages.
    request: String,
}

#[derive(Debug, Clone)]
enum Asked {
    /// All is known.
    Call(Call),
    /// The body says which signal.
    Signal { unit: Name, wait: bool, timeout: Option<Duration> },
}

/// Why a request cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For the client.
    pub(super) problem: Problem,
    /// The methods that would do, for a 405.
    pub(super) allow: Option<&'static str>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal { problem, allow: None }
    }
}

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    List,
    Unit(&'a str),
    Config(&'a str),
    Wait(&'a str),
    Logs(&'a str),
    Act(&'a str, Verb),
    Signal(&'a str),
    Reload(&'a str),
    Events,
    Load {
        update: bool,
    },
    Shutdown,
    Upgrade,
    Version,
    Health {
        ready: bool,
    },
    /// Known, and not there yet.
    Later(Later),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Later {
    Metrics,
    OpenApi,
}

impl Target<'_> {
    fn find(path: &str) -> Option<Target<'_>> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match segments.as_slice() {
            ["healthz"] => Target::Health { ready: false },
            ["readyz"] => Target::Health { ready: true },
            ["metrics"] => Target::Later(Later::Metrics),
            ["v1", "units"] => Target::List,
            ["v1", "units", name] if !name.is_empty() => Target::Unit(name),
            ["v1", "units", name, what] => match *what {
                "config" => Target::Config(name),
                "wait" => Target::Wait(name),
                "logs" => Target::Logs(name),
                "start" => Target::Act(name, Verb::Start),
                "stop" => Target::Act(name, Verb::Stop),
                "restart" => Target::Act(name, Verb::Restart),
                "reset" => Target::Act(name, Verb::Reset),
                "signal" => Target::Signal(name),
                "reload" => Target::Reload(name),
                _ => return None,
            },
            ["v1", "events"] => Target::Events,
            ["v1", "daemon-reload"] => Target::Load { update: false },
            ["v1", "update"] => Target::Load { update: true },
            ["v1", "shutdown"] => Target::Shutdown,
            ["v1", "upgrade"] => Target::Upgrade,
            ["v1", "version"] => Target::Version,
            ["v1", "openapi.json"] => Target::Later(Later::OpenApi),
            _ => return None,
        })
    }

    /// Whether it changes something, and so is a POST.
    fn acts(self) -> bool {
        match self {
            Target::Act(..) | Target::Signal(_) | Target::Reload(_) => true,
            Target::Load { .. } | Target::Shutdown | Target::Upgrade => true,
            Target::List | Target::Unit(_) | Target::Config(_) | Target::Wait(_) | Target::Logs(_) => false,
            Target::Events | Target::Version | Target::Health { .. } => false,
            Target::Later(_) => false,
        }
    }

    fn needs(self) -> Access {
        if self.acts() || matches!(self, Target::Config(_)) { Access::Everything } else { Access::Read }
    }
}

impl Route {
    /// What this method, path and query ask for. A peer that may not ask for it is told so before its query
    /// is looked at.
    pub(super) fn find(
        method: &Method,
        path: &str,
        query: Option<&str>,
        permit: impl FnOnce(Access) -> Result<(), Problem>,
    ) -> Result<Route, Refusal> {
        let request = format!("{method} {path}");
        let Some(target) = Target::find(path) else {
            let detail = format!("cannot answer {request}: no such path; GET /v1/units lists what there is");
            return Err(problem("no-such-route", 404, detail).into());
        };
        let allow = if target.acts() { "POST" } else { "GET, HEAD" };
        if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
            let detail = format!("cannot answer {request}: it takes {allow}");
            let problem = problem("method-not-allowed", 405, detail);
            return Err(Refusal { problem, allow: Some(allow) });
        }
        permit(target.needs())?;
        let bad = |why: String| problem("bad-request", 400, format!("cannot answer {request}: {why}"));
        let mut query = Query::parse(query).map_err(bad)?;
        if let Some(problem) = unsupported(target, &request).map_err(bad)? {
            return Err(problem.into());
        }
        let mut asked = asked(target, &mut query).map_err(bad)?;
        query.finish().map_err(bad)?;
        if *method == Method::HEAD {
            asked.end_at_once();
        }
        Ok(Route { asked, request })
    }

    /// The call, once the body is there.
    pub(super) fn call(self, body: &[u8]) -> Result<Call, Problem> {
        let bad = |why: &str| problem("bad-request", 400, format!("cannot answer {}: {why}", self.request));
        match self.asked {
            Asked::Signal { unit, wait, timeout } => {
                let verb = Verb::Signal(signal(body).map_err(|why| bad(&why))?);
                Ok(Call::Command { unit, verb, wait, timeout })
            }
            Asked::Call(call) if is_empty(body) => Ok(call),
            Asked::Call(_) => Err(bad("it takes no body; say it in the query")),
        }
    }
}

impl Asked {
    /// A HEAD has no body to follow with.
    fn end_at_once(&mut self) {
        if let Asked::Call(Call::Logs { follow, .. } | Call::Events { follow, .. }) = self {
            *follow = false;
        }
    }
}

/// Some clients always send an object.
fn is_empty(body: &[u8]) -> bool {
    matches!(body.trim_ascii(), b"" | b"{}")
}

/// `{"signal": "SIGUSR1"}`, or a number.
fn signal(body: &[u8]) -> Result<Signal, String> {
    let would_do = r#"send {"signal": "SIGUSR1"}"#;
    let mut body: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)
        .map_err(|error| format!("the body is no JSON object: {error}; {would_do}"))?;
    let text = match body.remove("signal") {
        Some(serde_json::Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => return Err(format!("the body has no `signal`; {would_do}")),
    };
    if let Some(unknown) = body.keys().next() {
        return Err(format!("the body has an unknown key `{unknown}`; {would_do}"));
    }
    Signal::parse(&text).ok_or_else(|| format!("`{text}` is no signal; use a name as SIGUSR1 or a number"))
}

/// What is known and not there yet, with what would do instead.
fn unsupported(target: Target, request: &str) -> Result<Option<Problem>, String> {
    let problem =
        |status, why| Some(problem("not-supported", status, format!("cannot answer {request}: {why}")));
    Ok(match target {
        Target::Reload(text) => {
            let name = name(text)?;
            let why = format!("cannot reload {name}: reload is not supported yet; restart it instead");
            Some(super::respond::problem("not-supported", 409, why))
        }
        Target::Later(Later::Metrics) => {
            problem(501, "metrics are not supported yet; GET /v1/units has the same numbers")
        }
        Target::Later(Later::OpenApi) => {
            problem(501, "a description of the API is not supported yet; README.md lists its paths")
        }
        _ => None,
    })
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(&decode(text)?).map_err(|bad| bad.to_string())
}

fn asked(target: Target, query: &mut Query) -> Result<Asked, String> {
    let call = match target {
        Target::List => Call::List,
        Target::Unit(unit) => Call::Get(name(unit)?),
        Target::Config(unit) => Call::Config(name(unit)?),
        Target::Act(unit, verb) => Call::Command {
            unit: name(unit)?,
            verb,
            wait: query.switch("wait")?,
            timeout: query.duration("timeout")?,
        },
        Target::Signal(unit) => {
            let (wait, timeout) = (query.switch("wait")?, query.duration("timeout")?);
            return Ok(Asked::Signal { unit: name(unit)?, wait, timeout });
        }
        Target::Wait(unit) => Call::Command {
            unit: name(unit)?,
            verb: Verb::Wait(goal(query)?),
            wait: true,
            timeout: query.duration("timeout")?,
        },
        Target::Logs(unit) => Call::Logs {
            unit: name(unit)?,
            lines: query.number("lines")?,
            since: query.wall("since")?,
            follow: query.switch("follow")?,
            previous: query.switch("previous")?,
            positions: query.switch("positions")?,
            after: query.text("after")?,
        },
        Target::Events => Call::Events {
            unit: query.unit("unit")?,
            since: query.number("since")?.unwrap_or(0),
            follow: query.switch("follow")?,
        },
        Target::Load { update } => Call::Load { update, dry_run: query.switch("dry_run")? },
        Target::Shutdown => Call::Shutdown,
        Target::Upgrade => Call::Upgrade,
        Target::Version => Call::Version,
        Target::Health { ready } => Call::Health { ready, units: query.units("unit")? },
        Target::Reload(_) | Target::Later(_) => return Err("it is not supported yet".to_owned()),
    };
    Ok(Asked::Call(call))
}

fn goal(query: &mut Query) -> Result<Goal, String> {
    let would_do = "use up, ready, stopped or failed";
    let goal = query.value("for", would_do, |text| match text {
        "up" => Some(Goal::Up),
        "ready" => Some(Goal::Ready),
        "stopped" => Some(Goal::Stopped),
        "failed" => Some(Goal::Failed),
        _ => None,
    })?;
    goal.ok_or_else(|| format!("`for` is missing; {would_do}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(method: &str, path: &str, query: Option<&str>) -> Result<Route, Refusal> {
        Route::find(&method.parse().unwrap(), path, query, |_| Ok(()))
    }

    fn call(request: &str, body: &str) -> Result<Call, Problem> {
        let (method, uri) = request.split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        find(method, path, query).map_err(|refusal| refusal.problem)?.call(body.as_bytes())
    }

    fn shown(request: &str) -> String {
        format!("{:?}", call(request, "").unwrap())
    }

    fn refused(request: &str) -> (u16, String) {
        let problem = call(request, "").unwrap_err();
        (problem.status, problem.detail)
    }

    #[test]
    fn each_path_that_reads_is_its_call() {
        for (request, expected) in [
            ("GET /v1/units", "List"),
            ("GET /v1/units/web", r#"Get("web")"#),
            ("GET /v1/units/web%402", r#"Get("web@2")"#),
            ("GET /v1/units/web@2/config", r#"Config("web@2")"#),
            ("GET /v1/version", "Version"),
            ("GET /healthz", "Health { ready: false, units: [] }"),
            ("GET /readyz?unit=a&unit=b", r#"Health { ready: true, units: ["a", "b"] }"#),
            ("GET /v1/events", "Events { unit: None, since: 0, follow: false }"),
            (
                "GET /v1/events?unit=web&since=7&follow=true",
                r#"Events { unit: Some("web"), since: 7, follow: true }"#,
            ),
            (
                "GET /v1/units/web/logs?lines=5&since=2026-01-01T12:00:00Z&follow=true&previous=true",
                r#"Logs { unit: "web", lines: Some(5), since: Some(2026-01-01T12:00:00.000Z), follow: true, previous: true, positions: false, after: None }"#,
            ),
            (
                "HEAD /v1/units/web/logs?follow=true",
                r#"Logs { unit: "web", lines: None, since: None, follow: false, previous: false, positions: false, after: None }"#,
            ),
            (
                "GET /v1/units/web/wait?for=ready&timeout=1m30s",
                r#"Command { unit: "web", verb: Wait(Ready), wait: true, timeout: Some(90s) }"#,
            ),
        ] {
            assert_eq!(shown(request), expected, "{request}");
        }
    }

    #[test]
    fn each_path_that_acts_is_its_call() {
        for (request, expected) in [
            (
                "POST /v1/units/web/start",
                r#"Command { unit: "web", verb: Start, wait: false, timeout: None }"#,
            ),
            (
                "POST /v1/units/web/stop?wait=true&timeout=5",
                r#"Command { unit: "web", verb: Stop, wait: true, timeout: Some(5s) }"#,
            ),
            (
                "POST /v1/units/web/restart?wait=false",
                r#"Command { unit: "web", verb: Restart, wait: false, timeout: None }"#,
            ),
            (
                "POST /v1/units/web/reset",
                r#"Command { unit: "web", verb: Reset, wait: false, timeout: None }"#,
            ),
            ("POST /v1/daemon-reload", "Load { update: false, dry_run: false }"),
            ("POST /v1/update?dry_run=true", "Load { update: true, dry_run: true }"),
            ("POST /v1/shutdown", "Shutdown"),
            ("POST /v1/upgrade", "Upgrade"),
        ] {
            assert_eq!(shown(request), expected, "{request}");
        }
    }

    #[test]
    fn a_signal_stands_in_the_body() {
        let expected = r#"Command { unit: "web", verb: Signal(SIGUSR1), wait: false, timeout: None }"#;
        for body in [r#"{"signal":"SIGUSR1"}"#, r#"{"signal": "usr1"}"#, r#"{"signal": 10}"#] {
            assert_eq!(format!("{:?}", call("POST /v1/units/web/signal", body).unwrap()), expected);
        }
        for body in ["", "{}", "SIGUSR1", r#"{"signal":"SIGNOPE"}"#, r#"{"signal":"TERM","x":1}"#, "[1]"] {
            let problem = call("POST /v1/units/web/signal", body).unwrap_err();
            assert_eq!(problem.status, 400, "{body}");
        }
        assert!(call("POST /v1/units/web/start", "{}").is_ok());
        assert_eq!(call("POST /v1/units/web/start", r#"{"wait":true}"#).unwrap_err().status, 400);
    }

    #[test]
    fn a_bad_query_is_named_with_what_would_do() {
        for (request, part) in [
            ("GET /v1/units?x=1", "unknown query parameter `x`; it takes none"),
            (
                "GET /v1/units/web/logs?tail=5",
                "`tail`; it takes lines, since, follow, previous, positions, after",
            ),
            ("GET /v1/units/web/logs?lines=-1", "`lines` cannot be `-1`; use a whole number"),
            ("GET /v1/units/web/logs?since=10m", "RFC 3339"),
            ("GET /v1/units/web/logs?follow=yes", "use true or false"),
            ("GET /v1/units/web/wait", "`for` is missing; use up, ready, stopped or failed"),
            ("GET /v1/units/web/wait?for=down", "`for` cannot be `down`"),
            ("POST /v1/units/web/start?timeout=soon", "1m30s"),
            ("GET /v1/events?unit=.x", "no unit name"),
            ("GET /v1/units/we%20b", "no unit name"),
            ("GET /v1/units/a%2Fb", "no unit name"),
            ("GET /v1/units/%ff", "not UTF-8"),
        ] {
            let (status, detail) = refused(request);
            assert_eq!(status, 400, "{request}");
            assert!(detail.contains(part), "{request}: {detail}");
        }
    }

    #[test]
    fn what_is_not_there_is_404_and_a_wrong_method_says_which() {
        for path in ["/", "", "/v1", "/v1/units/", "/v1/units/web/", "/v1/units/web/x", "/v2/units", "*"] {
            let refusal = find("GET", path, None).unwrap_err();
            assert_eq!((refusal.problem.kind.as_str(), refusal.problem.status), ("no-such-route", 404));
        }
        assert_eq!(find("POST", "/v1/units", None).unwrap_err().allow, Some("GET, HEAD"));
        assert_eq!(find("GET", "/v1/units/web/start", None).unwrap_err().allow, Some("POST"));
        assert_eq!(find("DELETE", "/v1/units/web", None).unwrap_err().problem.status, 405);
    }

    #[test]
    fn what_is_to_come_is_said_to_be_not_supported() {
        for (request, status) in
            [("POST /v1/units/web/reload", 409), ("GET /metrics", 501), ("GET /v1/openapi.json", 501)]
        {
            let problem = call(request, "").unwrap_err();
            assert_eq!((problem.kind.as_str(), problem.status), ("not-supported", status), "{request}");
        }
        assert!(refused("POST /v1/units/web/reload").1.contains("restart"));
    }

    #[test]
    fn looking_needs_read_and_all_else_needs_everything() {
        let read = ["/v1/units", "/v1/units/web", "/v1/units/web/wait", "/v1/units/web/logs", "/v1/events"];
        for path in read.into_iter().chain(["/v1/version", "/healthz", "/readyz", "/metrics"]) {
            assert_eq!(Target::find(path).unwrap().needs(), Access::Read, "{path}");
        }
        let acts = ["start", "stop", "restart", "reset", "reload", "signal", "config"];
        for path in acts.map(|act| format!("/v1/units/web/{act}")) {
            assert_eq!(Target::find(&path).unwrap().needs(), Access::Everything, "{path}");
        }
        for path in ["/v1/daemon-reload", "/v1/update", "/v1/shutdown", "/v1/upgrade"] {
            assert_eq!(Target::find(path).unwrap().needs(), Access::Everything, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            get: bool,
            path in "(/v1/units/)?[ -~é]{0,12}(/logs|/wait|/signal|/start)?",
            query in "((lines|since|for|timeout|unit|follow)=?[ -~é]{0,8}&?){0,4}",
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let method = if get { Method::GET } else { Method::POST };
            if let Ok(route) = Route::find(&method, &path, Some(&query), |_| Ok(())) {
                let _ = route.call(&body);
            }
        }

        #[test]
        fn no_random_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = String::from_utf8_lossy(&bytes);
            let (path, query) = text.split_once('?').map_or((&*text, None), |(p, q)| (p, Some(q)));
            let _ = Route::find(&Method::GET, path, query, |_| Ok(()));
            let _ = Route::find(&Method::GET, "/v1/units/web/logs", Some(&text), |_| Ok(()));
        }
    }
}
