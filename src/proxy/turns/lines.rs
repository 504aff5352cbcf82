//! Who waits for a turn, outside of the runtime's queue: first come, first served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Waker;

use crossbeam_queue::SegQueue;
use futures_util::task::AtomicWaker;

/// One in so many calls is for bulk, where messages wait too: its turn lasts about as long as all of theirs.
const CALLS_PER_BULK: usize = 8;

/// In line are as many as are no longer served well by long turns.
const CROWD: usize = 128;

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Freight {
    /// A message or two, or a request.
    Messages,
    /// As much as a turn may move.
    Bulk,
}

/// Those who wait: a line for messages and one for bulk, so that neither waits for all of the other.
#[derive(Debug)]
pub(super) struct Lines {
    messages: SegQueue<Arc<Ticket>>,
    bulk: SegQueue<Arc<Ticket>>,
    calls: AtomicUsize,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            messages: SegQueue::new(),
            bulk: SegQueue::new(),
            calls: AtomicUsize::new(0),
        }
    }

    pub(super) fn join(&self, freight: Freight) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket::default());
        let line = match freight {
            Freight::Messages => &self.messages,
            Freight::Bulk => &self.bulk,
        };
        line.push(Arc::clone(&ticket));
        ticket
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.bulk.is_empty()
    }

    /// Whether so many move bulk that even a message which passes them all would meet a long turn.
    pub(super) fn are_crowded(&self) -> bool {
        self.bulk.len() >= CROWD
    }

    /// Calls one who is still there; false where nobody is.
    pub(super) fn call_next(&self) -> bool {
        std::iter::from_fn(|| self.next()).any(|ticket| ticket.call())
    }

    fn next(&self) -> Option<Arc<Ticket>> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls.is_multiple_of(CALLS_PER_BULK) {
            self.bulk.pop().or_else(|| self.messages.pop())
        } else {
            self.messages.pop().or_else(|| self.bulk.pop())
        }
    }
}

/// A place in a line.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    state: AtomicU8,
    waker: AtomicWaker,
}

const WAITING: u8 = 0;
const CALLED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Ticket {
    /// Whether the turn has come; if not, the waker is woken when it does.
    pub(super) fn is_called(&self, waker: &Waker) -> bool {
        self.waker.register(waker);
        self.state.load(Ordering::Acquire) == CALLED
    }

    /// Leaves the line; false where the turn has come already.
    pub(super) fn give_up(&self) -> bool {
        self.change(GIVEN_UP)
    }

    /// Whether the turn was accepted.
    fn call(&self) -> bool {
        let accepted = self.change(CALLED);
        if accepted {
            self.waker.wake();
        }
        accepted
    }

    /// Ends the waiting; false where it has ended otherwise.
    fn change(&self, state: u8) -> bool {
        self.state
            .compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_pass_bulk_but_do_not_keep_it_waiting_for_ever() {
        let lines = Lines::new();
        let [messages, bulk] = [Freight::Messages, Freight::Bulk]
            .map(|freight| [(); 10].map(|()| lines.join(freight)));
        let called = |tickets: &[Arc<Ticket>]| {
            let called = |ticket: &&Arc<Ticket>| ticket.is_called(Waker::noop());
            tickets.iter().filter(called).count()
        };
        (0..2 * CALLS_PER_BULK - 1).for_each(|_| assert!(lines.call_next()));
        assert_eq!((called(&messages), called(&bulk)), (10, 5));
        (0..5).for_each(|_| assert!(lines.call_next()));
        assert!(lines.is_empty());
        assert!(!lines.call_next());
    }
}
