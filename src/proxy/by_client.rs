//! What each client has, without a list of clients.
//!
//! A list would have to be kept in step with whoever comes and goes, and bounded. Here clients are hashed into a
//! fixed number of slots, by a secret that is new with each start: two that meet in one have one share.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Index;

/// More than there are clients that are busy at the same time, as a rule.
const SLOTS: usize = 1024;

/// A value for each client.
#[derive(Debug)]
pub(crate) struct ByClient<T> {
    slots: Box<[T]>,
    hasher: RandomState,
}

/// Where the value of a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

#[cfg(test)]
impl Slot {
    /// Those of clients that do not meet.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }
}

impl<T> ByClient<T> {
    pub(crate) fn new(value: impl FnMut() -> T) -> Self {
        let slots = std::iter::repeat_with(value).take(SLOTS).collect();
        let hasher = RandomState::new();
        Self { slots, hasher }
    }

    /// The slot of whoever has an address.
    pub(crate) fn slot(&self, address: IpAddr) -> Slot {
        // The remainder fits whatever the platform.
        Slot((self.hasher.hash_one(network(address)) % SLOTS as u64) as usize)
    }
}

impl<T> Index<Slot> for ByClient<T> {
    type Output = T;

    fn index(&self, Slot(slot): Slot) -> &T {
        &self.slots[slot]
    }
}

/// What stands for a client: its IPv4 address, or its IPv6 network.
///
/// Whoever has one IPv6 address has all of its /64, the least that a link has (RFC 4291 §2.5.4).
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_slot_whichever_of_its_addresses_it_uses() {
        let slots = ByClient::new(|| ());
        let slot = |address: &str| slots.slot(address.parse().unwrap());
        assert_eq!(slot("192.0.2.1"), slot("::ffff:192.0.2.1"));
        assert_eq!(slot("2001:db8:0:1::1"), slot("2001:db8:0:1:ffff::2"));
        let others: Vec<_> = (0..8)
            .map(|last| slot(&format!("192.0.2.{last}")))
            .collect();
        assert!(others.iter().any(|other| *other != others[0]));
    }
}
