use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, failed, read_head, send, within};

// What comes behind a head that was passed on.
mod content;

const SHORT: Duration = Duration::from_millis(200);

/// An upstream that writes this after a request head, then keeps open.
async fn writing(bytes: &'static [u8]) -> Origin {
    Origin::scripted(move |mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_u8().await;
    })
    .await
}

/// An upstream that writes this after a request head, then closes.
async fn closing_after(bytes: &'static [u8]) -> Origin {
    Origin::scripted(move |mut stream, _| async move {
        read_head(&mut stream).await;
        send(&mut stream, bytes).await;
    })
    .await
}

/// What a client gets that can take trailers; its request is counted as failed for this reason.
async fn ask(origin: &Origin, reason: &str) -> String {
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
    proxy.shows(&failed(reason)).await;
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
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\t3\r\n\r\nabc",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
    ] {
        let answer = ask(&writing(response).await, "protocol_error").await;
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
    let answer = ask(&origin, "protocol_error").await;
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
    let answer = ask(&origin, "response_timeout").await;
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
    let answer = ask(&origin, "response_timeout").await;
    assert!(
        answer.starts_with("HTTP/1.1 504 egress failed: response_timeout\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn half_a_head_is_no_response() {
    let origin = closing_after(b"HTTP/1.1 200 OK\r\nContent-Len").await;
    let answer = ask(&origin, "connection_reset").await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: connection_reset\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_answer_before_any_question_is_no_next_clients_rfc9112_9_2() {
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
        let answer = proxy.ask(&request).await;
        // Found before the request was sent it is no response; behind that nobody can tell it from one. What
        // comes second is one to nothing.
        let is_refused = answer.starts_with("HTTP/1.1 502 egress failed: connection_reset\r\n");
        let is_first = answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("stale");
        assert!(is_refused || is_first, "{answer}");
    }
    // Each exchange left an answer over, so none of the connections was used a second time.
    proxy
        .shows("outgate_pool_requests_total{reused=\"true\"} 0")
        .await;
}
