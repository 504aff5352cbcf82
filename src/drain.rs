//! The end of a pod's life: not ready, then closed to new connections, then over.
//!
//! Endpoints learn late that a pod is going, so it goes on accepting for a while after it has
//! said so. Tunnels end by themselves until close to the deadline; those left are closed one by
//! one, idle ones first, so that their clients do not all come back in the same moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use crate::config::Config;
use crate::metrics::{End, Metrics};
use crate::tunnels::{Tunnel, Tunnels};

/// How often the drain looks at what is left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The share of the drain's time in which the tunnels that are left are closed.
const SHEDDING_SHARE: u32 = 4;

/// How long what is closed may take to be accounted for.
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
    accepting: Arc<watch::Sender<usize>>,
}

/// Somebody accepts connections; the drain waits until nobody does before it looks who is there.
#[derive(Debug)]
pub struct Accepting(Arc<watch::Sender<usize>>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.send_modify(|tasks| *tasks -= 1);
    }
}

impl Drain {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Says that connections are accepted, until that is dropped.
    #[must_use]
    pub fn accepting(&self) -> Accepting {
        self.accepting.send_modify(|tasks| *tasks += 1);
        Accepting(Arc::clone(&self.accepting))
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
    accepting: watch::Receiver<usize>,
    delay: Duration,
    timeout: Duration,
    tunnels: Arc<Tunnels>,
    metrics: Arc<Metrics>,
}

/// How a drain came to its end, and what it cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Tunnels that had to be closed.
    pub tunnels_closed: usize,
    /// Connections besides them that were still open.
    pub connections_cut: usize,
    /// Whether it was not left its time: stopped at once, or a second time.
    pub hurried: bool,
}

impl Drained {
    /// Whether it ended as configured, by itself or at the deadline, or was stopped with nothing open.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        !self.hurried || (self.tunnels_closed == 0 && self.connections_cut == 0)
    }
}

impl Drainer {
    /// A drainer in the serving phase, and what follows it.
    #[must_use]
    pub fn new(config: &Config, tunnels: Arc<Tunnels>, metrics: Arc<Metrics>) -> (Self, Drain) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        let (tasks, accepting) = watch::channel(0);
        let (delay, timeout) = (config.drain_delay, config.drain_timeout);
        (
            Self {
                phase: sender,
                accepting,
                delay,
                timeout,
                tunnels,
                metrics,
            },
            Drain {
                phase: receiver,
                accepting: Arc::new(tasks),
            },
        )
    }

    /// Waits for the first stop, then drains; resolves when nothing is left, or at the deadline.
    pub async fn run(self, mut stops: mpsc::Receiver<Stop>) -> Drained {
        let mut hurried = stops.recv().await != Some(Stop::Gently);
        let mut shed = 0;
        if !hurried {
            tracing::info!(delay = ?self.delay, timeout = ?self.timeout, "draining");
            hurried = tokio::select! {
                () = self.gently(&mut shed) => false,
                _second = stops.recv() => true,
            };
        }
        // Before they are told, for they are quick to go. A tunnel is one of the clients.
        let left = self.tunnels.list();
        let clients = usize::try_from(self.metrics.clients()).unwrap_or_default();
        let drained = Drained {
            tunnels_closed: shed + end_all(&left),
            connections_cut: clients.saturating_sub(left.len()),
            hurried,
        };
        self.phase.send_replace(Phase::Over);
        let _ = tokio::time::timeout(LAST_ACCOUNTS, self.all_gone()).await;
        tracing::info!(
            tunnels_closed = drained.tunnels_closed,
            connections_cut = drained.connections_cut,
            hurried = drained.hurried,
            "drained"
        );
        drained
    }

    /// Resolves when no connection is open any more, so that its account is written.
    async fn all_gone(&self) {
        self.tunnels.wait_until_empty().await;
        while self.metrics.clients() > 0 {
            tokio::time::sleep(LOOK_EVERY / 5).await;
        }
    }

    /// `shed` counts the tunnels that were closed, also when this is given up half-way.
    async fn gently(&self, shed: &mut usize) {
        self.phase.send_replace(Phase::Unready);
        tokio::time::sleep(self.delay).await;
        self.phase.send_replace(Phase::Closing);
        let deadline = Instant::now() + self.timeout;
        // Whoever is still to be accepted is to be waited for as well.
        let mut accepting = self.accepting.clone();
        let _ = timeout_at(deadline, accepting.wait_for(|tasks| *tasks == 0)).await;
        let shedding_from = deadline - self.timeout / SHEDDING_SHARE;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        // What a late look should have closed is spread over those that are left.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let left = self.tunnels.len();
            self.metrics
                .drain_tunnels_remaining
                .set(i64::try_from(left).unwrap_or(i64::MAX));
            let now = Instant::now();
            if self.metrics.clients() == 0 || now >= deadline {
                return;
            }
            if now >= shedding_from {
                *shed += self.shed(deadline - now);
            }
        }
    }

    /// Closes as many tunnels as are due when the rest goes evenly until the deadline.
    fn shed(&self, left: Duration) -> usize {
        let mut tunnels = self.tunnels.list();
        // Those closed at the last look may still be on their way out.
        tunnels.retain(|tunnel| tunnel.may_go_on());
        let looks_left = left.as_millis() / LOOK_EVERY.as_millis() + 1;
        let due = tunnels
            .len()
            .div_ceil(usize::try_from(looks_left).unwrap_or(usize::MAX));
        tunnels.sort_by_cached_key(|tunnel| std::cmp::Reverse(tunnel.idle()));
        end_all(&tunnels[..due])
    }
}

/// Ends tunnels; how many of them would have gone on.
fn end_all(tunnels: &[Arc<Tunnel>]) -> usize {
    tunnels
        .iter()
        .filter(|tunnel| tunnel.end(End::Drained))
        .count()
}
