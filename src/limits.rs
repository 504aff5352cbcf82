//! How many connections the descriptors of this process are good for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for everything but connections: listeners, the admin port, DNS, logs, and
/// [`MOST_PIPES`].
const RESERVED: u64 = 200;

/// Pipes for bulk tunnels, two descriptors each; their share of the reserve.
pub const MOST_PIPES: usize = 64;

/// A connection takes one descriptor towards the client and one towards the upstream.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_thousand_descriptors_are_good_for_9900_connections() {
        assert_eq!(connections_for(20_000), 9_900);
        assert_eq!(connections_for(64), 1);
        assert_eq!(connections_for(u64::MAX), 1_000_000);
    }
}
