//! Putting a policy together.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::clients::Clients;
use super::index::Index;
use super::rule::{Action, Rule};
use super::verdict::{Guard, Named, RuleId};
use super::{Entry, Mode, Policy};

/// The name under which report mode accounts requests that no rule comes near.
const NO_RULE: &str = "(none)";

/// Collects rules and address ranges; [`Policy::builder`] makes one. Order matters only between
/// rules that name the very same host.
#[derive(Debug, Default)]
pub struct PolicyBuilder {
    rules: Vec<Rule>,
    guard: Guard,
    clients: Clients,
    mode: Mode,
}

impl PolicyBuilder {
    /// Adds a rule that allows or denies, as it says itself.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds an allow rule. One that was made to deny goes on denying: no call turns it round.
    #[must_use]
    pub fn allow(self, rule: Rule) -> Self {
        self.rule(rule)
    }

    /// Adds a rule that denies, whatever it says itself. A range in it is refused as an IP literal
    /// alone; [`PolicyBuilder::deny_addresses`] is for what names resolve to.
    #[must_use]
    pub fn deny(self, mut rule: Rule) -> Self {
        rule.action = Action::Deny;
        self.rule(rule)
    }

    /// Exempts ranges from the address guard for every allowed name (`OUTGATE_ALLOW_ADDRESSES`).
    #[must_use]
    pub fn allow_addresses(mut self, ranges: impl IntoIterator<Item = IpNet>) -> Self {
        self.guard.exempt.extend(ranges);
        self
    }

    /// Ranges that are never dialled, whatever exempts them (`OUTGATE_DENY_ADDRESSES`).
    #[must_use]
    pub fn deny_addresses(mut self, ranges: impl IntoIterator<Item = IpNet>) -> Self {
        self.guard.denied.extend(ranges);
        self
    }

    /// The clients that rules can name.
    #[must_use]
    pub fn clients(mut self, clients: Clients) -> Self {
        self.clients = clients;
        self
    }

    /// Sets whether denials are enforced or only reported.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Builds the policy: linear in the rules.
    #[must_use]
    pub fn build(self) -> Policy {
        let mut names = Names::default();
        let mut index = Index::default();
        let mut rules = Vec::with_capacity(self.rules.len());
        for (position, rule) in (0..).zip(self.rules) {
            index.insert(position, &rule.hosts);
            let id = names.id(&rule.name);
            let exempt = rule.addresses.iter().copied().collect();
            rules.push(Entry { rule, id, exempt });
        }
        let no_rule = (self.mode == Mode::Report).then(|| {
            let name = Arc::from(NO_RULE);
            Named {
                id: names.id(&name),
                name,
            }
        });
        let (guard, mode) = (self.guard, self.mode);
        Policy {
            rules,
            index,
            names: names.list,
            guard,
            clients: self.clients,
            mode,
            no_rule,
        }
    }
}

/// Rule names, each once.
#[derive(Default)]
struct Names {
    list: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, RuleId>,
}

impl Names {
    fn id(&mut self, name: &Arc<str>) -> RuleId {
        *self.ids.entry(Arc::clone(name)).or_insert_with(|| {
            let id = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
            self.list.push(Arc::clone(name));
            RuleId(id)
        })
    }
}
