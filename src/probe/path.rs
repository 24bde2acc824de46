//! A probe's `path` as it goes on the wire, by the rules of Go's `url.Parse` and `URL.RequestURI`.

use percent_encoding::{
    AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode,
};

/// What Go escapes in a path: all but letters, digits and these.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// What must not stand in a request line as it is. All else in a query is kept as written.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');

/// The path and query of the request: a leading slash is added, the fragment dropped, blanks are encoded,
/// scheme and host of an absolute URL ignored. What is no URL is taken literally: `/%zz` is `/%25zz`.
pub(super) fn request_path(written: &str) -> String {
    let (path, query) = match split(written) {
        Some((path, query)) => (encoded(path), query),
        None => (utf8_percent_encode(written, PATH).to_string(), None),
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    match query {
        Some(query) => format!("{slash}{path}?{}", utf8_percent_encode(query, QUERY)),
        None => format!("{slash}{path}"),
    }
}

/// Path and query of a URL reference; `None` if it is none.
fn split(written: &str) -> Option<(&str, Option<&str>)> {
    if written.chars().any(|c| c.is_ascii_control()) {
        return None;
    }
    let (rest, fragment) = written.split_once('#').unwrap_or((written, ""));
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (scheme, rest) = without_scheme(rest)?;
    let path = match rest.strip_prefix("//") {
        Some(after) if scheme || !after.starts_with('/') => &after[after.find('/').unwrap_or(after.len())..],
        _ => rest,
    };
    (!has_broken_escape(path) && !has_broken_escape(fragment)).then_some((path, query))
}

/// Whether there was a scheme, and what follows it; `None` for `mailto:x` and for a colon in the first
/// segment of a path, which Go refuses.
fn without_scheme(text: &str) -> Option<(bool, &str)> {
    let segment = text.split('/').next().unwrap_or_default();
    let Some((scheme, _)) = segment.split_once(':') else { return Some((false, text)) };
    let rest = &text[scheme.len() + 1..];
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    (named && rest.starts_with('/')).then_some((true, rest))
}

/// A path as written where that is valid, else decoded and encoded anew.
fn encoded(path: &str) -> String {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@[]%/".contains(&byte);
    if path.bytes().all(valid) {
        return path.to_owned();
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    percent_encode(&decoded, PATH).to_string()
}

/// Whether a `%` is not followed by two hexadecimal digits.
pub(super) fn has_broken_escape(text: &str) -> bool {
    let bytes = text.as_bytes();
    let whole = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !(whole(at + 1) && whole(at + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_on_the_wire_as_go_would_send_it() {
        let paths = [
            ("", "/"),
            ("/", "/"),
            ("healthz", "/healthz"),
            ("/healthz?verbose=1&x=%zz", "/healthz?verbose=1&x=%zz"),
            ("/a b?c d", "/a%20b?c%20d"),
            ("/a#fragment", "/a"),
            ("/%zz", "/%25zz"),
            ("/%", "/%25"),
            ("/%zz?a=b", "/%25zz%3Fa=b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2Fb c", "/a/b%20c"),
            ("/grün", "/gr%C3%BCn"),
            ("/it's(ok)*!", "/it's(ok)*!"),
            ("http://evil.example:9/x?y", "/x?y"),
            ("https://evil.example", "/"),
            ("//evil.example/x", "/x"),
            ("mailto:x", "/mailto:x"),
            ("/a:b", "/a:b"),
            ("/a\r\nX: y", "/a%0D%0AX:%20y"),
            ("?q", "/?q"),
        ];
        for (written, sent) in paths {
            assert_eq!(request_path(written), sent, "{written:?}");
        }
    }

    #[test]
    fn every_path_makes_a_request_line() {
        for byte in 0..=255u8 {
            let path = format!("/a{0}b?c{0}d", char::from(byte));
            assert!(request_path(&path).parse::<hyper::http::uri::PathAndQuery>().is_ok(), "{path:?}");
        }
    }
}
