//! Why a text is no rule.

use ipnet::IpNet;
use thiserror::Error;

use crate::target::TargetError;

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// There is no text.
    #[error("the rule is empty; write a host, such as api.example.com")]
    Empty,
    /// A rule of the file has no name to account it under.
    #[error("the rule has no name; metrics and logs need one")]
    Unnamed,
    /// A rule of the file names no host.
    #[error("the rule names no host; to mean every host write hosts: [\"*\"]")]
    NoHosts,
    /// `*` in a variable.
    #[error(
        "a bare * would name every host; write it in the policy file as hosts: [\"*\"] if it is meant"
    )]
    BareWildcard,
    /// `*.com`.
    #[error(
        "*.{0} would allow every name that anyone registers under {0}; name the domain, as in *.example.{0}"
    )]
    PublicSuffix(Box<str>),
    /// `a*.example.com`, `a.*.com`.
    #[error("a wildcard stands for whole labels in front; write *.example.com")]
    WildcardInside,
    /// `*.10.0.0.1`.
    #[error("a wildcard cannot stand before an address; write a range, such as 10.0.0.0/8")]
    WildcardAddress,
    /// Port 0.
    #[error("port 0 cannot be connected to; use 1 to 65535, or * for every port")]
    PortZero,
    /// Not a port, a range of ports or `*`.
    #[error("{0:?} is no port; write 8443, 8000-8100 or *")]
    Port(Box<str>),
    /// The last port is below the first.
    #[error("the ports {first}-{last} run backwards; write {last}-{first}")]
    ReversedPorts {
        /// As written first.
        first: u16,
        /// As written last.
        last: u16,
    },
    /// A path cannot be seen inside TLS.
    #[error(
        "https:// cannot be matched, for the gateway does not see inside TLS; write the host alone"
    )]
    Https,
    /// A scheme other than `http`.
    #[error("{0}:// is not a scheme the gateway matches; write the host alone, with a port")]
    Scheme(Box<str>),
    /// A user name in front of the host.
    #[error("a rule carries no user name or password; write the host alone")]
    Userinfo,
    /// `?` in the path.
    #[error("a rule cannot match a query or fragment; end it with the path")]
    Query,
    /// A path that is not in the form it is compared in.
    #[error(
        "the path prefix must begin with / and have no //, dot segments, ; or encoded separators in it"
    )]
    Path,
    /// `api.example.com/v1/`.
    #[error(
        "a path can be matched in plain HTTP alone; write http:// in front, or leave the path out"
    )]
    PathWithoutScheme,
    /// Not an address range.
    #[error("{0:?} is no address range; write 10.20.0.0/16 or [2001:db8::/32]")]
    Range(Box<str>),
    /// `10.20.1.0/16`.
    #[error("the range has bits set beyond its prefix; write {network}")]
    HostBits {
        /// The network the address lies in.
        network: IpNet,
    },
    /// The host could not be a target's.
    #[error(transparent)]
    Host(#[from] TargetError),
}

impl RuleError {
    /// Whether it is about one host of a rule, not about the rule as a whole.
    pub(in crate::policy) fn is_about_host(&self) -> bool {
        matches!(self, Self::PublicSuffix(_))
    }
}
