//! The host and port a client asked for, in the one form that policy, DNS and logs use.
//!
//! Two spellings of one destination must give equal targets, or a deny rule could be stepped
//! around by writing the name differently. Hence everything that a resolver or a C library would
//! fold together is folded together here, and what cannot be folded is refused.

mod name;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use thiserror::Error;

/// The default port of the `http` scheme (RFC 9110 §4.2.1).
const HTTP_PORT: u16 = 80;

/// A host, normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name: lower case, A-labels (RFC 5890 §2.3.2.1), no trailing dot, at most 253 octets.
    Name(Arc<str>),
    /// An IP address, however it was spelled. An IPv4-mapped IPv6 literal stays IPv6.
    Address(IpAddr),
}

impl Host {
    /// Normalises a host as it stands in an authority: a name, an IPv4 address in any spelling,
    /// or an IPv6 literal in brackets (RFC 3986 §3.2.2).
    ///
    /// # Errors
    ///
    /// Any [`TargetError`] that speaks of the host.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(literal) = text.strip_prefix('[') {
            let literal = literal.strip_suffix(']').ok_or(TargetError::Brackets)?;
            return parse_ipv6(literal).map(|address| Self::Address(IpAddr::V6(address)));
        }
        if text.contains(':') && text.parse::<Ipv6Addr>().is_ok() {
            return Err(TargetError::BareIpv6);
        }
        name::normalise(text)
    }

    /// As telemetry tells an address: without brackets, which OpenTelemetry's conventions do not have.
    #[must_use]
    pub fn without_brackets(&self) -> Cow<'_, str> {
        match self {
            Self::Name(name) => Cow::Borrowed(name),
            Self::Address(address) => Cow::Owned(address.to_string()),
        }
    }
}

impl fmt::Display for Host {
    /// As in an authority: an IPv6 address stands in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Where a client wants to go: a normalised host and a port that is not 0.
///
/// Displays as an authority, `api.example.com:443` or `[2001:db8::1]:443`, which
/// [`Target::from_authority`] reads back to an equal target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: Host,
    port: u16,
}

impl Target {
    /// Reads the authority-form of a `CONNECT` (RFC 9112 §3.2.3): `host:port`, the port required.
    ///
    /// # Errors
    ///
    /// What is wrong with the authority. RFC 9110 §9.3.6 has an empty or invalid port refused
    /// with 400.
    pub fn from_authority(authority: &str) -> Result<Self, TargetError> {
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(text) if !text.is_empty() => parse_port(text)?,
            Some(_) | None => return Err(TargetError::MissingPort),
        };
        let host = Host::parse(host)?;
        Ok(Self { host, port })
    }

    /// Reads scheme and authority of an absolute-form request target (RFC 9112 §3.2.2).
    /// Without a port, or with an empty one (RFC 3986 §3.2.3), it is 80.
    ///
    /// # Errors
    ///
    /// What is wrong with the authority, or that the scheme is not `http`.
    pub fn from_absolute(scheme: &str, authority: &str) -> Result<Self, TargetError> {
        if scheme.eq_ignore_ascii_case("https") {
            return Err(TargetError::Https);
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(TargetError::UnsupportedScheme);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(text) if !text.is_empty() => parse_port(text)?,
            Some(_) | None => HTTP_PORT,
        };
        let host = Host::parse(host)?;
        Ok(Self { host, port })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, 1 to 65535.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `Host` field of a plain HTTP request to this target (RFC 9110 §7.2): the
    /// port is left out when it is 80. A proxy regenerates the field (RFC 9112 §3.2.2).
    #[must_use]
    pub fn host_field(&self) -> String {
        if self.port == HTTP_PORT {
            self.host.to_string()
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a request target names no destination. Each is answered with 400; the message is meant for
/// the client's owner and repeats nothing of the request but a single character.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// RFC 9110 §4.2.4.
    #[error(
        "the target carries a user name or password; put credentials into the proxy URL or a header"
    )]
    Userinfo,
    /// Nothing stands where the host should.
    #[error("the target has no host; write host:port")]
    EmptyHost,
    /// RFC 9110 §9.3.6.
    #[error("the target has no port; a CONNECT names one, as in api.example.com:443")]
    MissingPort,
    /// Port 0 is no destination.
    #[error("port 0 cannot be connected to; use the port the service listens on")]
    PortZero,
    /// The port does not fit in 16 bits.
    #[error("the port is larger than 65535; use the port the service listens on")]
    PortTooLarge,
    /// The port is not a decimal number.
    #[error("the port is not a number; write digits alone after the last colon")]
    BadPort,
    /// RFC 3986 §3.2.2 has IPv6 in brackets, for where the port begins cannot be told otherwise.
    #[error("an IPv6 address stands without brackets; write [2001:db8::1]:443")]
    BareIpv6,
    /// What is in the brackets is not IPv6.
    #[error(
        "brackets stand round something that is not an IPv6 address; write names and IPv4 addresses without them"
    )]
    NotIpv6,
    /// A bracket is missing, or text follows the closing one.
    #[error("the brackets round the IPv6 address are incomplete; write [2001:db8::1]:443")]
    Brackets,
    /// RFC 6874: a zone means something on one host only, and the gateway is another.
    #[error("the IPv6 address has a zone id, which means nothing beyond one host; leave it out")]
    ZoneId,
    /// A control character or white space.
    #[error("the host has a space or control character in it; remove it")]
    SpaceOrControl,
    /// RFC 3986 §3.2.2 permits percent-encoding in a reg-name; DNS knows none.
    #[error("the host is percent-encoded; write the name itself")]
    Percent,
    /// Another character that no host name has.
    #[error("the host has the character {0:?} in it, which no host name has; remove it")]
    BadCharacter(char),
    /// Two dots in a row, a dot in front, or two at the end.
    #[error(
        "the host has an empty label; write single dots between labels and at most one at the end"
    )]
    EmptyLabel,
    /// RFC 1035 §2.3.4.
    #[error("a label of the host is longer than 63 octets; check the name")]
    LabelTooLong,
    /// RFC 1035 §2.3.4: 255 octets on the wire are 253 in text.
    #[error("the host is longer than 253 octets; check the name")]
    NameTooLong,
    /// UTS #46, RFC 5891 §5.
    #[error("the host is not a valid internationalised name (UTS #46); check its spelling")]
    Idna,
    /// The last label is a number, yet the whole is no IPv4 address.
    #[error(
        "the host ends in a number but is not an IPv4 address; write four numbers from 0 to 255"
    )]
    BadIpv4,
    /// TLS through an absolute-form request would have the gateway see the plain text.
    #[error(
        "https is not forwarded as an absolute URL; have the client open a tunnel with CONNECT"
    )]
    Https,
    /// Neither `http` nor `https`.
    #[error(
        "only http is forwarded as an absolute URL; open a tunnel with CONNECT for anything else"
    )]
    UnsupportedScheme,
}

/// Splits an authority into host and port text. No host parses with a `:` left in it.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), TargetError> {
    if authority.contains('@') {
        return Err(TargetError::Userinfo);
    }
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(TargetError::Brackets)? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(TargetError::Brackets),
        };
    }
    let Some((host, port)) = authority.rsplit_once(':') else {
        return Ok((authority, None));
    };
    if host.contains(':') {
        let colons_are_ipv6 =
            authority.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok();
        return Err(if colons_are_ipv6 {
            TargetError::BareIpv6
        } else {
            TargetError::BadPort
        });
    }
    if host.is_empty() {
        return Err(TargetError::EmptyHost);
    }
    Ok((host, Some(port)))
}

/// `port = *DIGIT` (RFC 3986 §3.2.3): no sign, leading zeros allowed.
pub(crate) fn parse_port(text: &str) -> Result<u16, TargetError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TargetError::BadPort);
    }
    let value = text.bytes().fold(0_u32, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(u32::from(digit - b'0'))
    });
    match u16::try_from(value) {
        Ok(0) => Err(TargetError::PortZero),
        Ok(port) => Ok(port),
        Err(_) => Err(TargetError::PortTooLarge),
    }
}

fn parse_ipv6(literal: &str) -> Result<Ipv6Addr, TargetError> {
    if literal.contains('%') {
        return Err(TargetError::ZoneId);
    }
    literal.parse().map_err(|_| TargetError::NotIpv6)
}

#[cfg(test)]
mod tests;
