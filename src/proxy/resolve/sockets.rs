//! The sockets from which name servers are asked, within what the descriptors are good for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use rustix::io::Errno;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{self, For};

type Opening<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// Opens sockets to name servers.
///
/// Each question goes out from a socket of its own, and from further ones while it is not answered.
#[derive(Clone)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
    places: Arc<Semaphore>,
}

impl Sockets {
    /// So many UDP sockets at once; TCP connections are few and shared.
    pub(super) fn new(most: usize) -> Self {
        Self {
            tokio: TokioRuntimeProvider::default(),
            places: Arc::new(Semaphore::new(most)),
        }
    }
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Placed;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        from: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        let connecting = self.tokio.connect_tcp(server, from, timeout);
        Box::pin(async move {
            let connection = connecting.await?;
            if limits::is_reserved(&connection.0, For::Upstream) {
                return Err(Errno::MFILE.into());
            }
            Ok(connection)
        })
    }

    /// Waits for a place: those who have asked already are waiting for an answer.
    fn bind_udp(&self, from: SocketAddr, server: SocketAddr) -> Opening<Self::Udp> {
        let (tokio, places) = (self.tokio.clone(), Arc::clone(&self.places));
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let socket = tokio.bind_udp(from, server).await?;
            if limits::is_reserved(&socket, For::Upstream) {
                return Err(Errno::MFILE.into());
            }
            Ok(Placed {
                socket,
                _place: place,
            })
        })
    }
}

/// A socket and its place.
pub(super) struct Placed {
    socket: UdpSocket,
    _place: OwnedSemaphorePermit,
}

impl DnsUdpSocket for Placed {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.socket, cx, buffer)
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        server: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.socket, cx, bytes, server)
    }
}
