use std::convert::Infallible;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use outgate::config::Protocol;
use outgate::drain::Stop;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::collector::{self, settings};
use crate::harness::vacant::Vacant;
use crate::harness::{PATIENCE, TestProxy, any_port, connect_head, field, read_head, send, within};

/// How a collector can go wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Down,
    Hangs,
    Refuses,
    Garbage,
    Endless,
    /// A success by its status, and no answer of a collector.
    Lies,
}

/// Takes the spans at an address, and goes wrong; one that is down leaves it as it was.
fn go_wrong(at: Vacant, wrong: Wrong, protocol: Protocol) -> Option<Vacant> {
    if matches!(wrong, Wrong::Down) {
        return Some(at);
    }
    let listener = at.listen();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            match (wrong, protocol) {
                (Wrong::Down | Wrong::Hangs, _) => held.push(stream),
                (Wrong::Refuses | Wrong::Endless | Wrong::Lies, Protocol::Grpc) => {
                    tokio::spawn(answer_grpc(stream, wrong));
                }
                (Wrong::Garbage, _) | (_, Protocol::HttpProtobuf) => {
                    tokio::spawn(answer(stream, wrong));
                }
            }
        }
    });
    None
}

async fn answer(mut stream: TcpStream, wrong: Wrong) {
    let answer: &[u8] = match wrong {
        Wrong::Down | Wrong::Hangs => return,
        Wrong::Refuses => b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        Wrong::Garbage => b"\x00\xffgarbage\r\n\r\n",
        Wrong::Endless => b"HTTP/1.1 200 OK\r\n\r\n",
        Wrong::Lies => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nwelcome",
    };
    let _ = stream.read(&mut [0; 4096]).await;
    let _ = stream.write_all(answer).await;
    while matches!(wrong, Wrong::Endless) && stream.write_all(&[b'x'; 4096]).await.is_ok() {}
}

/// The same in gRPC, which is HTTP/2 with a status behind the content.
async fn answer_grpc(stream: TcpStream, wrong: Wrong) {
    // A flag of compression, four bytes of length, a message; and a status.
    let (content, status): (&[u8], _) = match wrong {
        Wrong::Down | Wrong::Hangs | Wrong::Garbage => return,
        // Unavailable.
        Wrong::Refuses => (b"", "14"),
        // A message has an end by its length, so this one is longer than anybody reads.
        Wrong::Endless => (b"\0\xff\xff\xff\xffxxxx", "0"),
        Wrong::Lies => (b"\0\0\0\0\x07welcome", "0"),
    };
    let service = service_fn(move |request: Request<Incoming>| async move {
        let _ = request.into_body().collect().await;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let trailers = std::future::ready(Some(Ok::<_, Infallible>(trailers)));
        let content = Full::new(Bytes::from_static(content)).with_trailers(trailers);
        Response::builder()
            .header("content-type", "application/grpc")
            .body(content)
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

const REQUESTS: u64 = 200;
const QUEUE: u64 = 8;
const BATCH: u64 = 4;
/// Whoever waits for a collector that hangs waits for this long.
const TIMEOUT: Duration = Duration::from_secs(60);

async fn costs_no_request(wrong: Wrong, protocol: Protocol) {
    let collector = Vacant::take();
    let mut tracing = settings(&format!("http://{}/", collector.address()));
    let _down = go_wrong(collector, wrong, protocol);
    tracing.protocol = protocol;
    tracing.timeout = TIMEOUT;
    tracing.export_timeout = TIMEOUT;
    tracing.max_queue_size = usize::try_from(QUEUE).unwrap();
    tracing.max_export_batch_size = usize::try_from(BATCH).unwrap();
    let proxy = TestProxy::builder()
        .with(|config| config.tracing = Some(tracing))
        .start()
        .await;
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        let answer = proxy.ask(&connect_head("evil.test:443")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    let took = begun.elapsed();
    assert!(took < TIMEOUT, "{wrong:?} {protocol:?}: {took:?}");
    // The queue is full and a batch, whole or not, is with the collector; or nothing waits.
    let kept = match wrong {
        Wrong::Hangs => QUEUE + 1..=QUEUE + BATCH,
        Wrong::Down | Wrong::Refuses | Wrong::Garbage | Wrong::Endless | Wrong::Lies => 0..=0,
    };
    let lines: Vec<_> = kept
        .map(|kept| format!("outgate_spans_dropped_total {}", REQUESTS - kept))
        .collect();
    proxy.shows_one_of(&lines).await;
    // The end does not wait for the collector either.
    let begun = Instant::now();
    proxy.stop(Stop::Gently).await;
    proxy.ended().await;
    assert!(begun.elapsed() < TIMEOUT, "{wrong:?} {protocol:?}");
}

#[tokio::test]
async fn a_collector_that_goes_wrong_costs_no_request_and_its_spans_are_counted() {
    let mut running = tokio::task::JoinSet::new();
    for wrong in [
        Wrong::Down,
        Wrong::Hangs,
        Wrong::Refuses,
        Wrong::Garbage,
        Wrong::Endless,
        Wrong::Lies,
    ] {
        for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
            running.spawn(costs_no_request(wrong, protocol));
        }
    }
    running.join_all().await;
}

#[tokio::test]
async fn a_collector_that_is_back_gets_spans_again() {
    let gone = Vacant::take();
    let address = gone.address();
    let proxy = TestProxy::builder()
        .with(|config| config.tracing = Some(settings(&format!("http://{address}/v1/traces"))))
        .start()
        .await;
    proxy.ask(&connect_head("evil.test:443")).await;
    proxy.shows("outgate_spans_dropped_total 1").await;

    let listener = gone.listen();
    let (sender, mut spans) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(collector::serve(stream, sender.clone()));
        }
    });
    proxy.ask(&connect_head("evil.test:443")).await;
    assert_eq!(within(spans.recv()).await.unwrap().name, "CONNECT");
}

#[tokio::test]
async fn spans_that_a_collector_rejects_are_counted() {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let mut tracing = settings(&format!("http://{}/", listener.local_addr().unwrap()));
    tracing.max_export_batch_size = 4;
    // Longer than any test: the batch is exported when it is whole.
    tracing.schedule_delay = PATIENCE * 4;
    let export = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let head = read_head(&mut stream).await;
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        within(stream.read_exact(&mut vec![0; length]))
            .await
            .unwrap();
        let partial_success = Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "too old".to_owned(),
        });
        let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        let length = answer.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        send(&mut stream, &[head.as_bytes(), &answer].concat()).await;
        stream
    });
    let proxy = TestProxy::builder()
        .with(|config| config.tracing = Some(tracing))
        .start()
        .await;
    for _ in 0..4 {
        proxy.ask(&connect_head("evil.test:443")).await;
    }
    proxy.shows("outgate_spans_dropped_total 3").await;
    drop(within(export).await.unwrap());
}
