//! Who waits for a turn, outside of the runtime's queue: client after client, and of each first come, first served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Waker;

use crossbeam_queue::SegQueue;
use futures_util::task::AtomicWaker;

use crate::proxy::by_client::{ByClient, Slot};

/// One in so many calls is for bulk, where messages wait too: its turn lasts about as long as all of theirs.
const CALLS_PER_BULK: usize = 8;

/// In line are as many as are no longer served well by long turns.
const CROWD: usize = 128;

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freight {
    /// A message or two, or a request.
    Messages,
    /// As much as a turn may move.
    Bulk,
}

/// Those who wait: a line for messages and one for bulk, so that neither waits for all of the other.
#[derive(Debug)]
pub(super) struct Lines {
    messages: Line,
    bulk: Line,
    calls: AtomicUsize,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            messages: Line::new(),
            bulk: Line::new(),
            calls: AtomicUsize::new(0),
        }
    }

    pub(super) fn join(&self, freight: Freight, client: Slot) -> Arc<Ticket> {
        match freight {
            Freight::Messages => self.messages.join(client),
            Freight::Bulk => self.bulk.join(client),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.clients.is_empty() && self.bulk.clients.is_empty()
    }

    /// Whether so many move bulk that even a message which passes them all would meet a long turn.
    pub(super) fn are_crowded(&self) -> bool {
        self.bulk.length.load(Ordering::Relaxed) >= CROWD
    }

    /// Calls one who is still there; false where nobody is.
    pub(super) fn call_next(&self) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let [first, second] = if calls.is_multiple_of(CALLS_PER_BULK) {
            [&self.bulk, &self.messages]
        } else {
            [&self.messages, &self.bulk]
        };
        first.call_next() || second.call_next()
    }
}

/// One line: a queue of the clients that wait, and for each of them a queue of its tickets.
#[derive(Debug)]
struct Line {
    /// Each of them once.
    clients: SegQueue<Slot>,
    tickets: ByClient<SegQueue<Arc<Ticket>>>,
    /// Tickets that are in the queue of a client; who brings the first of them puts the client in line.
    waiting: ByClient<AtomicUsize>,
    /// All tickets.
    length: AtomicUsize,
}

impl Line {
    fn new() -> Self {
        Self {
            clients: SegQueue::new(),
            tickets: ByClient::new(SegQueue::new),
            waiting: ByClient::new(|| AtomicUsize::new(0)),
            length: AtomicUsize::new(0),
        }
    }

    fn join(&self, client: Slot) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket::default());
        self.length.fetch_add(1, Ordering::Relaxed);
        self.tickets[client].push(Arc::clone(&ticket));
        if self.waiting[client].fetch_add(1, Ordering::AcqRel) == 0 {
            self.clients.push(client);
        }
        ticket
    }

    fn call_next(&self) -> bool {
        std::iter::from_fn(|| self.next()).any(|ticket| ticket.call())
    }

    /// The first ticket of the first client, which goes to the end of the line if it has more.
    ///
    /// Whoever took a client out of the line puts it back before it looks for the next one: nobody else needs to be told.
    fn next(&self) -> Option<Arc<Ticket>> {
        let client = self.clients.pop()?;
        let ticket = self.tickets[client].pop();
        self.length.fetch_sub(1, Ordering::Relaxed);
        if self.waiting[client].fetch_sub(1, Ordering::AcqRel) > 1 {
            self.clients.push(client);
        }
        ticket
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

    fn clients() -> [Slot; 2] {
        std::array::from_fn(|client| Slot::all().nth(client).unwrap())
    }

    fn called(tickets: &[Arc<Ticket>]) -> usize {
        let called = |ticket: &&Arc<Ticket>| ticket.is_called(Waker::noop());
        tickets.iter().filter(called).count()
    }

    #[test]
    fn messages_pass_bulk_but_do_not_keep_it_waiting_for_ever() {
        let (lines, [client, _]) = (Lines::new(), clients());
        let [messages, bulk] = [Freight::Messages, Freight::Bulk]
            .map(|freight| [(); 10].map(|()| lines.join(freight, client)));
        (0..2 * CALLS_PER_BULK - 1).for_each(|_| assert!(lines.call_next()));
        assert_eq!((called(&messages), called(&bulk)), (10, 5));
        (0..5).for_each(|_| assert!(lines.call_next()));
        assert!(lines.is_empty());
        assert!(!lines.call_next());
    }

    #[test]
    fn a_client_with_few_waits_for_one_of_another_with_many_between_its_own() {
        for freight in [Freight::Messages, Freight::Bulk] {
            let (lines, [many, few]) = (Lines::new(), clients());
            let many = [(); 100].map(|()| lines.join(freight, many));
            let few = [(); 5].map(|()| lines.join(freight, few));
            (0..10).for_each(|_| assert!(lines.call_next()));
            assert_eq!((called(&many), called(&few)), (5, 5));
            (0..95).for_each(|_| assert!(lines.call_next()));
            assert_eq!(called(&many), 100);
            assert!(lines.is_empty());
        }
    }

    #[test]
    fn who_has_left_costs_nobody_a_call() {
        let (lines, [gone, client]) = (Lines::new(), clients());
        let left = [(); 5].map(|()| lines.join(Freight::Bulk, gone));
        assert!(left.iter().all(|ticket| ticket.give_up()));
        let bulk = lines.join(Freight::Bulk, client);
        let messages = [(); 8].map(|()| lines.join(Freight::Messages, client));
        assert!(lines.call_next());
        assert!(bulk.is_called(Waker::noop()));
        assert_eq!(called(&messages), 0);
    }
}
