//! The table of live tunnels.
//!
//! Whatever concerns open tunnels reads it: the idle sweep, the drain, revocation, the inspector.
//! A tunnel has no timer of its own; one sweep over the table serves them all. The table is
//! lock-free, so that listing ten thousand tunnels holds up none of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::{SpanKind, TraceId};
use tokio::sync::Notify;

use crate::access::{Traffic, millis};
use crate::metrics::{Direction, End, Metrics};
use crate::target::Target;
use crate::trace::{Attributes, Span};

/// The sweep looks this often, or more often where a timeout is shorter.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Every open tunnel.
#[derive(Debug)]
pub struct Tunnels {
    open: papaya::HashMap<u64, Arc<Tunnel>>,
    next_id: AtomicU64,
    /// The time all tunnels count from.
    epoch: Instant,
    metrics: Arc<Metrics>,
    log: bool,
    idle_timeout: Duration,
    max_lifetime: Option<Duration>,
    /// Wakes whoever waits for the table to be empty.
    closed: Notify,
}

/// What is known of a tunnel when it opens.
#[derive(Debug)]
pub struct Opening {
    /// Who opened it.
    pub client: SocketAddr,
    /// The user name the client gave.
    pub user: Option<Arc<str>>,
    /// The path of the plain request that switched protocols; none for a `CONNECT`.
    pub path: Option<Box<str>>,
    /// Generation of the policy that allowed it.
    pub generation: u64,
    /// What it was opened to, as asked for.
    pub target: Target,
    /// The address that was dialled.
    pub upstream: SocketAddr,
    /// The rule that allowed it.
    pub rule: Arc<str>,
    /// Its byte counts.
    pub traffic: Arc<Traffic>,
    /// The trace of the request that opened it.
    pub trace_id: TraceId,
    /// The span of that request, where its trace is kept.
    pub(crate) span: Option<Span>,
}

/// One open tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Unique for the life of the process.
    pub id: u64,
    /// What is known since it opened.
    pub opening: Opening,
    epoch: Instant,
    opened: Duration,
    /// Milliseconds after `epoch`.
    last_moved: AtomicU64,
    /// 0, or one more than the [`End`] it was asked to come to.
    asked_to_end: AtomicU8,
    asked: Notify,
}

impl Tunnel {
    /// Notes bytes handed to the receiving side.
    pub fn moved(&self, direction: Direction, bytes: usize) {
        self.opening.traffic.count(direction, bytes);
        self.last_moved
            .store(to_millis(self.epoch.elapsed()), Ordering::Relaxed);
    }

    /// How long it has been open.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.epoch.elapsed().saturating_sub(self.opened)
    }

    /// How long no byte has moved in either direction.
    #[must_use]
    pub fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.last_moved.load(Ordering::Relaxed));
        self.epoch.elapsed().saturating_sub(last)
    }

    /// Asks it to end; the first to ask is the reason that is recorded, and is told so.
    pub fn end(&self, end: End) -> bool {
        let asked = end as u8 + 1;
        let first = self
            .asked_to_end
            .compare_exchange(0, asked, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if first {
            self.asked.notify_one();
        }
        first
    }

    /// Whether nobody has asked it to end.
    pub(crate) fn may_go_on(&self) -> bool {
        self.asked_to_end.load(Ordering::Acquire) == 0
    }

    /// Resolves when somebody asks it to end.
    pub(crate) async fn asked_to_end(&self) -> End {
        loop {
            let asked = self.asked_to_end.load(Ordering::Acquire);
            let end = asked
                .checked_sub(1)
                .and_then(|end| End::ALL.get(usize::from(end)));
            if let Some(end) = end {
                return *end;
            }
            self.asked.notified().await;
        }
    }
}

impl Tunnels {
    /// An empty table.
    #[must_use]
    pub fn new(
        metrics: Arc<Metrics>,
        log: bool,
        idle_timeout: Duration,
        max_lifetime: Option<Duration>,
    ) -> Self {
        Self {
            open: papaya::HashMap::new(),
            next_id: AtomicU64::new(1),
            epoch: Instant::now(),
            metrics,
            log,
            idle_timeout,
            max_lifetime,
            closed: Notify::new(),
        }
    }

    /// Enters a tunnel; it leaves the table when the returned record is dropped.
    pub(crate) fn open(self: &Arc<Self>, opening: Opening) -> TunnelRecord {
        let now = self.epoch.elapsed();
        let request = opening.span.as_ref();
        let span = request.map(|request| request.child(SpanKind::Internal));
        let tunnel = Arc::new(Tunnel {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            opening,
            epoch: self.epoch,
            opened: now,
            last_moved: AtomicU64::new(to_millis(now)),
            asked_to_end: AtomicU8::new(0),
            asked: Notify::new(),
        });
        self.open.pin().insert(tunnel.id, Arc::clone(&tunnel));
        self.metrics.tunnels_active.inc();
        TunnelRecord {
            tunnel,
            table: Arc::clone(self),
            span,
            end: End::Cancelled,
        }
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The tunnel with this id, while it is open.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Tunnel>> {
        self.open.pin().get(&id).cloned()
    }

    /// Every open tunnel, in no order; none of them is held up.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Tunnel>> {
        self.open.pin().values().cloned().collect()
    }

    /// The oldest so many tunnels whose ids are above `after`, oldest first, and whether there are
    /// more; none of them is held up.
    #[must_use]
    pub fn page(&self, after: u64, limit: usize) -> (Vec<Arc<Tunnel>>, bool) {
        let open = self.open.pin();
        // By the keys of the table alone: most of the tunnels are on other pages.
        let mut found: Vec<_> = open.iter().filter(|(id, _)| **id > after).collect();
        let more = found.len() > limit;
        if more {
            found.select_nth_unstable_by_key(limit, |(id, _)| **id);
            found.truncate(limit);
        }
        found.sort_unstable_by_key(|(id, _)| **id);
        let tunnels = found.into_iter().map(|(_, tunnel)| Arc::clone(tunnel));
        (tunnels.collect(), more)
    }

    /// Resolves when none is open any more.
    pub async fn wait_until_empty(&self) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if self.is_empty() {
                return;
            }
            closed.await;
        }
    }

    /// Ends idle and over-aged tunnels, for as long as it is polled.
    pub async fn sweep(self: Arc<Self>) {
        // A quarter of the timeout, so that a short one is kept to within that.
        let shortest = self
            .max_lifetime
            .map_or(self.idle_timeout, |age| age.min(self.idle_timeout));
        let pause = (shortest / 4).clamp(Duration::from_millis(10), SWEEP_EVERY);
        let mut ticks = tokio::time::interval(pause);
        loop {
            ticks.tick().await;
            for tunnel in self.open.pin().values() {
                if tunnel.idle() >= self.idle_timeout {
                    tunnel.end(End::IdleTimeout);
                } else if self.max_lifetime.is_some_and(|age| tunnel.age() >= age) {
                    tunnel.end(End::Lifetime);
                }
            }
        }
    }
}

/// The account of one tunnel, settled on drop: its metrics, its log line, its span, its place in the table.
#[derive(Debug)]
pub(crate) struct TunnelRecord {
    tunnel: Arc<Tunnel>,
    table: Arc<Tunnels>,
    span: Option<Span>,
    end: End,
}

impl TunnelRecord {
    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    pub(crate) fn ended(&mut self, end: End) {
        self.end = end;
    }

    fn write_line(&self, age: Duration) {
        let opening = &self.tunnel.opening;
        tracing::info!(
            target: "access",
            {
            server.address = %opening.target.host().without_brackets(),
            server.port = opening.target.port(),
            client.address = %opening.client.ip(),
            client.port = opening.client.port(),
            network.peer.address = %opening.upstream.ip(),
            network.peer.port = opening.upstream.port(),
            rule = &*opening.rule,
            end = self.end.label(),
            bytes_sent = opening.traffic.sent(),
            bytes_received = opening.traffic.received(),
            duration_ms = millis(age),
            trace_id = %opening.trace_id,
            },
            "tunnel"
        );
    }

    fn end_span(&self, span: Span) {
        let (tunnel, end) = (Arc::clone(&self.tunnel), self.end);
        span.end("tunnel", move || {
            let opening = &tunnel.opening;
            let told = Attributes::new()
                .with(
                    "server.address",
                    opening.target.host().without_brackets().into_owned(),
                )
                .with("server.port", i64::from(opening.target.port()))
                .with("client.address", opening.client.ip().to_string())
                .with("client.port", i64::from(opening.client.port()))
                .with("network.peer.address", opening.upstream.ip().to_string())
                .with("network.peer.port", i64::from(opening.upstream.port()))
                .with("rule", Arc::clone(&opening.rule))
                .with("end", end.label())
                .with("bytes_sent", opening.traffic.sent().cast_signed())
                .with("bytes_received", opening.traffic.received().cast_signed());
            if end == End::Closed {
                told
            } else {
                told.with_error(end.label()).failed()
            }
        });
    }
}

impl Drop for TunnelRecord {
    fn drop(&mut self) {
        let age = self.tunnel.age();
        self.table.open.pin().remove(&self.tunnel.id);
        self.table.metrics.tunnels_active.dec();
        self.table.metrics.count_tunnel_end(self.end, age);
        if self.table.log {
            self.write_line(age);
        }
        if let Some(span) = self.span.take() {
            self.end_span(span);
        }
        if self.table.is_empty() {
            self.table.closed.notify_waiters();
        }
    }
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
