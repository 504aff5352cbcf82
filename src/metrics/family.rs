//! Metrics that belong together, with their handles.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::label::{Direction, End, Kind, ListenerKind, Outcome};
use super::registry::Builder;
use crate::reason::Reason;

/// OpenTelemetry's advised boundaries for HTTP durations, in seconds.
const DURATION_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// From a second to a day: tunnels live far longer than requests.
const TUNNEL_BUCKETS: [f64; 10] = [
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0,
];

/// Connections by listener.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) active: Vec<IntGauge>,
    pub(super) total: Vec<IntCounter>,
    pub(super) rejected: IntCounterVec,
}

impl Connections {
    pub(super) fn register(build: &Builder) -> Result<Self, prometheus::Error> {
        let listeners = ListenerKind::ALL.iter();
        let active = build.gauges("connections_active", "Connections open now.", &["listener"])?;
        let total = build.counters("connections_total", "Connections accepted.", &["listener"])?;
        let rejected = build.counters(
            "connections_rejected_total",
            "Connections closed for want of a place, or for a request head, the first or a later one, that could not be read in time or at all.",
            &["reason"],
        )?;
        // Shown from the start: of a counter that appears at one, no increase is ever seen.
        for reason in [Reason::ConnectionLimit, Reason::ClientLimit] {
            rejected.with_label_values(&[reason.label()]);
        }
        Ok(Self {
            active: listeners
                .clone()
                .map(|on| active.with_label_values(&[on.label()]))
                .collect(),
            total: listeners
                .map(|on| total.with_label_values(&[on.label()]))
                .collect(),
            rejected,
        })
    }
}

/// Requests and the bytes they moved.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) total: IntCounterVec,
    pub(super) duration: Vec<Vec<Histogram>>,
    copied_bytes: IntCounterVec,
}

impl Requests {
    pub(super) fn register(build: &Builder) -> Result<Self, prometheus::Error> {
        let duration = build.histograms(
            "request_duration_seconds",
            "Time from the request head to the response head, or to the 200 of a tunnel.",
            &["kind", "result"],
            &DURATION_BUCKETS,
        )?;
        let of = |kind: &Kind| {
            let with =
                |outcome: &Outcome| duration.with_label_values(&[kind.label(), outcome.label()]);
            Outcome::ALL.iter().map(with).collect()
        };
        Ok(Self {
            total: build.counters(
                "requests_total",
                "Requests by outcome.",
                &["kind", "result", "reason", "rule"],
            )?,
            duration: Kind::ALL.iter().map(of).collect(),
            copied_bytes: build.counters(
                "copied_bytes_total",
                "Bytes copied between clients and upstreams; grows while a tunnel is open.",
                &["kind", "direction", "rule"],
            )?,
        })
    }

    pub(super) fn rule(&self, name: &str) -> RuleMetrics {
        let bytes = |kind: Kind, direction: Direction| {
            self.copied_bytes
                .with_label_values(&[kind.label(), direction.label(), name])
        };
        let (outcome, reason) = (Outcome::Allowed.label(), Reason::Ok.label());
        RuleMetrics {
            allowed: [Kind::Connect, Kind::Forward].map(|kind| {
                self.total
                    .with_label_values(&[kind.label(), outcome, reason, name])
            }),
            bytes: [Kind::Connect, Kind::Forward].map(|kind| {
                [Direction::ClientToUpstream, Direction::UpstreamToClient]
                    .map(|direction| bytes(kind, direction))
            }),
        }
    }
}

/// The handles of one rule, fetched when its policy is put in force.
#[derive(Debug)]
pub struct RuleMetrics {
    allowed: [IntCounter; 2],
    bytes: [[IntCounter; 2]; 2],
}

impl RuleMetrics {
    /// Requests that this rule let through and the upstream answered.
    #[must_use]
    pub fn allowed(&self, kind: Kind) -> &IntCounter {
        &self.allowed[kind as usize]
    }

    /// Bytes copied under this rule.
    #[must_use]
    pub fn bytes(&self, kind: Kind, direction: Direction) -> &IntCounter {
        &self.bytes[kind as usize][direction as usize]
    }
}

/// What precedes a new upstream connection.
#[derive(Debug)]
pub(super) struct Lookups {
    pub(super) dns: ByResult,
    pub(super) connect: ByResult,
}

impl Lookups {
    pub(super) fn register(build: &Builder) -> Result<Self, prometheus::Error> {
        let histogram = |name, help| {
            let by_result = build.histograms(name, help, &["result"], &DURATION_BUCKETS)?;
            Ok::<_, prometheus::Error>(ByResult::new(by_result))
        };
        Ok(Self {
            dns: histogram(
                "dns_lookup_duration_seconds",
                "Time to resolve a name, cached answers included.",
            )?,
            connect: histogram(
                "connect_duration_seconds",
                "Time to connect to an upstream, all its addresses together.",
            )?,
        })
    }
}

/// A histogram by reason; the handle of the usual one is at hand.
#[derive(Debug)]
pub(super) struct ByResult {
    ok: Histogram,
    all: HistogramVec,
}

impl ByResult {
    fn new(all: HistogramVec) -> Self {
        Self {
            ok: all.with_label_values(&[Reason::Ok.label()]),
            all,
        }
    }

    pub(super) fn observe(&self, result: Reason, took: Duration) {
        if result == Reason::Ok {
            self.ok.observe(took.as_secs_f64());
        } else {
            self.all
                .with_label_values(&[result.label()])
                .observe(took.as_secs_f64());
        }
    }
}

/// Ended tunnels.
#[derive(Debug)]
pub(super) struct TunnelEnds {
    pub(super) closed: Vec<IntCounter>,
    pub(super) duration: Vec<Histogram>,
}

impl TunnelEnds {
    pub(super) fn register(build: &Builder) -> Result<Self, prometheus::Error> {
        let closed = build.counters("tunnels_closed_total", "Tunnels ended.", &["end"])?;
        let duration = build.histograms(
            "tunnel_duration_seconds",
            "How long tunnels were open.",
            &["end"],
            &TUNNEL_BUCKETS,
        )?;
        let ends = End::ALL.iter();
        Ok(Self {
            closed: ends
                .clone()
                .map(|end| closed.with_label_values(&[end.label()]))
                .collect(),
            duration: ends
                .map(|end| duration.with_label_values(&[end.label()]))
                .collect(),
        })
    }
}

/// Kept-alive upstream connections.
#[derive(Debug)]
pub struct PoolMetrics {
    /// Connections kept for reuse.
    pub idle: IntGauge,
    /// Connections that carry a request now.
    pub busy: IntGauge,
    /// Requests sent on a kept connection.
    pub reused: IntCounter,
    /// Requests that needed a new connection.
    pub opened: IntCounter,
}

impl PoolMetrics {
    pub(super) fn register(build: &Builder) -> Result<Self, prometheus::Error> {
        let connections = build.gauges(
            "pool_connections",
            "Kept-alive upstream connections.",
            &["state"],
        )?;
        let requests = build.counters(
            "pool_requests_total",
            "Plain HTTP requests by whether a kept-alive upstream connection served them.",
            &["reused"],
        )?;
        Ok(Self {
            idle: connections.with_label_values(&["idle"]),
            busy: connections.with_label_values(&["busy"]),
            reused: requests.with_label_values(&["true"]),
            opened: requests.with_label_values(&["false"]),
        })
    }
}

/// The policy in force.
#[derive(Debug)]
pub struct PolicyMetrics {
    /// How many rules it has.
    pub rules: IntGauge,
    /// Counts up by one with each policy put in force.
    pub generation: IntGauge,
    /// Changes of the file that were put in force.
    pub reloaded: IntCounter,
    /// Changes of the file that were refused.
    pub reload_failed: IntCounter,
    /// 1, or 0 while the file as it is cannot be used.
    pub current: IntGauge,
}

impl PolicyMetrics {
    pub(super) fn register(build: &Builder) -> Result<Self, prometheus::Error> {
        let reloads = build.counters(
            "policy_reloads_total",
            "Changes of the policy file, by whether they were put in force.",
            &["result"],
        )?;
        let current = build.gauge(
            "policy_last_reload_successful",
            "1 if the policy file as it is could be used, 0 while an older policy stays in force.",
        )?;
        // A gateway whose file cannot be used does not start.
        current.set(1);
        Ok(Self {
            current,
            reloaded: reloads.with_label_values(&["ok"]),
            reload_failed: reloads.with_label_values(&["error"]),
            rules: build.gauge("policy_rules", "Rules of the policy in force.")?,
            generation: build.gauge(
                "policy_generation",
                "Counts up by one with each policy put in force.",
            )?,
        })
    }
}
