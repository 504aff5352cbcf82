//! What is kept for each target; a target for which nothing is kept takes no memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::ArrayQueue;

use crate::target::Target;

/// Kept for one target; more than this many at once were a burst.
const MOST: usize = 64;

/// What is kept for one target.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    kept: ArrayQueue<T>,
    /// A sweep found it empty: nobody can reach any more what is put here.
    is_taken_away: AtomicBool,
}

impl<T> Shelf<T> {
    fn new() -> Self {
        Self {
            kept: ArrayQueue::new(MOST),
            is_taken_away: AtomicBool::new(false),
        }
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.kept.pop()
    }

    /// Keeps one more, unless the shelf is taken away: what nobody can reach must not stay open.
    fn lay(&self, kept: T) {
        // Over the bound the oldest goes: it is the one that will be closed first.
        self.kept.force_push(kept);
        // A sweep that takes it away looks after it has acted, as this does, so that one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.is_taken_away.load(Ordering::Relaxed) {
            self.clear();
        }
    }

    /// Nothing stays on it from now on.
    fn take_away(&self) {
        self.is_taken_away.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.clear();
    }

    fn clear(&self) {
        while self.pop().is_some() {}
    }
}

/// A shelf for each target.
#[derive(Debug)]
pub(super) struct Shelves<T>(papaya::HashMap<Target, Arc<Shelf<T>>>);

impl<T> Shelves<T> {
    pub(super) fn new() -> Self {
        Self(papaya::HashMap::new())
    }

    /// The shelf of a target, to take from.
    pub(super) fn of(&self, target: &Target) -> Option<Arc<Shelf<T>>> {
        self.0.pin().get(target).cloned()
    }

    /// Keeps one for a target.
    pub(super) fn put(&self, target: &Target, kept: T) {
        let map = self.0.pin();
        if let Some(shelf) = map.get(target) {
            return shelf.lay(kept);
        }
        map.get_or_insert_with(target.clone(), || Arc::new(Shelf::new()))
            .lay(kept);
    }

    /// Drops one after the other for as long as there are too many.
    pub(super) fn clear_while(&self, are_too_many: impl Fn() -> bool) {
        for shelf in self.0.pin().values() {
            while are_too_many() && shelf.pop().is_some() {}
        }
    }

    /// Drops those that `keep` does not want.
    pub(super) fn sweep(&self, keep: impl Fn(&Target, &mut T) -> bool) {
        let map = self.0.pin();
        for (target, shelf) in &map {
            for _ in 0..shelf.kept.len() {
                let Some(mut kept) = shelf.pop() else { break };
                if keep(target, &mut kept) {
                    shelf.lay(kept);
                }
            }
            if shelf.kept.is_empty() {
                // Another sweep may have done so before, and a new one be there.
                let _ = map.remove_if(target, |_, there| Arc::ptr_eq(there, shelf));
                shelf.take_away();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn what_is_put_on_a_shelf_that_was_taken_away_is_not_kept() {
        let target = Target::from_authority("a.test:80").unwrap();
        let shelves = Shelves::new();
        let kept = Arc::new(());
        shelves.put(&target, Arc::clone(&kept));
        let shelf = shelves.of(&target).unwrap();
        shelves.sweep(|_, _| false);
        assert!(shelves.of(&target).is_none());
        shelf.lay(Arc::clone(&kept));
        assert_eq!(Arc::strong_count(&kept), 1);
        shelves.put(&target, Arc::clone(&kept));
        shelves.sweep(|_, _| true);
        assert_eq!(Arc::strong_count(&kept), 2);
    }

    #[test]
    fn nothing_is_left_on_a_shelf_that_is_taken_away_while_it_is_put_there() {
        const ROUNDS: usize = 20_000;
        let target = Target::from_authority("a.test:80").unwrap();
        let shelves = Shelves::new();
        let kept = Arc::new(());
        let mut lost = 0;
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    together.wait();
                    shelves.sweep(|_, _| true);
                    together.wait();
                }
            });
            for _ in 0..ROUNDS {
                // An empty one that is swept at the same time.
                shelves.put(&target, Arc::clone(&kept));
                shelves.clear_while(|| true);
                together.wait();
                shelves.put(&target, Arc::clone(&kept));
                together.wait();
                shelves.sweep(|_, _| false);
                lost = lost.max(Arc::strong_count(&kept) - 1);
            }
        });
        assert_eq!(lost, 0);
    }
}
