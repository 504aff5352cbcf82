use crate::harness::origin::Origin;
use crate::harness::{TestProxy, field, read_head, send};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

async fn forwarded(method: &str, path: &str, fields: &str) -> (String, String) {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let answer = proxy
        .ask(&format!(
            "{method} http://origin.test:{port}{path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"
        ))
        .await;
    (origin.received().await, answer)
}

#[tokio::test]
async fn fields_of_the_client_connection_stop_here_rfc9110_7_6_1() {
    let (seen, _) = forwarded(
        "GET",
        "/",
        "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\n\
         TE: gzip\r\nUpgrade: h2c\r\nX-End: 2\r\n",
    )
    .await;
    for gone in [
        "connection",
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
    ] {
        assert_eq!(field(&seen, gone), None, "{gone} in {seen}");
    }
    assert_eq!(field(&seen, "x-end"), Some("2"));
}

#[tokio::test]
async fn fields_of_the_upstream_connection_stop_here_rfc9110_7_6_1() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Authenticate: Basic\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let answer = proxy
        .ask(&format!(
            "GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
    for gone in ["connection", "x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(field(&answer, gone), None, "{gone} in {answer}");
    }
    assert_eq!(field(&answer, "x-end"), Some("2"));
}

#[tokio::test]
async fn via_is_added_in_both_directions_rfc9110_7_6_3() {
    let (seen, answer) = forwarded("GET", "/", "Via: 1.0 first\r\n").await;
    let vias: Vec<_> = seen
        .lines()
        .filter(|line| line.to_lowercase().starts_with("via:"))
        .collect();
    assert_eq!(vias, ["via: 1.0 first", "via: 1.1 outgate"]);
    assert_eq!(field(&answer, "via"), Some("1.1 outgate"));
}

#[tokio::test]
async fn proxy_credentials_are_consumed_rfc9110_11_7_2() {
    let (seen, _) = forwarded("GET", "/", "Proxy-Authorization: Basic c2VjcmV0\r\n").await;
    assert!(!seen.contains("c2VjcmV0"), "{seen}");
}

#[tokio::test]
async fn content_length_is_dropped_beside_chunked_and_the_connection_closed_rfc9112_6_3() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let request = format!(
        "POST http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET http://smuggled.test/ HTTP/1.1\r\n\r\n",
        origin.port()
    );
    send(&mut client, request.as_bytes()).await;
    let seen = origin.received().await;
    assert_eq!(field(&seen, "content-length"), None, "{seen}");
    assert_eq!(field(&seen, "transfer-encoding"), Some("chunked"));
    assert!(seen.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{seen}");
    assert_eq!(
        field(&read_head(&mut client).await, "connection"),
        Some("close")
    );
    assert_eq!(crate::harness::read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn max_forwards_is_counted_down_rfc9110_7_6_2() {
    let (seen, _) = forwarded("OPTIONS", "/", "Max-Forwards: 3\r\n").await;
    assert_eq!(field(&seen, "max-forwards"), Some("2"));
}

#[tokio::test]
async fn a_trace_that_ends_here_is_reflected_without_its_secrets_rfc9110_9_3_8() {
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let answer = proxy
        .ask(
            "TRACE http://origin.test:1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nX-Seen: 1\r\n\
             Cookie: secret\r\nAuthorization: secret\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(field(&answer, "content-type"), Some("message/http"));
    assert!(answer.contains("x-seen: 1"), "{answer}");
    assert!(!answer.contains("secret"), "{answer}");
}

#[tokio::test]
async fn a_chunked_get_is_forwarded_as_one() {
    let (seen, _) = forwarded(
        "GET",
        "/",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    )
    .await;
    assert!(seen.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{seen}");
}
