//! Why a request was judged as it was, for `outgate check` and the inspector.

use std::fmt;
use std::sync::Arc;

use super::rule::Action;
use super::verdict::{Denial, Permit};
use crate::reason::Reason;
use crate::target::Target;

/// A judgement with every rule that had a say in it.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub(super) target: Target,
    pub(super) verdict: Result<Permit, Denial>,
    pub(super) considered: Vec<Considered>,
}

/// A rule that names the host of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The name of the rule.
    pub rule: Arc<str>,
    /// What it does.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a rule that names the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It decides.
    Decides,
    /// It matches, but a deny rule, a more specific or an earlier rule decides.
    Overruled,
    /// It names the host, but does not match for this reason.
    Misses(Reason),
}

impl Explanation {
    /// The target that was asked about.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The verdict, the same as [`super::Policy::authorize`] gives.
    ///
    /// # Errors
    ///
    /// The denial, if that is the verdict.
    pub fn verdict(&self) -> Result<&Permit, &Denial> {
        self.verdict.as_ref()
    }

    /// The rules that name the host, the most specific first.
    #[must_use]
    pub fn considered(&self) -> &[Considered] {
        &self.considered
    }

    /// The rule that decides, if one does.
    #[must_use]
    pub fn deciding(&self) -> Option<&Considered> {
        self.considered
            .iter()
            .find(|considered| considered.outcome == Outcome::Decides)
    }

    /// The rule that would decide if the deciding one were not there, or, where none decides or is
    /// left, the one that comes nearest.
    #[must_use]
    pub fn runner_up(&self) -> Option<&Considered> {
        let others = || {
            self.considered
                .iter()
                .filter(|other| other.outcome != Outcome::Decides)
        };
        let matching = |action| {
            others()
                .find(move |other| other.outcome == Outcome::Overruled && other.action == action)
        };
        matching(Action::Deny)
            .or_else(|| matching(Action::Allow))
            .or_else(|| others().next())
    }
}

impl fmt::Display for Explanation {
    /// What the rules say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Ok(permit) => match permit.would_deny() {
                Some(denial) => write!(
                    f,
                    "let through in report mode ({}): {denial}",
                    denial.reason().label()
                ),
                None => write!(f, "allowed by rule `{}`", permit.rule()),
            },
            Err(denial) => write!(f, "{}: {denial}", denial.reason().label()),
        }
    }
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        write!(f, "{action} `{}`: ", self.rule)?;
        match (self.outcome, self.action) {
            (Outcome::Decides, _) => f.write_str("decides"),
            (Outcome::Overruled, Action::Allow) => {
                f.write_str("matches, but a deny rule, a more specific or an earlier one decides")
            }
            (Outcome::Overruled, Action::Deny) => {
                f.write_str("matches, but another deny rule decides")
            }
            (Outcome::Misses(reason), _) => {
                write!(f, "names the host, but misses ({})", reason.label())
            }
        }
    }
}
