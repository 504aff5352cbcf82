//! The admin port: `/metrics`, `/livez`, `/readyz`; and the HTTP server it shares with the
//! inspector.
//!
//! It has listeners and places of its own, so that it answers when the data path is full.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::drain::{Drain, Phase};
use crate::metrics::{Exposition, ListenerKind, Metrics};
use crate::telemetry::DroppedLines;
use crate::vital::Vital;

/// Connections served at once; a scraper and a few probes need one each.
const PLACES: usize = 64;

/// A probe sends its head at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers on the admin port.
#[derive(Debug)]
pub struct Admin {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` depends on.
    pub drain: Drain,
    /// What the probes depend on.
    pub vital: Vital,
    /// Log lines dropped so far; none where nothing logs.
    pub dropped: Option<DroppedLines>,
}

impl Admin {
    /// Answers one request.
    #[must_use]
    pub fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return method_not_allowed("GET, HEAD");
        }
        let path = request.uri().path();
        if let ("/livez" | "/readyz", Some(task)) = (path, self.vital.failed()) {
            let failed = format!("the task `{task}` has failed; the log says why\n");
            let text_type = "text/plain; charset=utf-8";
            return with_type(text_type, StatusCode::SERVICE_UNAVAILABLE, failed);
        }
        match path {
            "/metrics" => {
                let dropped = self.dropped.as_ref().map_or(0, DroppedLines::count);
                let form = Exposition::accepted(request.headers());
                let text = self.metrics.render(form, dropped as u64);
                with_type(form.content_type(), StatusCode::OK, text)
            }
            // That this answers shows that the runtime turns.
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.drain.phase() == Phase::Serving => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            _ => text(StatusCode::NOT_FOUND, "try /metrics, /livez or /readyz\n"),
        }
    }
}

/// What an API answers a request with, soon.
pub type Answering = BoxFuture<'static, Response<Full<Bytes>>>;

/// What answers the requests of an API.
pub type Answer = Arc<dyn Fn(&Request<Incoming>) -> Answering + Send + Sync>;

/// Serves a small HTTP API until the gateway is over.
pub async fn serve(
    listener: TcpListener,
    kind: ListenerKind,
    metrics: Arc<Metrics>,
    mut drain: Drain,
    answer: Answer,
) {
    let places = Arc::new(Semaphore::new(PLACES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.reaches(Phase::Over) => return,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let counted = metrics.connection(kind);
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answering = answer(&request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            // A broken connection concerns only whoever was asking.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(socket), service)
                .await;
            drop((counted, place));
        });
    }
}

/// A plain-text response.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    with_type("text/plain; charset=utf-8", status, text)
}

pub(crate) fn with_type(
    content_type: &'static str,
    status: StatusCode,
    content: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn method_not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
