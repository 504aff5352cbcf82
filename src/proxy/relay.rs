//! Both directions of a tunnel: bytes, half-close, resets, live counts. And content of a response that goes the same way.
//!
//! An idle direction holds no buffer: it waits for readiness, reads into a scratch buffer of its
//! thread and keeps only what the other side did not take at once. A direction that moves much
//! goes through a kernel pipe instead, for as long as it does (`direction.rs`, `pipes.rs`). Bulk
//! takes turns, and so do the messages of a client that has more of them than its share (`turns.rs`).
//!
//! Each direction ends by itself: the end of one side's data becomes a half-close on the other
//! (RFC 9110 §9.3.6 has a tunnel end when both sides have closed), and a reset of one side
//! becomes a reset of the other.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::by_client::Slot;
use super::turns::Turns;
use crate::metrics::{Direction, End};

mod direction;
mod pipes;
#[cfg(test)]
mod tests;

use direction::{Ended, OneWay};
pub(super) use pipes::Pipes;

/// Is told of every byte that was handed to the receiving side.
pub(crate) trait Count {
    fn moved(&self, direction: Direction, bytes: usize);
}

/// Bytes that came with the heads: they are the first of each direction.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pub(crate) from_client: Bytes,
    pub(crate) from_upstream: Bytes,
}

/// What whoever moves bytes shares with all others.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) pipes: Arc<Pipes>,
    pub(super) turns: Arc<Turns>,
    /// For whom they are moved.
    pub(super) client: Slot,
}

/// Copies until both directions have ended, or one side has failed.
///
/// Whoever failed, the other side is reset when its socket is dropped.
pub(crate) async fn relay(
    client: &TcpStream,
    upstream: &TcpStream,
    early: Early,
    shared: &Shared,
    count: &impl Count,
) -> End {
    let _reset = [ResetByPanic(client), ResetByPanic(upstream)];
    let mut up = OneWay::new(client, upstream, early.from_client, shared);
    let mut down = OneWay::new(upstream, client, early.from_upstream, shared);
    let end = poll_fn(|cx| {
        // Both are polled each time, so that neither waits for the other.
        let sent = up.poll(cx, |bytes| count.moved(Direction::ClientToUpstream, bytes));
        if sent == Poll::Ready(Ended::Reset) {
            down.cut_short();
        }
        let received = down.poll(cx, |bytes| count.moved(Direction::UpstreamToClient, bytes));
        match (sent, received) {
            (Poll::Ready(Ended::Reading), _) => Poll::Ready(End::ClientReset),
            (_, Poll::Ready(Ended::Reading)) => Poll::Ready(End::UpstreamReset),
            // The client takes no more, but may have said all it had to say before it went.
            (Poll::Pending, Poll::Ready(Ended::Writing | Ended::Reset)) if up.has_all() => {
                Poll::Pending
            }
            (_, Poll::Ready(Ended::Writing | Ended::Reset)) => Poll::Ready(End::ClientReset),
            (Poll::Ready(Ended::Finished), Poll::Ready(Ended::Finished)) => {
                Poll::Ready(End::Closed)
            }
            (Poll::Ready(Ended::Writing | Ended::Reset), Poll::Ready(Ended::Finished)) => {
                Poll::Ready(End::UpstreamReset)
            }
            // The upstream takes no more, but what it has sent is still on its way.
            (
                Poll::Ready(Ended::Writing | Ended::Reset | Ended::Finished) | Poll::Pending,
                Poll::Pending,
            )
            | (Poll::Pending, Poll::Ready(Ended::Finished)) => Poll::Pending,
        }
    })
    .await;
    if end == End::ClientReset {
        reset(upstream);
    } else if end == End::UpstreamReset {
        reset(client);
    }
    end
}

/// Content of which the length is known.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    pub(crate) upstream: &'a TcpStream,
    /// What has been read of it.
    pub(crate) early: Bytes,
    /// Bytes behind those.
    pub(crate) left: u64,
}

/// Moves content to a client, and closes neither socket.
///
/// `told` hears of what the client has taken, or that it takes nothing now; what has come `is_due` may wait for no turn.
///
/// # Errors
/// The side that failed, or ended too early.
pub(crate) async fn pass(
    content: Content<'_>,
    client: &TcpStream,
    shared: &Shared,
    told: impl Fn(Option<usize>),
    is_due: impl Fn() -> bool,
) -> Result<(), End> {
    let mut down = OneWay::of_length(content, client, shared);
    let ended = poll_fn(|cx| {
        let polled = if is_due() {
            down.poll_now(cx, |bytes| told(Some(bytes)))
        } else {
            down.poll(cx, |bytes| told(Some(bytes)))
        };
        if polled.is_pending() && down.holds() {
            told(None);
        }
        polled
    })
    .await;
    match ended {
        Ended::Finished => Ok(()),
        Ended::Reading => Err(End::UpstreamReset),
        Ended::Writing | Ended::Reset => Err(End::ClientReset),
    }
}

/// Makes the close of a socket a reset if its task panics: what was sent must not look whole.
pub(crate) struct ResetByPanic<'a>(pub(crate) &'a TcpStream);

impl Drop for ResetByPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            reset(self.0);
        }
    }
}

/// Makes the coming close a reset: nothing more is delivered, and the peer learns of it.
pub(crate) fn reset(socket: &TcpStream) {
    // A socket that is gone already needs no reset.
    let _ = socket.set_zero_linger();
}
