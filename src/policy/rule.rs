//! Rules, and the grammar in which one string writes one.

mod error;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::host::HostPattern;
use super::path::PathPrefix;
use super::ports::Ports;
use crate::target::TargetError;

pub use error::RuleError;

/// What a rule does with a request it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Let it through.
    #[default]
    Allow,
    /// Refuse it, whatever allows it.
    Deny,
}

/// One rule.
///
/// In its string form it has one host: `api.example.com`, `*.example.com:8443`,
/// `10.20.0.0/16:5432`, `[2001:db8::/32]:443`, `http://api.example.com/v1/`. The policy file
/// builds it with [`Rule::new`] and the methods after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) name: Arc<str>,
    pub(super) action: Action,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) ports: Ports,
    pub(super) path: Option<PathPrefix>,
    /// Sorted; `None` is everyone.
    pub(super) clients: Option<Vec<Arc<str>>>,
    pub(super) addresses: Vec<IpNet>,
}

impl Rule {
    /// A rule for these hosts, at the default ports, for every client.
    ///
    /// # Errors
    ///
    /// [`RuleError::Unnamed`] and [`RuleError::NoHosts`]; [`RuleError::PublicSuffix`] where an
    /// allow rule has a wildcard over a whole public suffix.
    pub fn new(
        name: impl Into<Arc<str>>,
        action: Action,
        hosts: Vec<HostPattern>,
    ) -> Result<Self, RuleError> {
        let name = name.into();
        if name.trim().is_empty() {
            return Err(RuleError::Unnamed);
        }
        if hosts.is_empty() {
            return Err(RuleError::NoHosts);
        }
        if action == Action::Allow
            && let Some(suffix) = hosts.iter().find_map(HostPattern::public_suffix)
        {
            return Err(RuleError::PublicSuffix(suffix.into()));
        }
        let (ports, path, clients, addresses) = (Ports::Default, None, None, Vec::new());
        Ok(Self {
            name,
            action,
            hosts,
            ports,
            path,
            clients,
            addresses,
        })
    }

    /// Reads the string form, which is also the rule's name.
    ///
    /// # Errors
    ///
    /// What is wrong with the text and what to write instead; the text itself is not repeated.
    pub fn parse(text: &str, action: Action) -> Result<Self, RuleError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RuleError::Empty);
        }
        let (authority, path) = split_path(text)?;
        if authority.contains('@') {
            return Err(RuleError::Userinfo);
        }
        let (host, ports) = split_ports(authority)?;
        let pattern = parse_host(host)?;
        let mut rule = Self::new(text, action, vec![pattern])?.with_ports(ports);
        rule.path = path;
        Ok(rule)
    }

    /// Only these ports.
    #[must_use]
    pub fn with_ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Only plain HTTP, and only under this path.
    #[must_use]
    pub fn with_path(mut self, path: PathPrefix) -> Self {
        self.path = Some(path);
        self
    }

    /// Only clients of these names.
    #[must_use]
    pub fn with_clients(mut self, clients: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut clients: Vec<_> = clients.into_iter().collect();
        clients.sort_unstable();
        self.clients = Some(clients);
        self
    }

    /// The address guard lets the hosts of the rule resolve into these ranges. In a deny rule
    /// they mean nothing.
    #[must_use]
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = IpNet>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// The name in metrics, logs and traces.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the rule does.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// The hosts the rule names.
    #[must_use]
    pub fn hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// The ports the rule speaks of.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The path under which plain HTTP is let through, if the rule is confined to one.
    #[must_use]
    pub fn path(&self) -> Option<&PathPrefix> {
        self.path.as_ref()
    }

    /// The names of the clients the rule is for, sorted; `None` is everyone.
    #[must_use]
    pub fn clients(&self) -> Option<&[Arc<str>]> {
        self.clients.as_deref()
    }

    /// The ranges for which the rule lifts the address guard.
    #[must_use]
    pub fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    /// Reads an allow rule; see [`Rule::parse`].
    fn from_str(text: &str) -> Result<Self, RuleError> {
        Self::parse(text, Action::Allow)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Splits off scheme and path: `http://host/path`, or neither.
fn split_path(text: &str) -> Result<(&str, Option<PathPrefix>), RuleError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok((text, None));
    };
    if scheme.eq_ignore_ascii_case("https") {
        return Err(RuleError::Https);
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(RuleError::Scheme(scheme.into()));
    }
    if rest.contains(['?', '#']) {
        return Err(RuleError::Query);
    }
    // A `/` within brackets belongs to a range. An IPv4 range has no brackets to tell it from a
    // path, so a rule for one with a path can be written in the policy file alone.
    let after_brackets = rest.find(']').unwrap_or(0);
    let end = rest[after_brackets..]
        .find('/')
        .map_or(rest.len(), |at| after_brackets + at);
    let (authority, path) = rest.split_at(end);
    let path = if path.is_empty() { "/" } else { path };
    Ok((authority, Some(path.parse()?)))
}

fn split_ports(authority: &str) -> Result<(&str, Ports), RuleError> {
    let port_from = authority.find(']').unwrap_or(0);
    let Some(colon) = authority[port_from..].rfind(':').map(|at| port_from + at) else {
        return Ok((authority, Ports::Default));
    };
    let host = &authority[..colon];
    if port_from == 0 && host.contains(':') {
        return Err(TargetError::BareIpv6.into());
    }
    Ok((host, authority[colon + 1..].parse()?))
}

fn parse_host(host: &str) -> Result<HostPattern, RuleError> {
    if host == "*" {
        return Err(RuleError::BareWildcard);
    }
    let is_range = |text: &str| text.parse::<IpNet>().is_ok();
    let starts_like_name = host
        .bytes()
        .any(|byte| byte.is_ascii_alphabetic() || byte == b'*');
    if host.contains('/') && !host.starts_with('[') && starts_like_name && !is_range(host) {
        return Err(RuleError::PathWithoutScheme);
    }
    host.parse()
}

#[cfg(test)]
mod tests;
