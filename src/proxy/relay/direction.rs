//! One direction of a tunnel, by copying or by `splice(2)`.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::net::{RecvFlags, Shutdown};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pipes::Borrowed;
use super::{Content, Shared};
use crate::proxy::turns::Place;

/// As much as a socket's default receive window holds, so one read often empties it.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// Borrowed within one poll only, so one a thread is enough for any number of tunnels.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// How one direction came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The source ended, and the end was passed on.
    Finished,
    /// The source failed, or what was read from it is lost.
    Reading,
    /// The destination failed; what it sent before may have been whole.
    Writing,
    /// The destination was reset before the end of what it sends.
    Reset,
}

impl Ended {
    /// The error of a socket is told once, so whoever reads from this one will find nothing but its end.
    fn of_write(error: &io::Error) -> Self {
        // A reset behind the end of its data is a broken pipe.
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Writing
        } else {
            Self::Reset
        }
    }
}

/// How a turn came to its end; one that waits for a socket is pending.
enum Turn {
    Ended(Ended),
    /// There may be more, of which no socket will tell.
    UsedUp,
}

/// From one socket to the other.
pub(super) struct OneWay<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    shared: &'a Shared,
    /// Among all that have to wait for a turn.
    place: Place<'a>,
    /// Read but not taken yet; without memory most of the time.
    kept: Kept,
    /// Bytes that are still to be read, where that is known: then both sockets go on behind them.
    left: Option<u64>,
    /// Whether the source has no more.
    drained: bool,
    /// Whether the source was reset, so that its end is none.
    is_cut_short: bool,
    ended: Option<Ended>,
}

/// Bytes between the sockets.
enum Kept {
    Nothing,
    /// In this process.
    Copied(Bytes),
    /// In the kernel, or about to be.
    Piped(Borrowed),
}

impl<'a> OneWay<'a> {
    pub(super) fn new(
        from: &'a TcpStream,
        to: &'a TcpStream,
        early: Bytes,
        shared: &'a Shared,
    ) -> Self {
        let kept = if early.is_empty() {
            Kept::Nothing
        } else {
            Kept::Copied(early)
        };
        Self {
            from,
            to,
            shared,
            place: Place::new(&shared.turns, shared.client),
            kept,
            left: None,
            drained: false,
            is_cut_short: false,
            ended: None,
        }
    }

    /// For content of which the length is known, and that is bulk until it turns out to come in small pieces.
    pub(super) fn of_length(content: Content<'a>, to: &'a TcpStream, shared: &'a Shared) -> Self {
        Self {
            place: Place::of_bulk(&shared.turns, shared.client),
            left: Some(content.left),
            drained: content.left == 0,
            ..Self::new(content.upstream, to, content.early, shared)
        }
    }

    /// Whether the source has ended, and only the destination is waited for.
    pub(super) fn has_all(&self) -> bool {
        self.drained
    }

    /// Whether the destination has not taken all that was read.
    pub(super) fn holds(&self) -> bool {
        !matches!(self.kept, Kept::Nothing)
    }

    /// The source was reset, as a write to it has told.
    pub(super) fn cut_short(&mut self) {
        self.is_cut_short = true;
    }

    /// Moves what can be moved now; `moved` is told of each write.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, moved: impl Fn(usize)) -> Poll<Ended> {
        if let Some(ended) = self.ended {
            return Poll::Ready(ended);
        }
        // Both directions are polled where one has something to move; the other needs no turn.
        if self.place.must_wait() && self.has_news(cx) {
            ready!(self.place.poll_turn(cx));
        }
        self.poll_now(cx, moved)
    }

    /// The same without waiting for a turn.
    pub(super) fn poll_now(&mut self, cx: &mut Context<'_>, moved: impl Fn(usize)) -> Poll<Ended> {
        let mut bytes = 0;
        let turn = self.poll_move(cx, &mut |moved_now| {
            bytes += moved_now;
            moved(moved_now);
        });
        if bytes == 0 && self.left.is_some() {
            // Its bulk has not come yet.
            self.place.leave();
        } else {
            self.place.end(bytes);
        }
        match turn {
            Poll::Ready(Turn::Ended(ended)) => {
                self.kept = Kept::Nothing;
                self.ended = Some(ended);
                return Poll::Ready(ended);
            }
            Poll::Ready(Turn::UsedUp) => cx.waker().wake_by_ref(),
            Poll::Pending => {}
        }
        self.rest();
        Poll::Pending
    }

    fn has_news(&self, cx: &mut Context<'_>) -> bool {
        match self.kept {
            Kept::Nothing => self.from.poll_read_ready(cx).is_ready(),
            Kept::Copied(_) | Kept::Piped(_) => self.to.poll_write_ready(cx).is_ready(),
        }
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, moved: &mut impl FnMut(usize)) -> Poll<Turn> {
        let most = self.place.most_bytes();
        let mut turn = 0;
        loop {
            if let Err(ended) = ready!(self.poll_flush(cx, moved)) {
                return Poll::Ready(Turn::Ended(ended));
            }
            if self.drained && self.is_cut_short {
                return Poll::Ready(Turn::Ended(Ended::Reading));
            }
            if self.drained && self.left.is_some() {
                return Poll::Ready(Turn::Ended(Ended::Finished));
            }
            if self.drained {
                // A side that has already gone needs no half-close.
                let _ = rustix::net::shutdown(self.to, Shutdown::Write);
                return Poll::Ready(Turn::Ended(Ended::Finished));
            }
            if turn >= most {
                return Poll::Ready(Turn::UsedUp);
            }
            if ready!(self.from.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Turn::Ended(Ended::Reading));
            }
            if self.place.is_bulk() {
                self.take_pipe();
            }
            match self.fill(self.at_most(most - turn), moved) {
                Ok(bytes) => turn += bytes,
                Err(ended) => return Poll::Ready(Turn::Ended(ended)),
            }
        }
    }

    /// A pipe to move bytes through, if there is one to be had.
    fn take_pipe(&mut self) {
        if matches!(self.kept, Kept::Nothing)
            && let Some(pipe) = self.shared.pipes.borrow(self.shared.client)
        {
            self.kept = Kept::Piped(pipe);
        }
    }

    /// Gives up whatever holds nothing: a direction at rest has no memory and no descriptor.
    fn rest(&mut self) {
        let empty = match &self.kept {
            Kept::Nothing => false,
            Kept::Copied(bytes) => bytes.is_empty(),
            Kept::Piped(pipe) => pipe.is_empty(),
        };
        if empty {
            self.kept = Kept::Nothing;
        }
    }

    /// Reads once, by whichever way is open; tells how much. A pipe is filled with `most` bytes at most.
    fn fill(&mut self, most: usize, moved: &mut impl FnMut(usize)) -> Result<usize, Ended> {
        let read = match &mut self.kept {
            Kept::Piped(pipe) => pipe.fill(self.from, most),
            Kept::Nothing | Kept::Copied(_) => {
                return BUFFER.with_borrow_mut(|buffer| {
                    let room = self.at_most(buffer.len());
                    self.copy_once(&mut buffer[..room], moved)
                });
            }
        };
        match read {
            Ok(read) => self.note_read(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(Ended::Reading),
        }
    }

    /// So many bytes, or as many as there are still to be.
    fn at_most(&self, bytes: usize) -> usize {
        // More than fits is more than any read.
        let left = self.left.map(usize::try_from);
        left.map_or(bytes, |left| left.map_or(bytes, |left| left.min(bytes)))
    }

    fn note_read(&mut self, read: usize) -> Result<usize, Ended> {
        match &mut self.left {
            None => self.drained = read == 0,
            // There was to be more.
            Some(_) if read == 0 => return Err(Ended::Reading),
            Some(left) => {
                *left -= read as u64;
                self.drained = *left == 0;
            }
        }
        Ok(read)
    }

    /// Reads into the scratch buffer and writes what the destination takes; the rest is kept.
    fn copy_once(
        &mut self,
        buffer: &mut [u8],
        moved: &mut impl FnMut(usize),
    ) -> Result<usize, Ended> {
        let read = match read_some(self.from, buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(_) => return Err(Ended::Reading),
        };
        self.note_read(read)?;
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            match self.to.try_write(rest) {
                Ok(0) => return Err(Ended::Writing),
                Ok(written) => {
                    moved(written);
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.kept = Kept::Copied(Bytes::copy_from_slice(rest));
                    break;
                }
                Err(error) => return Err(Ended::of_write(&error)),
            }
        }
        Ok(read)
    }

    /// Hands what is kept to the destination.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        moved: &mut impl FnMut(usize),
    ) -> Poll<Result<(), Ended>> {
        while let Some(written) = self.write_kept() {
            match written {
                // Not of a socket; but an endless loop would be worse than an error.
                Ok(0) => return Poll::Ready(Err(Ended::Writing)),
                Ok(bytes) => moved(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.keep().map_err(|_| Ended::Reading)?;
                    ready!(self.to.poll_write_ready(cx))
                        .map_err(|error| Ended::of_write(&error))?;
                }
                Err(error) => return Poll::Ready(Err(Ended::of_write(&error))),
            }
        }
        if let Kept::Copied(_) = self.kept {
            // An empty slice would hold its memory.
            self.kept = Kept::Nothing;
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps in this process what must not stay in a pipe.
    fn keep(&mut self) -> io::Result<()> {
        if let Kept::Piped(pipe) = &mut self.kept
            && pipe.is_in_passing()
        {
            self.kept = Kept::Copied(pipe.copy_out()?);
        }
        Ok(())
    }

    /// Writes once from what is kept; none when nothing is.
    fn write_kept(&mut self) -> Option<io::Result<usize>> {
        match &mut self.kept {
            Kept::Copied(bytes) if !bytes.is_empty() => Some(
                self.to
                    .try_write(bytes)
                    .inspect(|taken| bytes.advance(*taken)),
            ),
            Kept::Piped(pipe) if !pipe.is_empty() => Some(pipe.pour_into(self.to)),
            Kept::Nothing | Kept::Copied(_) | Kept::Piped(_) => None,
        }
    }
}

/// Reads once. A short read has emptied the socket, so the next one waits for news of it rather
/// than ask the kernel in vain; readiness is edge-triggered, and nothing is missed.
fn read_some(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let read = from.try_io(Interest::READABLE, || {
        let (read, _) = rustix::net::recv(from, &mut *buffer, RecvFlags::empty())?;
        if read == 0 || read == buffer.len() {
            return Ok(read);
        }
        short = Some(read);
        Err(io::ErrorKind::WouldBlock.into())
    });
    short.map_or(read, Ok)
}
