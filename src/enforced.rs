//! The policy in force, and the metric handles of its rules.
//!
//! Both are swapped as one, so that a request never meets the rules of one policy with the
//! handles of another.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::metrics::{Metrics, RuleMetrics};
use crate::policy::{Policy, RuleId};

/// The policy every request is judged by now.
#[derive(Debug)]
pub struct Enforced {
    current: ArcSwap<InForce>,
    metrics: Arc<Metrics>,
}

/// One policy with the handles of its rules.
#[derive(Debug)]
pub struct InForce {
    generation: u64,
    policy: Arc<Policy>,
    rules: Vec<Arc<RuleMetrics>>,
}

impl Enforced {
    /// Puts a first policy in force.
    #[must_use]
    pub fn new(policy: Policy, metrics: Arc<Metrics>) -> Self {
        let first = Arc::new(InForce::new(policy, 1, &metrics));
        let enforced = Self {
            current: ArcSwap::from(first),
            metrics,
        };
        enforced.tell();
        enforced
    }

    /// The policy in force now; it stays so for whoever holds it.
    pub fn load(&self) -> Guard<Arc<InForce>> {
        self.current.load()
    }

    /// Puts another policy in force, at once and for every request from now on.
    pub fn replace(&self, policy: Policy) {
        let generation = self.load().generation + 1;
        self.current
            .store(Arc::new(InForce::new(policy, generation, &self.metrics)));
        self.tell();
    }

    fn tell(&self) {
        let rules = self.load().policy.rule_count();
        self.metrics
            .policy
            .rules
            .set(i64::try_from(rules).unwrap_or(i64::MAX));
        self.metrics.policy.generation.inc();
    }
}

impl InForce {
    fn new(policy: Policy, generation: u64, metrics: &Metrics) -> Self {
        let rules = policy
            .rule_names()
            .iter()
            .map(|name| Arc::new(metrics.rule(name)))
            .collect();
        Self {
            generation,
            policy: Arc::new(policy),
            rules,
        }
    }

    /// Counts up by one with each policy put in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The handles of one of its rules.
    ///
    /// # Panics
    /// When the id is not of this policy.
    #[must_use]
    pub fn rule_metrics(&self, rule: RuleId) -> Arc<RuleMetrics> {
        Arc::clone(&self.rules[rule.index()])
    }
}
