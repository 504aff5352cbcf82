//! Addresses at which nobody listens, or nobody answers, for as long as a test says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::any_port;
use super::sockets::{self, Socket, State};

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

/// A port that answers no attempt to connect: its queue is full.
pub(crate) struct Unanswering {
    listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Unanswering {
    /// At every IPv4 address of this host.
    pub(crate) async fn start() -> Self {
        Self::at((Ipv4Addr::UNSPECIFIED, 0).into()).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        // Whoever dials an unspecified address gets to this host.
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        // One that is let in takes no longer than this machine is busy.
        while let Ok(connected) =
            timeout(Duration::from_millis(500), TcpStream::connect(address)).await
        {
            queued.push(connected.unwrap());
            assert!(queued.len() < 8, "the queue has no end");
        }
        Self {
            listener,
            _queued: queued,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Attempts to connect that wait for an answer.
    pub(crate) fn attempts(&self) -> usize {
        let to_here = |socket: &Socket| socket.remote_port == self.port();
        let waiting = sockets::all()
            .into_iter()
            .filter(|socket| to_here(socket) && socket.state == State::SynSent);
        waiting.count()
    }
}
