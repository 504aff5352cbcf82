use std::sync::Arc;
use std::time::Duration;

use outgate::config::{Sampler, Tracing};
use outgate::drain::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::harness::collector::{self, CLIENT, Collector, INTERNAL, SERVER, Span, settings};
use crate::harness::origin::Origin;
use crate::harness::{TestProxy, any_port, connect_head, field, read_head, send, within};

// Exchanges with the upstream that fail, before and behind its head.
mod exchanges;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

async fn traced_proxy(tracing: Tracing) -> TestProxy {
    TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.tracing = Some(tracing))
        .start()
        .await
}

fn get(port: u16, more: &str) -> String {
    format!("GET http://origin.test:{port}/a/b?secret=1 HTTP/1.1\r\nHost: x\r\n{more}\r\n")
}

fn traceparent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\ntracestate: a=1\r\ntracestate: b=2\r\n")
}

fn named<'a>(spans: &'a [Span], name: &str, kind: i32) -> &'a Span {
    let found = spans
        .iter()
        .find(|span| span.name == name && span.kind == kind);
    found.unwrap_or_else(|| panic!("no {name} among {spans:#?}"))
}

#[tokio::test]
async fn a_plain_request_is_a_server_span_with_its_steps_below_it() {
    let mut collector = Collector::start().await;
    let mut origin = Origin::answering(FINE).await;
    let proxy = traced_proxy(collector.settings()).await;
    let port = origin.port();
    proxy.ask(&get(port, &traceparent("01"))).await;

    let spans = collector.spans(4).await;
    let server = named(&spans, "GET", SERVER);
    assert_eq!(server.parent, PARENT);
    assert_eq!(server.get("http.request.method"), "GET");
    assert_eq!(server.get("http.response.status_code"), "200");
    assert_eq!(server.get("url.scheme"), "http");
    assert_eq!(server.get("url.path"), "/a/b");
    assert_eq!(server.get("server.address"), "origin.test");
    assert_eq!(server.get("server.port"), port.to_string());
    assert_eq!(server.get("client.address"), "127.0.0.1");
    assert_eq!(server.get("rule"), "origin.test:*");
    assert_eq!(server.get("result"), "allowed");
    assert_eq!(server.get("bytes_received"), "2");
    assert_eq!((server.get("error.type"), server.status), ("", 0));

    let lookup = named(&spans, "dns lookup", INTERNAL);
    let connect = named(&spans, "tcp connect", INTERNAL);
    let client = named(&spans, "GET", CLIENT);
    assert_eq!(lookup.get("dns.question.name"), "origin.test");
    assert_eq!(connect.get("network.peer.address"), "127.0.0.1");
    assert_eq!(connect.get("network.peer.port"), port.to_string());
    assert_eq!(
        client.get("url.full"),
        format!("http://origin.test:{port}/a/b")
    );
    assert_eq!(client.get("http.response.status_code"), "200");
    for span in [lookup, connect, client] {
        assert_eq!(span.parent, server.id, "{span:?}");
        assert!(span.nanoseconds() <= server.nanoseconds(), "{span:?}");
    }
    for span in &spans {
        assert_eq!((&*span.trace, &*span.state), (TRACE, "a=1,b=2"));
    }

    let seen = origin.received().await;
    let expected = format!("00-{TRACE}-{}-01", client.id);
    assert_eq!(field(&seen, "traceparent"), Some(&*expected), "{seen}");
    assert!(
        seen.contains("tracestate: a=1\r\ntracestate: b=2\r\n"),
        "{seen}"
    );
    assert_eq!(seen.matches("traceparent").count(), 1);
}

#[tokio::test]
async fn a_tunnel_has_a_span_of_its_own_and_keeps_the_trace_to_itself() {
    let mut collector = Collector::start().await;
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let mut text = String::new();
        stream.write_all(b"welcome").await.unwrap();
        stream.read_to_string(&mut text).await.unwrap();
        let _ = seen.send(text);
    })
    .await;
    let proxy = traced_proxy(collector.settings()).await;
    let target = format!("origin.test:{}", origin.port());
    let head = connect_head(&target).replace("\r\n\r\n", &format!("\r\n{}\r\n", traceparent("01")));
    let mut client = proxy.connect().await;
    send(&mut client, head.as_bytes()).await;
    read_head(&mut client).await;
    let request = collector.spans(3).await;
    let server = named(&request, "CONNECT", SERVER);
    assert_eq!((&*server.trace, &*server.parent), (TRACE, PARENT));
    assert_eq!(server.get("http.response.status_code"), "200");
    assert_eq!(server.get("url.path"), "");
    assert_eq!(named(&request, "dns lookup", INTERNAL).parent, server.id);
    assert_eq!(named(&request, "tcp connect", INTERNAL).parent, server.id);

    let held = Duration::from_millis(50);
    tokio::time::sleep(held).await;
    send(&mut client, b"hello").await;
    client.shutdown().await.unwrap();
    within(client.read_to_end(&mut Vec::new())).await.unwrap();
    let tunnel = collector.spans(1).await.remove(0);
    assert_eq!((&*tunnel.name, tunnel.kind), ("tunnel", INTERNAL));
    assert_eq!((&*tunnel.trace, &*tunnel.parent), (TRACE, &*server.id));
    assert_eq!(tunnel.get("bytes_sent"), "5");
    assert_eq!(tunnel.get("bytes_received"), "7");
    assert_eq!(
        (tunnel.get("end"), tunnel.get("error.type")),
        ("closed", "")
    );
    assert_eq!(tunnel.get("network.peer.port"), origin.port().to_string());
    assert!(u128::from(tunnel.nanoseconds()) >= held.as_nanos());
    assert_eq!(origin.received().await, "hello");
}

#[tokio::test]
async fn a_refusal_is_traced_under_the_id_its_client_is_told() {
    let mut collector = Collector::start().await;
    let proxy = traced_proxy(collector.settings()).await;
    let answer = proxy.ask(&connect_head("evil.test:443")).await;
    let span = collector.spans(1).await.remove(0);
    assert!(
        answer.contains(&format!("\"trace_id\":\"{}\"", span.trace)),
        "{answer}"
    );
    assert_eq!(
        (&*span.name, span.kind, &*span.parent),
        ("CONNECT", SERVER, "")
    );
    assert_eq!(span.get("error.type"), "host_not_allowed");
    assert_eq!(span.get("result"), "denied");
    assert_eq!(span.get("http.response.status_code"), "403");
    // HTTP's conventions: a client's fault leaves the status of a server span unset.
    assert_eq!(span.status, 0);
}

#[tokio::test]
async fn an_address_is_told_without_brackets() {
    let mut collector = Collector::start().await;
    let proxy = traced_proxy(collector.settings()).await;
    proxy.ask(&connect_head("[2001:db8::1]:443")).await;
    let span = collector.spans(1).await.remove(0);
    assert_eq!(span.get("server.address"), "2001:db8::1");
    assert_eq!(span.get("server.port"), "443");
}

#[tokio::test]
async fn a_failed_step_and_its_request_say_why() {
    let mut collector = Collector::start().await;
    let proxy = traced_proxy(collector.settings()).await;
    proxy.ask(&get(9, "")).await;
    let spans = collector.spans(3).await;
    for (name, kind) in [("tcp connect", INTERNAL), ("GET", SERVER)] {
        let span = named(&spans, name, kind);
        assert_eq!(
            (span.get("error.type"), span.status),
            ("connection_refused", 2)
        );
    }
    assert_eq!(named(&spans, "dns lookup", INTERNAL).status, 0);
}

#[tokio::test]
async fn a_failing_upstream_fails_both_spans_with_its_status() {
    let mut collector = Collector::start().await;
    let origin = Origin::answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = traced_proxy(collector.settings()).await;
    proxy.ask(&get(origin.port(), "")).await;
    let spans = collector.spans(4).await;
    for kind in [CLIENT, SERVER] {
        let span = named(&spans, "GET", kind);
        assert_eq!((span.get("error.type"), span.status), ("503", 2));
    }
    assert_eq!(named(&spans, "GET", SERVER).get("result"), "allowed");
}

#[tokio::test]
async fn a_method_that_anybody_may_invent_names_no_span() {
    let mut collector = Collector::start().await;
    let origin = Origin::answering(FINE).await;
    let proxy = traced_proxy(collector.settings()).await;
    proxy
        .ask(&get(origin.port(), "").replace("GET", "FROBNICATE"))
        .await;
    let spans = collector.spans(4).await;
    let server = named(&spans, "HTTP", SERVER);
    assert_eq!(server.get("http.request.method"), "_OTHER");
    assert_eq!(server.get("http.request.method_original"), "FROBNICATE");
}

#[tokio::test]
async fn a_trace_that_its_caller_does_not_keep_is_passed_on_and_not_exported() {
    let mut collector = Collector::start().await;
    let mut origin = Origin::answering(FINE).await;
    let proxy = traced_proxy(collector.settings()).await;
    proxy.ask(&get(origin.port(), &traceparent("00"))).await;
    let seen = origin.received().await;
    let passed = field(&seen, "traceparent").unwrap_or_else(|| panic!("{seen}"));
    assert!(
        passed.starts_with(&format!("00-{TRACE}-")) && passed.ends_with("-00"),
        "{passed}"
    );
    // The next one is kept, and its spans are the first to come.
    proxy.ask(&get(origin.port(), "")).await;
    let spans = collector.spans(2).await;
    assert!(spans.iter().all(|span| span.trace != TRACE), "{spans:?}");
}

#[tokio::test]
async fn a_sampler_that_keeps_nothing_exports_nothing() {
    let mut collector = Collector::start().await;
    let origin = Origin::answering(FINE).await;
    let mut tracing = collector.settings();
    tracing.sampler = Sampler {
        parent_based: false,
        ratio: 0.0,
    };
    let proxy = traced_proxy(tracing).await;
    proxy.ask(&get(origin.port(), &traceparent("01"))).await;
    proxy.stop(Stop::Gently).await;
    proxy.ended().await;
    assert!(collector.is_untouched());
}

#[tokio::test]
async fn without_a_collector_trace_context_passes_as_it_came() {
    let mut origin = Origin::answering(FINE).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    proxy.ask(&get(origin.port(), &traceparent("01"))).await;
    let seen = origin.received().await;
    assert!(seen.contains(&traceparent("01")), "{seen}");
}

#[tokio::test]
async fn a_state_without_a_sound_parent_ends_here() {
    let collector = Collector::start().await;
    let mut origin = Origin::answering(FINE).await;
    let proxy = traced_proxy(collector.settings()).await;
    let broken = traceparent("01").replace("00-", "0-");
    proxy.ask(&get(origin.port(), &broken)).await;
    let seen = origin.received().await;
    assert!(
        !seen.contains("tracestate") && !seen.contains(TRACE),
        "{seen}"
    );
}

#[tokio::test]
async fn spans_that_wait_are_exported_before_the_end() {
    let mut collector = Collector::start().await;
    let mut tracing = collector.settings();
    tracing.max_export_batch_size = 512;
    tracing.schedule_delay = Duration::from_secs(3600);
    let proxy = traced_proxy(tracing).await;
    proxy.ask(&connect_head("evil.test:443")).await;
    assert!(collector.is_untouched());
    proxy.stop(Stop::Gently).await;
    proxy.ended().await;
    assert_eq!(collector.spans(1).await[0].name, "CONNECT");
}

#[tokio::test]
async fn a_collector_is_reached_over_tls_that_its_certificate_file_vouches_for() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, mut spans) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(collector::serve(stream, sender.clone()));
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, issued.cert.pem()).unwrap();
    let mut tracing = settings(&format!("https://localhost:{port}/v1/traces"));
    // Without the file the certificate is nobody's.
    let proxy = traced_proxy(tracing.clone()).await;
    proxy.ask(&connect_head("evil.test:443")).await;
    proxy.shows("outgate_spans_dropped_total 1").await;

    tracing.certificate = Some(file);
    let proxy = traced_proxy(tracing).await;
    proxy.ask(&connect_head("evil.test:443")).await;
    assert_eq!(within(spans.recv()).await.unwrap().name, "CONNECT");
}
