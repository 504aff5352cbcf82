//! Which clients have had their share of turns since the runtime last looked for news.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::proxy::by_client::{ByClient, Slot};

/// Turns of a client, each of a message or two or of a request, for which it need not wait in line; a tenth of a millisecond.
const SHARE: u32 = 8;

/// Counts the turns of every client.
#[derive(Debug)]
pub(super) struct Shares {
    round: AtomicU32,
    /// A round, and the turns in it.
    had: ByClient<AtomicU64>,
}

impl Shares {
    pub(super) fn new() -> Self {
        Self {
            round: AtomicU32::new(0),
            had: ByClient::new(|| AtomicU64::new(0)),
        }
    }

    pub(super) fn slot(&self, client: IpAddr) -> Slot {
        self.had.slot(client)
    }

    /// The runtime has looked for news: whoever had something to say has been heard.
    pub(super) fn begin_round(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the client has had its share of this round.
    pub(super) fn is_used_up(&self, client: Slot) -> bool {
        let round = self.round.load(Ordering::Relaxed);
        turns_in(round, self.had[client].load(Ordering::Relaxed)) >= SHARE
    }

    /// Counts a turn. Two at once may count as one, which harms nobody.
    pub(super) fn count(&self, client: Slot) {
        let round = self.round.load(Ordering::Relaxed);
        let turns = turns_in(round, self.had[client].load(Ordering::Relaxed));
        let had = u64::from(round) << 32 | u64::from(turns.saturating_add(1));
        self.had[client].store(had, Ordering::Relaxed);
    }
}

/// The turns that were had in this round.
fn turns_in(round: u32, had: u64) -> u32 {
    // Both halves are what they were made from.
    let (of, turns) = ((had >> 32) as u32, had as u32);
    if of == round { turns } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_again_in_the_next_round() {
        let shares = Shares::new();
        let mut clients = Slot::all();
        let (client, other) = (clients.next().unwrap(), clients.next().unwrap());
        (0..SHARE).for_each(|_| shares.count(client));
        assert!(shares.is_used_up(client));
        assert!(!shares.is_used_up(other));
        shares.begin_round();
        assert!(!shares.is_used_up(client));
        shares.count(client);
        assert!(!shares.is_used_up(client));
    }
}
