//! One connection to an upstream, which whoever uses it drives.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

mod stream;

use stream::UpstreamStream;

use super::patience::Patience;
use super::upload::RequestBody;
use crate::access::Traffic;
use crate::config::Config;
use crate::metrics::ActiveGuard;

type Driver = Connection<TokioIo<UpstreamStream>, RequestBody>;

/// One connection to an upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) driver: Driver,
    patience: Patience,
    /// The peer.
    pub(crate) address: SocketAddr,
    /// Until when DNS said that the peer is the target.
    pub(crate) valid_until: Instant,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
    /// Counts it among those that carry a request, from when it is there for one.
    pub(super) busy: Option<ActiveGuard>,
    /// Whether it must not carry another request: a client has authenticated it, or its response is one that
    /// others may read in another way.
    pub(super) is_last: bool,
}

/// Why an exchange came to nothing.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The connection failed.
    Failed {
        error: hyper::Error,
        /// The request, when nothing of it was sent.
        unsent: Option<Box<Request<RequestBody>>>,
    },
    /// Nothing was sent and nothing came for too long.
    Silent,
}

impl From<TrySendError<Request<RequestBody>>> for ExchangeError {
    fn from(mut refused: TrySendError<Request<RequestBody>>) -> Self {
        let unsent = refused.take_message().map(Box::new);
        Self::Failed {
            error: refused.into_error(),
            unsent,
        }
    }
}

impl Upstream {
    /// Speaks HTTP/1.1 over a connection that was just dialled.
    ///
    /// The configuration says how large a response head may be and how long it may take.
    pub(crate) async fn new(
        socket: TcpStream,
        address: SocketAddr,
        valid_until: Instant,
        config: &Config,
    ) -> Result<Box<Self>, hyper::Error> {
        let (sender, driver) = http1::Builder::new()
            .max_header_size(config.max_header_bytes)
            .max_buf_size(most_buffered(config))
            .handshake(TokioIo::new(UpstreamStream::new(socket)))
            .await?;
        let patience = Patience::new(config.response_timeout);
        Ok(Box::new(Self {
            sender,
            driver,
            patience,
            address,
            valid_until,
            reused: false,
            busy: None,
            is_last: false,
        }))
    }

    /// Sends a request and drives the connection until the response head is there.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        traffic: &Traffic,
    ) -> Result<Response<Incoming>, ExchangeError> {
        self.is_last |= authenticates_connection(request.headers());
        let mut response = std::pin::pin!(self.sender.try_send_request(request));
        let mut ended = false;
        self.patience.restart(traffic.sent());
        poll_fn(|cx| {
            // The driver first: it writes the request, and hands over the response.
            if !ended && self.driver.poll_without_shutdown(cx).is_ready() {
                // Its error is told to the waiting response.
                ended = true;
            }
            if let Poll::Ready(answered) = response.as_mut().poll(cx) {
                return Poll::Ready(answered.map_err(ExchangeError::from));
            }
            self.patience
                .poll_out(cx, traffic.sent())
                .map(|()| Err(ExchangeError::Silent))
        })
        .await
    }

    /// Goes on with an upload that outlives the head of its response.
    ///
    /// As long as `answering` has a sender the client's connection sees to it that something moves. When
    /// the response is over or given up, it is seen to here.
    pub(crate) async fn finish_upload(
        self,
        traffic: Arc<Traffic>,
        answering: oneshot::Receiver<()>,
    ) {
        let Self {
            mut driver,
            mut patience,
            ..
        } = self;
        tokio::select! {
            _closed = poll_fn(|cx| driver.poll_without_shutdown(cx)) => return,
            _dropped = answering => {}
        }
        patience.restart(traffic.sent());
        poll_fn(|cx| {
            if driver.poll_without_shutdown(cx).is_ready() {
                return Poll::Ready(());
            }
            patience.poll_out(cx, traffic.sent())
        })
        .await;
    }

    /// The socket, what was read from it of a response that is not whole yet, and what else it takes to go on.
    pub(super) fn into_loose(self) -> (TcpStream, Bytes, Loose) {
        let parts = self.driver.into_parts();
        let stream = parts.io.into_inner();
        let loose = Loose {
            address: self.address,
            valid_until: self.valid_until,
            // The rest of a head that was answered before it was sent is gone: another must not take its place.
            is_last: self.is_last || !stream.is_flushed(),
            _busy: self.busy,
        };
        (stream.into_socket(), parts.read_buf, loose)
    }

    /// The socket and what was read from it, after a 101 has ended HTTP on it.
    ///
    /// Of a request without content: one that goes on would be waited for. So it is at hand, and needs no timeout; a
    /// head of which the upstream has not taken all is not waited for.
    pub(crate) async fn into_switched(mut self) -> Result<(TcpStream, Bytes), hyper::Error> {
        poll_fn(|cx| self.driver.poll_without_shutdown(cx)).await?;
        let parts = self.driver.into_parts();
        Ok((parts.io.into_inner().into_socket(), parts.read_buf))
    }

    /// Whether the upstream has neither closed the idle connection nor sent anything on it.
    pub(super) fn is_alive(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.driver.poll_without_shutdown(&mut cx).is_pending() && self.sender.is_ready()
    }
}

/// What is kept of a connection while its socket is used without hyper.
#[derive(Debug)]
pub(super) struct Loose {
    address: SocketAddr,
    valid_until: Instant,
    pub(super) is_last: bool,
    _busy: Option<ActiveGuard>,
}

impl Loose {
    /// The connection for the next request, once the response has been read whole; none where there may not be one.
    pub(super) async fn go_on(self, socket: TcpStream, config: &Config) -> Option<Box<Upstream>> {
        if self.is_last {
            return None;
        }
        Upstream::new(socket, self.address, self.valid_until, config)
            .await
            .ok()
    }
}

/// Bytes of one direction that hyper may hold, on either side: what it holds by default, or else a head of
/// the greatest length, which it reads as a whole.
///
/// A client that reads nothing so holds a mebibyte at most. 128 KiB would make that a third, and bulk cost a fifth more CPU.
pub(super) fn most_buffered(config: &Config) -> usize {
    const DEFAULT: usize = 408 * 1024;
    config.max_header_bytes.max(DEFAULT)
}

/// Whether a request authenticates its connection, and with it every later request there, rather
/// than itself: `Negotiate` (RFC 4559 §6) and `NTLM`, which is in no RFC, do so.
fn authenticates_connection(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|credentials| {
        let scheme = credentials.as_bytes().split(|byte| *byte == b' ').next();
        scheme.is_some_and(|scheme| {
            scheme.eq_ignore_ascii_case(b"negotiate") || scheme.eq_ignore_ascii_case(b"ntlm")
        })
    })
}
