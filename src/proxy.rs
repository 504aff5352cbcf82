//! The data path: accept → parse → authorise → resolve → connect → relay or forward → account.
//!
//! [`serve`] (`accept.rs`) accepts, `connection.rs` is one client's connection, `handle` is one request. A
//! failure anywhere below becomes a response in `handle` and nowhere else.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::access::AccessRecord;
use crate::config::Config;
use crate::drain::Phase;
use crate::enforced::Enforced;
use crate::headers::{self, Via};
use crate::limits;
use crate::metrics::Metrics;
use crate::policy::Permit;
use crate::reason::Reason;
use crate::target::{Host, Target};
use crate::trace::Tracer;
use crate::tunnels::Tunnels;

mod accept;
pub(crate) mod admission;
mod body;
mod bulk;
mod by_client;
mod client;
mod closing;
mod connect;
mod connection;
mod driver;
mod ending;
mod exchange;
mod forward;
mod patience;
mod pool;
mod progress;
mod relay;
mod resolve;
mod respond;
mod revoke;
mod tunnel;
mod turns;
mod upload;
mod upstream;

pub use accept::{admit, serve};
use admission::Admission;
use body::{Account, ResponseBody};
pub use connect::Dialer;
use connection::Connection;
use forward::Answer;
use pool::Pool;
use progress::InFlight;
use relay::Pipes;
use resolve::Resolved;
pub use resolve::{Resolver, ResolverError, ResolverSettings};
use respond::Failure;
use turns::Turns;

/// Idle upstream connections are looked after this often.
const POOL_SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What every connection shares.
#[derive(Debug)]
pub struct Proxy {
    config: Arc<Config>,
    enforced: Enforced,
    resolver: Resolver,
    dialer: Dialer,
    pool: Arc<Pool>,
    tunnels: Arc<Tunnels>,
    pipes: Arc<Pipes>,
    turns: Arc<Turns>,
    metrics: Arc<Metrics>,
    tracer: Option<Arc<Tracer>>,
    admission: Admission,
    via: Via,
}

impl Proxy {
    /// The data path for a configuration, with nothing open yet.
    ///
    /// # Errors
    /// When the pseudonym cannot stand in a header field.
    ///
    /// # Panics
    /// Outside a runtime: its threads say how many turns there are at once.
    pub fn new(
        config: Arc<Config>,
        enforced: Enforced,
        resolver: Resolver,
        dialer: Dialer,
        tunnels: Arc<Tunnels>,
        metrics: Arc<Metrics>,
        max_connections: usize,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        Ok(Self {
            via: Via::new(&config.via)?,
            pool: Arc::new(Pool::new(
                config.keepalive_timeout,
                max_connections,
                Arc::clone(&metrics),
            )),
            admission: Admission::new(max_connections, config.max_connections_per_client),
            config,
            pipes: Arc::new(Pipes::new(limits::MOST_PIPES)),
            turns: Arc::new(Turns::new(Handle::current().metrics().num_workers())),
            enforced,
            resolver,
            dialer,
            tunnels,
            metrics,
            tracer: None,
        })
    }

    /// Has requests traced, where there is a tracer.
    #[must_use]
    pub fn traced_by(mut self, tracer: Option<Arc<Tracer>>) -> Self {
        self.tracer = tracer;
        self
    }

    /// The policy in force.
    pub fn enforced(&self) -> &Enforced {
        &self.enforced
    }

    /// What looks names up.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// What connects to upstreams.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The addresses of a target: its own if it is one, else what its name resolves to.
    async fn resolve(
        &self,
        target: &Target,
        record: &mut AccessRecord,
    ) -> Result<Resolved, Failure> {
        let name = match target.host() {
            Host::Address(address) => {
                let valid_until = Instant::now() + self.config.keepalive_timeout;
                return Ok(Resolved {
                    addresses: vec![*address],
                    valid_until,
                });
            }
            Host::Name(name) => name,
        };
        let started = Instant::now();
        let resolved = self.resolver.resolve(name, record.client()).await;
        let result = resolved
            .as_ref()
            .map_or_else(|failure| failure.reason, |_| Reason::Ok);
        record.resolved(result, started.elapsed());
        resolved
    }

    /// Resolves a permitted target and connects to one of its vetted addresses.
    async fn reach(
        &self,
        permit: &Permit,
        target: &Target,
        record: &mut AccessRecord,
    ) -> Result<(TcpStream, SocketAddr, Instant), Failure> {
        let resolved = self.resolve(target, record).await?;
        let started = Instant::now();
        let dialled = self
            .dialer
            .dial(permit, &resolved.addresses, target.port())
            .await;
        let outcome = dialled
            .as_ref()
            .map(|(_, address)| *address)
            .map_err(|failure| failure.reason);
        record.dialled(outcome, started.elapsed());
        let (socket, address) = dialled?;
        Ok((socket, address, resolved.valid_until))
    }

    /// Looks after idle upstream connections, for as long as it is polled.
    pub async fn sweep_pool(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(POOL_SWEEP_EVERY);
        loop {
            ticks.tick().await;
            self.sweep_idle();
        }
    }
}

/// Answers one request. Nothing below here fails: a failure is a response.
async fn handle(
    connection: Arc<Connection>,
    request: Request<Incoming>,
    mut record: AccessRecord,
    in_flight: InFlight,
) -> Result<Response<ResponseBody>, Infallible> {
    // Of requests that came at once not all are answered in one turn.
    poll_fn(|cx| connection.progress.poll_allowance_of_request(cx)).await;
    let is_connect = request.method() == Method::CONNECT;
    // A panic is a failure like any other: this request's, and no more than this connection's.
    let answering = AssertUnwindSafe(answer(&connection, request, &mut record));
    let answered = answering
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(Failure::panicked(&*panic)));
    // From the first moment of the drain: at its end a client could be sending the next request while its idle
    // connection is closed.
    let is_leaving = connection.drain.phase() >= Phase::Unready;
    let mut response = match answered {
        Ok(answer) => {
            let account = Account::new(record, in_flight);
            answer.into_response(&connection, account, !is_leaving)
        }
        Err(failure) => refuse(&connection, failure, is_connect, record, in_flight),
    };
    if is_leaving && !response.status().is_informational() && !is_connect {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn answer(
    connection: &Connection,
    request: Request<Incoming>,
    record: &mut AccessRecord,
) -> Result<Answer, Failure> {
    sound(&request)?;
    if request.method() != Method::CONNECT {
        return forward::forward(connection, request, record).await;
    }
    tunnel::connect(connection, &request, record).await?;
    record.answered(http::StatusCode::OK);
    Ok(Answer::Own(Response::new(Bytes::new())))
}

/// Whether the head can be acted on, whatever it asks for.
fn sound(request: &Request<Incoming>) -> Result<(), Failure> {
    if !headers::host_is_sound(request.headers(), request.version()) {
        let detail = "Exactly one valid Host field is required (RFC 9112 section 3.2).";
        return Err(Failure::bad_request(detail));
    }
    if !headers::framing_is_plain(request.headers()) {
        let detail = "No transfer coding but chunked is understood (RFC 9112 section 6.1).";
        return Err(Failure::bad_request(detail));
    }
    Ok(())
}

/// The response for a failed request.
fn refuse(
    connection: &Connection,
    failure: Failure,
    is_connect: bool,
    mut record: AccessRecord,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let via = &connection.proxy.config.via;
    let mut response = respond::response(&failure, record.target(), record.trace_id(), via);
    // What follows a refused CONNECT may be tunnel data already, which is not to be read as
    // requests. After a 407 the client tries again on the same connection, and some insist on it.
    // RFC 9110 §15.5.9: with a 408 the connection ends. So it does with a defect, and so that a client over
    // its limit comes below it.
    let is_final = matches!(
        failure.reason,
        Reason::ContentTimeout | Reason::Internal | Reason::ClientLimit
    );
    if is_final || (is_connect && failure.reason != Reason::AuthRequired) {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    record.refused(failure.reason, failure.detail);
    response.map(|content| ResponseBody::own(content, Account::new(record, in_flight)))
}

/// Whether an error says that this process, or the host, has no descriptor left.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error
        .raw_os_error()
        .is_some_and(|code| [Errno::MFILE, Errno::NFILE].contains(&Errno::from_raw_os_error(code)))
}
