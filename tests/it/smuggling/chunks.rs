use tokio::io::AsyncWriteExt;

use super::OK;
use crate::harness::origin::Origin;
use crate::harness::{TestProxy, field, read_response, read_to_end, send};

/// Content whose framing is broken.
const BROKEN: &[&str] = &[
    "zz\r\nabc\r\n0\r\n\r\n",
    "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "-3\r\nabc\r\n0\r\n\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "3\r\nabcX\r\n0\r\n\r\n",
    "3\nabc\r\n0\r\n\r\n",
    "3;\nabc\r\n0\r\n\r\n",
    "3;a=b\nabc\r\n0\r\n\r\n",
    "3\r\nabc\n0\r\n\r\n",
    "3\r\nabc\r\n0\n\r\n",
    "3\r\nabc\r\n0\nX: y\r\n\r\n",
];

#[tokio::test]
async fn broken_chunks_never_become_whole_content() {
    for chunks in BROKEN {
        never_become_whole(chunks, false).await;
    }
}

#[tokio::test]
async fn behind_the_largest_size_that_there_is_everything_is_content_without_an_end() {
    never_become_whole("ffffffffffffffff\r\nabc\r\n0\r\n\r\n", true).await;
}

/// Sends chunks with a request behind them, and closes its side if nothing else ends the content: neither a last chunk
/// nor a second request reaches the upstream.
async fn never_become_whole(chunks: &str, closes: bool) {
    let mut origin = Origin::reading_to_the_end().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!(
        "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}\
         GET http://origin.test:{port}/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    );
    send(&mut client, request.as_bytes()).await;
    if closes {
        client.shutdown().await.unwrap();
    }
    let seen = origin.received().await;
    assert!(!seen.ends_with("0\r\n\r\n"), "{chunks:?} became {seen:?}");
    assert!(!seen.contains("GET /smuggled"), "{chunks:?}: {seen:?}");
    let answers = read_to_end(&mut client).await;
    let is_refused = answers.starts_with("HTTP/1.1 400 egress failed: bad_request\r\n");
    assert!(is_refused, "{chunks:?}: {answers}");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    for counted in [
        "outgate_requests_total{kind=\"forward\",reason=\"bad_request\",result=\"failed\",rule=\"origin.test:*\"} 1",
        "outgate_connect_duration_seconds_count{result=\"ok\"} 1",
    ] {
        proxy.shows(counted).await;
    }
}

#[tokio::test]
async fn what_a_bare_line_feed_behind_the_last_chunk_leads_in_is_no_request() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    // To a parser that takes LF for CRLF a request follows; here it is the trailers, as far as the next empty line.
    let request = format!(
        "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\nGET http://origin.test:{port}/smuggled HTTP/1.1\r\nX: y\r\n\r\n"
    );
    send(&mut client, request.as_bytes()).await;
    client.shutdown().await.unwrap();
    let answers = read_to_end(&mut client).await;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    let seen = origin.received().await;
    assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{seen:?}");
    proxy
        .shows("outgate_requests_total{kind=\"forward\",reason=\"ok\",result=\"allowed\",rule=\"origin.test:*\"} 1")
        .await;
    assert!(origin.is_untouched());
}

#[tokio::test]
async fn zeros_before_a_size_go_no_further_rfc9112_7_1() {
    for zeros in [15, 16, 17, 1000] {
        let mut origin = Origin::answering(OK).await;
        let proxy = TestProxy::builder().allow("origin.test:*").start().await;
        let port = origin.port();
        let zeros = "0".repeat(zeros);
        let answer = proxy
            .ask(&format!(
                "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {zeros}3\r\nabc\r\n{zeros}\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let seen = origin.received().await;
        assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{seen:?}");
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
async fn a_length_beside_chunks_hides_no_request_whichever_comes_first_rfc9112_6_1() {
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nContent-Length: 400",
    ] {
        let mut origin = Origin::answering(OK).await;
        let proxy = TestProxy::builder().allow("origin.test:*").start().await;
        let port = origin.port();
        let mut client = proxy.connect().await;
        let request = format!(
            "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n\
             GET http://origin.test:{port}/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        send(&mut client, request.as_bytes()).await;
        let answers = read_to_end(&mut client).await;
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        let seen = origin.received().await;
        assert!(seen.ends_with("\r\n\r\n0\r\n\r\n"), "{seen}");
        assert_eq!(field(&seen, "content-length"), None, "{seen}");
        assert!(origin.is_untouched(), "{framing}");
    }
}

#[tokio::test]
async fn a_chunk_extension_without_end_is_cut_off() {
    let mut origin = Origin::reading_to_the_end().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!(
        "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;{}",
        "e".repeat(64 * 1024)
    );
    send(&mut client, request.as_bytes()).await;
    let answer = read_response(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let seen = origin.received().await;
    assert!(
        !seen.contains("eee") && !seen.ends_with("0\r\n\r\n"),
        "{seen:?}"
    );
}
