use std::fmt::Write;

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, connect_head, field, read_head, read_response, read_to_end, send};

/// Requests that are none, and a word that the answer has for each.
const REQUESTS_THAT_ARE_NONE: &[(&str, &str)] = &[
    ("garbage\r\n\r\n", "method"),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "method"),
    (
        "GET /origin-form HTTP/1.1\r\nHost: origin.test\r\n\r\n",
        "HTTP_PROXY",
    ),
    (
        "OPTIONS * HTTP/1.1\r\nHost: origin.test\r\n\r\n",
        "HTTP_PROXY",
    ),
    (
        "GET https://origin.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT",
    ),
    (
        "GET ftp://origin.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "only http",
    ),
    (
        "GET http://user:pass@origin.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "credentials",
    ),
    (
        "GET http://origin.test:0/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "port",
    ),
    (
        "GET http://origin.test:70000/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "port",
    ),
    (
        "CONNECT user@origin.test:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        "credentials",
    ),
    ("CONNECT origin.test HTTP/1.1\r\nHost: x\r\n\r\n", "port"),
    ("CONNECT origin.test: HTTP/1.1\r\nHost: x\r\n\r\n", "port"),
    ("CONNECT origin.test:0 HTTP/1.1\r\nHost: x\r\n\r\n", "port"),
    (
        "CONNECT origin.test:70000 HTTP/1.1\r\nHost: x\r\n\r\n",
        "port",
    ),
    ("CONNECT ::1:443 HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    ("CONNECT 2001:db8::1:443 HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    ("CONNECT [origin.test]:443 HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    ("CONNECT :443 HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    ("CONNECT origin..test:443 HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    (
        "CONNECT http://origin.test:443/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "host:port",
    ),
    ("GET http://origin.test/ HTTP/1.1\r\n\r\n", "Host"),
    (
        "GET http://origin.test/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "Host",
    ),
    (
        "CONNECT origin.test:443 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "Host",
    ),
    (
        "GET http://origin.test/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        "Host",
    ),
    ("GET http://origin.test/ HTTP/2.0\r\nHost: x\r\n\r\n", ""),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    (
        "GET http://origin.test/ HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        "",
    ),
    (
        "GET http://origin.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "",
    ),
    (
        "GET http://origin.test/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        "",
    ),
    (
        "OPTIONS http://origin.test/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: x\r\n\r\n",
        "Max-Forwards",
    ),
];

/// Each of these is answered 400 in words; none of them harms the next client.
#[tokio::test]
async fn a_request_that_is_none_is_answered_in_words() {
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for (request, hint) in REQUESTS_THAT_ARE_NONE {
        let answer = proxy.ask(request).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 egress failed: bad_request\r\n"),
            "{request:?}: {answer}"
        );
        let status = "outgate; error=http_request_error; details=\"bad_request\"";
        assert_eq!(field(&answer, "proxy-status"), Some(status), "{request:?}");
        let content = answer.split_once("\r\n\r\n").unwrap().1;
        let content: serde_json::Value = serde_json::from_str(content).unwrap();
        assert_eq!(content["error"], "bad_request");
        let message = content["message"].as_str().unwrap();
        assert!(
            message.to_lowercase().contains(&hint.to_lowercase()),
            "{request:?}: {message}"
        );
    }
    // Whatever came before, the next client is served.
    let origin = Origin::answering("").await;
    proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_431() {
    let proxy = TestProxy::builder()
        .with(|config| config.max_header_bytes = 8 * 1024)
        .start()
        .await;
    let mut request = "GET http://origin.test/ HTTP/1.1\r\nHost: x\r\n".to_owned();
    for number in 0..50 {
        write!(request, "X-{number}: {}\r\n", "v".repeat(200)).unwrap();
    }
    request.push_str("\r\n");
    let answer = proxy.ask(&request).await;
    assert!(
        answer.starts_with("HTTP/1.1 431 egress failed: header_too_large\r\n"),
        "{answer}"
    );
    proxy
        .shows("outgate_connections_rejected_total{reason=\"header_too_large\"} 1")
        .await;
}

#[tokio::test]
async fn a_head_of_more_than_a_hundred_fields_is_answered_431() {
    let proxy = TestProxy::builder().start().await;
    for (fields, status) in [(100, "403"), (101, "431")] {
        let mut request = "GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n".to_owned();
        for number in 1..fields {
            write!(request, "X-{number}: 1\r\n").unwrap();
        }
        request.push_str("\r\n");
        let answer = proxy.ask(&request).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
    proxy
        .shows("outgate_connections_rejected_total{reason=\"header_too_large\"} 1")
        .await;
}

#[tokio::test]
async fn a_head_nearly_as_large_as_can_be_configured_passes_both_ways() {
    const LARGE: usize = 1000 * 1024;
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_head(&mut stream).await.len().to_string());
        let head = format!(
            "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n",
            "v".repeat(LARGE)
        );
        send(&mut stream, head.as_bytes()).await;
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.max_header_bytes = 1024 * 1024)
        .start()
        .await;
    let request = format!(
        "GET http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        origin.port(),
        "v".repeat(LARGE)
    );
    let answer = proxy.ask(&request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{}", &answer[..100]);
    assert!(answer.len() > LARGE);
    assert!(origin.received().await.parse::<usize>().unwrap() > LARGE);
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off_at_the_limit() {
    let proxy = TestProxy::builder()
        .with(|config| config.max_header_bytes = 8 * 1024)
        .start()
        .await;
    let mut client = proxy.connect().await;
    let (mut reading, mut writing) = client.split();
    let endless = async {
        use tokio::io::AsyncWriteExt;
        writing
            .write_all(b"GET http://origin.test/ HTTP/1.1\r\nX: ")
            .await
            .unwrap();
        // Far more than any buffer on the way would hide.
        for _ in 0..10_000 {
            if writing.write_all(&[b'a'; 1024]).await.is_err() {
                break;
            }
        }
    };
    let mut answer = [0; 48];
    let reading = async {
        tokio::io::AsyncReadExt::read_exact(&mut reading, &mut answer)
            .await
            .unwrap();
    };
    crate::harness::within(async { tokio::join!(endless, reading) }).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn garbage_behind_a_served_request_is_answered_after_its_response() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!(
        "GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\nnot http at all\r\n\r\n"
    );
    send(&mut client, request.as_bytes()).await;
    let first = read_response(&mut client).await;
    assert!(
        first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with("ok"),
        "{first}"
    );
    let second = read_to_end(&mut client).await;
    assert!(
        second.starts_with("HTTP/1.1 400 egress failed: bad_request\r\n"),
        "{second}"
    );
}

#[tokio::test]
async fn a_hundred_broken_clients_leave_no_connection_behind() {
    let proxy = TestProxy::builder().start().await;
    for number in 0..100 {
        let mut client = proxy.connect().await;
        match number % 4 {
            0 => send(&mut client, b"\0\0\0\0\r\n\r\n").await,
            1 => send(&mut client, b"GET http://a").await,
            2 => send(&mut client, connect_head("evil.test:1").as_bytes()).await,
            _ => client.set_zero_linger().unwrap(),
        }
    }
    proxy
        .shows("outgate_connections_total{listener=\"proxy\"} 100")
        .await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
}
