//! Addresses at which nobody listens, for as long as a test says so.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::any_port;

/// A port that refuses. It stays taken, because what is free is soon given to another test, and
/// what dials it in vain would then be that test's first client.
pub(crate) struct Vacant(TcpSocket);

impl Vacant {
    pub(crate) fn take() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(any_port()).unwrap();
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address().port()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Whoever dials it is accepted from now on.
    pub(crate) fn listen(self) -> TcpListener {
        self.0.listen(16).unwrap()
    }
}
