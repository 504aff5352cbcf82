//! One client's connection: HTTP until the client leaves, is refused, or becomes a tunnel.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::admission::Admitted;
use super::body::ResponseBody;
use super::client::ClientStream;
use super::closing::{linger, refuse, refuse_silently};
use super::driver::{Driver, Ended};
use super::progress::{Progress, Waiting};
use super::relay::ResetByPanic;
use super::respond::Failure;
use super::tunnel::Takeover;
use super::turns::Place;
use super::upstream::most_buffered;
use super::{Proxy, handle, relay};
use crate::access::AccessRecord;
use crate::drain::Drain;
use crate::metrics::ActiveGuard;
use crate::policy::{Access, Permit};
use crate::reason::Reason;
use crate::target::Target;

/// Content that stands still is looked at so many times within its timeout, so it gets no more than a
/// quarter more than that.
const LOOKS_AT_CONTENT: u32 = 4;

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) proxy: Arc<Proxy>,
    pub(super) client: SocketAddr,
    pub(super) progress: Arc<Progress>,
    pub(super) drain: Drain,
    takeover: OnceLock<Takeover>,
}

impl Connection {
    /// Asks the policy; a refusal is noted with the rule behind it.
    pub(super) fn authorize(
        &self,
        target: &Target,
        access: Access<'_>,
        record: &mut AccessRecord,
    ) -> Result<Permit, Failure> {
        let in_force = self.proxy.enforced.load();
        let policy = in_force.policy();
        let client = policy.identify(self.client.ip(), record.user().map(|user| &**user));
        match policy.authorize(&client, target, access) {
            Ok(permit) => {
                record.permitted(&permit, &in_force);
                Ok(permit)
            }
            Err(denial) => {
                record.denied(&denial);
                let reason = policy.reason_told(&client, &denial);
                Err(Failure::new(reason, denial))
            }
        }
    }

    /// Whether the policy, in force and not just reporting, would allow a tunnel to this target.
    pub(super) fn may_tunnel_to(&self, target: &Target, record: &AccessRecord) -> bool {
        let in_force = self.proxy.enforced.load();
        let policy = in_force.policy();
        let client = policy.identify(self.client.ip(), record.user().map(|user| &**user));
        policy
            .authorize(&client, target, Access::Connect)
            .is_ok_and(|permit| permit.would_deny().is_none())
    }

    fn open_account(&self, request: &Request<Incoming>) -> AccessRecord {
        let proxy = &self.proxy;
        let metrics = Arc::clone(&proxy.metrics);
        let (log, tracer) = (proxy.config.access_log, proxy.tracer.as_ref());
        AccessRecord::open(metrics, log, tracer, self.client, request)
    }

    /// Leaves the connected upstream for when the client has its answer.
    pub(super) fn hand_over(&self, takeover: Takeover) {
        // Only the last request of a connection can be one that ends HTTP on it.
        let _ = self.takeover.set(takeover);
    }
}

/// Speaks HTTP with one client until it leaves, is refused, or becomes a tunnel.
pub(super) async fn serve(
    proxy: Arc<Proxy>,
    socket: TcpStream,
    client: SocketAddr,
    drain: Drain,
    held: Held,
) {
    proxy.pool.make_room();
    let progress = Arc::new(Progress::new());
    let connection = Arc::new(Connection {
        proxy: Arc::clone(&proxy),
        client,
        progress: Arc::clone(&progress),
        drain: drain.clone(),
        takeover: OnceLock::new(),
    });
    let socket = Arc::new(socket);
    let stream = ClientStream::new(Arc::clone(&socket), Arc::clone(&progress));
    let http = http1::Builder::new()
        .max_header_size(proxy.config.max_header_bytes)
        .max_buf_size(most_buffered(&proxy.config))
        // The timeouts are kept here: hyper's would not be answered.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), Requests(Arc::clone(&connection)));
    let by_panic = ResetByPanic(&socket);
    let place = Place::new(&proxy.turns, proxy.turns.slot(client.ip()));
    let mut driver = Driver::new(http, &socket, &progress, place);
    let ended = tokio::select! {
        // First: a request that came before a reset is one all the same.
        biased;
        ended = driver.run(drain) => ended,
        ended = timed_out(&proxy, &progress) => ended,
        _failed = socket.ready(Interest::ERROR) => Ended::Gone,
    };
    let parts = driver.into_parts();
    drop(by_panic);
    drop(parts.service);
    let takeover =
        Arc::into_inner(connection).and_then(|connection| connection.takeover.into_inner());
    drop(parts.io);
    // Nobody else has it any more.
    let Some(socket) = Arc::into_inner(socket) else {
        return;
    };
    let ending = Ending {
        socket,
        client,
        read: parts.read_buf,
        takeover,
        progress,
        held,
    };
    if let Some(closing) = ending.conclude(&proxy, ended) {
        closing.finish(&proxy).await;
    }
}

/// The requests of one connection, as hyper hands them over.
pub(super) struct Requests(Arc<Connection>);

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Now, not when the answer is first polled: hyper looks for the client's end in between.
        // And its account: a client whose reset is found then is one that asked all the same.
        let connection = Arc::clone(&self.0);
        let in_flight = connection.progress.request_begun(request.version());
        let record = connection.open_account(&request);
        // As it is: within another future it would be moved, which takes as long as all else that is done here.
        Box::pin(handle(connection, request, record, in_flight))
    }
}

/// What a connection counts for while it is open, as HTTP or as a tunnel.
#[derive(Debug)]
pub(crate) struct Held {
    _counted: ActiveGuard,
    _admitted: Admitted,
}

impl Held {
    pub(super) fn new(counted: ActiveGuard, admitted: Admitted) -> Self {
        Self {
            _counted: counted,
            _admitted: admitted,
        }
    }
}

/// A connection on which HTTP has ended.
struct Ending {
    socket: TcpStream,
    client: SocketAddr,
    /// Bytes behind the last head.
    read: Bytes,
    takeover: Option<Takeover>,
    progress: Arc<Progress>,
    held: Held,
}

impl Ending {
    /// Starts the tunnel, or closes at once; what remains is to be said or waited for.
    fn conclude(self, proxy: &Proxy, ended: Ended) -> Option<Closing> {
        let Self {
            socket,
            client,
            read,
            takeover,
            progress,
            held,
        } = self;
        if let (Ended::Refused(failure) | Ended::RefusedSilently(failure), None) =
            (&ended, &takeover)
        {
            proxy.metrics.count_rejected(failure.reason);
        }
        let failure = match (ended, takeover) {
            (Ended::Done, Some(takeover)) => {
                takeover.start(proxy, socket, read, held);
                return None;
            }
            // The answer is not out: what follows it would be garbled, and what was sent of it must not
            // look whole.
            (_, Some(_)) | (Ended::Stalled, None) => {
                relay::reset(&socket);
                return None;
            }
            (Ended::Done, None) => None,
            (Ended::Refused(failure), None) if progress.is_flushed() => Some(failure),
            (Ended::Refused(failure), None) => {
                // It would be garbled, for whoever is not even reading the last answer.
                refuse_silently(proxy, client, &failure);
                relay::reset(&socket);
                return None;
            }
            (Ended::RefusedSilently(failure), None) => {
                refuse_silently(proxy, client, &failure);
                if progress.close_would_deceive() {
                    relay::reset(&socket);
                }
                return None;
            }
            (Ended::Gone, None) => {
                if progress.close_would_deceive() {
                    relay::reset(&socket);
                }
                return None;
            }
            // It has had its answers.
            (Ended::TimedOut, None) => return None,
        };
        Some(Closing {
            socket,
            client,
            has_finished: progress.client_finished(),
            failure,
            _held: held,
        })
    }
}

/// A connection that is closed once the client has its last answer.
struct Closing {
    socket: TcpStream,
    client: SocketAddr,
    /// Whether the client has closed its side.
    has_finished: bool,
    /// What is still to be told.
    failure: Option<Failure>,
    _held: Held,
}

impl Closing {
    async fn finish(self, proxy: &Proxy) {
        match &self.failure {
            Some(failure) => refuse(proxy, &self.socket, self.client, failure).await,
            None => linger(&self.socket, self.has_finished).await,
        }
    }
}

/// Resolves when the client has had its time, for a head or between two requests, or when content
/// has not moved for too long.
///
/// Content is what moves on the client's socket, either way: what an upstream sends ends up there, and what
/// it does not take is not read from there. So whichever of the two is silent is found out here. An upstream that has
/// begun may be silent for as long as in a tunnel, for it may be a stream of events.
async fn timed_out(proxy: &Proxy, progress: &Progress) -> Ended {
    let config = &proxy.config;
    let (head, keep_alive) = (config.header_timeout, config.keepalive_timeout);
    let (content, silence) = (config.response_timeout, config.idle_timeout);
    // What is waited for may change right after a look, so none is later than any timeout.
    let look_after = head
        .min(keep_alive)
        .min(content.min(silence) / LOOKS_AT_CONTENT);
    let mut last = (None, Instant::now());
    let mut has_looked = false;
    loop {
        let waiting = progress.waiting();
        let left = match waiting {
            Waiting::Busy => look_after,
            Waiting::Head(since) | Waiting::First(since) => head.saturating_sub(since),
            Waiting::Next(since) => keep_alive.saturating_sub(since),
            Waiting::Content { moved, by_upstream } => {
                let limit = if by_upstream { silence } else { content };
                if last.0 != Some((moved, limit)) {
                    last = (Some((moved, limit)), Instant::now());
                }
                limit.saturating_sub(last.1.elapsed())
            }
        };
        if left.is_zero() && !has_looked {
            // What is waited for may have come, and wait for its turn.
            has_looked = true;
            progress.ask_for_look();
            // HTTP is polled first when this task is next.
            tokio::task::yield_now().await;
            continue;
        }
        has_looked = false;
        if left.is_zero() {
            return match waiting {
                Waiting::Content { .. } => {
                    progress.stall();
                    Ended::Stalled
                }
                Waiting::Head(_) => Ended::Refused(Failure::plain(Reason::HeaderTimeout)),
                Waiting::First(_) => Ended::RefusedSilently(Failure::plain(Reason::HeaderTimeout)),
                Waiting::Next(_) | Waiting::Busy => Ended::TimedOut,
            };
        }
        tokio::time::sleep(left.min(look_after)).await;
    }
}
