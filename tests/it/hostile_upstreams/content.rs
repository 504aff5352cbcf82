use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::{ask, closing_after, writing};
use crate::harness::origin::{Origin, read_request};
use crate::harness::{TestProxy, failed, field, read_head, read_response, send, within};

const HALF_CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";

#[tokio::test]
async fn a_huge_trailer_breaks_the_response_rather_than_the_gateway() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: ")
            .await;
        while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
    })
    .await;
    let answer = ask(&origin, "response_incomplete").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn chunks_that_break_off_do_not_become_a_whole_response() {
    let origin = closing_after(HALF_CHUNKED).await;
    let answer = ask(&origin, "response_incomplete").await;
    assert!(answer.contains("abc"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_http_1_0_client_sees_a_reset_when_its_response_breaks_off() {
    let origin = closing_after(HALF_CHUNKED).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let request = format!("GET http://origin.test:{}/ HTTP/1.0\r\n\r\n", origin.port());
    send(&mut client, request.as_bytes()).await;
    // To HTTP/1.0 a close is the end of the content: only a reset says that it is not.
    let error = within(client.read_to_end(&mut Vec::new()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    proxy.shows(&failed("response_incomplete")).await;
}

#[tokio::test]
async fn content_cut_short_of_its_length_is_no_whole_response() {
    let origin = closing_after(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let request = format!(
        "GET http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    );
    let mut client = proxy.connect().await;
    send(&mut client, request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within(client.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("content-length: 1000\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    proxy.shows(&failed("response_incomplete")).await;
}

#[tokio::test]
async fn ten_thousand_trailers_break_the_response_rather_than_the_gateway() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        let mut response =
            b"HTTP/1.1 200 OK\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
                .to_vec();
        response.extend(b"T: 1\r\n".repeat(10_000));
        response.extend(b"\r\n");
        let _ = stream.write_all(&response).await;
        let _ = stream.read_u8().await;
    })
    .await;
    // Kept whole they would be passed on whole.
    let answer = ask(&origin, "response_incomplete").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("3\r\nabc\r\n"), "{answer}");
}

#[tokio::test]
async fn chunks_without_a_size_do_not_become_a_whole_response() {
    let origin = writing(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n0\r\n\r\n",
    )
    .await;
    let answer = ask(&origin, "response_incomplete").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("3\r\nabc\r\n"), "{answer}");
}

#[tokio::test]
async fn a_length_beside_chunks_hides_no_response_rfc9112_6_1() {
    // By its length the content ends before what looks like a response of its own.
    const CHUNK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale";
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        while let Some(request) = read_request(&mut stream).await {
            let answer = if request.starts_with("GET /first ") {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                     {:x}\r\n{CHUNK}\r\n0\r\n\r\n",
                    CHUNK.len()
                )
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond".to_owned()
            };
            let _ = seen.send(request);
            send(&mut stream, answer.as_bytes()).await;
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    for path in ["first", "second"] {
        let request = format!(
            "GET http://origin.test:{}/{path} HTTP/1.1\r\nHost: x\r\n\r\n",
            origin.port()
        );
        send(&mut client, request.as_bytes()).await;
        let answer = read_response(&mut client).await;
        assert!(origin.received().await.contains(path));
        if path == "first" {
            assert_eq!(field(&answer, "transfer-encoding"), Some("chunked"));
            let (head, content) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(field(head, "content-length"), None, "{answer}");
            assert!(content.contains(CHUNK), "{answer}");
        } else {
            assert!(answer.ends_with("\r\n\r\nsecond"), "{answer}");
        }
    }
    // RFC 9112 §6.1: it may be an attempt to split responses, so nothing more is read of that connection.
    proxy
        .shows("outgate_pool_requests_total{reused=\"false\"} 2")
        .await;
}

#[tokio::test]
async fn content_to_the_close_that_ends_in_a_reset_is_no_whole_response_rfc9112_8() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let read = Arc::new(Notify::new());
        let was_read = Arc::clone(&read);
        let origin = Origin::scripted(move |mut stream, _| {
            let was_read = Arc::clone(&was_read);
            async move {
                read_head(&mut stream).await;
                send(&mut stream, b"HTTP/1.1 200 OK\r\n\r\nhalf").await;
                was_read.notified().await;
                stream.set_zero_linger().unwrap();
            }
        })
        .await;
        let proxy = TestProxy::builder().allow("origin.test:*").start().await;
        let mut client = proxy.connect().await;
        let port = origin.port();
        let request = format!("GET http://origin.test:{port}/ {version}\r\nHost: x\r\n\r\n");
        send(&mut client, request.as_bytes()).await;
        let head = read_head(&mut client).await;
        assert!(head.starts_with(&format!("{version} 200 OK\r\n")), "{head}");
        let mut content = Vec::new();
        while !content.windows(4).any(|part| part == b"half") {
            content.push(within(client.read_u8()).await.unwrap());
        }
        read.notify_one();
        let ended = within(client.read_to_end(&mut content)).await;
        let content = String::from_utf8(content).unwrap();
        if version == "HTTP/1.1" {
            assert_eq!(content, "4\r\nhalf\r\n");
        } else {
            // To HTTP/1.0 a close is the end of the content.
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(content, "half");
        }
        proxy.shows(&failed("response_incomplete")).await;
    }
}
