//! A timer that costs nothing while it is not needed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Runs out when an upstream is silent for too long.
///
/// It belongs to a connection and stays in the runtime's wheel from one exchange to the next. Only
/// the deadline moves; the timer follows when it fires early, which is once per timeout and not
/// once per request.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    deadline: Instant,
    /// Bytes of the upload that had been sent at the last start.
    sent: u64,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Self {
            limit,
            deadline,
            sent: 0,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
        }
    }

    /// Starts again from now, when so much has been sent.
    pub(crate) fn restart(&mut self, sent: u64) {
        self.sent = sent;
        self.deadline = Instant::now() + self.limit;
    }

    /// Resolves when the time since the last start is over. An upload that goes on is no silence: where
    /// more has been sent since, it starts again.
    pub(crate) fn poll_out(&mut self, cx: &mut Context<'_>, sent: u64) -> Poll<()> {
        if sent != self.sent {
            self.restart(sent);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_runs_out_a_whole_limit_after_its_last_start() {
        let mut patience = Patience::new(Duration::from_secs(10));
        let begun = Instant::now();
        tokio::time::advance(Duration::from_secs(8)).await;
        patience.restart(0);
        poll_fn(|cx| patience.poll_out(cx, 0)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(18));
    }
}
