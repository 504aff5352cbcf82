//! Which clients have had their share of turns since the runtime last looked for news.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::proxy::by_client::{ByClient, Slot};

/// Messages or requests of a client that need not wait in line; a tenth of a millisecond.
const SHARE: usize = 8;

/// Counts the messages of every client.
#[derive(Debug)]
pub(super) struct Shares {
    round: AtomicU32,
    /// A round, and the messages in it.
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
        messages_in(round, self.had[client].load(Ordering::Relaxed)) >= SHARE
    }

    /// Counts so many. Those of two turns at once may count as those of one, which harms nobody.
    pub(super) fn count(&self, client: Slot, messages: usize) {
        let round = self.round.load(Ordering::Relaxed);
        let before = messages_in(round, self.had[client].load(Ordering::Relaxed));
        // Beyond the share it makes no difference how many.
        let messages = (before + messages).min(SHARE);
        let had = u64::from(round) << 32 | messages as u64;
        self.had[client].store(had, Ordering::Relaxed);
    }
}

/// The messages that were had in this round.
fn messages_in(round: u32, had: u64) -> usize {
    // Both halves are what they were made from.
    let (of, messages) = ((had >> 32) as u32, had as u32);
    if of == round { messages as usize } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_again_in_the_next_round() {
        let shares = Shares::new();
        let mut clients = Slot::all();
        let (client, other) = (clients.next().unwrap(), clients.next().unwrap());
        shares.count(client, SHARE - 1);
        assert!(!shares.is_used_up(client));
        shares.count(client, 100);
        assert!(shares.is_used_up(client));
        assert!(!shares.is_used_up(other));
        shares.begin_round();
        assert!(!shares.is_used_up(client));
        shares.count(client, 1);
        assert!(!shares.is_used_up(client));
    }
}
