//! The end of a pod's life: not ready, then closed to new connections, then over.
//!
//! Endpoints learn late that a pod is going, so it goes on accepting for a while after it has
//! said so. Tunnels end by themselves until close to the deadline; those left are closed one by
//! one, idle ones first, so that their clients do not all come back in the same moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::Config;
use crate::metrics::{End, Metrics};
use crate::tunnels::Tunnels;

/// How often the drain looks at what is left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The share of the drain's time in which the tunnels that are left are closed.
const SHEDDING_SHARE: u32 = 4;

/// How long closed tunnels may take to be accounted for.
const LAST_ACCOUNTS: Duration = Duration::from_secs(1);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything is served.
    Serving,
    /// Everything is served, but readiness says no.
    Unready,
    /// Nothing new is accepted; what is open goes on.
    Closing,
    /// What is still open is closed.
    Over,
}

/// What asks the gateway to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// In its own time (SIGTERM). A second one is [`Stop::Now`].
    Gently,
    /// At once (SIGINT).
    Now,
}

/// Follows the phases; cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
}

impl Drain {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Resolves when the phase is reached or passed.
    pub async fn reaches(&mut self, phase: Phase) {
        // Without a sender there is nobody left to drain for.
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }
}

/// Takes the gateway through its phases.
#[derive(Debug)]
pub struct Drainer {
    phase: watch::Sender<Phase>,
    delay: Duration,
    timeout: Duration,
    tunnels: Arc<Tunnels>,
    metrics: Arc<Metrics>,
}

/// What a drain left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Tunnels that had to be closed.
    pub tunnels_closed: usize,
    /// Connections that were still open at the end.
    pub connections_cut: i64,
}

impl Drainer {
    /// A drainer in the serving phase, and what follows it.
    #[must_use]
    pub fn new(config: &Config, tunnels: Arc<Tunnels>, metrics: Arc<Metrics>) -> (Self, Drain) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        let (delay, timeout) = (config.drain_delay, config.drain_timeout);
        (
            Self {
                phase: sender,
                delay,
                timeout,
                tunnels,
                metrics,
            },
            Drain { phase: receiver },
        )
    }

    /// Waits for the first stop, then drains; resolves when nothing is left, or at the deadline.
    pub async fn run(self, mut stops: mpsc::Receiver<Stop>) -> Drained {
        let first = stops.recv().await;
        let mut closed = 0;
        if first == Some(Stop::Gently) {
            tracing::info!(delay = ?self.delay, timeout = ?self.timeout, "draining");
            closed = tokio::select! {
                closed = self.gently() => closed,
                _second = stops.recv() => 0,
            };
        }
        self.phase.send_replace(Phase::Over);
        let left = self.tunnels.list();
        closed += left.len();
        left.iter().for_each(|tunnel| tunnel.end(End::Drained));
        let _ = tokio::time::timeout(LAST_ACCOUNTS, self.tunnels.wait_until_empty()).await;
        let drained = Drained {
            tunnels_closed: closed,
            connections_cut: self.metrics.clients(),
        };
        tracing::info!(
            tunnels_closed = drained.tunnels_closed,
            connections_cut = drained.connections_cut,
            "drained"
        );
        drained
    }

    async fn gently(&self) -> usize {
        self.phase.send_replace(Phase::Unready);
        tokio::time::sleep(self.delay).await;
        self.phase.send_replace(Phase::Closing);
        let deadline = Instant::now() + self.timeout;
        let shedding_from = deadline - self.timeout / SHEDDING_SHARE;
        let mut closed = 0;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            let left = self.tunnels.len();
            self.metrics
                .drain_tunnels_remaining
                .set(i64::try_from(left).unwrap_or(i64::MAX));
            let now = Instant::now();
            if self.metrics.clients() == 0 || now >= deadline {
                return closed;
            }
            if now >= shedding_from {
                closed += self.shed(deadline - now);
            }
        }
    }

    /// Closes as many tunnels as are due when the rest goes evenly until the deadline.
    fn shed(&self, left: Duration) -> usize {
        let mut tunnels = self.tunnels.list();
        let looks_left = left.as_millis() / LOOK_EVERY.as_millis() + 1;
        let due = tunnels
            .len()
            .div_ceil(usize::try_from(looks_left).unwrap_or(usize::MAX));
        tunnels.sort_by_cached_key(|tunnel| std::cmp::Reverse(tunnel.idle()));
        tunnels
            .iter()
            .take(due)
            .for_each(|tunnel| tunnel.end(End::Drained));
        due
    }
}
