//! Polls HTTP on one connection: when it is the client's turn, and through the phases of a drain.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::client::ClientStream;
use super::connection::{Connection, Requests};
use super::progress::{Progress, Waiting};
use super::respond::Failure;
use super::turns::Place;
use super::upstream::most_buffered;
use crate::access::Detail;
use crate::drain::{Drain, Phase};
use crate::reason::Reason;

/// How long a connection accepted before the drain may take to send its first request.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

type Http = http1::Connection<TokioIo<ClientStream>, Requests>;

/// HTTP on one connection.
pub(super) struct Driver<'a> {
    http: Http,
    socket: &'a TcpStream,
    progress: &'a Progress,
    place: Place<'a>,
}

impl<'a> Driver<'a> {
    /// Speaks HTTP on a client's socket, from which `unread` was read before.
    pub(super) fn new(
        connection: &'a Arc<Connection>,
        socket: &'a Arc<TcpStream>,
        unread: Bytes,
    ) -> Self {
        let Connection {
            proxy, progress, ..
        } = &**connection;
        let stream = ClientStream::new(Arc::clone(socket), Arc::clone(progress), unread);
        let http = http1::Builder::new()
            .max_header_size(proxy.config.max_header_bytes)
            .max_buf_size(most_buffered(&proxy.config))
            // The timeouts are kept here: hyper's would not be answered.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), Requests::of(connection));
        Self {
            http,
            socket,
            progress,
            place: Place::new(&proxy.turns, connection.slot()),
        }
    }

    /// Polls HTTP to its end, through the phases of a drain.
    pub(super) async fn run(&mut self, mut drain: Drain) -> Ended {
        tokio::select! {
            ended = poll_fn(|cx| self.poll(cx)) => return ended,
            () = drain.reaches(Phase::Closing) => {}
        }
        if !self.progress.has_served() {
            // It was accepted, so its first request is as good as here; hyper would close at once.
            tokio::select! {
                ended = poll_fn(|cx| self.poll(cx)) => return ended,
                () = tokio::time::sleep(FIRST_REQUEST_GRACE) => {}
                () = drain.reaches(Phase::Over) => return Ended::Gone,
            }
        }
        // A request that is here by now, and waits for its turn, is accepted: hyper would close a connection on which it
        // has read none.
        tokio::task::yield_now().await;
        if let Poll::Ready(ended) = poll_fn(|cx| Poll::Ready(self.poll_http(cx))).await {
            return ended;
        }
        if let Waiting::Head(_) = self.progress.waiting() {
            return Ended::Refused(Failure::plain(Reason::Draining));
        }
        Pin::new(&mut self.http).graceful_shutdown();
        tokio::select! {
            ended = poll_fn(|cx| self.poll(cx)) => ended,
            () = drain.reaches(Phase::Over) => Ended::Gone,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        // What a client sent that is gone, or out of time, has no other time.
        if self.place.must_wait() && !self.progress.takes_look() && !self.is_gone() {
            ready!(self.place.poll_turn(cx));
        }
        self.poll_http(cx)
    }

    /// Polls it without waiting for a turn.
    fn poll_http(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let begun = self.progress.begin_turn(self.place.most_bytes());
        let mut polled = self.http.poll_without_shutdown(cx);
        if let Poll::Ready(Ok(())) = polled
            && !self.progress.is_flushed()
        {
            // hyper is done with requests, and may hold the end of an answer still: polled, it does no more than write
            // that, and has this task woken for it.
            polled = self.http.poll_without_shutdown(cx);
        }
        self.place.end(self.progress.moved_since(begun));
        if self.progress.takes_bulk() {
            return Poll::Ready(Ended::Interrupted);
        }
        let ended = Ended::of(ready!(polled), self.progress);
        if matches!(ended, Ended::Done) && !self.progress.is_flushed() {
            return Poll::Pending;
        }
        Poll::Ready(ended)
    }

    fn is_gone(&self) -> bool {
        let failed = self.socket.ready(Interest::ERROR);
        failed.now_or_never().is_some()
    }

    /// What was read behind the last request.
    pub(super) fn into_unread(self) -> Bytes {
        let parts = self.http.into_parts();
        parts.io.into_inner().into_unread(&parts.read_buf)
    }
}

/// How HTTP on a connection came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// Regularly, with all answers on their way: closed, or handed over to a tunnel.
    Done,
    /// Large content is next, which hyper does not write. HTTP goes on behind it.
    Interrupted,
    /// Without a whole request, and the client is to be told why.
    Refused(Failure),
    /// The same, but it is told nothing: it has said nothing, or hyper may have told it already.
    RefusedSilently(Failure),
    /// The client took too long between two requests.
    TimedOut,
    /// Content took too long.
    Stalled,
    /// The client is gone, or cannot be told anything any more.
    Gone,
}

impl Ended {
    fn of(result: hyper::Result<()>, progress: &Progress) -> Self {
        let Err(error) = result else {
            return Self::Done;
        };
        if !error.is_parse() {
            return Self::Gone;
        }
        let reason = if error.is_parse_too_large() {
            Reason::HeaderTooLarge
        } else {
            Reason::BadRequest
        };
        let failure = Failure::new(reason, Detail::Head(error));
        if progress.was_answered_by_hyper() {
            Self::RefusedSilently(failure)
        } else {
            Self::Refused(failure)
        }
    }
}
