//! A receiver of OTLP, over HTTP and over gRPC, that hands on the spans it was sent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use outgate::config::Tracing;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{any_port, within};

pub(crate) const INTERNAL: i32 = 1;
pub(crate) const SERVER: i32 = 2;
pub(crate) const CLIENT: i32 = 3;

/// What arrives at the collector.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) state: String,
    /// 0 unset, 1 fine, 2 failed.
    pub(crate) status: i32,
    /// Nanoseconds of the clock, as its end.
    pub(crate) started: u64,
    pub(crate) ended: u64,
    /// The header fields of the export it came in.
    pub(crate) sent_with: HeaderMap,
    attributes: BTreeMap<String, String>,
}

impl Span {
    /// An attribute as text; empty without it.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    pub(crate) fn nanoseconds(&self) -> u64 {
        self.ended - self.started
    }
}

/// The collector.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    spans: mpsc::UnboundedReceiver<Span>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::of(serve).await
    }

    /// One that speaks gRPC, and nothing else.
    pub(crate) async fn over_grpc() -> Self {
        Self::of(serve_grpc).await
    }

    async fn of<S, F>(serve: S) -> Self
    where
        S: Fn(TcpStream, mpsc::UnboundedSender<Span>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, spans) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, sender.clone()));
            }
        });
        Self { address, spans }
    }

    /// Settings that lead here, without a wait for a batch to fill.
    pub(crate) fn settings(&self) -> Tracing {
        settings(&format!("http://{}/v1/traces", self.address))
    }

    /// So many spans, by name, in the order they came.
    pub(crate) async fn spans(&mut self, count: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        for _ in 0..count {
            spans.push(within(self.spans.recv()).await.unwrap());
        }
        spans
    }

    /// The spans that have come and were not asked for yet.
    pub(crate) fn arrived(&mut self) -> Vec<Span> {
        std::iter::from_fn(|| self.spans.try_recv().ok()).collect()
    }

    /// Whether nothing has come so far.
    pub(crate) fn is_untouched(&mut self) -> bool {
        self.spans.try_recv().is_err()
    }
}

/// Answers exports on one connection, and hands on what they hold.
pub(crate) async fn serve<S>(stream: S, spans: mpsc::UnboundedSender<Span>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let spans = spans.clone();
        async move {
            assert_eq!(request.headers()["content-type"], "application/x-protobuf");
            let (head, content) = request.into_parts();
            let message = content.collect().await.unwrap().to_bytes();
            hand_on(message, &head.headers, &spans);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Does the same for exports over gRPC.
async fn serve_grpc(stream: TcpStream, spans: mpsc::UnboundedSender<Span>) {
    /// Flag of compression, and four bytes of length.
    const PREFIX: usize = 5;
    let service = service_fn(move |request: Request<Incoming>| {
        let spans = spans.clone();
        async move {
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let (head, content) = request.into_parts();
            let message = content.collect().await.unwrap().to_bytes();
            hand_on(message.slice(PREFIX..), &head.headers, &spans);
            let mut response = Response::new(
                Full::new(Bytes::from_static(&[0; PREFIX])).with_trailers(async {
                    let status = ("grpc-status", "0");
                    Some(Ok::<_, Infallible>(fields(&[status])))
                }),
            );
            *response.headers_mut() = fields(&[("content-type", "application/grpc")]);
            Ok::<_, Infallible>(response)
        }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        })
        .collect()
}

fn hand_on(message: Bytes, headers: &HeaderMap, spans: &mpsc::UnboundedSender<Span>) {
    let export = ExportTraceServiceRequest::decode(message).unwrap();
    let scopes = export
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans);
    for span in scopes.flat_map(|scope| scope.spans) {
        let _ = spans.send(read(span, headers.clone()));
    }
}

fn read(span: Sent, sent_with: HeaderMap) -> Span {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let text = |value: Value| {
        if let Value::IntValue(number) = value {
            Some(number.to_string())
        } else if let Value::StringValue(text) = value {
            Some(text)
        } else {
            None
        }
    };
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state,
        status: span.status.map_or(0, |status| status.code),
        started: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        name: span.name,
        kind: span.kind,
        sent_with,
        attributes: span
            .attributes
            .into_iter()
            .filter_map(|pair| Some((pair.key, text(pair.value?.value?)?)))
            .collect(),
    }
}

/// Settings for any collector: everything is traced and exported at once.
pub(crate) fn settings(endpoint: &str) -> Tracing {
    Tracing {
        timeout: Duration::from_secs(5),
        export_timeout: Duration::from_secs(60),
        max_export_batch_size: 1,
        schedule_delay: Duration::from_millis(10),
        ..Tracing::to(endpoint.parse().unwrap())
    }
}
