//! Both directions of a tunnel: bytes, half-close, resets, live counts.
//!
//! An idle direction holds no buffer: it waits for readiness, reads into a scratch buffer of its
//! thread and keeps only what the other side did not take at once. Each direction ends by itself:
//! the end of one side's data becomes a half-close on the other (RFC 9110 §9.3.6 has a tunnel end
//! when both sides have closed), and a reset of one side becomes a reset of the other.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::net::Shutdown;
use tokio::net::TcpStream;

use crate::metrics::{Direction, End};
use crate::tunnels::Tunnel;

/// As much as a socket's default receive window holds, so one read often empties it.
const SCRATCH: usize = 64 * 1024;

/// A direction yields after this many bytes, so that a busy tunnel leaves the thread to others.
const BYTES_PER_TURN: usize = 1024 * 1024;

thread_local! {
    /// Borrowed within one poll only, so one a thread is enough for any number of tunnels.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Bytes that came with the heads: they are the first of each direction.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pub(crate) from_client: Bytes,
    pub(crate) from_upstream: Bytes,
}

/// Copies until both directions have ended, or one side has failed.
///
/// Whoever failed, the other side is reset when its socket is dropped.
pub(crate) async fn relay(
    client: &TcpStream,
    upstream: &TcpStream,
    early: Early,
    tunnel: &Tunnel,
) -> End {
    let mut up = Pipe::new(
        Direction::ClientToUpstream,
        client,
        upstream,
        early.from_client,
    );
    let mut down = Pipe::new(
        Direction::UpstreamToClient,
        upstream,
        client,
        early.from_upstream,
    );
    let end = poll_fn(|cx| {
        // Both are polled each time, so that neither waits for the other.
        let (sent, received) = (up.poll(cx, tunnel), down.poll(cx, tunnel));
        match (sent, received) {
            (Poll::Ready(Ended::Reading), _) => Poll::Ready(End::ClientReset),
            (_, Poll::Ready(Ended::Reading)) => Poll::Ready(End::UpstreamReset),
            // The client takes no more, but may have said all it had to say before it went.
            (Poll::Pending, Poll::Ready(Ended::Writing)) if up.drained => Poll::Pending,
            (_, Poll::Ready(Ended::Writing)) => Poll::Ready(End::ClientReset),
            (Poll::Ready(Ended::Finished), Poll::Ready(Ended::Finished)) => {
                Poll::Ready(End::Closed)
            }
            (Poll::Ready(Ended::Writing), Poll::Ready(Ended::Finished)) => {
                Poll::Ready(End::UpstreamReset)
            }
            // The upstream takes no more, but what it has sent is still on its way.
            (Poll::Ready(Ended::Writing | Ended::Finished) | Poll::Pending, Poll::Pending)
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

/// Makes the coming close a reset: nothing more is delivered, and the peer learns of it.
pub(crate) fn reset(socket: &TcpStream) {
    // A socket that is gone already needs no reset.
    let _ = socket.set_zero_linger();
}

/// How one direction came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The source ended, and the end was passed on.
    Finished,
    /// The source failed.
    Reading,
    /// The destination failed.
    Writing,
}

/// One direction.
struct Pipe<'a> {
    direction: Direction,
    from: &'a TcpStream,
    to: &'a TcpStream,
    /// Read but not taken yet; empty, and without memory, most of the time.
    pending: Bytes,
    /// Whether the source has no more.
    drained: bool,
    ended: Option<Ended>,
}

impl<'a> Pipe<'a> {
    fn new(direction: Direction, from: &'a TcpStream, to: &'a TcpStream, pending: Bytes) -> Self {
        Self {
            direction,
            from,
            to,
            pending,
            drained: false,
            ended: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, tunnel: &Tunnel) -> Poll<Ended> {
        if let Some(ended) = self.ended {
            return Poll::Ready(ended);
        }
        let ended = ready!(self.poll_copy(cx, tunnel));
        self.ended = Some(ended);
        Poll::Ready(ended)
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, tunnel: &Tunnel) -> Poll<Ended> {
        let mut moved = 0;
        loop {
            match self.poll_flush(cx, tunnel) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Ended::Writing),
                Poll::Pending => return Poll::Pending,
            }
            if self.drained {
                // A side that has already gone needs no half-close.
                let _ = rustix::net::shutdown(self.to, Shutdown::Write);
                return Poll::Ready(Ended::Finished);
            }
            if moved >= BYTES_PER_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if ready!(self.from.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Ended::Reading);
            }
            match BUFFER.with_borrow_mut(|buffer| self.copy_once(buffer, tunnel)) {
                Ok(bytes) => moved += bytes,
                Err(ended) => return Poll::Ready(ended),
            }
        }
    }

    /// Reads once and writes what the destination takes; the rest is kept.
    fn copy_once(&mut self, buffer: &mut [u8], tunnel: &Tunnel) -> Result<usize, Ended> {
        let read = match self.from.try_read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(_) => return Err(Ended::Reading),
        };
        if read == 0 {
            self.drained = true;
            return Ok(0);
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            match self.to.try_write(rest) {
                Ok(written) => {
                    tunnel.moved(self.direction, written);
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pending = Bytes::copy_from_slice(rest);
                    break;
                }
                Err(_) => return Err(Ended::Writing),
            }
        }
        Ok(read)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, tunnel: &Tunnel) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            ready!(self.to.poll_write_ready(cx))?;
            match self.to.try_write(&self.pending) {
                Ok(written) => {
                    tunnel.moved(self.direction, written);
                    let _taken = self.pending.split_to(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // Gives the memory back; an empty slice of it would hold it.
        self.pending = Bytes::new();
        Poll::Ready(Ok(()))
    }
}
