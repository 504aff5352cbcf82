//! Binding: IPv6 sockets that take IPv4 too, or IPv4 alone where a host has no IPv6.

use std::io;
use std::net::SocketAddr;

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::{Config, ipv4_fallback};
use crate::metrics::ListenerKind;
use crate::socket::tune;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
pub(crate) const BACKLOG: u32 = 4096;

/// The sockets of a gateway, bound and listening.
#[derive(Debug)]
pub struct Listeners {
    /// Where clients connect.
    pub proxy: Vec<TcpListener>,
    /// `/metrics`, `/livez`, `/readyz`.
    pub admin: TcpListener,
    /// The inspector, unless it is off.
    pub inspect: Option<TcpListener>,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: cannot listen on {address}: {error}")]
pub struct ListenError {
    variable: &'static str,
    address: SocketAddr,
    error: io::Error,
}

impl Listeners {
    /// Binds everything the configuration names, or nothing.
    ///
    /// # Errors
    /// When an address is taken, not of this host, or not allowed to this user.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let proxy = config
            .listen
            .iter()
            .map(|address| bind("OUTGATE_LISTEN", *address))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            proxy,
            admin: bind("OUTGATE_ADMIN_LISTEN", config.admin_listen)?,
            inspect: config
                .inspect_listen
                .map(|address| bind("OUTGATE_INSPECT_LISTEN", address))
                .transpose()?,
        })
    }

    /// What listens where.
    ///
    /// # Errors
    /// When a socket is not bound.
    pub fn addresses(&self) -> io::Result<Vec<(ListenerKind, SocketAddr)>> {
        let proxy = self
            .proxy
            .iter()
            .map(|listener| (ListenerKind::Proxy, listener));
        let admin = [(ListenerKind::Admin, &self.admin)];
        let inspect = self
            .inspect
            .iter()
            .map(|listener| (ListenerKind::Inspect, listener));
        proxy
            .chain(admin)
            .chain(inspect)
            .map(|(kind, listener)| Ok((kind, listener.local_addr()?)))
            .collect()
    }
}

fn bind(variable: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    listen(address)
        .or_else(|error| match ipv4_fallback(address) {
            Some(fallback) if has_no_ipv6(&error) => listen(fallback),
            _ => Err(error),
        })
        .map_err(|error| ListenError {
            variable,
            address,
            error,
        })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() {
        let socket = TcpSocket::new_v6()?;
        if address.ip().is_unspecified() {
            // Whatever the host's default: `[::]` means every address of both families.
            set_ipv6_v6only(&socket, false)?;
        }
        socket
    } else {
        TcpSocket::new_v4()?
    };
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    // Before anybody can connect.
    tune(&socket)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.raw_os_error().is_some_and(|code| {
        [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].contains(&Errno::from_raw_os_error(code))
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;
    use crate::socket::Options;

    #[tokio::test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the client of a test is no upstream"
    )]
    async fn what_was_connected_before_it_is_accepted_has_every_option() {
        for any_port in ["127.0.0.1:0", "[::]:0"] {
            let listener = bind("OUTGATE_LISTEN", any_port.parse().unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port();
            let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let options = Options::of(&accepted);
            assert!(options.nodelay && options.keepalive);
            assert!(options.most_unsent.unwrap() > 0);
            assert_eq!(options, Options::of(&listener), "{any_port}");
        }
    }
}
