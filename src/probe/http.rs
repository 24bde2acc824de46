//! The http probe: a GET, redirects on the same host followed, and the last status is the verdict.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING,
    USER_AGENT,
};
use tokio::time::{Instant, timeout_at};

use super::dial::Duplex;
use super::exchange::Exchange;
use super::target::{Redirect, Refusal, Target};
use super::text::{escaped, escaped_bytes};
use super::{Fault, Prober, dial};
use crate::engine::Outcome;
use crate::unit::{Endpoint, Http};

/// The requests of one attempt at most.
const MAX_REQUESTS: usize = 10;

/// `uphold-probe/MAJOR.MINOR`, as a kubelet names itself.
const AGENT: &str =
    concat!("uphold-probe/", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// How far an attempt came, for the text of one that failed.
#[derive(Default)]
struct Progress {
    url: String,
    in_body: bool,
}

impl Progress {
    /// What is said at the time-out.
    fn late(&self) -> &'static str {
        if self.in_body {
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
        } else {
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        }
    }
}

/// One attempt.
pub(super) async fn attempt(prober: &Prober, check: &Http, deadline: Instant) -> Outcome {
    let mut progress = Progress::default();
    let end = match timeout_at(deadline, follow(prober, check, deadline, &mut progress)).await {
        Ok(end) => end,
        Err(_) => Err(Fault::Late(String::new())),
    };
    match end {
        Ok(outcome) => outcome,
        Err(fault) => {
            let late = matches!(fault, Fault::Late(_)).then(|| progress.late());
            fault.map(|text| format!("Get \"{}\": {}", progress.url, late.unwrap_or(&text))).outcome()
        }
    }
}

/// Requests, and follows redirects, until there is a verdict.
async fn follow(
    prober: &Prober,
    check: &Http,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<Outcome, Fault> {
    let first = Target::first(check);
    let mut target = first.clone();
    let mut host_goes_along = true;
    let mut sent = 0;
    loop {
        progress.url = target.to_string();
        let request = request(check, &target, host_goes_along)?;
        let stream = connect(prober, check, &target, deadline).await?;
        let exchange = Exchange::open(stream, request).await?;
        sent += 1;
        match onward(&exchange, check, &first, &target, sent, progress)? {
            Some(redirect) => {
                host_goes_along = redirect.relative;
                target = redirect.target;
            }
            None => return verdict(exchange, progress).await,
        }
    }
}

/// Where to go on, if this answer is not the last one.
fn onward(
    exchange: &Exchange,
    check: &Http,
    first: &Target,
    from: &Target,
    sent: usize,
    progress: &mut Progress,
) -> Result<Option<Redirect>, Fault> {
    if !matches!(exchange.status(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = exchange.location() else { return Ok(None) };
    let redirect = match from.redirect(&location) {
        Ok(redirect) => redirect,
        Err(Refusal::Scheme { host, .. }) if !first.is_on(&host) => return Ok(None),
        Err(refusal) => return Err(refusal.fault(&location)),
    };
    let stays = match &check.endpoint {
        Endpoint::Port { .. } => redirect.target.same_host(first),
        // Beyond its own name there is no saying which socket a URL means.
        Endpoint::Unix(_) => redirect.target.same_server(first),
    };
    if stays && sent >= MAX_REQUESTS {
        progress.url = location;
        return Err(Fault::Service(format!("stopped after {MAX_REQUESTS} redirects")));
    }
    Ok(stays.then_some(redirect))
}

/// What the last answer means. A success needs its body, a failure is one without.
async fn verdict(exchange: Exchange, progress: &mut Progress) -> Result<Outcome, Fault> {
    let status = exchange.status();
    progress.in_body = true;
    match status {
        200..=299 => exchange.body().await.map(|_| Outcome::Success),
        300..=399 => {
            let mut text = b"Probe terminated redirects, Response body: ".to_vec();
            text.extend(exchange.body().await?);
            Ok(Outcome::Warning(escaped_bytes(&text)))
        }
        _ => Ok(Outcome::Failure(escaped(&format!("HTTP probe failed with statuscode: {status}")))),
    }
}

/// A new connection to where this request goes.
async fn connect(
    prober: &Prober,
    check: &Http,
    target: &Target,
    deadline: Instant,
) -> Result<Box<dyn Duplex>, Fault> {
    let stream: Box<dyn Duplex> = match &check.endpoint {
        Endpoint::Port { .. } => {
            Box::new(dial::tcp(&prober.names, &target.host, target.port(), deadline).await?)
        }
        Endpoint::Unix(path) => Box::new(dial::unix(path, deadline).await?),
    };
    if !target.tls {
        return Ok(stream);
    }
    Ok(Box::new(prober.tls.handshake(&target.host, stream).await?))
}

/// The request. A Host header of the unit's is sent where `own_host` says so.
fn request(check: &Http, target: &Target, own_host: bool) -> Result<Request<Full<Bytes>>, Fault> {
    let cannot = |what: &str| Fault::Service(format!("net/http: invalid {what}"));
    let mut request = Request::new(Full::default());
    *request.uri_mut() = target.path.parse().map_err(|_| cannot("request path"))?;
    let given = given(check)?;
    let host = given.get(HOST).filter(|host| own_host && !host.is_empty()).cloned();
    let host = match host {
        Some(host) => host,
        None => HeaderValue::from_str(&target.authority()).map_err(|_| cannot("host"))?,
    };
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    for (name, default) in [(USER_AGENT, AGENT), (ACCEPT, "*/*")] {
        if !given.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(default));
        }
    }
    for (name, value) in &given {
        let removes = value.is_empty() && (name == USER_AGENT || name == ACCEPT);
        // What frames the message is not the unit's to say: there is no body.
        if !removes && ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER].contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.append(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// The unit's headers.
fn given(check: &Http) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    for (name, value) in &check.headers {
        let cannot = |what: &str| Fault::Service(format!("net/http: invalid header field {what} \"{name}\""));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| cannot("name"))?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| cannot("value for"))?;
        headers.try_append(key, value).map_err(|_| cannot("name"))?;
    }
    Ok(headers)
}
