//! Who may have a connection: the limits in all and per client.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::by_client::network;
use crate::reason::Reason;

/// Refusals that may be on their way at once. Each takes a descriptor for up to a second, so
/// they are few; a client beyond them sees its connection closed.
const REFUSALS_AT_ONCE: usize = 64;

/// Counts connections against their limits.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    per_client: Option<Arc<PerClient>>,
}

#[derive(Debug)]
struct PerClient {
    limit: usize,
    /// Connections each client has; a client without any has no entry.
    held: papaya::HashMap<Key, usize>,
}

/// What connections are counted by: each by its address, and by the client whose networks that is in.
///
/// Not by what a client claims, such as a user name: whoever claims it could use up the share of the
/// one whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    /// The client of the policy file that has the network.
    Network(Arc<str>),
}

impl Key {
    fn of(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

/// A place among the connections, given back on drop.
#[derive(Debug)]
pub(crate) struct Admitted {
    _place: OwnedSemaphorePermit,
    _address: Option<Share>,
    _network: Option<Share>,
}

impl Admission {
    pub(crate) fn new(max_connections: usize, per_client: Option<usize>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS_AT_ONCE)),
            per_client: per_client.map(|limit| {
                Arc::new(PerClient {
                    limit,
                    held: papaya::HashMap::new(),
                })
            }),
        }
    }

    /// A place for one more connection from an address, or which limit it is over.
    ///
    /// `client` says in whose networks the address is; it is not asked where nobody is counted.
    pub(crate) fn admit(
        &self,
        address: IpAddr,
        client: impl FnOnce() -> Option<Arc<str>>,
    ) -> Result<Admitted, Reason> {
        let by_address = self.share(|| Some(Key::of(address)))?;
        let by_network = self.share(|| client().map(Key::Network))?;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Reason::ConnectionLimit)?;
        Ok(Admitted {
            _place: place,
            _address: by_address,
            _network: by_network,
        })
    }

    fn share(&self, key: impl FnOnce() -> Option<Key>) -> Result<Option<Share>, Reason> {
        let Some(per_client) = &self.per_client else {
            return Ok(None);
        };
        let Some(key) = key() else { return Ok(None) };
        let share = Share::take(per_client, key).ok_or(Reason::ClientLimit)?;
        Ok(Some(share))
    }

    /// A place to tell a client that there is none.
    pub(crate) fn place_for_refusal(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }
}

/// One connection of a client's share.
#[derive(Debug)]
struct Share {
    of: Arc<PerClient>,
    key: Key,
}

impl Share {
    fn take(of: &Arc<PerClient>, key: Key) -> Option<Self> {
        use papaya::{Compute, Operation};
        let held = of.held.pin();
        let taken = held.compute(key.clone(), |entry| match entry {
            Some((_, count)) if *count >= of.limit => Operation::Abort(()),
            Some((_, count)) => Operation::Insert(count + 1),
            None if of.limit == 0 => Operation::Abort(()),
            None => Operation::Insert(1),
        });
        match taken {
            Compute::Aborted(()) => None,
            Compute::Inserted(..) | Compute::Updated { .. } | Compute::Removed(..) => Some(Self {
                of: Arc::clone(of),
                key,
            }),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        use papaya::Operation;
        self.of
            .held
            .pin()
            .compute(self.key.clone(), |entry| match entry {
                Some((_, 1)) => Operation::Remove,
                Some((_, count)) => Operation::Insert(count - 1),
                None => Operation::Abort(()),
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_share_back_when_its_connection_ends() {
        let admission = Admission::new(10, Some(2));
        let admit = |address| admission.admit(address, || None);
        let client = IpAddr::from([192, 0, 2, 1]);
        let first = admit(client).unwrap();
        let _second = admit(client).unwrap();
        assert_eq!(admit(client).unwrap_err(), Reason::ClientLimit);
        assert!(admit(IpAddr::from([192, 0, 2, 2])).is_ok());
        drop(first);
        assert!(admit(client).is_ok());
    }

    #[test]
    fn all_addresses_of_an_ipv6_64_have_one_share() {
        let admission = Admission::new(10, Some(1));
        let admit = |address: &str| admission.admit(address.parse().unwrap(), || None);
        let held = ["2001:db8:0:1::1", "::ffff:192.0.2.1"].map(|address| admit(address).unwrap());
        for of_the_same in ["2001:db8:0:1:ffff::2", "192.0.2.1"] {
            assert_eq!(admit(of_the_same).unwrap_err(), Reason::ClientLimit);
        }
        for other in ["2001:db8:0:2::1", "::ffff:192.0.2.2"] {
            assert!(admit(other).is_ok(), "{other}");
        }
        drop(held);
        assert!(admit("2001:db8:0:1::3").is_ok());
    }

    #[test]
    fn over_the_limit_in_all_nobody_is_admitted() {
        let admission = Admission::new(1, None);
        let admit = |address| admission.admit(address, || None);
        let _held = admit(IpAddr::from([192, 0, 2, 1])).unwrap();
        let refused = admit(IpAddr::from([192, 0, 2, 2])).unwrap_err();
        assert_eq!(refused, Reason::ConnectionLimit);
    }

    #[test]
    fn a_client_has_one_share_from_all_its_networks() {
        let admission = Admission::new(10, Some(2));
        let ci: Arc<str> = "ci".into();
        let admit = |last| {
            let address = IpAddr::from([192, 0, 2, last]);
            admission.admit(address, || Some(Arc::clone(&ci)))
        };
        let first = admit(1).unwrap();
        let _second = admit(2).unwrap();
        assert_eq!(admit(3).unwrap_err(), Reason::ClientLimit);
        // Whoever was refused holds nothing.
        let others = IpAddr::from([192, 0, 2, 3]);
        let other = |_| admission.admit(others, || Some("other".into()));
        assert!([(); 2].map(other).iter().all(Result::is_ok));
        drop(first);
        assert!(admit(3).is_ok());
    }
}
