use tokio::io::AsyncReadExt;

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, field, read_head, read_to_end, send, within};

fn handshake(port: u16) -> String {
    format!(
        "GET http://origin.test:{port}/chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[tokio::test]
async fn a_101_is_passed_on_and_the_connection_becomes_a_tunnel_rfc9110_7_8() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_head(&mut stream).await);
        // The first frame comes right behind the head, as servers like to send it.
        send(
            &mut stream,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02hi",
        )
        .await;
        let mut frame = [0; 3];
        stream.read_exact(&mut frame).await.unwrap();
        let _ = seen.send(format!("{frame:?}"));
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, handshake(origin.port()).as_bytes()).await;
    let seen = origin.received().await;
    assert_eq!(field(&seen, "upgrade"), Some("websocket"));
    assert_eq!(field(&seen, "connection"), Some("upgrade"));
    let head = read_head(&mut client).await;
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(field(&head, "connection"), Some("upgrade"));
    assert_eq!(
        field(&head, "sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    let mut frame = [0; 4];
    within(client.read_exact(&mut frame)).await.unwrap();
    assert_eq!(&frame, b"\x81\x02hi");
    send(&mut client, b"\x01\x02\x03").await;
    assert_eq!(origin.received().await, "[1, 2, 3]");
    proxy
        .shows("outgate_copied_bytes_total{direction=\"client_to_upstream\",kind=\"forward\",rule=\"origin.test:*\"} 3")
        .await;
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_an_error_of_the_upstream() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        )
        .await;
        let _ = seen.send(read_to_end(&mut stream).await);
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let answer = proxy
        .ask(&format!(
            "GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: protocol_error\r\n"),
        "{answer}"
    );
    // Closed, and nothing more was sent.
    assert_eq!(origin.received().await, "");
    proxy
        .shows("outgate_requests_total{kind=\"forward\",reason=\"protocol_error\",result=\"failed\",rule=\"origin.test:*\"} 1")
        .await;
}

#[tokio::test]
async fn a_switch_is_not_offered_with_content_and_a_101_to_it_is_an_error_rfc9110_7_8() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_head(&mut stream).await);
        // At once, whatever there is of the content.
        send(
            &mut stream,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for (framing, content) in [
        ("Content-Length: 1", ""),
        ("Content-Length: 1", "x"),
        ("Transfer-Encoding: chunked", ""),
        ("Transfer-Encoding: chunked", "0\r\n\r\n"),
    ] {
        let request = handshake(origin.port()).replace("Host: x", &format!("Host: x\r\n{framing}"));
        let answer = proxy.ask(&(request + content)).await;
        assert!(
            answer.starts_with("HTTP/1.1 502 egress failed: protocol_error\r\n"),
            "{framing}: {answer}"
        );
        let seen = origin.received().await;
        for gone in ["upgrade", "connection"] {
            assert_eq!(field(&seen, gone), None, "{gone} in {seen}");
        }
    }
}

#[tokio::test]
async fn a_switch_is_offered_with_content_of_length_0() {
    let mut origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let request = handshake(origin.port()).replace("Host: x", "Host: x\r\nContent-Length: 0");
    assert!(proxy.ask(&request).await.ends_with("no"));
    let seen = origin.received().await;
    assert_eq!(field(&seen, "upgrade"), Some("websocket"));
}

#[tokio::test]
async fn an_upstream_that_declines_to_switch_is_simply_answered() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let answer = proxy.ask(&handshake(origin.port())).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("no"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_http_1_0_client_cannot_switch_rfc9110_7_8() {
    let mut origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let request = handshake(origin.port()).replacen("HTTP/1.1", "HTTP/1.0", 1);
    let answer = proxy.ask(&request).await;
    assert!(answer.ends_with("no"), "{answer}");
    assert_eq!(field(&origin.received().await, "upgrade"), None);
}

#[tokio::test]
async fn a_switch_to_http_2_is_not_offered_to_the_upstream_rfc9113_3_1() {
    let mut origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for protocols in ["h2c", "websocket, H2C", "h2c\r\nUpgrade: websocket"] {
        let port = origin.port();
        let answer = proxy
            .ask(&format!(
                "GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: {protocols}\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
            ))
            .await;
        assert!(answer.ends_with("no"), "{answer}");
        let seen = origin.received().await;
        for gone in ["upgrade", "http2-settings"] {
            assert_eq!(field(&seen, gone), None, "{gone} in {seen}");
        }
    }
}

/// Offers protocols under a rule; what the upstream reads of the offer.
async fn offered(rule: &str, protocols: &str) -> Option<String> {
    let mut origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let port = origin.port();
    let rule = rule.replace("PORT", &port.to_string());
    let proxy = TestProxy::builder().allow(&rule).start().await;
    let request = handshake(port).replace("Upgrade: websocket", &format!("Upgrade: {protocols}"));
    let answer = proxy.ask(&request).await;
    assert!(answer.ends_with("no"), "{answer}");
    field(&origin.received().await, "upgrade").map(str::to_owned)
}

#[tokio::test]
async fn a_protocol_in_which_requests_would_be_out_of_sight_is_not_offered() {
    for protocols in [
        "TLS/1.2",
        "tls/1.0, HTTP/1.1",
        "HTTP/2.0",
        "websocket, http/2.0",
        "h2c-14",
    ] {
        for rule in ["http://origin.test:PORT/chat", "origin.test:*"] {
            assert_eq!(
                offered(rule, protocols).await,
                None,
                "{protocols} by {rule}"
            );
        }
    }
}

#[tokio::test]
async fn only_where_a_tunnel_is_allowed_is_another_protocol_than_websocket_offered() {
    let other = "tcp, SPDY/3.1";
    assert_eq!(
        offered("origin.test:*", other).await.as_deref(),
        Some(other)
    );
    for rule in ["http://origin.test:PORT/chat", "http://origin.test:PORT"] {
        assert_eq!(offered(rule, other).await, None, "{rule}");
        assert_eq!(offered(rule, "websocket, tcp").await, None, "{rule}");
        let websocket = offered(rule, "WebSocket").await;
        assert_eq!(websocket.as_deref(), Some("WebSocket"), "{rule}");
    }
}
