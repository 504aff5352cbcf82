//! Header fields on their way through: what an intermediary removes, replaces and adds.
//!
//! Pure functions over a header map, so that each rule stands beside its section of RFC 9110.

use base64::prelude::{BASE64_STANDARD, Engine};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

/// Not registered, but sent by clients since the nineties; never meant for the upstream.
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");

/// Fields that concern one connection, whether `Connection` nominates them or not.
const CONNECTION_SPECIFIC: [HeaderName; 8] = [
    PROXY_CONNECTION,
    KEEP_ALIVE,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHORIZATION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHENTICATION_INFO,
];

/// What a message said about its own connection, read before those fields were removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The protocols of `Upgrade`, where `Connection` nominates it (RFC 9110 §7.8) and none of them is HTTP or TLS.
    pub upgrade: Option<HeaderValue>,
    /// Whether a protocol besides `websocket` is among them.
    pub beyond_websocket: bool,
    /// `TE: trailers`: the sender can take trailer fields (RFC 9110 §10.1.4).
    pub takes_trailers: bool,
    /// The content came in chunks: its length is not known in advance.
    pub chunked: bool,
    /// The sender closes the connection behind this message (RFC 9112 §9.6).
    pub closes: bool,
}

/// Removes every field that is meant for this connection only and returns what they said.
///
/// RFC 9110 §7.6.1: the fields that `Connection` nominates, then `Connection` itself and the
/// fields that are connection-specific whether nominated or not. `Proxy-Authorization` is
/// consumed (§11.7.2), and an upstream's `Proxy-Authenticate` is not ours to pass on (§11.7.1).
pub fn take_hop_by_hop(headers: &mut HeaderMap) -> Hop {
    let mut hop = Hop {
        chunked: headers.contains_key(TRANSFER_ENCODING),
        takes_trailers: lists(headers, &TE, b"trailers"),
        upgrade: None,
        beyond_websocket: false,
        closes: false,
    };
    if headers.contains_key(CONNECTION) {
        hop.closes = lists(headers, &CONNECTION, b"close");
        if lists(headers, &CONNECTION, b"upgrade") && !protocols(headers).any(carries_requests) {
            hop.upgrade = headers.get(UPGRADE).cloned();
            hop.beyond_websocket =
                protocols(headers).any(|name| !name.eq_ignore_ascii_case(b"websocket"));
        }
        for name in nominated(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    // Most messages have none of these, and comparing names is cheaper than looking each one up.
    if headers
        .keys()
        .any(|name| CONNECTION_SPECIFIC.contains(name))
    {
        for name in CONNECTION_SPECIFIC {
            headers.remove(name);
        }
    }
    hop
}

/// Writes the hop-by-hop fields of the next connection.
///
/// The length of chunked content is stated as chunked again; hyper would otherwise take a
/// chunked `GET` for one without content.
pub fn put_hop_by_hop(headers: &mut HeaderMap, hop: Hop) {
    if hop.chunked {
        // RFC 9112 §6.2: never both.
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let upgrades = hop.upgrade.is_some();
    if let Some(protocols) = hop.upgrade {
        headers.insert(UPGRADE, protocols);
    }
    if hop.takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let options = match (upgrades, hop.takes_trailers) {
        (true, true) => "upgrade, te",
        (true, false) => "upgrade",
        (false, true) => "te",
        (false, false) => return,
    };
    headers.insert(CONNECTION, HeaderValue::from_static(options));
}

/// Appends this hop to `Via` under a pseudonym (RFC 9110 §7.6.3).
pub fn append_via(headers: &mut HeaderMap, version: Version, via: &Via) {
    headers.append(VIA, via.value(version));
}

/// The `Via` entries of this gateway, made once: one a protocol version.
#[derive(Clone, Debug)]
pub struct Via {
    http_11: HeaderValue,
    http_10: HeaderValue,
}

impl Via {
    /// The entries for a pseudonym.
    ///
    /// # Errors
    /// When the pseudonym cannot stand in a header field.
    pub fn new(pseudonym: &str) -> Result<Self, http::header::InvalidHeaderValue> {
        Ok(Self {
            http_11: HeaderValue::try_from(format!("1.1 {pseudonym}"))?,
            http_10: HeaderValue::try_from(format!("1.0 {pseudonym}"))?,
        })
    }

    fn value(&self, version: Version) -> HeaderValue {
        if version == Version::HTTP_10 {
            self.http_10.clone()
        } else {
            self.http_11.clone()
        }
    }
}

/// Whether exactly one `Host` field is there where the version demands it.
///
/// RFC 9112 §3.2: an HTTP/1.1 request without `Host`, or any with more than one, or with an
/// invalid one, is answered 400. What it says is otherwise ignored: the target decides (§3.2.2).
#[must_use]
pub fn host_is_sound(headers: &HeaderMap, version: Version) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => is_uri_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// `uri-host [ ":" port ]`, or empty for a target without authority (RFC 9110 §7.2).
fn is_uri_host(value: &[u8]) -> bool {
    value.iter().all(|byte| {
        byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte) || !byte.is_ascii()
    })
}

/// Whether the content is framed in a way that has one reading.
///
/// RFC 9112 §6.1: a recipient refuses a transfer coding it does not understand. Codings besides
/// `chunked` belong to one connection, and would reach the next one undeclared.
#[must_use]
pub fn framing_is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a length stands beside chunks, which override it.
///
/// RFC 9112 §6.1: it may be an attempt to hide a message in another one, so that nothing more is read behind it.
#[must_use]
pub fn framing_is_doubled(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH)
}

/// The user name of `Proxy-Authorization: Basic` (RFC 7617 §2), where there is a sound one.
#[must_use]
pub fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(PROXY_AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let credentials = BASE64_STANDARD.decode(rest.trim_ascii()).ok()?;
    let user = credentials.split(|byte| *byte == b':').next()?;
    String::from_utf8(user.to_vec())
        .ok()
        .filter(|user| !user.is_empty())
}

/// What to do with `Max-Forwards` of a `TRACE` or `OPTIONS` (RFC 9110 §7.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwards {
    /// Pass the request on.
    On,
    /// The gateway is its final recipient.
    Here,
    /// The value is not a number.
    Invalid,
}

/// Counts `Max-Forwards` down.
pub fn count_forwards(headers: &mut HeaderMap) -> Forwards {
    let Some(value) = headers.get(http::header::MAX_FORWARDS) else {
        return Forwards::On;
    };
    let parsed = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match parsed.and_then(|text| text.parse::<u32>().ok()) {
        None => Forwards::Invalid,
        Some(0) => Forwards::Here,
        Some(left) => {
            headers.insert(http::header::MAX_FORWARDS, HeaderValue::from(left - 1));
            Forwards::On
        }
    }
}

/// The names of the protocols of `Upgrade`, without their versions; a protocol may be named several times.
fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    tokens(headers, &UPGRADE).map(|protocol| {
        let name = protocol.split(|byte| b"/; \t".contains(byte)).next();
        name.unwrap_or(protocol)
    })
}

/// Whether a client could ask for hosts and paths within a protocol that no rule has judged: in HTTP of any
/// version (RFC 9113 §3.1: `h2c` is obsolete), or in TLS, which has HTTP in it (RFC 2817 §3).
fn carries_requests(protocol: &[u8]) -> bool {
    [&b"http"[..], b"h2", b"tls"].iter().any(|family| {
        protocol
            .get(..family.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(family))
    })
}

/// The field names that `Connection` nominates.
///
/// A name that is no token cannot be a field that was parsed, so it is passed over.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &CONNECTION)
        .filter(|token| {
            // The usual options name no field, or one that is removed in any case.
            ![&b"close"[..], b"keep-alive", b"upgrade", b"te"]
                .iter()
                .any(|option| token.eq_ignore_ascii_case(option))
        })
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect()
}

/// Whether a comma-separated field contains a token; parameters after `;` are ignored.
fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &[u8]) -> bool {
    tokens(headers, name).any(|token| {
        let token = token.split(|byte| *byte == b';').next().unwrap_or(token);
        token.trim_ascii().eq_ignore_ascii_case(wanted)
    })
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests;
