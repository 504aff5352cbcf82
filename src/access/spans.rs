//! The spans of one request, named and described by OpenTelemetry's conventions for HTTP.
//!
//! The request's task only gathers what they tell; `describe` runs on the exporter's thread.
//!
//! What a URL may hold of a secret stays out: query and user information are no attributes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Uri};
use opentelemetry::trace::SpanKind;

use super::AccessRecord;
use crate::metrics::Outcome;
use crate::reason::Reason;
use crate::target::Target;
use crate::trace::context::{TRACEPARENT, TRACESTATE};
use crate::trace::{Attributes, Span};

/// The span of a request, and that of what was sent upstream for it.
#[derive(Debug)]
pub(super) struct RequestSpans {
    server: Span,
    client: Option<Span>,
    /// What the upstream answered, whatever became of that.
    received: Option<StatusCode>,
    /// What the client asked for; none where the trace is not kept.
    url: Option<Arc<Url>>,
}

impl RequestSpans {
    pub(super) fn new(server: Span, uri: &Uri) -> Self {
        let url = server.is_kept().then(|| Arc::new(Url::of(uri)));
        Self {
            server,
            client: None,
            received: None,
            url,
        }
    }

    /// The span of the request, where its trace is kept.
    pub(super) fn kept(&self) -> Option<Span> {
        Some(self.server.clone()).filter(Span::is_kept)
    }

    pub(super) fn resolved(&self, target: Option<&Target>, result: Reason, took: Duration) {
        let Some(server) = self.kept() else { return };
        let target = target.cloned();
        server
            .child(SpanKind::Internal)
            .begun_before(took)
            .end("dns lookup", move || {
                let name = target.map(|target| target.host().without_brackets().into_owned());
                let told = Attributes::new().with_some("dns.question.name", name);
                with_reason(told, result)
            });
    }

    pub(super) fn dialled(
        &self,
        target: Option<&Target>,
        outcome: Result<SocketAddr, Reason>,
        took: Duration,
    ) {
        let Some(server) = self.kept() else { return };
        let target = target.cloned();
        server
            .child(SpanKind::Internal)
            .begun_before(took)
            .end("tcp connect", move || {
                let told = with_server(Attributes::new(), target.as_ref());
                let told = with_peer(told, outcome.ok());
                with_reason(told, outcome.err().unwrap_or(Reason::Ok))
            });
    }

    /// Begins the span of an exchange with the upstream.
    pub(super) fn sending(&mut self, headers: &mut HeaderMap) {
        let client = self.server.child(SpanKind::Client);
        if let Some(traceparent) = client.traceparent() {
            headers.insert(TRACEPARENT, traceparent);
        }
        if !self.server.has_parent() {
            // It belongs to a parent, and this trace begins here (W3C Trace Context section 3.3).
            headers.remove(TRACESTATE);
        }
        self.client = Some(client);
    }

    /// Ends the span of an exchange that another one is to follow: its connection was lost.
    pub(super) fn lost(&mut self, record: &AccessRecord) {
        if let Some(client) = self.client.take() {
            let exchange = self.exchange(record);
            client.end(name(&record.method), move || {
                exchange.describe(Reason::ConnectionReset)
            });
        }
    }

    /// Notes the head of the upstream's response.
    pub(super) fn received(&mut self, status: StatusCode) {
        self.received = Some(status);
    }

    /// Ends what has begun, for a record that is settled.
    pub(super) fn end(
        mut self: Box<Self>,
        record: &mut AccessRecord,
        outcome: Outcome,
        reason: Reason,
    ) {
        if !self.server.is_kept() {
            return;
        }
        let name = name(&record.method);
        let (own_reason, status) = (record.reason, record.status);
        if let Some(client) = self.client.take() {
            let exchange = self.exchange(record);
            client.end(name, move || exchange.describe(own_reason));
        }
        let request = Request {
            method: record.method.clone(),
            url: self.url,
            target: record.target.take(),
            client: record.client,
            rule: record.rule.take(),
            bytes: record
                .traffic
                .as_ref()
                .map(|traffic| [traffic.sent(), traffic.received()].map(u64::cast_signed)),
            status,
            outcome,
            own_reason,
            reason,
        };
        self.server.end(name, move || request.describe());
    }

    /// What is known of an exchange before its end.
    fn exchange(&self, record: &AccessRecord) -> Exchange {
        Exchange {
            method: record.method.clone(),
            url: self.url.clone(),
            target: record.target.clone(),
            upstream: record.upstream,
            received: self.received,
        }
    }
}

/// What spans tell of a URL besides its authority, which is told as the target is: no query.
///
/// Spans wait, so it is a copy, and cut: a piece of a `Uri` would keep all that was read with it.
#[derive(Debug)]
struct Url {
    /// At most 64 bytes, or it is no `Uri`.
    scheme: Option<Box<str>>,
    path: Box<str>,
}

impl Url {
    /// Bytes of a path that are told.
    const MOST: usize = 2048;

    fn of(uri: &Uri) -> Self {
        let path = uri.path();
        Self {
            scheme: uri.scheme_str().map(Into::into),
            path: path[..path.floor_char_boundary(Self::MOST)].into(),
        }
    }
}

/// What the span of a request tells.
struct Request {
    method: Method,
    url: Option<Arc<Url>>,
    target: Option<Target>,
    client: SocketAddr,
    rule: Option<Arc<str>>,
    /// Sent and received.
    bytes: Option<[i64; 2]>,
    status: Option<StatusCode>,
    outcome: Outcome,
    /// Why the client was answered so; `reason` may be why it would have been refused.
    own_reason: Reason,
    reason: Reason,
}

impl Request {
    fn describe(self) -> Attributes {
        let status = self.status.map(|status| i64::from(status.as_u16()));
        let scheme = self.url.as_ref().and_then(|url| url.scheme.clone());
        let path = self.url.filter(|url| url.scheme.is_some());
        let told = with_method(Attributes::new(), &self.method);
        let told = with_server(told, self.target.as_ref())
            .with_some("url.scheme", scheme.map(String::from))
            .with_some("url.path", path.map(|url| url.path.to_string()))
            .with("client.address", self.client.ip().to_string())
            .with("client.port", i64::from(self.client.port()))
            .with_some("http.response.status_code", status)
            .with("result", self.outcome.label())
            .with("reason", self.reason.label())
            .with_some("rule", self.rule)
            .with_some("bytes_sent", self.bytes.map(|[sent, _]| sent))
            .with_some("bytes_received", self.bytes.map(|[_, received]| received));
        match (self.own_reason, self.status) {
            (Reason::Ok, Some(status)) => told.with_status(status, 500),
            (Reason::Ok, None) => told,
            // What the client did wrong is no failure of a server (its spans' status stays unset).
            (failure, Some(status)) if status.is_client_error() => told.with_error(failure.label()),
            (failure, _) => told.with_error(failure.label()).failed(),
        }
    }
}

/// What the span of an exchange with the upstream tells.
struct Exchange {
    method: Method,
    url: Option<Arc<Url>>,
    target: Option<Target>,
    upstream: Option<SocketAddr>,
    received: Option<StatusCode>,
}

impl Exchange {
    fn describe(&self, reason: Reason) -> Attributes {
        let target = self.target.as_ref();
        let url = self.url.as_ref().zip(target);
        let url = url.map(|(url, target)| format!("http://{}{}", target.host_field(), url.path));
        let told = with_method(Attributes::new(), &self.method).with_some("url.full", url);
        let status = self.received.map(|status| i64::from(status.as_u16()));
        let told = with_peer(with_server(told, target), self.upstream)
            .with_some("http.response.status_code", status);
        match (reason, self.received) {
            (Reason::Ok, Some(status)) => told.with_status(status, 400),
            (failure, _) => told.with_error(failure.label()).failed(),
        }
    }
}

fn with_reason(told: Attributes, result: Reason) -> Attributes {
    if result == Reason::Ok {
        return told;
    }
    told.with_error(result.label()).failed()
}

fn with_server(told: Attributes, target: Option<&Target>) -> Attributes {
    told.with_some(
        "server.address",
        target.map(|target| target.host().without_brackets().into_owned()),
    )
    .with_some("server.port", target.map(|target| i64::from(target.port())))
}

fn with_peer(told: Attributes, peer: Option<SocketAddr>) -> Attributes {
    told.with_some(
        "network.peer.address",
        peer.map(|peer| peer.ip().to_string()),
    )
    .with_some("network.peer.port", peer.map(|peer| i64::from(peer.port())))
}

fn with_method(told: Attributes, method: &Method) -> Attributes {
    match name(method) {
        OTHER => told
            .with("http.request.method", "_OTHER")
            .with("http.request.method_original", method.to_string()),
        known => told.with("http.request.method", known),
    }
}

/// The name of the spans of a method that is not [`name`]d after it.
const OTHER: &str = "HTTP";

/// The name of a method's spans: one that anybody may invent names no span.
fn name(method: &Method) -> &'static str {
    const KNOWN: [(Method, &str); 9] = [
        (Method::GET, "GET"),
        (Method::CONNECT, "CONNECT"),
        (Method::POST, "POST"),
        (Method::DELETE, "DELETE"),
        (Method::HEAD, "HEAD"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::PATCH, "PATCH"),
        (Method::PUT, "PUT"),
        (Method::TRACE, "TRACE"),
    ];
    let known = KNOWN.iter().find(|(known, _)| known == method);
    known.map_or(OTHER, |(_, name)| name)
}
