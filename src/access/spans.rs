//! The spans of one request, named and described by OpenTelemetry's conventions for HTTP.
//!
//! What a URL may hold of a secret stays out: query and user information are no attributes.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Method, Uri};
use opentelemetry::trace::SpanKind;

use super::{AccessRecord, Traffic};
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
    /// What the client asked for.
    uri: Uri,
}

impl RequestSpans {
    pub(super) fn new(server: Span, uri: &Uri) -> Self {
        Self {
            server,
            client: None,
            uri: uri.clone(),
        }
    }

    /// The span of the request, where its trace is kept.
    pub(super) fn kept(&self) -> Option<Span> {
        Some(self.server.clone()).filter(Span::is_kept)
    }

    pub(super) fn resolved(&self, target: Option<&Target>, result: Reason, took: Duration) {
        let Some(server) = self.kept() else { return };
        let name = target.map(|target| target.host().to_string());
        let told = Attributes::default().with_some("dns.question.name", name);
        server
            .child(SpanKind::Internal)
            .begun_before(took)
            .end("dns lookup", with_reason(told, result));
    }

    pub(super) fn dialled(
        &self,
        target: Option<&Target>,
        outcome: Result<SocketAddr, Reason>,
        took: Duration,
    ) {
        let Some(server) = self.kept() else { return };
        let told = Attributes::default();
        let told = with_peer(with_server(told, target), outcome.ok());
        server.child(SpanKind::Internal).begun_before(took).end(
            "tcp connect",
            with_reason(told, outcome.err().unwrap_or(Reason::Ok)),
        );
    }

    /// Begins the span of an exchange with the upstream; a second one follows a lost connection.
    pub(super) fn sending(&mut self, record: &AccessRecord, headers: &mut HeaderMap) {
        if let Some(lost) = self.client.take() {
            let told = self
                .exchange(record)
                .with_error(Reason::ConnectionReset.label());
            lost.end(method(record).0, told.failed());
        }
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

    /// Ends what has begun.
    pub(super) fn end(
        mut self: Box<Self>,
        record: &AccessRecord,
        outcome: Outcome,
        reason: Reason,
    ) {
        if !self.server.is_kept() {
            return;
        }
        let name = method(record).0;
        let status = record.status.map(|status| status.as_u16());
        if let Some(client) = self.client.take() {
            let told = self.exchange(record);
            let told = match (record.reason, record.status) {
                (Reason::Ok, Some(status)) => told
                    .with("http.response.status_code", i64::from(status.as_u16()))
                    .with_status(status, 400),
                (failure, _) => told.with_error(failure.label()).failed(),
            };
            client.end(name, told);
        }
        let traffic = record.traffic.as_deref();
        let bytes = |count: fn(&Traffic) -> u64| traffic.map(count).map(u64::cast_signed);
        let told = with_server(with_method(Attributes::default(), record), record.target())
            .with_some("url.scheme", self.uri.scheme_str().map(str::to_owned))
            .with_some(
                "url.path",
                self.uri.scheme().map(|_| self.uri.path().to_owned()),
            )
            .with("client.address", record.client.ip().to_string())
            .with("client.port", i64::from(record.client.port()))
            .with_some("http.response.status_code", status.map(i64::from))
            .with("result", outcome.label())
            .with("reason", reason.label())
            .with_some("rule", record.rule.clone())
            .with_some("bytes_sent", bytes(Traffic::sent))
            .with_some("bytes_received", bytes(Traffic::received));
        let told = match (record.reason, record.status) {
            (Reason::Ok, Some(status)) => told.with_status(status, 500),
            (Reason::Ok, None) => told,
            // What the client did wrong is no failure of a server (its spans' status stays unset).
            (failure, Some(status)) if status.is_client_error() => told.with_error(failure.label()),
            (failure, _) => told.with_error(failure.label()).failed(),
        };
        self.server.end(name, told);
    }

    /// What is known of an exchange before its end.
    fn exchange(&self, record: &AccessRecord) -> Attributes {
        let authority = self.uri.authority().map(http::uri::Authority::as_str);
        let url = format!(
            "http://{}{}",
            authority.unwrap_or_default(),
            self.uri.path()
        );
        let told = with_method(Attributes::default(), record).with("url.full", url);
        with_peer(with_server(told, record.target()), record.upstream)
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
        target.map(|target| target.host().to_string()),
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

fn with_method(told: Attributes, record: &AccessRecord) -> Attributes {
    match method(record) {
        ("HTTP", method) => told
            .with("http.request.method", "_OTHER")
            .with("http.request.method_original", method.to_owned()),
        (name, _) => told.with("http.request.method", name),
    }
}

/// The name of a span, and the method: one that anybody may invent names no span.
fn method(record: &AccessRecord) -> (&'static str, &str) {
    const KNOWN: [Method; 9] = [
        Method::CONNECT,
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
        Method::TRACE,
    ];
    const NAMES: [&str; 9] = [
        "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
    ];
    let method = record.method.as_str();
    let known = KNOWN.iter().position(|known| *known == record.method);
    (known.map_or("HTTP", |known| NAMES[known]), method)
}
