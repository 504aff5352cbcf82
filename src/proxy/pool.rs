//! Kept-alive upstream connections.
//!
//! A connection has no task of its own: whoever uses it drives it, in the task of the request it
//! serves, so an exchange costs no switch between tasks and an idle connection costs no memory but
//! its own. What the upstream did to an idle connection is seen when it is next taken or swept.
//!
//! Every request is authorised before it gets here, and a kept connection is used only if the
//! permit of that request admits its address, and DNS still names it.

mod shelves;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use shelves::Shelves;

use super::bulk::{self, Source};
use super::upstream::Upstream;
use crate::access::Traffic;
use crate::metrics::{ActiveGuard, Direction, Metrics};
use crate::policy::Permit;
use crate::target::Target;

/// Idle upstream connections by destination.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Shelves<Idle>,
    keep_for: Duration,
    /// Client connections there may be; the descriptors of a process are reckoned from it.
    max_clients: i64,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Idle {
    upstream: Box<Upstream>,
    since: Instant,
    _counted: ActiveGuard,
}

impl Pool {
    pub(crate) fn new(keep_for: Duration, max_clients: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            idle: Shelves::new(),
            keep_for,
            // Half of what fits, since it is doubled.
            max_clients: i64::try_from(max_clients).unwrap_or(i64::MAX / 2),
            metrics,
        }
    }

    /// How many more connections may be kept; below zero, how many are too many.
    ///
    /// Each client has a claim on two descriptors, its own and its upstream's, and what is kept
    /// lives on the claims of clients that are not there.
    fn room(&self) -> i64 {
        let absent = self.max_clients.saturating_sub(self.metrics.clients());
        absent.saturating_mul(2) - self.metrics.pool.idle.get()
    }

    /// Closes kept connections that stand in the way of a client's upstream.
    pub(crate) fn make_room(&self) {
        let are_too_many = || self.room() < 0;
        if are_too_many() {
            self.idle.clear_while(are_too_many);
        }
    }

    /// A kept connection to the target that still lives and may still be used.
    pub(crate) fn take(&self, target: &Target, permit: &Permit) -> Option<Box<Upstream>> {
        let kept = self.idle.of(target)?;
        while let Some(Idle {
            mut upstream,
            since,
            ..
        }) = kept.pop()
        {
            if since.elapsed() < self.keep_for
                && permit.admits(upstream.address.ip()).is_ok()
                && upstream.is_alive()
            {
                upstream.busy = Some(ActiveGuard::new(&self.metrics.pool.busy));
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, if it may carry another and there is room for it.
    pub(crate) fn put(&self, target: &Target, mut upstream: Box<Upstream>) {
        upstream.busy = None;
        // Looked at in any case: it has a turn in which it notes the end of the response.
        if !upstream.is_alive() || upstream.is_last || self.room() <= 0 {
            return;
        }
        upstream.reused = true;
        let idle = Idle {
            upstream,
            since: Instant::now(),
            _counted: ActiveGuard::new(&self.metrics.pool.idle),
        };
        self.idle.put(target, idle);
    }

    /// Closes what has been idle for too long, what the upstream closed, and what `keep` denies.
    pub(crate) fn sweep(&self, keep: impl Fn(&Target, SocketAddr) -> bool) {
        self.idle.sweep(|target, idle| {
            idle.since.elapsed() < self.keep_for
                && keep(target, idle.upstream.address)
                && idle.upstream.is_alive()
        });
    }
}

/// The response of an upstream, and the connection it comes on, which goes back to the pool when
/// the response has been read whole.
#[derive(Debug)]
pub(crate) struct Lease {
    incoming: Incoming,
    upstream: Option<(Arc<Pool>, Target, Box<Upstream>)>,
    traffic: Arc<Traffic>,
    /// The length of content that need not go through hyper.
    bulk: Option<u64>,
    /// Tells an upload with a task of its own that nobody waits for the response any more.
    _answering: Option<oneshot::Sender<()>>,
}

impl Lease {
    /// `uploading` tells whether the response began before the request was sent whole. Then the
    /// upload must go on whether or not the client reads the response, so the connection gets a
    /// task of its own and is not kept.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        target: &Target,
        upstream: Box<Upstream>,
        incoming: Incoming,
        traffic: Arc<Traffic>,
        uploading: bool,
    ) -> Self {
        let (upstream, answering) = if uploading {
            let (answering, answered) = oneshot::channel();
            tokio::spawn(upstream.finish_upload(Arc::clone(&traffic), answered));
            (None, Some(answering))
        } else {
            (Some((Arc::clone(pool), target.clone(), upstream)), None)
        };
        let mut lease = Self {
            incoming,
            upstream,
            traffic,
            bulk: None,
            _answering: answering,
        };
        if lease.incoming.is_end_stream() {
            lease.give_back();
        }
        lease
    }

    /// Lets the content leave hyper's hands, if there is much of it: nothing else is under way on either connection before
    /// the next request.
    pub(crate) fn may_leave_hyper(&mut self) {
        let length = self.incoming.size_hint().exact();
        self.bulk = length.filter(|length| *length >= bulk::LEAST);
    }

    /// The content as a socket that has so much of it, where it may leave hyper's hands and the client's connection `goes_on`.
    #[expect(
        clippy::result_large_err,
        reason = "either is moved once, to where it stays"
    )]
    pub(crate) fn into_source(mut self, goes_on: bool) -> Result<Source, Self> {
        let Some(length) = self.bulk.filter(|_| goes_on) else {
            return Err(self);
        };
        let Some((pool, target, upstream)) = self.upstream.take() else {
            return Err(self);
        };
        let mut early = BytesMut::new();
        // hyper has read no more than what the channel holds, and what it has not looked at.
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self.incoming).poll_frame(cx) {
            early.extend(frame.into_data());
        }
        let (socket, unread, mut loose) = upstream.into_loose();
        early.extend_from_slice(&unread);
        if early.len() as u64 > length {
            // What nobody asked for must not become the next response.
            early.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            loose.is_last = true;
        }
        Ok(Source {
            socket,
            early: early.freeze(),
            length,
            traffic: self.traffic,
            loose,
            home: (pool, target),
        })
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some((_, _, upstream)) = &mut self.upstream
        {
            if upstream.driver.poll_without_shutdown(cx).is_ready() {
                // Closed: what was read before is still to be had, and then its end or error.
                self.upstream = None;
            }
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.traffic.count(Direction::UpstreamToClient, data.len());
                }
                if self.incoming.is_end_stream() {
                    self.give_back();
                }
            }
            Poll::Ready(Some(Err(_))) => self.upstream = None,
            Poll::Ready(None) => self.give_back(),
            Poll::Pending => {}
        }
        polled
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn give_back(&mut self) {
        if let Some((pool, target, upstream)) = self.upstream.take() {
            pool.put(&target, upstream);
        }
    }
}
