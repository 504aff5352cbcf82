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
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Self {
            limit,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
        }
    }

    /// Starts again from now.
    pub(crate) fn restart(&mut self) {
        self.deadline = Instant::now() + self.limit;
    }

    /// Resolves when the time since the last start is over.
    pub(crate) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
        patience.restart();
        poll_fn(|cx| patience.poll_out(cx)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(18));
    }
}
