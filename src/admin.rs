//! The admin port: `/metrics`, `/livez`, `/readyz`; and the HTTP server it shares with the
//! inspector.
//!
//! It has listeners and places of its own, so that it answers when the data path is full.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::drain::{Drain, Phase};
use crate::metrics::{Exposition, ListenerKind, Metrics};
use crate::proxy::admission::Admission;
use crate::telemetry::DroppedLines;
use crate::vital::Vital;

mod prompt;

use prompt::Prompt;

/// Connections served at once; a scraper and a few probes need one each.
const PLACES: usize = 64;

/// Of these, what one address may have: whoever holds more keeps no place from a probe.
const PLACES_PER_ADDRESS: usize = 16;

/// A probe sends its head at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A scraper reads while it is answered. One that does not would keep its place from a probe.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

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
    pub fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Answering {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return ready(method_not_allowed("GET, HEAD")).boxed();
        }
        match request.uri().path() {
            "/metrics" => {
                let form = Exposition::accepted(request.headers());
                show(Arc::clone(self), form).boxed()
            }
            path => ready(self.answer_at_once(path)).boxed(),
        }
    }

    fn answer_at_once(&self, path: &str) -> Response<Full<Bytes>> {
        if let ("/livez" | "/readyz", Some(task)) = (path, self.vital.failed()) {
            let failed = format!("the task `{task}` has failed; the log says why\n");
            let text_type = "text/plain; charset=utf-8";
            return with_type(text_type, StatusCode::SERVICE_UNAVAILABLE, failed);
        }
        match path {
            // That this answers shows that the runtime turns.
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.drain.phase() == Phase::Serving => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            _ => text(StatusCode::NOT_FOUND, "try /metrics, /livez or /readyz\n"),
        }
    }
}

/// Answers with the metrics, apart from the data path: a policy of thousands of rules has them be long.
async fn show(admin: Arc<Admin>, form: Exposition) -> Response<Full<Bytes>> {
    apart(move || {
        let dropped = admin.dropped.as_ref().map_or(0, DroppedLines::count);
        shown(form, admin.metrics.render(form, dropped as u64))
    })
    .await
}

/// Makes an answer on a thread that no connection waits for.
pub(crate) async fn apart(
    answer: impl FnOnce() -> Response<Full<Bytes>> + Send + 'static,
) -> Response<Full<Bytes>> {
    let answered = tokio::task::spawn_blocking(answer).await;
    answered.unwrap_or_else(|_panicked| cannot_be_shown())
}

fn shown(form: Exposition, rendered: Result<String, prometheus::Error>) -> Response<Full<Bytes>> {
    match rendered {
        Ok(text) => with_type(form.content_type(), StatusCode::OK, text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            cannot_be_shown()
        }
    }
}

/// For an answer that could not be made.
pub(crate) fn cannot_be_shown() -> Response<Full<Bytes>> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "cannot be shown\n")
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
    let admission = Admission::new(PLACES, Some(PLACES_PER_ADDRESS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.reaches(Phase::Over) => return,
        };
        let Ok((socket, client)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = admission.admit(client.ip(), || None) else {
            continue;
        };
        let counted = metrics.connection(kind);
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            converse(socket, answer).await;
            drop((counted, place));
        });
    }
}

/// Answers the requests of one connection.
async fn converse(socket: impl AsyncRead + AsyncWrite + Unpin, answer: Answer) {
    let service = service_fn(move |request| {
        let answering = answer(&request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    // A broken connection concerns only whoever was asking.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(Prompt::new(socket, WRITE_TIMEOUT)), service)
        .await;
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_its_answers_loses_its_place() {
        let (mut client, server) = tokio::io::duplex(1024);
        let answer: Answer =
            Arc::new(|_| ready(with_type("text/plain", StatusCode::OK, vec![b'x'; 4096])).boxed());
        let requests = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3);
        client.write_all(&requests).await.unwrap();
        let left = tokio::time::timeout(WRITE_TIMEOUT * 2, converse(server, answer)).await;
        assert!(left.is_ok(), "its place is still taken");
        drop(client);
    }

    #[test]
    fn metrics_that_cannot_be_encoded_are_a_500_and_not_an_empty_scrape() {
        let error = prometheus::Error::Msg("no name".to_owned());
        let answer = shown(Exposition::Text, Err(error));
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
