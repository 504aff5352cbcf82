//! Rules that can never decide anything: denied, shadowed or written twice.
//!
//! What is found is certain; a rule that only several others together leave nothing to is not.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Policy;
use super::host::HostPattern;
use super::rule::{Action, Rule};

/// A host of a rule for which the rule never decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Arc<str>,
    /// Its host that is of no use.
    pub host: HostPattern,
    /// Why.
    pub why: Why,
    /// The rule that is in the way.
    pub by: Arc<str>,
}

/// Why a rule never decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A deny rule refuses all that it would allow.
    Denied,
    /// An earlier rule for the same host matches all that it would.
    Shadowed,
    /// An earlier rule says the very same.
    Duplicate,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, host, by, .. } = self;
        match self.why {
            Why::Denied => write!(
                f,
                "rule `{rule}`: all it allows for {host} is denied by `{by}`"
            ),
            Why::Shadowed => {
                write!(
                    f,
                    "rule `{rule}`: all it says of {host} is decided by `{by}` before it"
                )
            }
            Why::Duplicate => write!(
                f,
                "rule `{rule}`: says the same of {host} as `{by}` before it"
            ),
        }
    }
}

impl Policy {
    /// Every host of every rule for which the rule never decides, in the order of the rules.
    #[must_use]
    pub fn lint(&self) -> Vec<Finding> {
        let denies: Vec<&Rule> = self
            .rules()
            .filter(|rule| rule.action == Action::Deny)
            .collect();
        let mut earlier: HashMap<&HostPattern, Vec<&Rule>> = HashMap::new();
        let mut findings = Vec::new();
        for rule in self.rules() {
            for host in &rule.hosts {
                let before = earlier.entry(host).or_default();
                if let Some((why, by)) = in_the_way(rule, host, before, &denies) {
                    findings.push(Finding {
                        rule: Arc::clone(&rule.name),
                        host: host.clone(),
                        why,
                        by: Arc::clone(&by.name),
                    });
                }
                before.push(rule);
            }
        }
        findings
    }
}

fn in_the_way<'r>(
    rule: &Rule,
    host: &HostPattern,
    before: &[&'r Rule],
    denies: &[&'r Rule],
) -> Option<(Why, &'r Rule)> {
    let same = before
        .iter()
        .find(|other| other.action == rule.action && covers(other, rule));
    if let Some(other) = same {
        let why = if covers(rule, other) {
            Why::Duplicate
        } else {
            Why::Shadowed
        };
        return Some((why, other));
    }
    if rule.action == Action::Deny {
        return None;
    }
    let denied = denies.iter().find(|deny| {
        covers(deny, rule)
            && deny
                .hosts
                .iter()
                .any(|pattern| pattern_covers(pattern, host))
    });
    denied.map(|deny| (Why::Denied, *deny))
}

/// Whether `wide` matches every request that `narrow` does, hosts apart.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let clients = match (&wide.clients, &narrow.clients) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|name| wide.contains(name)),
    };
    let paths = wide.path.is_none() || wide.path == narrow.path;
    // Deny rules speak of every port where they name none.
    let ports = wide.action == Action::Deny && wide.ports == super::Ports::Default
        || wide.ports.covers(&narrow.ports);
    clients && paths && ports
}

fn pattern_covers(wide: &HostPattern, narrow: &HostPattern) -> bool {
    match (wide, narrow) {
        (HostPattern::Any, _) => true,
        (HostPattern::Below(base), HostPattern::Exact(name) | HostPattern::Below(name)) => {
            let is_below = name
                .strip_suffix(&**base)
                .is_some_and(|rest| rest.ends_with('.'));
            is_below || wide == narrow
        }
        (HostPattern::Range(wide), HostPattern::Range(narrow)) => wide.contains(narrow),
        (HostPattern::Exact(_) | HostPattern::Below(_) | HostPattern::Range(_), _) => {
            wide == narrow
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lint(rules: &[(&str, Action)]) -> Vec<(String, Why)> {
        let mut policy = Policy::builder();
        for (rule, action) in rules {
            policy = policy.rule(Rule::parse(rule, *action).unwrap());
        }
        let findings = policy.build().lint();
        findings
            .iter()
            .map(|finding| (finding.rule.to_string(), finding.why))
            .collect()
    }

    #[test]
    fn a_rule_that_nothing_is_left_to_is_found() {
        use Action::{Allow, Deny};
        let found = |rules: &[(&str, Action)], rule: &str, why| {
            assert_eq!(lint(rules), [(rule.to_owned(), why)], "{rules:?}");
        };
        found(
            &[("a.example.com", Allow), ("a.example.com", Allow)],
            "a.example.com",
            Why::Duplicate,
        );
        found(
            &[("a.example.com:*", Allow), ("a.example.com", Allow)],
            "a.example.com",
            Why::Shadowed,
        );
        found(
            &[
                ("a.example.com:8000-8100", Allow),
                ("a.example.com:8080", Allow),
            ],
            "a.example.com:8080",
            Why::Shadowed,
        );
        found(
            &[("a.example.com", Allow), ("*.example.com", Deny)],
            "a.example.com",
            Why::Denied,
        );
        found(
            &[("10.1.0.0/16:80", Allow), ("10.0.0.0/8", Deny)],
            "10.1.0.0/16:80",
            Why::Denied,
        );
    }

    #[test]
    fn a_rule_that_decides_something_is_left_in_peace() {
        use Action::{Allow, Deny};
        for rules in [
            &[("a.example.com", Allow), ("*.example.com", Allow)][..],
            &[("a.example.com:443", Allow), ("a.example.com", Allow)],
            &[("*.example.com", Allow), ("a.example.com", Deny)],
            &[("a.example.com", Allow), ("*.a.example.com", Deny)],
            &[("a.example.com:*", Allow), ("a.example.com:22", Deny)],
            &[
                ("http://a.example.com/v1/", Allow),
                ("a.example.com:443", Allow),
            ],
            &[("notexample.com", Allow), ("*.example.com", Deny)],
        ] {
            assert_eq!(lint(rules), [], "{rules:?}");
        }
    }
}
