//! One address after another, the next when one fails or is slow (RFC 8305 §5).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::iter::Copied;
use std::net::SocketAddr;
use std::pin::Pin;
use std::slice::Iter;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::{attempt, failed, more_telling};
use crate::proxy::respond::Failure;
use crate::reason::Reason;

/// Time between two connection attempts (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Attempts open at once. RFC 8305 knows no bound, and as many descriptors would go to a name whose
/// addresses do not answer; three are a network of either family that is broken, and one that is not.
const MOST_OPEN: usize = 3;

/// Connects to the first of the addresses that answers before `deadline`.
///
/// The first attempt has the descriptor of its connection; others take theirs from `further`, which all
/// requests share. When the next one is due and there is no room, the oldest is given up: it has had more
/// time than the others, and the last address may be the one that answers (RFC 8305 §5 does not have
/// an attempt wait for those before). The time that is left is then shared by those still to come.
///
/// `worst` is the most telling failure so far, for whoever waits no longer.
pub(super) async fn race(
    addresses: &[SocketAddr],
    further: &Semaphore,
    deadline: Instant,
    worst: &mut Option<Failure>,
) -> Result<(TcpStream, SocketAddr), Failure> {
    let mut race = Race {
        waiting: addresses.iter().copied(),
        open: VecDeque::with_capacity(MOST_OPEN),
        further,
        taken: Vec::new(),
    };
    loop {
        if let Some(slow) = race.begin_next() {
            let failure = failed(slow, io::ErrorKind::TimedOut.into());
            *worst = Some(more_telling(worst.take(), failure));
        }
        let is_last = race.waiting.len() == 0;
        let pause = tokio::time::sleep(race.pause(deadline));
        tokio::pin!(pause);
        // Until a failure or the pause calls for the next address; after the last, until all ended.
        loop {
            tokio::select! {
                ended = race.ended() => match ended {
                    Some((address, Ok(stream))) => return Ok((stream, address)),
                    Some((address, Err(error))) => {
                        *worst = Some(more_telling(worst.take(), failed(address, error)));
                        if !is_last { break; }
                    }
                    None if is_last => {
                        return Err(worst.take().unwrap_or_else(|| {
                            Failure::new(Reason::DnsNotFound, "no address to dial")
                        }));
                    }
                    None => break,
                },
                () = &mut pause, if !is_last => break,
            }
        }
    }
}

struct Race<'a> {
    waiting: Copied<Iter<'a, SocketAddr>>,
    /// The oldest first.
    open: VecDeque<Attempt>,
    further: &'a Semaphore,
    /// What the attempts besides the first have of it.
    taken: Vec<SemaphorePermit<'a>>,
}

struct Attempt {
    address: SocketAddr,
    connecting: Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>,
}

impl Race<'_> {
    /// Begins the next attempt, if one is left; tells which had to be given up for it.
    fn begin_next(&mut self) -> Option<SocketAddr> {
        let address = self.waiting.next()?;
        let slow = if self.has_room() {
            None
        } else {
            self.open.pop_front()
        };
        let slow = slow.map(|slow| slow.address);
        self.open.push_back(Attempt {
            address,
            connecting: Box::pin(attempt(address)),
        });
        slow
    }

    /// Whether another attempt may be open besides; what it takes is taken.
    fn has_room(&mut self) -> bool {
        if self.open.len() <= self.taken.len() {
            return true;
        }
        if self.open.len() >= MOST_OPEN {
            return false;
        }
        let place = self.further.try_acquire().ok();
        let has_room = place.is_some();
        self.taken.extend(place);
        has_room
    }

    /// How long to wait for those that are open before the next one begins.
    fn pause(&mut self, deadline: Instant) -> Duration {
        let Ok(waiting @ 1..) = u32::try_from(self.waiting.len()) else {
            return Duration::ZERO;
        };
        if self.has_room() {
            return ATTEMPT_DELAY;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        (left / (waiting + 1)).max(ATTEMPT_DELAY)
    }

    /// Waits for one of the open attempts to end; `None` when none is open.
    async fn ended(&mut self) -> Option<(SocketAddr, io::Result<TcpStream>)> {
        poll_fn(|cx| {
            for at in 0..self.open.len() {
                if let Poll::Ready(result) = self.open[at].connecting.as_mut().poll(cx) {
                    let ended = self
                        .open
                        .remove(at)
                        .map(|attempt| (attempt.address, result));
                    return Poll::Ready(ended);
                }
            }
            if self.open.is_empty() {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }
}
