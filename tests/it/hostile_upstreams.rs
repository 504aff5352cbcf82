use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, read_head, send, within};

const SHORT: Duration = Duration::from_millis(200);

/// What a client gets from an upstream that writes this after a request head, then keeps open.
async fn answer_to(bytes: &'static [u8]) -> String {
    let origin = Origin::scripted(move |mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_u8().await;
    })
    .await;
    ask(&origin).await
}

async fn ask(origin: &Origin) -> String {
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| {
            config.response_timeout = SHORT;
            config.max_header_bytes = 8 * 1024;
        })
        .start()
        .await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!(
        "GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n"
    );
    send(&mut client, request.as_bytes()).await;
    let mut answer = Vec::new();
    // A reset after what there is to read is an answer too.
    let _ = within(client.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn framing_that_can_be_read_in_two_ways_is_a_protocol_error() {
    for response in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
    ] {
        let answer = answer_to(response).await;
        let sent = String::from_utf8_lossy(response);
        assert!(
            answer.starts_with("HTTP/1.1 502 egress failed: protocol_error\r\n"),
            "{sent:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_endless_head_is_cut_off() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
        while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
    })
    .await;
    let answer = ask(&origin).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: protocol_error\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_has_one_timeout_in_all() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Slow: very very slow\r\n\r\n" {
            tokio::time::sleep(SHORT / 4).await;
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    })
    .await;
    let answer = ask(&origin).await;
    assert!(
        answer.starts_with("HTTP/1.1 504 egress failed: response_timeout\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_flood_of_interim_responses_is_no_response() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        while stream
            .write_all(b"HTTP/1.1 102 Processing\r\n\r\n")
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answer = ask(&origin).await;
    assert!(
        answer.starts_with("HTTP/1.1 504 egress failed: response_timeout\r\n"),
        "{answer}"
    );
}

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
    let answer = ask(&origin).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn chunks_that_break_off_do_not_become_a_whole_response() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        )
        .await;
    })
    .await;
    let answer = ask(&origin).await;
    assert!(answer.contains("abc"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_http_1_0_client_sees_a_reset_when_its_response_breaks_off() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        )
        .await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let request = format!("GET http://origin.test:{}/ HTTP/1.0\r\n\r\n", origin.port());
    send(&mut client, request.as_bytes()).await;
    // To HTTP/1.0 a close is the end of the content: only a reset says that it is not.
    let error = within(client.read_to_end(&mut Vec::new()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn content_cut_short_of_its_length_is_no_whole_response() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc",
        )
        .await;
    })
    .await;
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
    proxy
        .shows(
            "outgate_requests_total{kind=\"forward\",reason=\"response_incomplete\",result=\"failed\",\
             rule=\"origin.test:*\"} 1",
        )
        .await;
}

#[tokio::test]
async fn an_answer_before_any_question_is_nobodys() {
    let origin = Origin::scripted(|mut stream, _| async move {
        // Written before the request is read: it must not be taken for its answer by a next client.
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale")
            .await;
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        let _ = stream.read_u8().await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let request = format!(
        "GET http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    );
    for _ in 0..5 {
        proxy.ask(&request).await;
    }
    // Each exchange left an answer over, so none of the connections was used a second time.
    proxy
        .shows("outgate_pool_requests_total{reused=\"true\"} 0")
        .await;
}
