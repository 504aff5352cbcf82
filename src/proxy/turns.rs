//! Whose turn it is among the directions that move bulk.
//!
//! A runtime runs tasks in the order they became ready, and a tunnel that moves bulk is always ready. Were
//! a thousand of them in its queue, a message in another tunnel would wait for a turn of each. So there are
//! only so many turns at once, and who has none waits outside of the runtime's queue, first come first
//! served. Now and then a turn begins only once the runtime has looked for news of every other socket.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use crossbeam_queue::SegQueue;
use futures_util::task::AtomicWaker;

/// The runtime looks for news before every so many turns, which take a millisecond or less. It is told of
/// every busy socket then, so it does not look before each.
const TURNS_BETWEEN_NEWS: usize = 2;

/// The turns of all tunnels.
#[derive(Debug)]
pub(crate) struct Turns {
    free: AtomicUsize,
    begun: AtomicUsize,
    waiting: SegQueue<Arc<Ticket>>,
}

/// One direction's place among the others; given up when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    turns: &'a Turns,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It wants no turn.
    Away,
    Waiting(Arc<Ticket>),
    /// It has a turn, which is about to begin.
    Called,
    On,
}

/// A place in the line.
#[derive(Debug, Default)]
struct Ticket {
    state: AtomicU8,
    waker: AtomicWaker,
}

const WAITING: u8 = 0;
const CALLED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Turns {
    /// So many at once; more than the runtime has threads would only queue up in it.
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            free: AtomicUsize::new(at_once.max(1)),
            begun: AtomicUsize::new(0),
            waiting: SegQueue::new(),
        }
    }

    fn take(&self) -> bool {
        let one_less = |free: usize| free.checked_sub(1);
        self.free
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
    }

    fn news_is_due(&self) -> bool {
        let begun = self.begun.fetch_add(1, Ordering::Relaxed);
        begun.is_multiple_of(TURNS_BETWEEN_NEWS)
    }

    fn give_back(&self) {
        self.free.fetch_add(1, Ordering::SeqCst);
        self.call_next();
    }

    fn line_up(&self) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket::default());
        self.waiting.push(Arc::clone(&ticket));
        // A turn may have been given back before there was anyone to call.
        self.call_next();
        ticket
    }

    /// Calls whoever is next, for as long as there are free turns.
    fn call_next(&self) {
        while !self.waiting.is_empty() && self.take() {
            let mut next = std::iter::from_fn(|| self.waiting.pop());
            if !next.any(|ticket| ticket.call()) {
                // Everyone had left. Who has come since is seen by the loop.
                self.free.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

impl Ticket {
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

impl<'a> Place<'a> {
    pub(super) fn new(turns: &'a Turns) -> Self {
        Self {
            turns,
            stage: Stage::Away,
        }
    }

    /// Waits for a turn, which lasts until it is ended.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.stage = match &self.stage {
                Stage::Away if self.turns.take() => Stage::Called,
                Stage::Away => Stage::Waiting(self.turns.line_up()),
                Stage::Waiting(ticket) => {
                    ticket.waker.register(cx.waker());
                    if ticket.state.load(Ordering::Acquire) != CALLED {
                        return Poll::Pending;
                    }
                    Stage::Called
                }
                Stage::Called if self.turns.news_is_due() => {
                    self.stage = Stage::On;
                    // Wakes this task when the runtime has looked for events and run what they woke.
                    return pin!(tokio::task::yield_now()).poll(cx);
                }
                Stage::Called => Stage::On,
                Stage::On => return Poll::Ready(()),
            };
        }
    }

    /// Ends the turn, or the waiting for one.
    pub(super) fn end(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Away => {}
            Stage::Waiting(ticket) if ticket.change(GIVEN_UP) => {}
            Stage::Waiting(_) | Stage::Called | Stage::On => self.turns.give_back(),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Polls once, with a waker that does nothing.
    fn asks(place: &mut Place<'_>) -> Poll<()> {
        place.poll_turn(&mut Context::from_waker(std::task::Waker::noop()))
    }

    fn is_on(place: &mut Place<'_>) -> bool {
        // The first answer may be to let others go first.
        asks(place).is_ready() || asks(place).is_ready()
    }

    #[test]
    fn a_turn_given_back_goes_to_who_has_waited_longest() {
        let turns = Turns::new(1);
        let [mut first, mut second, mut third] = [(); 3].map(|()| Place::new(&turns));
        assert!(is_on(&mut first));
        assert!(!is_on(&mut second));
        assert!(!is_on(&mut third));
        first.end();
        assert!(!is_on(&mut third));
        assert!(!is_on(&mut first));
        assert!(is_on(&mut second));
        second.end();
        assert!(is_on(&mut third));
    }

    #[test]
    fn who_leaves_holds_nobody_up() {
        let turns = Turns::new(1);
        let [mut first, mut second, mut third] = [(); 3].map(|()| Place::new(&turns));
        assert!(is_on(&mut first));
        assert!(!is_on(&mut second));
        assert!(!is_on(&mut third));
        drop(second);
        drop(first);
        assert!(is_on(&mut third));
        drop(third);
        assert!(is_on(&mut Place::new(&turns)));
    }

    #[test]
    fn who_leaves_after_the_call_hands_the_turn_on() {
        let turns = Turns::new(1);
        let [mut first, mut second, mut third] = [(); 3].map(|()| Place::new(&turns));
        assert!(is_on(&mut first));
        assert!(asks(&mut second).is_pending());
        assert!(asks(&mut third).is_pending());
        first.end();
        second.end();
        assert!(is_on(&mut third));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_place_gets_its_turns() {
        let turns = Arc::new(Turns::new(2));
        let places = (0..100).map(|_| {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move {
                let mut place = Place::new(&turns);
                for _ in 0..100 {
                    poll_fn(|cx| place.poll_turn(cx)).await;
                    place.end();
                }
            })
        });
        for place in places.collect::<Vec<_>>() {
            place.await.unwrap();
        }
        assert_eq!(turns.free.load(Ordering::SeqCst), 2);
        assert!(turns.waiting.is_empty());
    }
}
