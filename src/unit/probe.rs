//! The three probes of a unit, by a kubelet's rules (its validation's texts, where it has them).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::field::{Context, Field, Fields};
use super::tree::Value;
use super::{Check, Endpoint, Http, Kind, Probe, ProbeKind, Unit, diagnose, parse, quantity};

/// The shortest period and time-out.
const SHORTEST: Duration = Duration::from_millis(10);

/// The longest path of a Unix socket, in bytes (unix(7), less the NUL).
const UNIX_PATH: usize = 107;

const KINDS: [(ProbeKind, &str); 3] =
    [(ProbeKind::Liveness, "liveness"), (ProbeKind::Readiness, "readiness"), (ProbeKind::Startup, "startup")];

/// Reads all of them into the unit, whose type and ports are known.
pub(super) fn all(cx: &mut Context<'_>, fields: &Fields<'_>, unit: &mut Unit) {
    for (kind, name) in KINDS {
        let Some(field) = fields.get(name) else { continue };
        let table = fields.table(name);
        if table.is_empty() {
            continue;
        }
        match unit.kind {
            Kind::Simple => {
                let probe = probe(cx, &table, &field, kind, &unit.ports).map(Arc::new);
                match kind {
                    ProbeKind::Liveness => unit.liveness = probe,
                    ProbeKind::Readiness => unit.readiness = probe,
                    ProbeKind::Startup => unit.startup = probe,
                }
            }
            // A default for all is no contradiction of what one unit says.
            Kind::Oneshot if !field.default => {
                let help = "take it out, or write type = \"simple\"".to_owned();
                cx.error(field.key, "a oneshot cannot have probes".to_owned(), Some(help));
            }
            // That a group has none is said with its other keys.
            Kind::Oneshot | Kind::Group => {}
        }
    }
}

fn probe(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    table: &Field<'_>,
    kind: ProbeKind,
    ports: &BTreeMap<String, u16>,
) -> Option<Probe> {
    let check = check(cx, fields, table, ports);
    // The numbers are read in any case: what is wrong with them is to be said too.
    let mut probe = Probe::new(check.clone().unwrap_or(Check::Exec { command: Vec::new() }));
    if let Some(delay) = fields.get("initial_delay").and_then(|field| field.duration(cx)) {
        probe.initial_delay = delay;
    }
    time(cx, fields, "period", &mut probe.period);
    time(cx, fields, "timeout", &mut probe.timeout);
    threshold(cx, fields, "success_threshold", &mut probe.success_threshold);
    threshold(cx, fields, "failure_threshold", &mut probe.failure_threshold);
    if let Some(field) = fields.get("success_threshold")
        && kind == ProbeKind::Liveness
        && probe.success_threshold > 1
    {
        let message =
            "`liveness.success_threshold` above 1 changes nothing: a process that failed is replaced";
        cx.warning(&field.node.at, message.to_owned(), Some("take it out".to_owned()));
    }
    if let Some(field) = fields.get("stop_timeout") {
        match kind {
            ProbeKind::Readiness => {
                let message =
                    "`readiness.stop_timeout` must not be set: a readiness probe stops nothing".to_owned();
                cx.error(field.key, message, Some("take it out".to_owned()));
            }
            ProbeKind::Liveness | ProbeKind::Startup => match field.duration(cx) {
                Some(Duration::ZERO) => {
                    field.error(cx, format!("`{}` must be greater than 0", field.path), None);
                }
                timeout => probe.stop_timeout = timeout,
            },
        }
    }
    check.map(|_| probe)
}

/// A period or time-out, where 0 means the default.
fn time(cx: &mut Context<'_>, fields: &Fields<'_>, key: &str, into: &mut Duration) {
    let Some(field) = fields.get(key) else { return };
    match field.duration(cx) {
        None | Some(Duration::ZERO) => {}
        Some(short) if short < SHORTEST => {
            let shortest = quantity::duration_text(SHORTEST);
            field.error(cx, format!("`{}` must be {shortest} or more", field.path), None);
        }
        Some(duration) => *into = duration,
    }
}

/// A threshold, where 0 means the default.
fn threshold(cx: &mut Context<'_>, fields: &Fields<'_>, key: &str, into: &mut u32) {
    let Some(field) = fields.get(key) else { return };
    let range = match field.node.value {
        Value::Integer(number) if number < 0 => "must be greater than or equal to 0",
        _ => "must be at most 2147483647",
    };
    match field.integer(cx, 0, i32::MAX.into(), range) {
        None | Some(0) => {}
        Some(number) => *into = number,
    }
}

/// The handler: exactly one.
fn check(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    table: &Field<'_>,
    ports: &BTreeMap<String, u16>,
) -> Option<Check> {
    let mut handlers: Vec<(&str, Field<'_>)> =
        ["http", "tcp", "exec", "grpc"].into_iter().filter_map(|key| Some((key, fields.get(key)?))).collect();
    if handlers.iter().any(|(_, handler)| !handler.default) {
        handlers.retain(|(_, handler)| !handler.default);
    }
    handlers.sort_unstable_by_key(|(_, handler)| (handler.key.source.rank, handler.key.span.start));
    for (_, second) in handlers.iter().skip(1) {
        let message = format!("`{}` may not specify more than 1 handler type", fields.path);
        cx.error(second.key, message, Some("keep one of http, tcp and exec".to_owned()));
    }
    let Some((key, place)) = handlers.first() else {
        // Defaults for the numbers of probes make no probe.
        if !table.default && !cx.partial {
            let message = format!("`{}` must specify a handler type", fields.path);
            cx.error(table.key, message, Some("add one of http, tcp and exec".to_owned()));
        }
        return None;
    };
    let handler = fields.table(key);
    if handler.is_empty() {
        return None;
    }
    match *key {
        "http" => http(cx, &handler, place, ports).map(Check::Http),
        "tcp" => endpoint(cx, &handler, place, ports).map(Check::Tcp),
        "exec" => exec(cx, &handler, place),
        // Refused by the walk over the keys.
        _ => None,
    }
}

fn exec(cx: &mut Context<'_>, fields: &Fields<'_>, handler: &Field<'_>) -> Option<Check> {
    match fields.get("command") {
        Some(field) => parse::argv(&field, cx).map(|command| Check::Exec { command }),
        None => {
            missing(cx, handler, "a `command`");
            None
        }
    }
}

fn missing(cx: &mut Context<'_>, handler: &Field<'_>, what: &str) {
    if !cx.partial {
        cx.error(handler.key, format!("`{}` must have {what}", handler.path), None);
    }
}

fn http(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    handler: &Field<'_>,
    ports: &BTreeMap<String, u16>,
) -> Option<Http> {
    let endpoint = endpoint(cx, fields, handler, ports);
    let mut path = fields.get("path").and_then(|field| http_path(&field, cx)).unwrap_or_default();
    if path.is_empty() {
        path = "/".to_owned();
    }
    let tls = fields.get("scheme").and_then(|field| scheme(&field, cx)).unwrap_or(false);
    let headers = fields.get("headers").and_then(|field| headers(&field, cx)).unwrap_or_default();
    endpoint.map(|endpoint| Http { endpoint, path, tls, headers })
}

fn http_path(field: &Field<'_>, cx: &mut Context<'_>) -> Option<String> {
    let path = field.string(cx, "a path")?;
    if path.contains(char::is_control) {
        field.error(cx, format!("`{}` must not hold control characters", field.path), None);
        return None;
    }
    Some(path)
}

fn scheme(field: &Field<'_>, cx: &mut Context<'_>) -> Option<bool> {
    let scheme = field.string(cx, "\"http\" or \"https\"")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some(false),
        "https" => Some(true),
        _ => {
            let message = format!("`{}` must be \"http\" or \"https\", not \"{scheme}\"", field.path);
            field.error(cx, message, None);
            None
        }
    }
}

/// A table of strings, or of lists of strings where a name repeats.
fn headers(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Vec<(String, String)>> {
    let Value::Table(table) = &field.node.value else {
        field.wrong(cx, "a table", "write headers = { Name = \"value\" }");
        return None;
    };
    let mut found = Vec::new();
    for (name, entry) in table.in_order() {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let message = format!(
                "`{name}` is no header: a valid HTTP header must consist of alphanumeric characters or '-'"
            );
            cx.error(&entry.key, message, None);
            continue;
        }
        let value = Field::new(super::schema::join(&field.path, name), entry);
        let values = match &entry.node.value {
            Value::Array(_) => value.items(cx, "a string").unwrap_or_default(),
            _ => vec![value],
        };
        for value in values {
            let Some(text) = value.string(cx, "a string") else { continue };
            if text.contains(|c: char| c.is_control() && c != '\t') {
                let message = format!("`{}` must not hold line ends or other control characters", value.path);
                value.error(cx, message, None);
                continue;
            }
            found.push((name.to_owned(), text));
        }
    }
    Some(found)
}

/// `port` with perhaps `host`, or `unix`.
fn endpoint(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    handler: &Field<'_>,
    ports: &BTreeMap<String, u16>,
) -> Option<Endpoint> {
    let (port, unix, host) = (fields.get("port"), fields.get("unix"), fields.get("host"));
    let host_name = host.as_ref().and_then(|host| host_name(host, cx));
    // What the unit says itself goes before what the defaults say.
    let (port, unix) = match (port, unix) {
        (Some(port), Some(unix)) if port.default != unix.default => {
            if port.default {
                (None, Some(unix))
            } else {
                (Some(port), None)
            }
        }
        both => both,
    };
    match (port, unix) {
        (Some(_), Some(unix)) => {
            let message = format!("`{}` has both a `port` and a `unix` socket", fields.path);
            cx.error(unix.key, message, Some("keep one of them".to_owned()));
            None
        }
        (None, Some(unix)) => {
            if let Some(host) = host.filter(|host| !host.default) {
                let message = format!("`{}` has a `host`, which a `unix` socket has not", fields.path);
                cx.error(host.key, message, Some("take one of them out".to_owned()));
            }
            unix_path(&unix, cx).map(Endpoint::Unix)
        }
        (Some(port), None) => {
            let (port, port_name) = port_number(&port, cx, ports)?;
            Some(Endpoint::Port { host: host_name, port, port_name })
        }
        (None, None) => {
            missing(cx, handler, "`port` or `unix`");
            None
        }
    }
}

fn unix_path(field: &Field<'_>, cx: &mut Context<'_>) -> Option<PathBuf> {
    let path = field.path(cx)?;
    if path.as_os_str().len() > UNIX_PATH {
        field.error(cx, format!("`{}` is longer than {UNIX_PATH} bytes", field.path), None);
        return None;
    }
    Some(path)
}

fn host_name(field: &Field<'_>, cx: &mut Context<'_>) -> Option<String> {
    let host = field.string(cx, "a host name or address")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '@' | '[' | ']');
    let colons = bare.matches(':').count();
    if bare.is_empty() || bare.contains(odd) || !bare.is_ascii() || colons == 1 {
        let message = format!("`{}` must be a host name or an address, not \"{host}\"", field.path);
        let help = match (colons, bare.is_ascii()) {
            (1, _) => Some("give the port as `port`".to_owned()),
            (_, false) => Some("write its ASCII form, which begins with xn--".to_owned()),
            (_, true) => None,
        };
        field.error(cx, message, help);
        return None;
    }
    Some(bare.to_owned())
}

/// A number, or a name of `ports`.
fn port_number(
    field: &Field<'_>,
    cx: &mut Context<'_>,
    ports: &BTreeMap<String, u16>,
) -> Option<(u16, Option<String>)> {
    let Value::String(_) = field.node.value else {
        return field
            .integer(cx, 1, 65535, "must be between 1 and 65535, inclusive")
            .map(|port| (port, None));
    };
    let name = field.string(cx, "a port")?;
    if let Some(port) = ports.get(&name) {
        return Some((*port, Some(name)));
    }
    if cx.partial {
        return None;
    }
    let help = match name.parse::<u16>() {
        Ok(number) => Some(format!("write {number} without quotes")),
        Err(_) => match diagnose::nearest(&name, ports.keys().map(String::as_str)) {
            Some(near) => Some(format!("did you mean \"{near}\"?")),
            None => Some(format!("write a number, or add ports = {{ {name} = 80 }}")),
        },
    };
    field.error(cx, format!("`{}`: no port is named \"{name}\" in `ports`", field.path), help);
    None
}

/// `ports`: names that a probe may use.
pub(super) fn ports(field: &Field<'_>, cx: &mut Context<'_>) -> Option<BTreeMap<String, u16>> {
    let Value::Table(table) = &field.node.value else {
        field.wrong(cx, "a table", "write ports = { http = 80 }");
        return None;
    };
    let mut found = BTreeMap::new();
    for (name, entry) in table.in_order() {
        if !is_port_name(name) {
            let message = format!("`{name}` is no name of a port");
            let help = "use at most 15 of a-z, 0-9 and single inner -, with at least one letter".to_owned();
            cx.error(&entry.key, message, Some(help));
            continue;
        }
        let port = Field::new(format!("ports.{name}"), entry);
        if let Some(port) = port.integer(cx, 1, 65535, "must be between 1 and 65535, inclusive") {
            found.insert(name.to_owned(), port);
        }
    }
    Some(found)
}

fn is_port_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl Probe {
    /// As `describe` prints it (PROBES 13): `http-get http://:80/ delay=0s timeout=1s period=3s #success=1
    /// #failure=3`. A Unix socket stands with its path: `http-get http://unix:/run/a.sock:/`.
    pub fn spec(&self) -> String {
        let check = match &self.check {
            Check::Exec { command } => format!("exec [{}]", command.join(" ")),
            Check::Tcp(endpoint) => format!("tcp-socket {}", place(endpoint)),
            Check::Http(http) => {
                let scheme = if http.tls { "https" } else { "http" };
                let slash = if http.path.starts_with('/') { "" } else { "/" };
                let between = if matches!(http.endpoint, Endpoint::Unix(_)) { ":" } else { "" };
                format!("http-get {scheme}://{}{between}{slash}{}", place(&http.endpoint), http.path)
            }
        };
        let [delay, timeout, period] =
            [self.initial_delay, self.timeout, self.period].map(quantity::duration_text);
        let (success, failure) = (self.success_threshold, self.failure_threshold);
        format!(
            "{check} delay={delay} timeout={timeout} period={period} #success={success} #failure={failure}"
        )
    }
}

fn place(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
        Endpoint::Port { host, port, port_name } => {
            let host = match host.as_deref() {
                Some(host) if host.contains(':') => format!("[{host}]"),
                Some(host) => host.to_owned(),
                None => String::new(),
            };
            match port_name {
                Some(name) => format!("{host}:{name}"),
                None => format!("{host}:{port}"),
            }
        }
    }
}
