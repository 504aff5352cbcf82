//! The hosts a rule names.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::rule::RuleError;
use crate::target::{Host, TargetError};

/// One host pattern of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `*`: every name. In a deny rule every IP literal too.
    Any,
    /// This name and no other, normalised as in a target.
    Exact(Arc<str>),
    /// `*.example.com`, stored without `*.`: every name below, at any depth, not the name itself.
    Below(Arc<str>),
    /// IP literals in this range.
    Range(IpNet),
}

impl HostPattern {
    /// The public suffix that this pattern covers whole, if it does: `com`, `co.uk`.
    ///
    /// Only suffixes under which registries sell names count (the ICANN section of the Public
    /// Suffix List). Those of companies, such as `githubusercontent.com`, are common in allowlists,
    /// and unlisted top-level domains, such as `internal`, are private.
    #[must_use]
    pub fn public_suffix(&self) -> Option<&str> {
        match self {
            Self::Below(base) if is_public_suffix(base) => Some(base),
            Self::Below(_) | Self::Any | Self::Exact(_) | Self::Range(_) => None,
        }
    }
}

impl FromStr for HostPattern {
    type Err = RuleError;

    /// Reads an entry of a host list: `*`, a name, `*.name`, an address or a CIDR range. No port
    /// can follow, so IPv6 needs no brackets; it may have them.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let bare = unbracketed(text);
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>()
            && (bare.is_none() || address.is_ipv6())
        {
            return Ok(Self::Range(address.into()));
        }
        if bare.unwrap_or(text).contains('/') {
            return parse_range(bare.unwrap_or(text)).map(Self::Range);
        }
        if let Some(base) = text.strip_prefix("*.") {
            return parse_wildcard(base);
        }
        if text.contains('*') {
            return Err(RuleError::WildcardInside);
        }
        Ok(match Host::parse(text)? {
            Host::Name(name) => Self::Exact(name),
            Host::Address(address) => Self::Range(address.into()),
        })
    }
}

impl fmt::Display for HostPattern {
    /// As in a rule: IPv6 stands in brackets, and a range of one address is that address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(base) => write!(f, "*.{base}"),
            Self::Range(net) => {
                let single = net.prefix_len() == net.max_prefix_len();
                match (net, single) {
                    (IpNet::V4(net), true) => net.addr().fmt(f),
                    (IpNet::V4(net), false) => net.fmt(f),
                    (IpNet::V6(net), true) => write!(f, "[{}]", net.addr()),
                    (IpNet::V6(net), false) => write!(f, "[{net}]"),
                }
            }
        }
    }
}

/// Reads a CIDR range whose address is the network's own.
///
/// # Errors
///
/// [`RuleError::HostBits`] names the network that was probably meant.
pub fn parse_range(text: &str) -> Result<IpNet, RuleError> {
    let net: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|_| RuleError::Range(text.into()))?,
    };
    if net.trunc() != net {
        return Err(RuleError::HostBits {
            network: net.trunc(),
        });
    }
    Ok(net)
}

fn unbracketed(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

fn parse_wildcard(base: &str) -> Result<HostPattern, RuleError> {
    if base.contains('*') {
        return Err(RuleError::WildcardInside);
    }
    match Host::parse(base) {
        Ok(Host::Name(base)) => Ok(HostPattern::Below(base)),
        Ok(Host::Address(_)) => Err(RuleError::WildcardAddress),
        Err(TargetError::EmptyHost) => Err(RuleError::BareWildcard),
        Err(error) => Err(error.into()),
    }
}

fn is_public_suffix(base: &str) -> bool {
    // The list is written in Unicode.
    let (unicode, _) = idna::domain_to_unicode(base);
    // Where the list says `*.ck`, it is each name below that is a suffix, and so `ck` as well.
    is_listed(&unicode) || is_listed(&format!("any.{unicode}"))
}

fn is_listed(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| {
        suffix.typ() == Some(psl::Type::Icann) && suffix.as_bytes() == name.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_name_a_wildcard_or_a_range() {
        for (text, expected) in [
            ("*", "*"),
            ("API.Example.com.", "api.example.com"),
            ("*.Bücher.example", "*.xn--bcher-kva.example"),
            ("203.0.113.7", "203.0.113.7"),
            ("0x7f.1", "127.0.0.1"),
            ("10.20.0.0/16", "10.20.0.0/16"),
            ("[2001:db8::/32]", "[2001:db8::/32]"),
            ("2001:db8::/32", "[2001:db8::/32]"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            let pattern = text
                .parse::<HostPattern>()
                .map(|pattern| pattern.to_string());
            assert_eq!(pattern.as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_public_suffix_is_known_and_a_private_one_is_not() {
        for base in [
            "com", "co.uk", "uk", "ck", "any.ck", "xn--p1ai", "kobe.jp", "app",
        ] {
            assert!(is_public_suffix(base), "{base}");
        }
        for base in [
            "example.com",
            "githubusercontent.com",
            "github.io",
            "internal",
            "svc.cluster.local",
            "s3.amazonaws.com",
            "www.ck",
            "city.kobe.jp",
        ] {
            assert!(!is_public_suffix(base), "{base}");
        }
    }
}
