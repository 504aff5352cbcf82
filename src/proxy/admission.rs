//! Who may have a connection: the limits in all and per client.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    held: papaya::HashMap<IpAddr, usize>,
}

/// A place among the connections, given back on drop.
#[derive(Debug)]
pub(crate) struct Admitted {
    _place: OwnedSemaphorePermit,
    _share: Option<Share>,
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

    /// A place for one more connection of a client, or which limit it is over.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<Admitted, Reason> {
        let share = match &self.per_client {
            Some(per_client) => Some(Share::take(per_client, client).ok_or(Reason::ClientLimit)?),
            None => None,
        };
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Reason::ConnectionLimit)?;
        Ok(Admitted {
            _place: place,
            _share: share,
        })
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
    client: IpAddr,
}

impl Share {
    fn take(of: &Arc<PerClient>, client: IpAddr) -> Option<Self> {
        use papaya::{Compute, Operation};
        let held = of.held.pin();
        let taken = held.compute(client, |entry| match entry {
            Some((_, count)) if *count >= of.limit => Operation::Abort(()),
            Some((_, count)) => Operation::Insert(count + 1),
            None if of.limit == 0 => Operation::Abort(()),
            None => Operation::Insert(1),
        });
        match taken {
            Compute::Aborted(()) => None,
            Compute::Inserted(..) | Compute::Updated { .. } | Compute::Removed(..) => Some(Self {
                of: Arc::clone(of),
                client,
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
            .compute(self.client, |entry| match entry {
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
        let client = IpAddr::from([192, 0, 2, 1]);
        let first = admission.admit(client).unwrap();
        let _second = admission.admit(client).unwrap();
        assert_eq!(admission.admit(client).unwrap_err(), Reason::ClientLimit);
        assert!(admission.admit(IpAddr::from([192, 0, 2, 2])).is_ok());
        drop(first);
        assert!(admission.admit(client).is_ok());
    }

    #[test]
    fn over_the_limit_in_all_nobody_is_admitted() {
        let admission = Admission::new(1, None);
        let _held = admission.admit(IpAddr::from([192, 0, 2, 1])).unwrap();
        let refused = admission.admit(IpAddr::from([192, 0, 2, 2])).unwrap_err();
        assert_eq!(refused, Reason::ConnectionLimit);
    }
}
