//! Kernel pipes for `splice(2)`, made when first needed and shared by all tunnels.
//!
//! A pipe is what bytes pass through from socket to socket without being copied to this process.
//! It is borrowed only while bytes move or wait in it, so a few serve many tunnels.

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

/// A client has at most so many times the pipes that are left. One whose tunnels stall keeps what it has, so it must
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

/// The pipes, for the tunnels of one client.
#[derive(Debug)]
pub(crate) struct Share {
    pub(super) pipes: Arc<Pipes>,
    client: Slot,
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

    /// What a client may borrow from.
    pub(crate) fn share(self: &Arc<Self>, client: Slot) -> Share {
        Share {
            pipes: Arc::clone(self),
            client,
        }
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

impl Share {
    /// A pipe, or none when the client has its share or all are in use, descriptors are few, or the kernel gives no
    /// useful one.
    pub(crate) fn borrow(&self) -> Option<Borrowed> {
        let Self { pipes, client } = self;
        if !pipes.leaves_enough(*client) {
            return None;
        }
        let pipe = pipes.idle.pop().or_else(|| pipes.make())?;
        pipes.borrowed.fetch_add(1, Ordering::Relaxed);
        pipes.by_client[*client].fetch_add(1, Ordering::Relaxed);
        Some(Borrowed {
            pipe: Some(pipe),
            holds: 0,
            from: Arc::clone(pipes),
            client: *client,
        })
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
            // Bytes of one tunnel must never come out in another.
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
        let all = Arc::new(Pipes::new(1));
        let pipes = all.share(slot_of(&all, 1));
        let first = pipes.borrow().unwrap();
        assert!(pipes.borrow().is_none());
        drop(first);
        let mut second = pipes.borrow().unwrap();
        second.holds = 1;
        drop(second);
        assert!(all.idle.is_empty());
        assert!(pipes.borrow().is_some());
    }

    #[test]
    fn a_client_that_gives_no_pipe_back_leaves_some_to_each_of_the_next() {
        let all = Arc::new(Pipes::new(12));
        let take_all = |client| {
            let share = all.share(slot_of(&all, client));
            std::iter::from_fn(|| share.borrow()).collect::<Vec<_>>()
        };
        let first = take_all(1);
        let (second, third) = (take_all(2), take_all(3));
        assert_eq!([first.len(), second.len(), third.len()], [8, 3, 1]);
        drop((first, third));
        assert_eq!(take_all(1).len(), 6);
    }

    /// A slot of its own for each of the first few clients.
    fn slot_of(pipes: &Pipes, client: usize) -> Slot {
        let mut slots = Vec::new();
        for last in 0..=255 {
            let slot = pipes.by_client.slot([192, 0, 2, last].into());
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        slots[client]
    }
}
