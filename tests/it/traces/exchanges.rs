use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpSocket};

use super::{FINE, get, named, traced_proxy};
use crate::harness::collector::{CLIENT, Collector, INTERNAL, SERVER};
use crate::harness::origin::{Origin, read_request};
use crate::harness::{any_port, field, read_to_end, send};

#[tokio::test]
async fn a_request_that_is_sent_again_has_a_span_for_each_try() {
    let mut collector = Collector::start().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let mut origin = Origin::scripted(move |mut stream, seen| {
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            for answered in 0.. {
                let Some(request) = read_request(&mut stream).await else {
                    return;
                };
                let _ = seen.send(request);
                // The first connection ends where its second answer should begin.
                if first && answered == 1 {
                    return;
                }
                send(&mut stream, FINE.as_bytes()).await;
            }
        }
    })
    .await;
    let proxy = traced_proxy(collector.settings()).await;
    proxy.ask(&get(origin.port(), "")).await;
    collector.spans(4).await;
    proxy.ask(&get(origin.port(), "")).await;
    let spans = collector.spans(5).await;
    let tries: Vec<_> = spans.iter().filter(|span| span.kind == CLIENT).collect();
    let errors: Vec<_> = tries.iter().map(|span| span.get("error.type")).collect();
    assert_eq!(errors, ["connection_reset", ""], "{spans:#?}");
    // The first is over before anything is done for the second.
    for step in ["dns lookup", "tcp connect"] {
        let step = named(&spans, step, INTERNAL);
        assert!(tries[0].ended <= step.started, "{spans:#?}");
    }
    origin.received().await;
    for sent in tries {
        let seen = origin.received().await;
        assert!(
            field(&seen, "traceparent").unwrap().contains(&sent.id),
            "{seen}"
        );
    }
}

#[tokio::test]
async fn a_try_that_was_lost_is_no_part_of_why_the_next_one_fails() {
    let mut collector = Collector::start().await;
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        send(&mut stream, FINE.as_bytes()).await;
        read_request(&mut stream).await;
        // The port refuses from now on, and is given to nobody else.
        drop(listener);
        let refusing = TcpSocket::new_v4().unwrap();
        refusing.set_reuseaddr(true).unwrap();
        refusing.bind(address).unwrap();
        refusing
    });
    let proxy = traced_proxy(collector.settings()).await;
    proxy.ask(&get(address.port(), "")).await;
    collector.spans(4).await;
    let answer = proxy.ask(&get(address.port(), "")).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let spans = collector.spans(4).await;
    for (name, kind, error) in [
        ("GET", CLIENT, "connection_reset"),
        ("tcp connect", INTERNAL, "connection_refused"),
        ("GET", SERVER, "connection_refused"),
    ] {
        let span = named(&spans, name, kind);
        assert_eq!((span.get("error.type"), span.status), (error, 2));
    }
    drop(origin.await.unwrap());
}

#[tokio::test]
async fn an_exchange_that_fails_behind_its_head_tells_the_status_that_came() {
    let mut collector = Collector::start().await;
    let proxy = traced_proxy(collector.settings()).await;
    for (response, error, status) in [
        (
            "HTTP/1.1 203 Fine\r\nContent-Length: 9\r\n\r\nhi",
            "response_incomplete",
            "203",
        ),
        (
            "HTTP/1.1 203 Fine\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "protocol_error",
            "502",
        ),
    ] {
        let origin = Origin::scripted(move |mut stream, _| async move {
            read_request(&mut stream).await;
            send(&mut stream, response.as_bytes()).await;
        })
        .await;
        let mut client = proxy.connect().await;
        let request = get(origin.port(), "Connection: close\r\n");
        send(&mut client, request.as_bytes()).await;
        read_to_end(&mut client).await;
        let spans = collector.spans(4).await;
        for (kind, status) in [(CLIENT, "203"), (SERVER, status)] {
            let span = named(&spans, "GET", kind);
            assert_eq!(span.get("http.response.status_code"), status, "{span:?}");
            assert_eq!((span.get("error.type"), span.status), (error, 2));
        }
    }
}
