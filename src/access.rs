//! The account of one request: its metrics, its log line and its spans, exactly once, on drop.
//!
//! An [`AccessRecord`] is filled in while a request is handled and settled when it is dropped,
//! so a request is accounted for however its task ends: answered, refused, failed, panicked or
//! cancelled. A record nobody gave an outcome is one whose client went away.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, StatusCode};
use opentelemetry::trace::TraceId;

use crate::enforced::InForce;
use crate::headers;
use crate::metrics::{Direction, Kind, Metrics, Outcome, RuleMetrics};
use crate::policy::{Denial, Permit};
use crate::reason::Reason;
use crate::target::Target;
use crate::trace::context::{self, Parent};
use crate::trace::{Span, Tracer};

mod detail;
mod spans;
#[cfg(test)]
mod tests;

pub use detail::Detail;
use spans::RequestSpans;

/// The rule label of a request that no rule decided.
const NO_RULE: &str = "";

/// What one request did, and what is to be told about it.
#[derive(Debug)]
pub struct AccessRecord {
    metrics: Arc<Metrics>,
    log: bool,
    started: Instant,
    kind: Kind,
    method: Method,
    client: SocketAddr,
    trace_id: TraceId,
    target: Option<Target>,
    user: Option<Arc<str>>,
    generation: u64,
    rule: Option<Arc<str>>,
    rule_metrics: Option<Arc<RuleMetrics>>,
    would_deny: Option<Box<Denial>>,
    reason: Reason,
    status: Option<StatusCode>,
    detail: Option<Detail>,
    upstream: Option<SocketAddr>,
    dns: Option<Duration>,
    connect: Option<Duration>,
    to_head: Option<Duration>,
    traffic: Option<Arc<Traffic>>,
    /// None where nothing is traced, so that a request costs a pointer then.
    spans: Option<Box<RequestSpans>>,
}

impl AccessRecord {
    /// Opens the account of a request whose head was just read.
    #[must_use]
    pub fn open<B>(
        metrics: Arc<Metrics>,
        log: bool,
        tracer: Option<&Arc<Tracer>>,
        client: SocketAddr,
        request: &Request<B>,
    ) -> Self {
        let kind = if request.method() == Method::CONNECT {
            Kind::Connect
        } else {
            Kind::Forward
        };
        let parent = Parent::of(request.headers());
        let trace_id = context::trace_id(parent.as_ref());
        let spans = tracer.map(|tracer| {
            let span = tracer.begin(trace_id, parent, request.headers());
            Box::new(RequestSpans::new(span, request.uri()))
        });
        Self {
            metrics,
            log,
            started: Instant::now(),
            kind,
            method: short(request.method()),
            client,
            trace_id,
            target: None,
            user: headers::basic_user(request.headers()).map(Arc::from),
            generation: 0,
            rule: None,
            rule_metrics: None,
            would_deny: None,
            reason: Reason::ClientClosed,
            status: None,
            detail: None,
            upstream: None,
            dns: None,
            connect: None,
            to_head: None,
            traffic: None,
            spans,
        }
    }

    /// The trace this request belongs to.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The address of whoever asked.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.client.ip()
    }

    /// The target, once it is known.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// Notes what the client asked for.
    pub fn set_target(&mut self, target: Target) {
        self.target = Some(target);
    }

    /// The user name the client gave in `Proxy-Authorization`.
    #[must_use]
    pub fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// Generation of the policy that let the request through; 0 before one did.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Notes the rule that let the request through, of the policy in force.
    pub fn permitted(&mut self, permit: &Permit, in_force: &InForce) {
        let rule_metrics = in_force.rule_metrics(permit.rule_id());
        self.generation = in_force.generation();
        self.rule = Some(Arc::clone(permit.rule()));
        self.would_deny = permit.would_deny().cloned().map(Box::new);
        self.rule_metrics = Some(rule_metrics);
    }

    /// Notes the rule that refused the request, where there is one.
    pub fn denied(&mut self, denial: &Denial) {
        self.rule = denial.rule().cloned();
    }

    /// Notes how long the name took to resolve, each time it had to be.
    pub fn resolved(&mut self, result: Reason, took: Duration) {
        self.metrics.observe_dns(result, took);
        *self.dns.get_or_insert_default() += took;
        if let Some(spans) = &self.spans {
            spans.resolved(self.target.as_ref(), result, took);
        }
    }

    /// Notes how long the upstream took to connect to, each time, and the address that answered.
    pub fn dialled(&mut self, outcome: Result<SocketAddr, Reason>, took: Duration) {
        let result = outcome.err().unwrap_or(Reason::Ok);
        self.metrics.observe_connect(result, took);
        *self.connect.get_or_insert_default() += took;
        self.upstream = outcome.ok().or(self.upstream);
        if let Some(spans) = &self.spans {
            spans.dialled(self.target.as_ref(), outcome, took);
        }
    }

    /// Notes that the request goes upstream now, and makes that part of its trace.
    pub fn sending(&mut self, headers: &mut HeaderMap) {
        if let Some(spans) = &mut self.spans {
            spans.sending(headers);
        }
    }

    /// Notes that the connection was lost that the request went upstream on; it is sent again.
    pub fn lost(&mut self) {
        if let Some(mut spans) = self.spans.take() {
            spans.lost(self);
            self.spans = Some(spans);
        }
    }

    /// Notes the address that carries the request.
    pub fn set_upstream(&mut self, upstream: SocketAddr) {
        self.upstream = Some(upstream);
    }

    /// The span that a tunnel of this request is part of, where its trace is kept.
    pub(crate) fn span(&self) -> Option<Span> {
        self.spans.as_ref().and_then(|spans| spans.kept())
    }

    /// Counts content from now on; the same counts are shown in the log line.
    pub fn count_traffic(&mut self) -> Option<Arc<Traffic>> {
        let rule = Arc::clone(self.rule_metrics.as_ref()?);
        let traffic = Arc::new(Traffic::new(self.kind, rule));
        self.traffic = Some(Arc::clone(&traffic));
        Some(traffic)
    }

    /// Notes the response head: the request is answered by the upstream.
    pub fn answered(&mut self, status: StatusCode) {
        self.reason = Reason::Ok;
        self.status = Some(status);
        self.to_head = Some(self.started.elapsed());
        if let Some(spans) = &mut self.spans {
            spans.received(status);
        }
    }

    /// Notes that the gateway answers by itself, and why.
    pub fn refused(&mut self, reason: Reason, detail: Option<Detail>) {
        self.reason = reason;
        self.detail = detail;
        self.status = Some(reason.status());
        self.to_head = Some(self.started.elapsed());
    }

    /// Notes a failure after the head was sent; the status the client saw stands.
    pub fn failed(&mut self, reason: Reason, detail: Detail) {
        self.reason = reason;
        self.detail = Some(detail);
    }

    /// What is counted, and why. What would be denied is, whatever becomes of it: else a report would leave out what
    /// cannot be reached now.
    fn outcome(&self) -> (Outcome, Reason) {
        match (self.reason, &self.would_deny) {
            (reason, _) if reason.is_denial() => (Outcome::Denied, reason),
            (_, Some(denial)) => (Outcome::WouldDeny, denial.reason()),
            (Reason::Ok, None) => (Outcome::Allowed, Reason::Ok),
            (reason, None) => (Outcome::Failed, reason),
        }
    }

    fn settle(&mut self) {
        let (outcome, reason) = self.outcome();
        match &self.rule_metrics {
            Some(rule) if outcome == Outcome::Allowed => rule.allowed(self.kind).inc(),
            _ => {
                let rule = self.rule.as_deref().unwrap_or(NO_RULE);
                self.metrics.count_request(self.kind, outcome, reason, rule);
            }
        }
        let to_head = self.to_head.unwrap_or_else(|| self.started.elapsed());
        self.metrics
            .request_duration(self.kind, outcome)
            .observe(to_head.as_secs_f64());
        if self.log {
            self.write_line(outcome, reason);
        }
        if let Some(spans) = self.spans.take() {
            spans.end(self, outcome, reason);
        }
    }

    /// What the log says of an outcome that is not `ok`: the failure, where there is one.
    fn told(&self) -> Option<&dyn fmt::Display> {
        let denial = || Some(self.would_deny.as_deref()? as &dyn fmt::Display);
        self.detail
            .as_ref()
            .map(|detail| detail as &dyn fmt::Display)
            .or_else(denial)
    }

    fn write_line(&self, outcome: Outcome, reason: Reason) {
        let traffic = self.traffic.as_deref();
        tracing::info!(
            target: "access",
            {
            http.request.method = self.method.as_str(),
            server.address = self.target.as_ref().map(|target| display(target.host().without_brackets())),
            server.port = self.target.as_ref().map(Target::port),
            client.address = %self.client.ip(),
            client.port = self.client.port(),
            network.peer.address = self.upstream.map(|upstream| display(upstream.ip())),
            network.peer.port = self.upstream.map(|upstream| upstream.port()),
            http.response.status_code = self.status.map(|status| status.as_u16()),
            result = outcome.label(),
            reason = reason.label(),
            rule = self.rule.as_deref(),
            bytes_sent = traffic.map(Traffic::sent),
            bytes_received = traffic.map(Traffic::received),
            duration_ms = millis(self.started.elapsed()),
            dns_ms = self.dns.map(millis),
            connect_ms = self.connect.map(millis),
            trace_id = %self.trace_id,
            detail = self.told().map(display),
            },
            "request"
        );
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.reason = Reason::Internal;
        }
        self.settle();
    }
}

/// A method as it is told: lines and spans wait, and anybody may send one as long as a head may be.
/// The longest one registered has 17 letters.
fn short(method: &Method) -> Method {
    let text = method.as_str().as_bytes();
    match text.get(..32) {
        Some(cut) => Method::from_bytes(cut).unwrap_or_default(),
        None => method.clone(),
    }
}

/// Milliseconds with microseconds behind the point, as the log shows durations.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    // Microseconds of a year fit a double exactly.
    duration.as_micros() as f64 / 1000.0
}

/// Live byte counts of one request or tunnel, added to its rule's counters as they grow.
#[derive(Debug)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    kind: Kind,
    rule: Arc<RuleMetrics>,
}

impl Traffic {
    /// Counts for one request or tunnel under a rule.
    #[must_use]
    pub fn new(kind: Kind, rule: Arc<RuleMetrics>) -> Self {
        Self {
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            kind,
            rule,
        }
    }

    /// Counts bytes that were handed to the receiving socket.
    pub fn count(&self, direction: Direction, bytes: usize) {
        let own = match direction {
            Direction::ClientToUpstream => &self.sent,
            Direction::UpstreamToClient => &self.received,
        };
        own.fetch_add(bytes as u64, Ordering::Relaxed);
        self.rule.bytes(self.kind, direction).inc_by(bytes as u64);
    }

    /// Bytes sent to the upstream.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes received from the upstream.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
