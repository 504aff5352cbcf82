//! Kernel pipes for `splice(2)`, made when first needed and shared by all that move much.
//!
//! A pipe is what bytes pass through from socket to socket without being copied to this process.
//! It is borrowed only while bytes move or wait in it, so a few serve many connections. Where a client has its share of
//! those that wait, its bytes still move through one in passing: what the destination does not take at once is copied out.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use rustix::buffer::spare_capacity;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::limits::{self, For};
use crate::proxy::by_client::{ByClient, Slot};

/// What a pipe should hold: as much as an unprivileged user may ask for (`fs.pipe-max-size`). The more is
/// moved at once, the less often the other side is woken: a quarter of it costs 40 % more CPU.
const WANTED_BYTES: usize = 1024 * 1024;

/// A pipe that holds less is slower than copying. The kernel hands such pipes out when the user is
/// over `fs.pipe-user-pages-soft`.
const LEAST_BYTES: usize = 64 * 1024;

/// Bytes may wait in at most so many times the pipes for a client that then are left. One whose bulk stalls keeps what it has,
/// so it must never have all: alone it comes to two thirds, which is most of what it could use, and two to two fifths each.
const TIMES_WHAT_IS_LEFT: usize = 2;

/// One pipe in so many is for bytes in passing. A thread has no more than one, so this is enough for most machines; where
/// none is left bytes are copied.
const PIPES_PER_PASSING: usize = 8;

/// Bytes that move at once in passing. Beside a thousand slow readers a twentieth of them is left to be copied; if it were
/// twice as many, a fifth.
const MOST_IN_PASSING: usize = LEAST_BYTES;

/// No thread waits for a socket.
const SPLICE_FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// Every pipe of the gateway.
#[derive(Debug)]
pub(crate) struct Pipes {
    idle: ArrayQueue<Pipe>,
    made: AtomicUsize,
    passing: AtomicUsize,
    /// Those that bytes may wait in.
    waiting: AtomicUsize,
    /// Those of each client among them, in the slot where its turns are counted.
    by_client: ByClient<AtomicUsize>,
}

/// One pipe, empty while it is not borrowed.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

/// A borrowed pipe. Empty, it goes back when dropped; with bytes left in it, it is closed.
#[derive(Debug)]
pub(crate) struct Borrowed {
    pipe: Option<Pipe>,
    /// Bytes waiting in the pipe.
    holds: usize,
    /// Whether it must be given back before its task waits for anything.
    in_passing: bool,
    from: Arc<Pipes>,
    client: Slot,
}

impl Pipes {
    /// At most so many pipes, each of which takes two descriptors.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            idle: ArrayQueue::new(most.max(1)),
            made: AtomicUsize::new(0),
            passing: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            by_client: ByClient::new(AtomicUsize::default),
        }
    }

    /// A pipe for a client, or one in passing for a client that has its share; none when all are in use, descriptors are few,
    /// or the kernel gives no useful one.
    pub(crate) fn borrow(self: &Arc<Self>, client: Slot) -> Option<Borrowed> {
        let in_passing = !self.leaves_enough(client);
        if in_passing && self.passing.load(Ordering::Relaxed) >= self.most_passing() {
            return None;
        }
        let pipe = self.idle.pop().or_else(|| self.make())?;
        let borrowed = Borrowed {
            pipe: Some(pipe),
            holds: 0,
            in_passing,
            from: Arc::clone(self),
            client,
        };
        for count in borrowed.counts() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(borrowed)
    }

    fn most_passing(&self) -> usize {
        self.idle.capacity() / PIPES_PER_PASSING
    }

    /// Whether one more of a client leaves enough to others. Two that ask at once may both have the last one of a share,
    /// which does no harm.
    fn leaves_enough(&self, client: Slot) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let left = (self.idle.capacity() - self.most_passing()).saturating_sub(waiting);
        self.by_client[client].load(Ordering::Relaxed) < TIMES_WHAT_IS_LEFT * left
    }

    fn make(&self) -> Option<Pipe> {
        if self.made.fetch_add(1, Ordering::Relaxed) < self.idle.capacity()
            && let Some(pipe) = Pipe::new()
        {
            return Some(pipe);
        }
        self.made.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Pipe {
    fn new() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // What they would have carried is copied.
        if limits::is_reserved(&read, For::Pipe) || limits::is_reserved(&write, For::Pipe) {
            return None;
        }
        // Refused over the user's limit; what the pipe then holds decides.
        let _ = fcntl_setpipe_size(&write, WANTED_BYTES);
        let capacity = fcntl_getpipe_size(&write).ok()?;
        (capacity >= LEAST_BYTES).then_some(Self {
            read,
            write,
            capacity,
        })
    }
}

impl Borrowed {
    /// Where it is counted.
    fn counts(&self) -> impl Iterator<Item = &AtomicUsize> {
        let from = &self.from;
        let (first, second) = if self.in_passing {
            (&from.passing, None)
        } else {
            (&from.waiting, Some(&from.by_client[self.client]))
        };
        std::iter::once(first).chain(second)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.holds == 0
    }

    /// Whether it must be given back before its task waits for anything.
    pub(crate) fn is_in_passing(&self) -> bool {
        self.in_passing
    }

    /// Moves what the socket has into the pipe, which is empty: a call that would block says that the socket has nothing.
    pub(crate) fn fill(&mut self, from: &TcpStream, most: usize) -> io::Result<usize> {
        let pipe = self.pipe()?;
        let fits = if self.in_passing {
            MOST_IN_PASSING
        } else {
            pipe.capacity
        };
        let moved = from.try_io(Interest::READABLE, || {
            Ok(splice(
                from,
                None,
                &pipe.write,
                None,
                most.min(fits),
                SPLICE_FLAGS,
            )?)
        })?;
        self.holds = moved;
        Ok(moved)
    }

    /// Moves what the pipe holds into the socket.
    pub(crate) fn pour_into(&mut self, to: &TcpStream) -> io::Result<usize> {
        let pipe = self.pipe()?;
        let moved = to.try_io(Interest::WRITABLE, || {
            Ok(splice(
                &pipe.read,
                None,
                to,
                None,
                self.holds,
                SPLICE_FLAGS,
            )?)
        })?;
        self.holds -= moved;
        Ok(moved)
    }

    /// Copies what the pipe holds into memory.
    pub(crate) fn copy_out(&mut self) -> io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(self.holds);
        while self.holds > 0 {
            match rustix::io::read(&self.pipe()?.read, spare_capacity(&mut bytes))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.holds -= read,
            }
        }
        Ok(bytes.into())
    }

    fn pipe(&self) -> io::Result<&Pipe> {
        self.pipe
            .as_ref()
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        for count in self.counts() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        match self.pipe.take() {
            Some(pipe) if self.holds == 0 => {
                // There is room for every pipe that was made.
                let _ = self.from.idle.push(pipe);
            }
            // Bytes of one connection must never come out in another.
            Some(_) | None => {
                self.from.made.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pipe that a client may let bytes wait in.
    fn take_all(pipes: &Arc<Pipes>, client: Slot) -> Vec<Borrowed> {
        std::iter::from_fn(|| pipes.borrow(client))
            .take_while(|pipe| !pipe.in_passing)
            .collect()
    }

    #[test]
    fn an_empty_pipe_is_used_again_and_a_full_one_is_not() {
        let pipes = Arc::new(Pipes::new(1));
        let client = Slot::all().next().unwrap();
        let first = pipes.borrow(client).unwrap();
        assert!(pipes.borrow(client).is_none());
        drop(first);
        let mut second = pipes.borrow(client).unwrap();
        second.holds = 1;
        drop(second);
        assert!(pipes.idle.is_empty());
        assert!(pipes.borrow(client).is_some());
    }

    #[test]
    fn a_client_that_gives_no_pipe_back_leaves_some_to_each_of_the_next() {
        let pipes = Arc::new(Pipes::new(13));
        let clients: Vec<_> = Slot::all().take(3).collect();
        let first = take_all(&pipes, clients[0]);
        let (second, third) = (take_all(&pipes, clients[1]), take_all(&pipes, clients[2]));
        assert_eq!([first.len(), second.len(), third.len()], [8, 3, 1]);
        drop((first, third));
        assert_eq!(take_all(&pipes, clients[0]).len(), 6);
    }

    #[test]
    fn bytes_in_passing_take_no_pipe_that_others_may_wait_in() {
        let pipes = Arc::new(Pipes::new(16));
        let (client, other) = (Slot::all().next().unwrap(), Slot::all().last().unwrap());
        let waiting = take_all(&pipes, client);
        let passing: Vec<_> = std::iter::from_fn(|| pipes.borrow(client)).collect();
        assert_eq!([waiting.len(), passing.len()], [10, 2]);
        assert_eq!(take_all(&pipes, other).len(), 3);
        drop(passing);
        assert!(pipes.borrow(client).is_some());
    }

    #[test]
    fn clients_that_give_no_pipe_back_leave_one_for_bytes_in_passing() {
        let pipes = Arc::new(Pipes::new(8));
        let taken: Vec<_> = Slot::all()
            .flat_map(|client| take_all(&pipes, client))
            .collect();
        assert_eq!(taken.len(), 7);
        let passes = pipes.borrow(Slot::all().next().unwrap()).unwrap();
        assert!(passes.is_in_passing());
        assert!(pipes.borrow(Slot::all().last().unwrap()).is_none());
    }
}
