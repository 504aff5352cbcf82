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

tokio::task_local! {
    /// The place of the question that is being asked for a socket of its own.
    static OWN: Arc<Semaphore>;
}

/// Asks a question, which has one socket to itself whatever others there are.
pub(super) async fn with_own<L: Future>(lookup: L) -> L::Output {
    OWN.scope(Arc::new(Semaphore::new(1)), lookup).await
}

/// Opens sockets to name servers.
///
/// A question goes out from one socket, and while it is not answered from up to five more: three times to each of two
/// name servers. Questions that nobody answers would take them all, so only the first is sure.
#[derive(Clone)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
    further: Arc<Semaphore>,
}

impl Sockets {
    /// So many UDP sockets at once besides one of each question; TCP connections are few and shared.
    pub(super) fn new(further: usize) -> Self {
        let further = further.min(Semaphore::MAX_PERMITS);
        Self {
            tokio: TokioRuntimeProvider::default(),
            further: Arc::new(Semaphore::new(further)),
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

    /// Waits for a place if the question has its socket: it is waiting for an answer already.
    fn bind_udp(&self, from: SocketAddr, server: SocketAddr) -> Opening<Self::Udp> {
        let (tokio, further) = (self.tokio.clone(), Arc::clone(&self.further));
        // The library asks for a socket in the task that looks the name up.
        let own = OWN.try_with(|own| Arc::clone(own).try_acquire_owned());
        Box::pin(async move {
            let place = match own {
                Ok(Ok(place)) => place,
                Ok(Err(_)) | Err(_) => further.acquire_owned().await.map_err(io::Error::other)?,
            };
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
