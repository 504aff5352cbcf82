//! Whose turn it is, where more is to be moved than can be moved at once.
//!
//! A runtime runs tasks in the order they became ready, whosever they are. What moves bulk is always ready, and
//! a thousand busy connections of one client are ready together: a message of another client would wait for each
//! of them. So there are only so many turns at once for bulk, and for messages of a client that has had its share
//! (`shares.rs`). Who has none waits in line, where client after client is called (`lines.rs`). Now and then a turn
//! begins only once the runtime has looked for news of every other socket.
//!
//! A direction of a tunnel takes turns, and so does a connection that speaks HTTP, with both of its directions.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use super::by_client::Slot;

mod lines;
mod shares;

use lines::{Freight, Lines, Ticket};
use shares::Shares;

/// After a turn that moved this much the next one is of bulk, after less of messages. Twice what a socket's
/// default receive window holds: once is what any response of a page is.
pub(super) const BULK: usize = 128 * 1024;

/// Bytes of a turn of bulk, besides those that were kept of the one before: a busy tunnel leaves the thread to others after
/// what a pipe holds, a fraction of a millisecond. If those counted, a MB would cost a tenth more with 64 tunnels.
const BYTES: usize = 1024 * 1024;

/// In a crowd turns are short. That costs a quarter to a half more CPU a byte, and a message meets turns on each of its ways.
const BYTES_IN_A_CROWD: usize = BYTES / 4;

/// The runtime looks for news before a turn when this much work has been done, reckoned in messages. It is told of every
/// busy socket then, so it does not look before each.
const WORK_BETWEEN_NEWS: usize = 8;

/// So many bytes are as much work as another message.
const BYTES_OF_A_MESSAGE: usize = 16 * 1024;

/// The turns of all connections.
#[derive(Debug)]
pub(super) struct Turns {
    free: AtomicUsize,
    /// Messages since the last look for news, and bulk reckoned in them.
    work: AtomicUsize,
    lines: Lines,
    shares: Shares,
}

/// A place among all who take turns; given up when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    turns: &'a Turns,
    client: Slot,
    /// What the next turn is for.
    freight: Freight,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It wants no turn.
    Away,
    Waiting(Arc<Ticket>),
    /// It has a turn, which is about to begin.
    Called,
    /// The turn begins when the runtime has looked for news,
    Looking,
    /// and has run what they woke.
    Hearing,
    On,
}

impl Turns {
    /// So many at once; more than the runtime has threads would only queue up in it.
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            free: AtomicUsize::new(at_once.max(1)),
            work: AtomicUsize::new(0),
            lines: Lines::new(),
            shares: Shares::new(),
        }
    }

    /// Where the turns of a client are counted.
    pub(super) fn slot(&self, client: IpAddr) -> Slot {
        self.shares.slot(client)
    }

    fn take(&self) -> bool {
        let one_less = |free: usize| free.checked_sub(1);
        self.free
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
    }

    fn news_is_due(&self, freight: Freight) -> bool {
        let work = match freight {
            // They are counted by what they were.
            Freight::Messages => 0,
            Freight::Bulk if self.lines.are_crowded() => WORK_BETWEEN_NEWS,
            Freight::Bulk => WORK_BETWEEN_NEWS / 2,
        };
        let is_due = self.work.fetch_add(work, Ordering::Relaxed) + work >= WORK_BETWEEN_NEWS;
        if is_due {
            self.work.store(0, Ordering::Relaxed);
        }
        is_due
    }

    fn give_back(&self) {
        self.free.fetch_add(1, Ordering::SeqCst);
        self.call_next();
    }

    fn line_up(&self, freight: Freight, client: Slot) -> Arc<Ticket> {
        let ticket = self.lines.join(freight, client);
        // A turn may have been given back before there was anyone to call.
        self.call_next();
        ticket
    }

    /// Calls whoever is next, for as long as there are free turns.
    fn call_next(&self) {
        while !self.lines.is_empty() && self.take() {
            if !self.lines.call_next() {
                // Everyone had left. Who has come since is seen by the loop.
                self.free.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(turns: &'a Turns, client: Slot) -> Self {
        Self {
            turns,
            client,
            freight: Freight::Messages,
            stage: Stage::Away,
        }
    }

    /// For what is known to be bulk before it has had a turn.
    pub(super) fn of_bulk(turns: &'a Turns, client: Slot) -> Self {
        let mut place = Self::new(turns, client);
        place.freight = Freight::Bulk;
        place
    }

    /// Whether the last turn moved bulk.
    pub(super) fn is_bulk(&self) -> bool {
        self.freight == Freight::Bulk
    }

    /// Whether there is a turn to wait for: with bulk, and with messages where the client has had its share.
    pub(super) fn must_wait(&self) -> bool {
        self.is_bulk() || self.turns.shares.is_used_up(self.client)
    }

    /// Bytes that the turn may move, as far as there is a choice.
    pub(super) fn most_bytes(&self) -> usize {
        match self.freight {
            Freight::Messages => BULK,
            Freight::Bulk if self.turns.lines.are_crowded() => BYTES_IN_A_CROWD,
            Freight::Bulk => BYTES,
        }
    }

    /// Waits for a turn, which lasts until it is ended.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let freight = self.freight;
        loop {
            self.stage = match &self.stage {
                Stage::Away if self.turns.take() => Stage::Called,
                Stage::Away => Stage::Waiting(self.turns.line_up(freight, self.client)),
                Stage::Waiting(ticket) if ticket.is_called(cx.waker()) => Stage::Called,
                Stage::Waiting(_) => return Poll::Pending,
                Stage::Called if self.turns.news_is_due(freight) => {
                    self.stage = Stage::Looking;
                    // Wakes this task when the runtime has looked for events, and lets it run before those that they woke.
                    return pin!(tokio::task::yield_now()).poll(cx);
                }
                Stage::Looking => {
                    self.turns.shares.begin_round();
                    self.stage = Stage::Hearing;
                    // A task that is woken while it runs goes to the end of the queue.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Stage::Called | Stage::Hearing => Stage::On,
                Stage::On => return Poll::Ready(()),
            };
        }
    }

    /// Ends the turn, or the waiting for one, with so many bytes moved.
    pub(super) fn end(&mut self, moved: usize) {
        self.leave();
        // Bulk is reckoned when its turn begins, and messages beside it need not wait for it.
        if moved > 0 && !self.is_bulk() {
            let messages = 1 + moved / BYTES_OF_A_MESSAGE;
            self.turns.work.fetch_add(messages, Ordering::Relaxed);
            self.turns.shares.count(self.client, messages);
        }
        self.freight = match moved {
            BULK.. => Freight::Bulk,
            _ => Freight::Messages,
        };
    }

    /// Gives up the turn, or the waiting for one; the next is for the same.
    pub(super) fn leave(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Away => {}
            Stage::Waiting(ticket) if ticket.give_up() => {}
            Stage::Waiting(_) | Stage::Called | Stage::Looking | Stage::Hearing | Stage::On => {
                self.turns.give_back();
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn place(turns: &Turns) -> Place<'_> {
        Place::new(turns, turns.slot(CLIENT))
    }

    /// Polls once, with a waker that does nothing.
    fn asks(place: &mut Place<'_>) -> Poll<()> {
        place.poll_turn(&mut Context::from_waker(std::task::Waker::noop()))
    }

    fn is_on(place: &mut Place<'_>) -> bool {
        // The first answers may be to let others go first.
        (0..3).any(|_| asks(place).is_ready())
    }

    #[test]
    fn a_turn_given_back_goes_to_who_has_waited_longest() {
        let turns = Turns::new(1);
        let [mut first, mut second, mut third] = [(); 3].map(|()| place(&turns));
        assert!(is_on(&mut first));
        assert!(!is_on(&mut second));
        assert!(!is_on(&mut third));
        first.end(0);
        assert!(!is_on(&mut third));
        assert!(!is_on(&mut first));
        assert!(is_on(&mut second));
        second.end(0);
        assert!(is_on(&mut third));
    }

    #[test]
    fn a_turn_counts_for_as_many_messages_as_its_bytes_are() {
        let turns = Turns::new(1);
        let (mut small, mut large) = (place(&turns), place(&turns));
        (0..4).for_each(|_| small.end(BYTES_OF_A_MESSAGE - 1));
        assert!(!large.must_wait());
        large.end(3 * BYTES_OF_A_MESSAGE);
        assert!(small.must_wait() && large.must_wait());
    }

    #[test]
    fn what_becomes_bulk_within_a_turn_counts_as_the_messages_it_began_with() {
        let turns = Turns::new(1);
        let (mut other, messages) = (Place::of_bulk(&turns, turns.slot(CLIENT)), place(&turns));
        other.end(BULK - 1);
        assert!(!messages.must_wait());
        place(&turns).end(BULK);
        assert!(messages.must_wait());
        assert!(turns.news_is_due(Freight::Messages));
    }

    #[test]
    fn who_leaves_holds_nobody_up() {
        let turns = Turns::new(1);
        let [mut first, mut second, mut third] = [(); 3].map(|()| place(&turns));
        assert!(is_on(&mut first));
        assert!(!is_on(&mut second));
        assert!(!is_on(&mut third));
        drop(second);
        drop(first);
        assert!(is_on(&mut third));
        drop(third);
        assert!(is_on(&mut place(&turns)));
    }

    #[test]
    fn who_leaves_after_the_call_hands_the_turn_on() {
        let turns = Turns::new(1);
        let [mut first, mut second, mut third] = [(); 3].map(|()| place(&turns));
        assert!(is_on(&mut first));
        assert!(asks(&mut second).is_pending());
        assert!(asks(&mut third).is_pending());
        first.end(0);
        second.end(0);
        assert!(is_on(&mut third));
    }

    /// With one thread: it has read nothing yet of what the other task waits for.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_turn_begins_behind_those_who_have_news() {
        let heard = Arc::new(AtomicUsize::new(0));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let hearing = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                socket.recv(&mut [0]).await.unwrap();
                hearing.fetch_add(1, Ordering::SeqCst);
            }
        });
        let takes_turns = tokio::spawn(async move {
            let turns = Turns::new(1);
            let mut place = Place::of_bulk(&turns, turns.slot(CLIENT));
            for turn in 1..100 {
                turns.work.store(WORK_BETWEEN_NEWS, Ordering::SeqCst);
                sender.send_to(b"n", address).unwrap();
                poll_fn(|cx| place.poll_turn(cx)).await;
                assert_eq!(heard.load(Ordering::SeqCst), turn);
                place.end(BULK);
            }
        });
        takes_turns.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_place_gets_its_turns() {
        let turns = Arc::new(Turns::new(2));
        let places = (0..100).map(|_| {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move {
                let mut place = place(&turns);
                for turn in 0..100 {
                    poll_fn(|cx| place.poll_turn(cx)).await;
                    // Bulk first, then messages, and so on.
                    place.end(turn % 2 * BULK);
                }
            })
        });
        for place in places.collect::<Vec<_>>() {
            place.await.unwrap();
        }
        assert_eq!(turns.free.load(Ordering::SeqCst), 2);
        assert!(turns.lines.is_empty());
    }
}
