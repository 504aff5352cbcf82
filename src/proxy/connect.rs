//! Dialling: the only outbound socket, opened to vetted addresses only (RFC 8305).
//!
//! [`Dialer::dial`] takes a [`Permit`], which only the policy can make, and asks it about each
//! address right before the connection attempt: the address that was checked is the address
//! that is dialled.

mod race;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::respond::Failure;
use crate::access::Detail;
use crate::limits::{self, For};
use crate::policy::Permit;
use crate::reason::Reason;
use crate::socket::tune;

/// Addresses tried for one request: each has two seconds of the usual ten then, though none answers.
const MOST_TRIED: usize = 16;

/// Opens connections to upstreams.
#[derive(Debug)]
pub struct Dialer {
    /// For all addresses of one target together.
    timeout: Duration,
    /// Ports the gateway itself listens on.
    own_ports: Vec<u16>,
    /// Attempts that may be open at once besides the first of each request.
    further: Semaphore,
}

impl Dialer {
    /// A dialer that gives up after `timeout` and never dials a local address at `own_ports`.
    ///
    /// Besides the first attempt of each request, `further_attempts` may be open at once.
    #[must_use]
    pub fn new(timeout: Duration, own_ports: Vec<u16>, further_attempts: usize) -> Self {
        let further = Semaphore::new(further_attempts.min(Semaphore::MAX_PERMITS));
        Self {
            timeout,
            own_ports,
            further,
        }
    }

    /// Connects to the first of the addresses that answers, among those the permit admits.
    pub(crate) async fn dial(
        &self,
        permit: &Permit,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<(TcpStream, SocketAddr), Failure> {
        let vetted = self.vet(permit, addresses, port)?;
        let deadline = Instant::now() + self.timeout;
        match vetted.as_slice() {
            [only] => {
                let attempt = tokio::time::timeout_at(deadline, attempt(*only));
                match attempt.await {
                    Ok(Ok(stream)) => Ok((stream, *only)),
                    Ok(Err(error)) => Err(failed(*only, error)),
                    Err(_) => Err(self.timed_out(vetted)),
                }
            }
            several => {
                let mut failure = None;
                let race = race::race(several, &self.further, deadline, &mut failure);
                match tokio::time::timeout_at(deadline, race).await {
                    Ok(connected) => connected,
                    // What has not answered by now has timed out.
                    Err(_) => Err(more_telling(failure, self.timed_out(vetted))),
                }
            }
        }
    }

    /// The addresses that may be dialled, in the order to try them.
    fn vet(
        &self,
        permit: &Permit,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let mut prohibited = None;
        let mut admitted = Vec::with_capacity(addresses.len());
        for address in addresses {
            match permit.admits(*address) {
                Ok(()) => admitted.push(*address),
                Err(verdict) => prohibited = Some(verdict),
            }
        }
        if let (true, Some(verdict)) = (admitted.is_empty(), prohibited) {
            return Err(Failure::new(Reason::AddressProhibited, verdict));
        }
        let ordered: Vec<_> = interleave(&admitted)
            .into_iter()
            .take(MOST_TRIED)
            .map(|ip| SocketAddr::new(ip, port))
            .collect();
        for address in &ordered {
            let is_gateway = self.is_gateway(*address);
            if is_gateway.map_err(|error| failed(*address, error))? {
                let own = Detail::Gateway(*address);
                return Err(Failure::new(Reason::LoopDetected, own));
            }
        }
        Ok(ordered)
    }

    /// Whether this gateway itself listens at an address.
    ///
    /// # Errors
    /// Without a descriptor to find out.
    pub fn is_gateway(&self, address: SocketAddr) -> io::Result<bool> {
        Ok(self.own_ports.contains(&address.port()) && is_local(address)?)
    }

    fn timed_out(&self, addresses: Vec<SocketAddr>) -> Failure {
        let detail = Detail::Unconnected(addresses, self.timeout);
        Failure::new(Reason::ConnectionTimeout, detail)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that dials, behind a permit"
)]
async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if limits::is_reserved(&socket, For::Upstream) {
        return Err(Errno::MFILE.into());
    }
    let stream = socket.connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// Families take turns, IPv6 first (RFC 8305 §4, first address family count 1).
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v6 = addresses.iter().copied().filter(IpAddr::is_ipv6);
    let mut v4 = addresses.iter().copied().filter(IpAddr::is_ipv4);
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        match (v6.next(), v4.next()) {
            (None, None) => return ordered,
            (six, four) => ordered.extend(six.into_iter().chain(four)),
        }
    }
}

/// Whether an address belongs to this host: the kernel would send to it from itself.
fn is_local(address: SocketAddr) -> io::Result<bool> {
    let ip = address.ip().to_canonical();
    if ip.is_loopback() || ip.is_unspecified() {
        return Ok(true);
    }
    match routed_to(address) {
        Ok(own) => Ok(own.ip().to_canonical() == ip),
        Err(error) if super::is_out_of_descriptors(&error) => Err(error),
        // This host has no address that it has no route to, or of a family that it does not know.
        Err(_) => Ok(false),
    }
}

/// The address from which this host would send to another, whose port is not to be 0.
///
/// Connecting a UDP socket asks the routing table and sends nothing.
pub(super) fn routed_to(address: SocketAddr) -> io::Result<SocketAddr> {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let probe = UdpSocket::bind((any, 0))?;
    probe.connect(address)?;
    probe.local_addr()
}

/// The failure to tell, of those before and another.
fn more_telling(before: Option<Failure>, failure: Failure) -> Failure {
    match before {
        Some(before) if rank(before.reason) >= rank(failure.reason) => before,
        _ => failure,
    }
}

/// Which of several failures is told: one of this gateway, as then not every address was tried; else
/// what says most of the target, an answer before a silence before a family that has no route here.
fn rank(reason: Reason) -> u8 {
    if reason == Reason::ConnectionLimit {
        4
    } else if reason == Reason::ConnectionRefused {
        3
    } else if reason == Reason::ConnectionReset {
        2
    } else {
        u8::from(reason == Reason::ConnectionTimeout)
    }
}

fn failed(address: SocketAddr, error: io::Error) -> Failure {
    use io::ErrorKind as Kind;
    let kind = error.kind();
    let reason = if kind == Kind::ConnectionRefused {
        Reason::ConnectionRefused
    } else if kind == Kind::ConnectionReset {
        Reason::ConnectionReset
    } else if kind == Kind::TimedOut {
        Reason::ConnectionTimeout
    } else if super::is_out_of_descriptors(&error) {
        Reason::ConnectionLimit
    } else {
        // No route, no such family here, or a local firewall that says no.
        Reason::DestinationUnreachable
    };
    Failure::new(reason, Detail::Dial(address, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Options;

    #[tokio::test]
    async fn what_is_dialled_has_every_option() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = attempt(listener.local_addr().unwrap()).await.unwrap();
        let tuned = TcpSocket::new_v4().unwrap();
        tune(&tuned).unwrap();
        let options = Options::of(&dialled);
        assert!(options.nodelay && options.keepalive);
        assert_eq!(options.probe_after, Duration::from_secs(60));
        assert_eq!(options, Options::of(&tuned));
    }

    #[test]
    fn families_take_turns_with_ipv6_first_rfc8305_4() {
        let [a, b, c]: [IpAddr; 3] =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|a| a.parse().unwrap());
        let [x, y]: [IpAddr; 2] = ["2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
        assert_eq!(interleave(&[a, b, c, x, y]), [x, a, y, b, c]);
        assert_eq!(interleave(&[a, b]), [a, b]);
    }

    #[test]
    fn of_several_failures_one_of_the_gateway_comes_before_those_of_the_target() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        let ranked = [
            Errno::HOSTUNREACH,
            Errno::TIMEDOUT,
            Errno::CONNRESET,
            Errno::CONNREFUSED,
            Errno::MFILE,
        ]
        .map(|errno| failed(address, errno.into()).reason)
        .map(rank);
        assert!(ranked.is_sorted_by(|less, more| less < more));
    }
}
