//! One client's connection: HTTP until the client leaves, is refused, or becomes a tunnel.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::admission::Admitted;
use super::body::ResponseBody;
use super::bulk::Bulk;
use super::by_client::Slot;
use super::driver::{Driver, Ended};
use super::ending::Ending;
use super::progress::{Progress, Waiting};
use super::relay::{ResetByPanic, Shared};
use super::respond::Failure;
use super::tunnel::Takeover;
use super::{Proxy, handle};
use crate::access::AccessRecord;
use crate::drain::{Drain, Phase};
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
    next: OnceLock<Next>,
}

/// What takes over when HTTP comes to its end, or to a pause.
#[derive(Debug)]
enum Next {
    Tunnel(Box<Takeover>),
    Content(Box<Bulk>),
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
        let _ = self.next.set(Next::Tunnel(Box::new(takeover)));
    }

    /// Leaves content for when the client has the head of the response.
    pub(super) fn pass_on(&self, bulk: Bulk) {
        self.progress.bulk_is_next();
        // Requests that came with this one are answered when HTTP goes on.
        let _ = self.next.set(Next::Content(Box::new(bulk)));
    }

    /// Where turns of the client are counted.
    pub(super) fn slot(&self) -> Slot {
        self.proxy.turns.slot(self.client.ip())
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
    let socket = Arc::new(socket);
    let by_panic = ResetByPanic(&socket);
    let (ended, read, takeover) = converse(&proxy, client, &progress, &socket, &drain).await;
    drop(by_panic);
    // Nobody else has it any more.
    let Some(socket) = Arc::into_inner(socket) else {
        return;
    };
    let ending = Ending {
        socket,
        client,
        read,
        takeover,
        progress,
        held,
    };
    if let Some(closing) = ending.conclude(&proxy, ended) {
        closing.finish(&proxy).await;
    }
}

/// Speaks HTTP to its end, which comes with bytes that were read behind it and with what takes over. Large content goes past
/// hyper, and HTTP begins again behind that.
async fn converse(
    proxy: &Arc<Proxy>,
    client: SocketAddr,
    progress: &Arc<Progress>,
    socket: &Arc<TcpStream>,
    drain: &Drain,
) -> (Ended, Bytes, Option<Takeover>) {
    let mut unread = Bytes::new();
    loop {
        let connection = Arc::new(Connection {
            proxy: Arc::clone(proxy),
            client,
            progress: Arc::clone(progress),
            drain: drain.clone(),
            next: OnceLock::new(),
        });
        let mut driver = Driver::new(&connection, socket, unread);
        let ended = tokio::select! {
            // First: a request that came before a reset is one all the same.
            biased;
            ended = driver.run(drain.clone()) => ended,
            ended = timed_out(proxy, progress) => ended,
            _failed = socket.ready(Interest::ERROR) => Ended::Gone,
        };
        unread = driver.into_unread();
        let next = Arc::into_inner(connection).and_then(|connection| connection.next.into_inner());
        let content = match next {
            None => return (ended, unread, None),
            Some(Next::Tunnel(takeover)) => return (ended, unread, Some(*takeover)),
            Some(Next::Content(content)) => content,
        };
        if !matches!(ended, Ended::Interrupted) {
            content.give_up();
            return (ended, unread, None);
        }
        // Apart: few connections need its room.
        let passed = Box::pin(pass(
            content,
            proxy,
            client,
            progress,
            socket,
            drain.clone(),
        ))
        .await;
        if let Err(ended) = passed {
            return (ended, unread, None);
        }
    }
}

/// Passes content on to the client.
async fn pass(
    mut content: Box<Bulk>,
    proxy: &Proxy,
    client: SocketAddr,
    progress: &Progress,
    socket: &TcpStream,
    mut drain: Drain,
) -> Result<(), Ended> {
    let shared = Shared {
        pipes: Arc::clone(&proxy.pipes),
        turns: Arc::clone(&proxy.turns),
        client: proxy.turns.slot(client.ip()),
    };
    tokio::select! {
        biased;
        passed = content.pass(socket, progress, &shared) => passed.map_err(|_| Ended::Gone)?,
        ended = timed_out(proxy, progress) => {
            content.give_up();
            return Err(ended);
        }
        _failed = socket.ready(Interest::ERROR) => return Err(Ended::Gone),
        () = drain.reaches(Phase::Over) => return Err(Ended::Gone),
    }
    content.finish(&proxy.config).await;
    // The account of the request is closed by now, and the client has all there was to say.
    progress.flushed();
    Ok(())
}

/// The requests of one connection, as hyper hands them over.
pub(super) struct Requests(Arc<Connection>);

impl Requests {
    pub(super) fn of(connection: &Arc<Connection>) -> Self {
        Self(Arc::clone(connection))
    }
}

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
