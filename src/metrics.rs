//! The Prometheus registry: every metric, its labels as closed enums, its handles fetched once.
//!
//! Looking a label set up costs a hash and a lock; incrementing a handle costs an atomic add. So
//! whatever is touched per request or per read is fetched at start ([`Metrics`]) or when a
//! policy is put in force ([`RuleMetrics`]), and only refusals and failures are looked up by name.
//! No label carries a destination or a client: the label sets are bounded by configuration.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge, Registry};

use crate::panics;
use crate::reason::Reason;

mod exposition;
mod family;
mod label;
#[cfg(target_os = "linux")]
mod process;
mod registry;

pub use exposition::Exposition;
use family::{Connections, Lookups, Requests, TunnelEnds};
pub use family::{PolicyMetrics, PoolMetrics, RuleMetrics};
pub use label::{Direction, End, Kind, ListenerKind, Outcome};
use registry::Builder;

/// Every metric of the gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Connections,
    requests: Requests,
    lookups: Lookups,
    tunnels: TunnelEnds,
    /// Kept-alive upstream connections.
    pub pool: PoolMetrics,
    /// The policy in force.
    pub policy: PolicyMetrics,
    /// Client connections that are let in at once.
    pub connections_limit: IntGauge,
    /// Tunnels that are open now.
    pub tunnels_active: IntGauge,
    /// Tunnels that a drain still waits for.
    pub drain_tunnels_remaining: IntGauge,
    /// Spans that never got to the collector.
    pub spans_dropped: IntCounter,
    log_lines_dropped: IntCounter,
    /// What of the log writer's own number is in that counter.
    known_dropped: AtomicU64,
}

impl Metrics {
    /// A registry with every metric at zero.
    ///
    /// # Errors
    /// When two metrics have one name, which a test excludes.
    pub fn new() -> Result<Self, prometheus::Error> {
        let build = Builder {
            registry: Registry::new(),
        };
        build.info()?;
        build.registry.register(Box::new(panics::counter()?))?;
        #[cfg(target_os = "linux")]
        build.registry.register(Box::new(process::Process::new()))?;
        Ok(Self {
            connections: Connections::register(&build)?,
            requests: Requests::register(&build)?,
            lookups: Lookups::register(&build)?,
            tunnels: TunnelEnds::register(&build)?,
            pool: PoolMetrics::register(&build)?,
            policy: PolicyMetrics::register(&build)?,
            connections_limit: build.gauge(
                "connections_limit",
                "Client connections let in at once; further ones are answered 503.",
            )?,
            tunnels_active: build.gauge("tunnels_active", "Tunnels open now.")?,
            drain_tunnels_remaining: build.gauge(
                "drain_tunnels_remaining",
                "Tunnels that the shutdown still waits for.",
            )?,
            spans_dropped: build.counter(
                "spans_dropped_total",
                "Spans dropped because the collector was slow or did not take them.",
            )?,
            log_lines_dropped: build.counter(
                "log_lines_dropped_total",
                "Log lines dropped because standard output was blocked, or gone.",
            )?,
            known_dropped: AtomicU64::new(0),
            registry: build.registry,
        })
    }

    /// Fetches the handles of one rule.
    #[must_use]
    pub fn rule(&self, name: &str) -> RuleMetrics {
        self.requests.rule(name)
    }

    /// Counts a request that was not simply allowed; allowed ones go through [`RuleMetrics`].
    pub fn count_request(&self, kind: Kind, outcome: Outcome, reason: Reason, rule: &str) {
        self.requests
            .total
            .with_label_values(&[kind.label(), outcome.label(), reason.label(), rule])
            .inc();
    }

    /// The duration histogram of requests, in seconds.
    #[must_use]
    pub fn request_duration(&self, kind: Kind, outcome: Outcome) -> &Histogram {
        &self.requests.duration[kind as usize][outcome as usize]
    }

    /// Counts a connection that is closed for want of a place or of a head that can be read.
    pub fn count_rejected(&self, reason: Reason) {
        self.connections
            .rejected
            .with_label_values(&[reason.label()])
            .inc();
    }

    /// Counts a connection for as long as the guard lives.
    #[must_use]
    pub fn connection(&self, listener: ListenerKind) -> ActiveGuard {
        self.connections.total[listener as usize].inc();
        ActiveGuard::new(&self.connections.active[listener as usize])
    }

    /// Client connections open now, tunnels included.
    #[must_use]
    pub fn clients(&self) -> i64 {
        self.connections.active[ListenerKind::Proxy as usize].get()
    }

    /// Counts the end of a tunnel.
    pub fn count_tunnel_end(&self, end: End, open_for: Duration) {
        self.tunnels.closed[end as usize].inc();
        self.tunnels.duration[end as usize].observe(open_for.as_secs_f64());
    }

    /// Observes a name lookup.
    pub fn observe_dns(&self, result: Reason, took: Duration) {
        self.lookups.dns.observe(result, took);
    }

    /// Observes a connection attempt, all addresses of the upstream together.
    pub fn observe_connect(&self, result: Reason, took: Duration) {
        self.lookups.connect.observe(result, took);
    }

    /// Everything, in the form asked for.
    ///
    /// `log_lines_dropped` is what the log writer has dropped since the start: it counts for
    /// itself, so its number is taken over when asked for.
    ///
    /// It takes a tenth of a second where a policy has thousands of rules.
    ///
    /// # Errors
    /// When something registered cannot be encoded: a defect.
    pub fn render(
        &self,
        form: Exposition,
        log_lines_dropped: u64,
    ) -> Result<String, prometheus::Error> {
        // Of two who ask at once, one takes it over.
        let known = self
            .known_dropped
            .fetch_max(log_lines_dropped, Ordering::Relaxed);
        self.log_lines_dropped
            .inc_by(log_lines_dropped.saturating_sub(known));
        form.write(&self.registry.gather())
    }
}

/// Raises a gauge for as long as it lives.
#[derive(Debug)]
pub struct ActiveGuard(IntGauge);

impl ActiveGuard {
    /// Raises the gauge by one.
    #[must_use]
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
