//! Kernel pipes for `splice(2)`, made when first needed and shared by all that move much.
//!
//! A pipe is what bytes pass through from socket to socket without being copied to this process.
//! It is borrowed only while bytes move or wait in it, so a few serve many connections.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::limits::{self, For};
use crate::proxy::by_client::{ByClient, Slot};

/// What a pipe should hold: as much as an unprivileged user may ask for (`fs.pipe-max-size`). The more is
/// moved at once, the less often the other side is woken: a quarter of it costs 40 % more CPU.
const WANTED_BYTES: usize = 1024 * 1024;

/// A pipe that holds less is slower than copying. The kernel hands such pipes out when the user is
/// over `fs.pipe-user-pages-soft`.
const LEAST_BYTES: usize = 64 * 1024;

/// A client has at most so many times the pipes that are left. One whose bulk stalls keeps what it has, so it must
/// never have all: alone it comes to two thirds, which is most of what it could use, and two to two fifths each.
const TIMES_WHAT_IS_LEFT: usize = 2;

/// Every pipe of the gateway.
#[derive(Debug)]
pub(crate) struct Pipes {
    idle: ArrayQueue<Pipe>,
    made: AtomicUsize,
    borrowed: AtomicUsize,
    /// Those of each client among them, in the slot where its turns are counted.
    by_client: ByClient<AtomicUsize>,
}

/// One pipe, empty while it is not borrowed.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
    pub(crate) capacity: usize,
}

/// A borrowed pipe. Empty, it goes back when dropped; with bytes left in it, it is closed.
#[derive(Debug)]
pub(crate) struct Borrowed {
    pipe: Option<Pipe>,
    /// Bytes waiting in the pipe.
    pub(crate) holds: usize,
    from: Arc<Pipes>,
    client: Slot,
}

impl Pipes {
    /// At most so many pipes, each of which takes two descriptors.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            idle: ArrayQueue::new(most.max(1)),
            made: AtomicUsize::new(0),
            borrowed: AtomicUsize::new(0),
            by_client: ByClient::new(AtomicUsize::default),
        }
    }

    /// A pipe for a client, or none when it has its share or all are in use, descriptors are few, or the kernel gives no
    /// useful one.
    pub(crate) fn borrow(self: &Arc<Self>, client: Slot) -> Option<Borrowed> {
        if !self.leaves_enough(client) {
            return None;
        }
        let pipe = self.idle.pop().or_else(|| self.make())?;
        self.borrowed.fetch_add(1, Ordering::Relaxed);
        self.by_client[client].fetch_add(1, Ordering::Relaxed);
        Some(Borrowed {
            pipe: Some(pipe),
            holds: 0,
            from: Arc::clone(self),
            client,
        })
    }

    /// Whether one more of a client leaves enough to others. Two that ask at once may both have the last one of a share,
    /// which does no harm.
    fn leaves_enough(&self, client: Slot) -> bool {
        let borrowed = self.borrowed.load(Ordering::Relaxed);
        let left = self.idle.capacity().saturating_sub(borrowed);
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
    pub(crate) fn pipe(&self) -> Option<&Pipe> {
        self.pipe.as_ref()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.from.borrowed.fetch_sub(1, Ordering::Relaxed);
        self.from.by_client[self.client].fetch_sub(1, Ordering::Relaxed);
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
        let pipes = Arc::new(Pipes::new(12));
        let take_all = |client| std::iter::from_fn(|| pipes.borrow(client)).collect::<Vec<_>>();
        let clients: Vec<_> = Slot::all().take(3).collect();
        let first = take_all(clients[0]);
        let (second, third) = (take_all(clients[1]), take_all(clients[2]));
        assert_eq!([first.len(), second.len(), third.len()], [8, 3, 1]);
        drop((first, third));
        assert_eq!(take_all(clients[0]).len(), 6);
    }
}
