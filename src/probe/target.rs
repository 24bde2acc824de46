//! Where a request goes, and where a redirect sends it.

use std::fmt;

use url::{ParseError, Url};

use super::Fault;
use super::path::{has_broken_escape, request_path};
use super::tcp::bare;
use crate::unit::{DEFAULT_HOST, Endpoint, Http};

/// The URL of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The scheme is https.
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    /// `None`: the scheme's own, and not shown.
    port: Option<u16>,
    /// Path and query, encoded, with a leading slash.
    pub(super) path: String,
}

/// What a Location says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    /// The next request.
    pub(super) target: Target,
    /// It named no scheme: a Host header that was given goes on to it.
    pub(super) relative: bool,
}

impl Target {
    /// The first request of a probe. A Unix socket is called localhost.
    pub(super) fn first(check: &Http) -> Target {
        let (host, port) = match &check.endpoint {
            Endpoint::Port { host, port, .. } => (bare(host.as_deref().unwrap_or(DEFAULT_HOST)), Some(*port)),
            Endpoint::Unix(_) => ("localhost", None),
        };
        Target { tls: check.tls, host: host.to_owned(), port, path: request_path(&check.path) }
    }

    /// The port to connect to.
    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// What a Host header says by default: `127.0.0.1:80`, `[::1]:80`, `localhost`.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// Whether both name the same host. Ports and schemes may differ, and letters their case.
    pub(super) fn same_host(&self, other: &Target) -> bool {
        self.is_on(&other.host)
    }

    /// Whether this is its host.
    pub(super) fn is_on(&self, host: &str) -> bool {
        self.host.eq_ignore_ascii_case(host)
    }

    /// Whether both are served at the same place.
    pub(super) fn same_server(&self, other: &Target) -> bool {
        self.same_host(other) && self.port() == other.port() && self.tls == other.tls
    }

    /// Where a Location sends this request.
    pub(super) fn redirect(&self, location: &str) -> Result<Redirect, Refusal> {
        let base = Url::parse(&self.to_string()).map_err(Refusal::Unreadable)?;
        let relative = matches!(Url::parse(location), Err(ParseError::RelativeUrlWithoutBase));
        let before_query = location.split(['?', '#']).next().unwrap_or_default();
        if has_broken_escape(before_query) {
            return Err(Refusal::Escape);
        }
        let url = base.join(location).map_err(Refusal::Unreadable)?;
        let host = self.host_of(&base, &url);
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(Refusal::Scheme { scheme: other.to_owned(), host }),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let mut target = Target { tls, host, port: url.port(), path };
        if target.same_server(self) {
            target.port = self.port;
        }
        Ok(Redirect { target, relative })
    }

    /// The host of a URL; as this request writes it where it is this request's.
    fn host_of(&self, base: &Url, url: &Url) -> String {
        if url.host() == base.host() {
            return self.host.clone();
        }
        bare(url.host_str().unwrap_or_default()).to_owned()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Why a Location leads nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It is no URL.
    #[error("{0}")]
    Unreadable(ParseError),
    /// A `%` in it is followed by no two digits.
    #[error("invalid URL escape")]
    Escape,
    /// Its scheme is not of the web.
    #[error("unsupported protocol scheme \"{scheme}\"")]
    Scheme {
        /// Which.
        scheme: String,
        /// The host that it names.
        host: String,
    },
}

impl Refusal {
    /// The fault of a response that says this Location.
    pub(super) fn fault(&self, location: &str) -> Fault {
        Fault::Service(match self {
            Refusal::Unreadable(_) | Refusal::Escape => {
                format!("failed to parse Location header {location:?}: {self}")
            }
            Refusal::Scheme { .. } => self.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target { tls: false, host: host.to_owned(), port: Some(port), path: "/a/b?c".to_owned() }
    }

    #[test]
    fn a_url_shows_its_port_and_brackets() {
        assert_eq!(target("127.0.0.1", 80).to_string(), "http://127.0.0.1:80/a/b?c");
        assert_eq!(target("::1", 80).authority(), "[::1]:80");
    }

    #[test]
    fn a_location_is_resolved_against_the_request() {
        let cases = [
            ("d", "http://127.0.0.1:8080/a/d", true),
            ("/d e", "http://127.0.0.1:8080/d%20e", true),
            ("?x", "http://127.0.0.1:8080/a/b?x", true),
            ("//other/x", "http://other/x", true),
            ("https://127.0.0.1/x#f", "https://127.0.0.1/x", false),
            ("http://[::1]:9/", "http://[::1]:9/", false),
        ];
        for (location, url, relative) in cases {
            let redirect = target("127.0.0.1", 8080).redirect(location).unwrap();
            assert_eq!((redirect.target.to_string().as_str(), redirect.relative), (url, relative));
        }
    }

    #[test]
    fn a_port_that_was_written_stays_written() {
        let redirect = target("127.0.0.1", 80).redirect("/x").unwrap();
        assert_eq!(redirect.target.authority(), "127.0.0.1:80");
    }

    #[test]
    fn a_location_that_leads_nowhere_says_why() {
        let from = target("127.0.0.1", 80);
        assert!(matches!(from.redirect("http://[::1"), Err(Refusal::Unreadable(_))));
        assert_eq!(from.redirect("/%zz"), Err(Refusal::Escape));
        let ftp = from.redirect("ftp://127.0.0.1/x").unwrap_err();
        assert_eq!(ftp.to_string(), "unsupported protocol scheme \"ftp\"");
    }
}
