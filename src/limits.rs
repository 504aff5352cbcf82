//! How many connections the descriptors of this process are good for.

use std::os::fd::{AsRawFd, RawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for everything but connections: listeners, the admin port, logs, and then
/// [`MOST_QUERIES`] and [`MOST_FURTHER_ATTEMPTS`], or [`MOST_PIPES`] while those are not there.
const RESERVED: u64 = 200;

/// Of the reserve, what stays free for the admin port and the like when the process has its own and
/// every pipe is open. Clients, upstreams and pipes get none of these, whatever the limit on connections is.
const LAST: u64 = 48;

/// Pipes for bulk, two descriptors each; their share of the reserve.
pub const MOST_PIPES: usize = 64;

/// Questions to name servers that are open at once, each with a UDP socket. The names of one moment
/// that are in no cache are fewer, and are there within milliseconds.
pub const MOST_QUERIES: usize = 64;

/// UDP sockets from which questions are asked again that nobody answers. They are no part of the reserve: two
/// questions are of one connection, which has a claim on the descriptor of an upstream that is not dialled yet.
pub const MOST_FURTHER_SOCKETS: usize = MOST_QUERIES / 2;

/// Attempts to connect that are open at once, in all requests, besides the first of each. They are for
/// addresses that do not answer at once; where nothing is wrong there are none.
pub const MOST_FURTHER_ATTEMPTS: usize = 32;

/// What pipes leave to those who cannot do without.
const MOST_SHARED: u64 = (MOST_QUERIES + MOST_FURTHER_ATTEMPTS) as u64;

/// A connection takes one descriptor towards the client and one towards the upstream: for that one a name
/// is looked up before, and a first address dialled.
const PER_CONNECTION: u64 = 2;

/// More than any one host serves; some container runtimes set no limit at all.
const MOST_CONNECTIONS: u64 = 1_000_000;

/// Raises the soft limit on descriptors to the hard one, as far as they can be used.
///
/// Returns the limit in force.
pub fn raise_descriptors() -> u64 {
    let wanted = MOST_CONNECTIONS * PER_CONNECTION + RESERVED;
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(wanted);
    let hard = limit.maximum.unwrap_or(wanted).min(wanted);
    if soft < hard {
        let raised = Rlimit {
            current: Some(hard),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return hard;
        }
    }
    soft.min(wanted)
}

/// Has the kernel give this process memory by small pages.
///
/// The allocator asks for huge ones, which would make the first bytes that a gateway at rest touches
/// cost two megabytes apiece. A kernel that knows no such switch needs none.
pub fn use_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// How many client connections so many descriptors are good for; one at least.
#[must_use]
pub fn connections_for(descriptors: u64) -> usize {
    let connections = descriptors.saturating_sub(RESERVED) / PER_CONNECTION;
    usize::try_from(connections.clamp(1, MOST_CONNECTIONS)).unwrap_or(usize::MAX)
}

/// What a new descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A client's connection.
    Client,
    /// A connection to an upstream, or a question where it is; a client that has been let in is not to be
    /// let down.
    Upstream,
    /// A connection that is told that there is no room, which takes a moment.
    Refusal,
    /// A pipe for bulk, which can do without.
    Pipe,
}

/// Whether a new descriptor is one of the last, which are kept for the admin port and the rest.
///
/// The kernel gives out the lowest free number, so a number tells how many are in use. The limits on
/// connections, queries and attempts do not keep them: the first may be set higher than the
/// descriptors are good for.
#[must_use]
pub fn is_reserved(descriptor: &impl AsRawFd, purpose: For) -> bool {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    is_among_the_last(descriptor.as_raw_fd(), limit, purpose)
}

fn is_among_the_last(number: RawFd, limit: u64, purpose: For) -> bool {
    // Of a very small limit not all.
    let last = LAST.min(limit / 4);
    let kept = match purpose {
        For::Client => last,
        For::Pipe => last + MOST_SHARED.min(limit / 4),
        For::Upstream => last / 4 * 3,
        For::Refusal => last / 2,
    };
    u64::try_from(number).is_ok_and(|number| number >= limit - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_for_neither_clients_nor_upstreams_nor_pipes() {
        let first_of_the_last =
            |limit, purpose| (0..).find(|number| is_among_the_last(*number, limit, purpose));
        assert_eq!(first_of_the_last(20_000, For::Client), Some(19_952));
        assert_eq!(first_of_the_last(20_000, For::Pipe), Some(19_856));
        assert_eq!(first_of_the_last(20_000, For::Upstream), Some(19_964));
        assert_eq!(first_of_the_last(20_000, For::Refusal), Some(19_976));
        assert_eq!(first_of_the_last(64, For::Client), Some(48));
        assert!(!is_among_the_last(RawFd::MAX, u64::MAX, For::Client));
    }

    #[test]
    fn what_descriptors_are_good_for_can_be_had_whatever_else_is_open() {
        // Listeners, the runtime's own, and some more.
        let own = 20;
        for limit in [512, 1000, 20_000] {
            let connections = 2 * connections_for(limit) + own;
            let pipes = connections + 2 * MOST_PIPES;
            let pipe = (connections..pipes).rfind(|number| {
                !is_among_the_last(RawFd::try_from(*number).unwrap(), limit, For::Pipe)
            });
            // Whoever still looks up a name has no upstream.
            let looking_up = MOST_QUERIES + MOST_FURTHER_SOCKETS - MOST_QUERIES / 2;
            let in_use = pipe.unwrap_or(connections) + looking_up + MOST_FURTHER_ATTEMPTS;
            let last = RawFd::try_from(in_use - 1).unwrap();
            assert!(!is_among_the_last(last, limit, For::Client), "{limit}");
        }
    }

    #[test]
    fn twenty_thousand_descriptors_are_good_for_9900_connections() {
        assert_eq!(connections_for(20_000), 9_900);
        assert_eq!(connections_for(64), 1);
        assert_eq!(connections_for(u64::MAX), 1_000_000);
    }
}
