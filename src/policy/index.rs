//! From a host to the rules that name it, without walking the rules.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::host::HostPattern;
use super::range::RangeMap;
use super::rule::Action;
use crate::target::Host;

/// Positions of rules, in the order they were given.
type Bucket = Vec<u32>;

/// The rules by the hosts they name.
///
/// A name costs one look-up for each of its labels, but for no more labels than the deepest
/// configured name has; an address one for each prefix length in use. What is found is walked, so
/// only rules that name the very same pattern make a search longer.
#[derive(Debug, Default)]
pub(super) struct Index {
    names: HashMap<Arc<str>, Named>,
    /// The number of labels of the deepest name in `names`.
    deepest: usize,
    ranges: RangeMap<Bucket>,
    any: Bucket,
}

/// The rules that a name stands in.
#[derive(Debug, Default)]
struct Named {
    exact: Bucket,
    below: Bucket,
}

/// A rule that names the host of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Position of the rule.
    pub(super) rule: u32,
    /// The action the rule must have to count: an allow rule for `*` does not speak for IP
    /// literals, nor one for `8.8.8.8` for `[64:ff9b::8.8.8.8]`, yet deny rules do.
    pub(super) only: Option<Action>,
}

impl Index {
    /// Adds the hosts of the rule at `position`.
    pub(super) fn insert(&mut self, position: u32, hosts: &[HostPattern]) {
        for pattern in hosts {
            match pattern {
                HostPattern::Any => self.any.push(position),
                HostPattern::Exact(name) => self.named(name).exact.push(position),
                HostPattern::Below(base) => self.named(base).below.push(position),
                HostPattern::Range(net) => self.ranges.entry(*net).push(position),
            }
        }
    }

    fn named(&mut self, name: &Arc<str>) -> &mut Named {
        self.deepest = self.deepest.max(labels(name));
        self.names.entry(Arc::clone(name)).or_default()
    }

    /// Hands `visit` every rule that names `host`, the most specific pattern first: exact, longer
    /// wildcard, shorter wildcard, any; among ranges the longer prefix.
    pub(super) fn candidates(&self, host: &Host, visit: impl FnMut(Candidate)) {
        match host {
            Host::Name(name) => self.by_name(name, visit),
            Host::Address(address) => self.by_address(*address, visit),
        }
    }

    fn by_name(&self, name: &str, mut visit: impl FnMut(Candidate)) {
        let mut visit_all = |bucket: &Bucket| {
            bucket.iter().for_each(|rule| {
                visit(Candidate {
                    rule: *rule,
                    only: None,
                })
            });
        };
        let mut depth = labels(name);
        if depth <= self.deepest
            && let Some(named) = self.names.get(name)
        {
            visit_all(&named.exact);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            (rest, depth) = (parent, depth - 1);
            if depth <= self.deepest
                && let Some(named) = self.names.get(parent)
            {
                visit_all(&named.below);
            }
        }
        visit_all(&self.any);
    }

    fn by_address(&self, address: IpAddr, mut visit: impl FnMut(Candidate)) {
        let mut visit_all = |bucket: &Bucket, only| {
            bucket
                .iter()
                .for_each(|rule| visit(Candidate { rule: *rule, only }));
        };
        for (_, bucket) in self.ranges.naming(address) {
            visit_all(bucket, None);
        }
        for (_, bucket) in self.ranges.touching(address) {
            visit_all(bucket, Some(Action::Deny));
        }
        visit_all(&self.any, Some(Action::Deny));
    }
}

fn labels(name: &str) -> usize {
    name.bytes().filter(|byte| *byte == b'.').count() + 1
}
