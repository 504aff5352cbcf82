use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::JoinHandle;

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, failed, field, read_head, read_to_end, send, within};

/// Long enough for a machine under load to move a few bytes in.
const TIMEOUT: Duration = Duration::from_millis(400);
/// For what must not be cut: a machine under load has to do something in time.
const LONGER: Duration = Duration::from_secs(2);

async fn proxy() -> TestProxy {
    with_response_timeout(TIMEOUT).await
}

async fn with_response_timeout(timeout: Duration) -> TestProxy {
    TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.response_timeout = timeout)
        .start()
        .await
}

async fn with_idle_timeout(timeout: Duration) -> TestProxy {
    TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.idle_timeout = timeout)
        .start()
        .await
}

async fn counted(proxy: &TestProxy, reason: &str) {
    proxy.shows(&failed(reason)).await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    proxy
        .shows("outgate_pool_connections{state=\"busy\"} 0")
        .await;
}

/// Whatever comes, and how it ended.
async fn read_all(stream: &mut TcpStream) -> (String, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = within(stream.read_to_end(&mut bytes)).await.map(|_| ());
    (String::from_utf8_lossy(&bytes).into_owned(), ended)
}

async fn read_of_any_kind(stream: &mut TcpStream) -> usize {
    let mut bytes = Vec::new();
    let _ = within(stream.read_to_end(&mut bytes)).await;
    bytes.len()
}

/// Sends for as long as anybody takes it; what comes back is to be read meanwhile.
async fn upload_without_end(proxy: &TestProxy, origin: &Origin) -> (OwnedReadHalf, JoinHandle<()>) {
    let (reading, mut writing) = proxy.connect().await.into_split();
    let head = format!(
        "PUT http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
        origin.port()
    );
    let upload = tokio::spawn(async move {
        writing.write_all(head.as_bytes()).await.unwrap();
        while writing.write_all(&[0; 64 * 1024]).await.is_ok() {}
    });
    (reading, upload)
}

#[tokio::test]
async fn content_that_a_client_stops_sending_is_answered_408_rfc9110_15_5_9() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_all(&mut stream).await.0);
    })
    .await;
    let proxy = proxy().await;
    for framing in [
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n8\r\nhalf",
    ] {
        let mut client = proxy.connect().await;
        let port = origin.port();
        let request = format!("PUT http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n{framing}");
        send(&mut client, request.as_bytes()).await;
        let answer = read_to_end(&mut client).await;
        assert!(
            answer.starts_with("HTTP/1.1 408 egress failed: content_timeout\r\n"),
            "{answer}"
        );
        assert_eq!(field(&answer, "connection"), Some("close"));
        let status = "outgate; error=http_request_error; details=\"content_timeout\"";
        assert_eq!(field(&answer, "proxy-status"), Some(status));
        let seen = origin.received().await;
        assert!(seen.contains("half"), "{seen}");
        assert!(!seen.ends_with("0\r\n\r\n"), "{seen}");
    }
    proxy
        .shows("outgate_requests_total{kind=\"forward\",reason=\"content_timeout\",result=\"failed\",rule=\"origin.test:*\"} 2")
        .await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
}

#[tokio::test]
async fn an_upstream_that_takes_no_content_is_a_504() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        // Neither reads nor answers, for as long as the test lasts.
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy().await;
    let (mut reading, upload) = upload_without_end(&proxy, &origin).await;
    let mut line = [0; 45];
    within(reading.read_exact(&mut line)).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 504 egress failed: response_timeout\r");
    counted(&proxy, "response_timeout").await;
    upload.abort();
}

#[tokio::test]
async fn a_response_that_an_upstream_does_not_finish_is_seen_to_be_broken() {
    for (version, head) in [
        ("HTTP/1.1", "Content-Length: 100\r\n\r\n"),
        ("HTTP/1.1", "Transfer-Encoding: chunked\r\n\r\n40\r\n"),
        ("HTTP/1.1", "\r\n"),
        // Here nothing but the reset tells it from a whole one.
        ("HTTP/1.0", "\r\n"),
    ] {
        let response: &'static str = format!("HTTP/1.1 200 OK\r\n{head}half").leak();
        let origin = Origin::answering(response).await;
        let proxy = with_idle_timeout(TIMEOUT).await;
        let mut client = proxy.connect().await;
        let port = origin.port();
        let request = format!("GET http://origin.test:{port}/ {version}\r\nHost: x\r\n\r\n");
        send(&mut client, request.as_bytes()).await;
        let (answer, ended) = read_all(&mut client).await;
        assert!(answer.contains("half"), "{head:?}: {answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{head:?}: {answer}");
        assert!(ended.is_err(), "{head:?}: {answer}");
        counted(&proxy, "response_timeout").await;
    }
}

#[tokio::test]
async fn a_stream_of_events_may_be_silent_for_longer_than_a_response_may_take_to_begin() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            tokio::time::sleep(LONGER * 3 / 2).await;
            send(&mut stream, event.as_bytes()).await;
        }
    })
    .await;
    let proxy = with_response_timeout(LONGER).await;
    let port = origin.port();
    let mut client = proxy.connect().await;
    let request = format!("GET http://origin.test:{port}/ HTTP/1.0\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    let (answer, ended) = read_all(&mut client).await;
    assert!(
        answer.ends_with("\r\n\r\ndata: 1\n\ndata: 2\n\n"),
        "{answer}"
    );
    ended.unwrap();
}

#[tokio::test]
async fn a_response_that_goes_on_slowly_is_not_cut() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        )
        .await;
        // In all longer than the timeout, each byte well within it.
        for byte in b"0123456789" {
            tokio::time::sleep(LONGER / 8).await;
            send(&mut stream, &[*byte]).await;
        }
    })
    .await;
    let proxy = with_idle_timeout(LONGER).await;
    let port = origin.port();
    let answer = proxy
        .ask(&format!(
            "GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
    assert!(answer.ends_with("0123456789"), "{answer}");
}

#[tokio::test]
async fn a_client_that_stops_reading_gives_its_place_and_the_upstream_back() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(&[0; 64 * 1024]).await.is_ok() {}
        let _ = seen.send("cut".to_owned());
    })
    .await;
    let proxy = proxy().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    assert_eq!(origin.received().await, "cut");
    counted(&proxy, "content_timeout").await;
    let (_, ended) = read_all(&mut client).await;
    assert!(ended.is_err());
}

#[tokio::test]
async fn an_upload_that_stalls_behind_the_head_of_its_response_cuts_both() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        )
        .await;
        read_of_any_kind(&mut stream).await;
        let _ = seen.send("cut".to_owned());
    })
    .await;
    let proxy = proxy().await;
    let mut client = proxy.connect().await;
    let head = format!(
        "PUT http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
        origin.port()
    );
    send(&mut client, head.as_bytes()).await;
    let (answer, ended) = read_all(&mut client).await;
    assert!(answer.ends_with("half") && ended.is_err(), "{answer}");
    assert_eq!(origin.received().await, "cut");
    counted(&proxy, "content_timeout").await;
}

#[tokio::test]
async fn an_upload_that_outlives_its_response_ends_when_the_upstream_takes_no_more() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        .await;
        // Reads nothing until the gateway must have given up.
        tokio::time::sleep(TIMEOUT * 6).await;
        read_of_any_kind(&mut stream).await;
        let _ = seen.send("cut".to_owned());
    })
    .await;
    let proxy = proxy().await;
    let (mut reading, upload) = upload_without_end(&proxy, &origin).await;
    let mut answer = Vec::new();
    let _ = within(reading.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"));
    within(upload).await.unwrap();
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    assert_eq!(origin.received().await, "cut");
}
