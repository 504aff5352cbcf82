//! What comes of a judgement: a permit, a denial, a prohibited address.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Policy;
use super::address::{self, Block, Carried};
use super::judge::Miss;
use super::range::RangeSet;
use crate::reason::Reason;

/// Position of a rule's name in [`Policy::rule_names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

impl RuleId {
    /// As an index into a list that follows [`Policy::rule_names`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A rule by name, as verdicts refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) id: RuleId,
    pub(super) name: Arc<str>,
}

/// Leave to connect to one target, made by [`Policy::authorize`] and by nothing else.
///
/// It keeps the policy it was granted under, so that an address is judged by the same rules even
/// if the policy is replaced meanwhile.
#[derive(Clone, Debug)]
pub struct Permit {
    pub(super) policy: Arc<Policy>,
    pub(super) rule: Named,
    /// Position of the rule whose addresses are exempt; none in report mode without a rule.
    pub(super) granted_by: Option<u32>,
    /// The target, where it is an address that the rule names.
    pub(super) literal: Option<IpAddr>,
    pub(super) would_deny: Option<Denial>,
}

impl Permit {
    /// The name of the rule that decided.
    #[must_use]
    pub fn rule(&self) -> &Arc<str> {
        &self.rule.name
    }

    /// The position of that name in [`Policy::rule_names`].
    #[must_use]
    pub fn rule_id(&self) -> RuleId {
        self.rule.id
    }

    /// The denial that report mode let through.
    #[must_use]
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_ref()
    }

    /// Judges an address that the target resolved to. Report mode does not soften it.
    ///
    /// # Errors
    ///
    /// The range that prohibits the address.
    pub fn admits(&self, address: IpAddr) -> Result<(), Prohibited> {
        let granted_by = self.granted_by.map(|rule| self.policy.exemptions_of(rule));
        let literal = self.literal.map(|literal| literal.to_canonical());
        self.policy.guard.check(address, |address| {
            literal == Some(address.to_canonical())
                || granted_by.is_some_and(|ranges| ranges.names(address))
        })
    }
}

/// Why a request was refused by the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub(super) cause: Cause,
    pub(super) port: u16,
}

/// What a denial rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    NoRule,
    DenyRule(Named),
    /// The allow rule that came nearest, and where it stopped.
    Missed(Named, Miss),
}

impl Denial {
    /// The reason the client is told.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match &self.cause {
            Cause::NoRule | Cause::DenyRule(_) => Reason::HostNotAllowed,
            Cause::Missed(_, miss) => miss.reason(),
        }
    }

    /// The name of the deny rule, or of the allow rule that came nearest; none where no rule names
    /// the host.
    #[must_use]
    pub fn rule(&self) -> Option<&Arc<str>> {
        self.named().map(|rule| &rule.name)
    }

    /// The position of that name in [`Policy::rule_names`].
    #[must_use]
    pub fn rule_id(&self) -> Option<RuleId> {
        self.named().map(|rule| rule.id)
    }

    /// Whether a deny rule refused the request, as opposed to no allow rule matching it.
    #[must_use]
    pub fn is_by_deny_rule(&self) -> bool {
        matches!(self.cause, Cause::DenyRule(_))
    }

    pub(super) fn named(&self) -> Option<&Named> {
        match &self.cause {
            Cause::NoRule => None,
            Cause::DenyRule(rule) | Cause::Missed(rule, _) => Some(rule),
        }
    }
}

impl fmt::Display for Denial {
    /// For the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, miss) = match &self.cause {
            Cause::NoRule => return f.write_str("no rule names the host"),
            Cause::DenyRule(rule) => return write!(f, "denied by rule `{}`", rule.name),
            Cause::Missed(rule, miss) => (&rule.name, miss),
        };
        write!(f, "rule `{name}` names the host, but not ")?;
        match miss {
            Miss::Port => write!(f, "port {} for this kind of request", self.port),
            Miss::Client => f.write_str("this client"),
            Miss::Method => f.write_str("CONNECT: it is for plain HTTP"),
            Miss::Path => f.write_str("this path"),
        }
    }
}

impl std::error::Error for Denial {}

/// Why an address must not be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prohibited {
    /// The address.
    pub address: IpAddr,
    /// The IPv4 address inside it that is prohibited, where it is not the address itself.
    pub carried: Option<Carried>,
    /// The range that prohibits it.
    pub by: ProhibitedBy,
}

impl std::error::Error for Prohibited {}

/// The range that prohibits an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProhibitedBy {
    /// A special-purpose block that nothing exempts.
    Block(&'static Block),
    /// A range of `OUTGATE_DENY_ADDRESSES`.
    Configured(IpNet),
}

impl fmt::Display for Prohibited {
    /// For the log; a client is never told an address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.address)?;
        if let Some(Carried { address, form }) = self.carried {
            write!(f, "carries {address} ({form}), which ")?;
        }
        match self.by {
            ProhibitedBy::Block(Block {
                range,
                name,
                source,
            }) => {
                write!(f, "is in {range} ({name}, {source})")
            }
            ProhibitedBy::Configured(range) => write!(f, "is in {range} (OUTGATE_DENY_ADDRESSES)"),
        }
    }
}

/// The address guard: the special-purpose blocks, less what is exempt, with what is denied.
#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) exempt: RangeSet,
    pub(super) denied: RangeSet,
}

impl Guard {
    /// Judges `address` and every IPv4 address it carries; `exempt` says what the permit exempts.
    fn check(&self, address: IpAddr, exempt: impl Fn(IpAddr) -> bool) -> Result<(), Prohibited> {
        let prohibited = |carried, by| {
            Err(Prohibited {
                address,
                carried,
                by,
            })
        };
        if let Some(range) = self.denied.touched_by(address) {
            let carried = address::carried(address)
                .find(|carried| range.contains(&IpAddr::V4(carried.address)));
            return prohibited(carried, ProhibitedBy::Configured(range));
        }
        let is_exempt = |address| self.exempt.names(address) || exempt(address);
        let own = address::block_of(address).map(|block| (None, block));
        let inner = address::carried(address).filter_map(|carried| {
            let block = address::block_of(IpAddr::V4(carried.address))?;
            (!is_exempt(IpAddr::V4(carried.address))).then_some((Some(carried), block))
        });
        match own.into_iter().chain(inner).next() {
            // Whoever exempts the address as a whole has accepted what it carries.
            Some(_) if is_exempt(address) => Ok(()),
            Some((carried, block)) => prohibited(carried, ProhibitedBy::Block(block)),
            None => Ok(()),
        }
    }
}
