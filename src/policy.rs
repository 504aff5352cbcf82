//! Who may go where: rules over hosts, and a guard over the addresses they resolve to.
//!
//! [`Policy::authorize`] judges a target before anything is looked up and gives a [`Permit`];
//! [`Permit::admits`] then judges each address before it is dialled. Nothing but this module makes
//! a permit, and dialling requires one. A policy without rules denies everything.
//!
//! ```text
//! rule.rs     a rule and its grammar: host.rs, ports.rs, path.rs
//! builder.rs  rules and ranges → Policy
//! index.rs    host → the rules that name it; range.rs for addresses
//! judge.rs    one rule against one request, and what several come to
//! verdict.rs  Permit, Denial, Prohibited, the guard; address.rs the special-purpose blocks
//! explain.rs  the same judgement, told in full
//! lint.rs     rules that can never decide
//! file.rs     the policy file; clients.rs who a client is by it
//! ```

pub mod address;
mod builder;
mod clients;
mod explain;
pub mod file;
mod host;
mod index;
mod judge;
pub mod lint;
mod path;
mod ports;
mod range;
pub mod rule;
mod verdict;

use std::net::IpAddr;
use std::sync::Arc;

pub use builder::PolicyBuilder;
pub use clients::Clients;
pub use explain::{Considered, Explanation, Outcome};
pub use host::{HostPattern, parse_range};
pub use path::PathPrefix;
pub use ports::Ports;
pub use rule::{Action, Rule, RuleError};
pub use verdict::{Denial, Permit, Prohibited, ProhibitedBy, RuleId};

use crate::reason::Reason;
use crate::target::{Host, Target};
use index::Index;
use judge::{Judgement, Miss};
use range::RangeSet;
use verdict::{Cause, Guard, Named};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where the connection comes from.
    pub address: IpAddr,
    /// Who it is by the clients of the policy file; none is nobody the file knows.
    pub name: Option<Arc<str>>,
}

/// What the client wants to do with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// Open a tunnel.
    Connect,
    /// Have one plain HTTP request forwarded.
    Forward {
        /// The path as received, without the query.
        path: &'a str,
    },
}

/// What becomes of a denial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is answered.
    #[default]
    Enforce,
    /// The request is let through and the denial recorded. The address guard stays on.
    Report,
}

impl Mode {
    /// As it is configured and shown.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
        }
    }
}

/// Rules and address ranges, immutable once built.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Entry>,
    index: Index,
    names: Vec<Arc<str>>,
    guard: Guard,
    clients: Clients,
    mode: Mode,
    /// What report mode accounts requests under that no rule comes near.
    no_rule: Option<Named>,
}

/// A rule in its place.
#[derive(Debug)]
struct Entry {
    rule: Rule,
    id: RuleId,
    exempt: RangeSet,
}

impl Policy {
    /// A builder without rules.
    #[must_use]
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// Judges a request by its target, before any name is looked up.
    ///
    /// # Errors
    ///
    /// The denial. In report mode it is in [`Permit::would_deny`] instead.
    pub fn authorize(
        self: &Arc<Self>,
        client: &Client,
        target: &Target,
        access: Access<'_>,
    ) -> Result<Permit, Denial> {
        let judgement = self.judge(client, target, access, |_, _| {});
        self.verdict(judgement, target)
    }

    /// Judges like [`Policy::authorize`] and tells what each rule that names the host had to say.
    #[must_use]
    pub fn explain(
        self: &Arc<Self>,
        client: &Client,
        target: &Target,
        access: Access<'_>,
    ) -> Explanation {
        let mut seen: Vec<(u32, Result<(), Miss>)> = Vec::new();
        let judgement = self.judge(client, target, access, |position, outcome| {
            // An address may meet one rule in several of its forms.
            if seen.iter().all(|(other, _)| *other != position) {
                seen.push((position, outcome));
            }
        });
        let considered = seen.into_iter().map(|(position, outcome)| {
            let rule = &self.entry(position).rule;
            let outcome = match outcome {
                Ok(()) if judgement.decides() == Some(position) => Outcome::Decides,
                Ok(()) => Outcome::Overruled,
                Err(miss) => Outcome::Misses(miss.reason()),
            };
            Considered {
                rule: Arc::clone(&rule.name),
                action: rule.action,
                outcome,
            }
        });
        let considered = considered.collect();
        Explanation {
            target: target.clone(),
            verdict: self.verdict(judgement, target),
            considered,
        }
    }

    /// Who a client is, by its address and the user name it gives.
    #[must_use]
    pub fn identify(&self, address: IpAddr, user: Option<&str>) -> Client {
        Client {
            address,
            name: self.clients.identify(address, user),
        }
    }

    /// The clients that rules can name.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// What a client is told of a denial: to say who it is, where another name may be let through
    /// that this one, or none, is not.
    #[must_use]
    pub fn reason_told(&self, client: &Client, denial: &Denial) -> Reason {
        let may_say_who = denial.reason() == Reason::ClientNotAllowed
            && client.name.is_none()
            && self.clients.know_users();
        if may_say_who {
            Reason::AuthRequired
        } else {
            denial.reason()
        }
    }

    /// The distinct names of the rules, in order; a [`RuleId`] is a position here. Fixed by
    /// configuration, so each can be a metric label.
    #[must_use]
    pub fn rule_names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The number of rules.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// The rules, in order.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter().map(|entry| &entry.rule)
    }

    /// Whether nothing at all is let through.
    #[must_use]
    pub fn denies_all(&self) -> bool {
        self.mode == Mode::Enforce && self.rules().all(|rule| rule.action == Action::Deny)
    }

    /// Whether a plain request of some client could be let through to this address of a target:
    /// what an idle connection to it is kept for.
    #[must_use]
    pub fn could_reach(self: &Arc<Self>, target: &Target, address: IpAddr) -> bool {
        let (mut is_denied, mut is_admitted) = (false, false);
        self.index.candidates(target.host(), |candidate| {
            let rule = &self.entry(candidate.rule).rule;
            if candidate.only.is_some_and(|only| only != rule.action) {
                return;
            }
            match rule.action {
                Action::Deny => is_denied |= rule.has_all_plain_requests(target.port()),
                Action::Allow if rule.has_some_plain_requests(target.port()) => {
                    is_admitted |= self.permit(candidate.rule, target).admits(address).is_ok();
                }
                Action::Allow => {}
            }
        });
        match &self.no_rule {
            None => is_admitted && !is_denied,
            // Report mode lets every request through; what the guard says stands.
            Some(no_rule) => is_admitted || self.report(no_rule, None).admits(address).is_ok(),
        }
    }

    /// Whether denials are enforced.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    fn judge(
        &self,
        client: &Client,
        target: &Target,
        access: Access<'_>,
        mut note: impl FnMut(u32, Result<(), Miss>),
    ) -> Judgement {
        let mut judgement = Judgement::default();
        self.index.candidates(target.host(), |candidate| {
            let rule = &self.entry(candidate.rule).rule;
            if candidate.only.is_some_and(|only| only != rule.action) {
                return;
            }
            let outcome = rule.check(client, target, access);
            note(candidate.rule, outcome);
            judgement.add(candidate.rule, rule.action, outcome);
        });
        judgement
    }

    fn verdict(self: &Arc<Self>, judgement: Judgement, target: &Target) -> Result<Permit, Denial> {
        let cause = match judgement {
            Judgement {
                denied_by: Some(rule),
                ..
            } => Cause::DenyRule(self.named(rule)),
            Judgement {
                allowed_by: Some(rule),
                ..
            } => return Ok(self.permit(rule, target)),
            Judgement {
                nearest: Some((rule, miss)),
                ..
            } => Cause::Missed(self.named(rule), miss),
            Judgement { .. } => Cause::NoRule,
        };
        let denial = Denial {
            cause,
            port: target.port(),
        };
        let Some(no_rule) = &self.no_rule else {
            return Err(denial);
        };
        Ok(self.report(no_rule, Some(denial)))
    }

    /// What report mode makes of a denial.
    fn report(self: &Arc<Self>, no_rule: &Named, denial: Option<Denial>) -> Permit {
        let named = denial.as_ref().and_then(Denial::named);
        Permit {
            policy: Arc::clone(self),
            rule: named.unwrap_or(no_rule).clone(),
            granted_by: None,
            literal: None,
            would_deny: denial,
        }
    }

    fn permit(self: &Arc<Self>, rule: u32, target: &Target) -> Permit {
        Permit {
            policy: Arc::clone(self),
            rule: self.named(rule),
            granted_by: Some(rule),
            literal: match target.host() {
                Host::Address(address) => Some(*address),
                Host::Name(_) => None,
            },
            would_deny: None,
        }
    }

    /// The ranges for which the rule at `position` lifts the guard.
    fn exemptions_of(&self, position: u32) -> &RangeSet {
        &self.entry(position).exempt
    }

    fn named(&self, position: u32) -> Named {
        let Entry { rule, id, .. } = self.entry(position);
        Named {
            id: *id,
            name: Arc::clone(&rule.name),
        }
    }

    fn entry(&self, position: u32) -> &Entry {
        &self.rules[position as usize]
    }
}

#[cfg(test)]
mod tests;
