use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::origin::{Origin, read_request};
use crate::harness::{
    TestProxy, connect_head, field, read_head, read_response, read_to_end, send, within,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Framing that two parsers could read in two ways; `PORT` stands for the origin's.
const AMBIGUOUS: &[(&str, &str)] = &[
    (
        "two lengths",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    ),
    ("a list of lengths", "Content-Length: 3, 4\r\n\r\nabc"),
    ("a signed length", "Content-Length: +3\r\n\r\nabc"),
    ("a hexadecimal length", "Content-Length: 0x3\r\n\r\nabc"),
    (
        "a length with a space in it",
        "Content-Length: 3 4\r\n\r\nabc",
    ),
    (
        "a coding besides chunked",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in two fields",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked not last",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "an unknown coding",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding in quotes",
        "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "a space before the colon",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded field",
        "X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n",
    ),
    ("a NUL in a field", "X-A: a\0b\r\n\r\n"),
    ("a CR in a field", "X-A: a\rb\r\n\r\n"),
    ("a field without a name", ": x\r\n\r\n"),
];

#[tokio::test]
async fn ambiguous_framing_is_refused_before_anything_is_sent_upstream_rfc9112_6() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for (vector, rest) in AMBIGUOUS {
        let port = origin.port();
        let request = format!("POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n{rest}");
        let answer = proxy.ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{vector}: {answer}");
        assert!(origin.is_untouched(), "{vector}");
    }
}

#[tokio::test]
async fn a_coding_of_http_1_0_is_refused() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let answer = proxy
        .ask(&format!("POST http://origin.test:{port}/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(origin.is_untouched());
}

#[tokio::test]
async fn broken_chunks_never_become_whole_content() {
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcX\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
    ] {
        let mut origin = Origin::scripted(|mut stream, seen| async move {
            let _ = seen.send(read_to_end(&mut stream).await);
        })
        .await;
        let proxy = TestProxy::builder().allow("origin.test:*").start().await;
        let mut client = proxy.connect().await;
        let port = origin.port();
        let request = format!(
            "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        );
        send(&mut client, request.as_bytes()).await;
        let seen = origin.received().await;
        assert!(!seen.ends_with("0\r\n\r\n"), "{chunks:?} became {seen:?}");
        let answer = read_to_end(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
    }
}

#[tokio::test]
async fn a_chunk_extension_goes_no_further() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let answer = proxy
        .ask(&format!(
            "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
             3;a=\"b\"\r\nabc\r\n0;x\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        origin
            .received()
            .await
            .ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    );
}

#[tokio::test]
async fn line_ends_in_a_target_stay_what_they_are() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    proxy
        .ask(&format!(
            "GET http://origin.test:{port}/%0d%0aX-Split:%20yes HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
    let seen = origin.received().await;
    assert!(
        seen.starts_with("GET /%0d%0aX-Split:%20yes HTTP/1.1\r\n"),
        "{seen}"
    );
    assert_eq!(field(&seen, "x-split"), None);
}

#[tokio::test]
async fn what_a_client_calls_its_connection_does_not_reach_the_next() {
    // Nominating a field that the gateway itself sets must not remove it.
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    proxy
        .ask(&format!(
            "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\
             Connection: host, via, content-length\r\n\r\nhi"
        ))
        .await;
    let seen = origin.received().await;
    assert_eq!(field(&seen, "host"), Some(&*format!("origin.test:{port}")));
    assert_eq!(field(&seen, "via"), Some("1.1 outgate"));
    assert!(seen.contains("hi"), "{seen}");
}

#[tokio::test]
async fn a_client_that_never_reads_holds_back_its_upstream() {
    let origin = Origin::scripted(|mut stream, seen| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            .await
            .unwrap();
        let mut sent = 0;
        let chunk = vec![0; 64 * 1024];
        // Once it does not go on for a while, every buffer on the way is full.
        let pause = Duration::from_millis(500);
        while let Ok(Ok(())) = tokio::time::timeout(pause, stream.write_all(&chunk)).await {
            sent += chunk.len();
        }
        let _ = seen.send(sent.to_string());
    })
    .await;
    let mut origin = origin;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    let sent: usize = origin.received().await.parse().unwrap();
    // Two sockets' worth of kernel buffers, and little of the gateway's own.
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_thousand_silent_connections_keep_nobody_waiting() {
    let proxy = TestProxy::builder()
        .with(|config| config.header_timeout = Duration::from_millis(500))
        .start()
        .await;
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(proxy.connect().await);
    }
    let answer = proxy.ask(&connect_head("evil.test:443")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    for mut connection in silent {
        assert_eq!(read_to_end(&mut connection).await, "");
    }
}

#[tokio::test]
async fn a_flood_of_pipelined_requests_is_answered_one_by_one() {
    let proxy = TestProxy::builder().start().await;
    let client = proxy.connect().await;
    let (mut reading, mut writing) = client.into_split();
    let flood = tokio::spawn(async move {
        for _ in 0..5000 {
            writing
                .write_all(b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
        }
        writing.shutdown().await.unwrap();
    });
    let mut answers = Vec::new();
    within(reading.read_to_end(&mut answers)).await.unwrap();
    flood.await.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(
        answers
            .matches("HTTP/1.1 403 egress denied: host_not_allowed\r\n")
            .count(),
        5000
    );
}

#[tokio::test]
async fn a_reset_in_any_state_leaves_nothing_behind() {
    let origin = Origin::scripted(|mut stream, _| async move {
        if let Some(request) = read_request(&mut stream).await
            && request.contains("/answered")
        {
            send(
                &mut stream,
                b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart",
            )
            .await;
        }
        read_to_end_of_any_kind(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let target = format!("http://origin.test:{port}");
    for state in [
        String::new(),
        "GET http://ori".to_owned(),
        format!("GET {target}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {target}/answered HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("PUT {target}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\npart"),
        connect_head(&format!("origin.test:{port}")),
        connect_head("evil.test:443"),
    ] {
        for wait in [false, true] {
            let mut client = proxy.connect().await;
            send(&mut client, state.as_bytes()).await;
            if wait {
                // Until the gateway is well into the state.
                let _ = tokio::time::timeout(Duration::from_millis(50), client.readable()).await;
            }
            client.set_zero_linger().unwrap();
        }
    }
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    proxy.shows("outgate_tunnels_active 0").await;
    proxy
        .shows("outgate_pool_connections{state=\"busy\"} 0")
        .await;
}

#[tokio::test]
async fn a_slow_upload_is_no_reason_to_keep_another_waiting() {
    let origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut client = proxy.connect().await;
        let head = format!(
            "PUT http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx"
        );
        send(&mut client, head.as_bytes()).await;
        slow.push(client);
    }
    let mut client = proxy.connect().await;
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    assert!(read_response(&mut client).await.ends_with("ok"));
}

async fn read_to_end_of_any_kind(stream: &mut tokio::net::TcpStream) {
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn content_that_a_client_cuts_short_is_refused_at_once() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_to_end_of_any_kind(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let head = format!(
        "PUT http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nshort",
        origin.port()
    );
    send(&mut client, head.as_bytes()).await;
    client.shutdown().await.unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 egress failed: bad_request\r\n"),
        "{answer}"
    );
}
