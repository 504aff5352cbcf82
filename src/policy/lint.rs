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
    // Deny rules speak of every port where they name none; with a path, only of plain HTTP's.
    let every_port = wide.action == Action::Deny
        && wide.ports == super::Ports::Default
        && (wide.path.is_none() || narrow.action == Action::Allow);
    let ports = every_port || wide.ports.covers(&narrow.ports);
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
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Access, Client};
    use crate::target::Target;

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

    const NAMES: [&str; 4] = [
        "example.com",
        "a.example.com",
        "b.example.com",
        "x.a.example.com",
    ];
    const PATTERNS: [&str; 9] = [
        "*",
        "example.com",
        "a.example.com",
        "*.example.com",
        "*.a.example.com",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.3",
        "::/0",
    ];

    /// A rule over few hosts, ports, paths and clients, so that rules often meet.
    fn any_rule() -> impl Strategy<Value = Rule> {
        let hosts = proptest::collection::vec(proptest::sample::select(&PATTERNS[..]), 1..3);
        let ports = proptest::sample::select(&["", "80", "443", "80-443", "*"][..]);
        let path = proptest::sample::select(&["", "/v1/", "/v1/x/"][..]);
        let clients = proptest::sample::select(&["", "ci", "ci batch"][..]);
        (any::<bool>(), hosts, ports, path, clients).prop_map(
            |(denies, hosts, ports, path, clients)| {
                let action = if denies { Action::Deny } else { Action::Allow };
                let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
                let mut rule = Rule::new("rule", action, hosts).unwrap();
                if !ports.is_empty() {
                    rule = rule.with_ports(ports.parse().unwrap());
                }
                if !path.is_empty() {
                    rule = rule.with_path(path.parse().unwrap());
                }
                if !clients.is_empty() {
                    rule = rule.with_clients(clients.split(' ').map(Arc::from));
                }
                rule
            },
        )
    }

    /// Which rule, by position, decides each of many requests.
    fn decisions(rules: &[Rule]) -> Vec<Option<(bool, String)>> {
        let numbered = (0..).zip(rules).map(|(number, rule)| {
            let mut rule = rule.clone();
            rule.name = format!("{}{number}", rule.name).into();
            rule
        });
        let policy = Arc::new(
            numbered
                .fold(Policy::builder(), |policy, rule| policy.rule(rule))
                .build(),
        );
        let hosts = NAMES
            .iter()
            .chain(&["10.1.2.3", "10.1.9.9", "10.9.9.9", "[::1]"]);
        let mut decisions = Vec::new();
        for host in hosts {
            for port in [80, 443, 8080] {
                let target = Target::from_authority(&format!("{host}:{port}")).unwrap();
                for name in [None, Some("ci"), Some("batch")] {
                    let client = Client {
                        address: [192, 0, 2, 1].into(),
                        name: name.map(Arc::from),
                    };
                    for access in [
                        Access::Connect,
                        Access::Forward { path: "/" },
                        Access::Forward { path: "/v1/" },
                        Access::Forward { path: "/v1/x/y" },
                    ] {
                        let told = policy.explain(&client, &target, access);
                        let decided = told.deciding();
                        decisions.push(
                            decided.map(|rule| (told.verdict().is_ok(), rule.rule.to_string())),
                        );
                    }
                }
            }
        }
        decisions
    }

    proptest! {
        #[test]
        fn what_is_found_decides_nothing(mut rules in proptest::collection::vec(any_rule(), 1..6)) {
            let mut policy = Policy::builder();
            for (number, rule) in rules.iter_mut().enumerate() {
                rule.name = number.to_string().into();
                policy = policy.rule(rule.clone());
            }
            let before = decisions(&rules);
            for finding in policy.build().lint() {
                let position: usize = finding.rule.parse().unwrap();
                let mut without = rules.clone();
                let hosts = &mut without[position].hosts;
                // The last of the same: an earlier one in the same rule is what is in the way.
                let found = hosts.iter().rposition(|host| *host == finding.host).unwrap();
                hosts.remove(found);
                prop_assert_eq!(&decisions(&without), &before, "{:?} of {:#?}", finding, rules);
            }
        }
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
            // Of tunnels the first says nothing but to port 80.
            &[
                ("http://a.example.com/v1/", Deny),
                ("http://a.example.com:443/v1/", Deny),
            ],
        ] {
            assert_eq!(lint(rules), [], "{rules:?}");
        }
    }
}
