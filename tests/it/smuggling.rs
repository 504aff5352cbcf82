use tokio::io::AsyncWriteExt;

use crate::harness::origin::Origin;
use crate::harness::watched::Watched;
use crate::harness::{TestProxy, connect_head, field, read_to_end, send};

// Content in chunks.
mod chunks;
// What is asked for.
mod targets;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How what is no head is counted, and what is one that cannot be acted on.
const NO_HEAD: &str = "outgate_connections_rejected_total{reason=\"bad_request\"} 1";
const BAD_HEAD: &str =
    "outgate_requests_total{kind=\"forward\",reason=\"bad_request\",result=\"failed\",rule=\"\"} 1";

/// Sends what is no request, with the origin's port for `PORT`: it is answered 400 and counted, and nothing of it
/// goes upstream.
async fn is_refused(vector: &str, request: &str, counted: &str) {
    let origin = Watched::start().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let request = request.replace("PORT", &origin.port().to_string());
    send(&mut client, request.as_bytes()).await;
    client.shutdown().await.unwrap();
    let answers = read_to_end(&mut client).await;
    assert!(
        answers.starts_with("HTTP/1.1 400 egress failed: bad_request\r\n"),
        "{vector}: {answers}"
    );
    assert_eq!(
        answers.matches("HTTP/1.1 ").count(),
        1,
        "{vector}: {answers}"
    );
    origin.is_untouched_by(&proxy, vector).await;
    proxy.shows(counted).await;
}

/// Framing that two parsers could read in two ways, and how it is counted.
const AMBIGUOUS: &[(&str, &str, &str)] = &[
    (
        "two lengths",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        NO_HEAD,
    ),
    (
        "a list of lengths",
        "Content-Length: 3, 4\r\n\r\nabc",
        NO_HEAD,
    ),
    ("a signed length", "Content-Length: +3\r\n\r\nabc", NO_HEAD),
    (
        "a hexadecimal length",
        "Content-Length: 0x3\r\n\r\nabc",
        NO_HEAD,
    ),
    (
        "a length with a space in it",
        "Content-Length: 3 4\r\n\r\nabc",
        NO_HEAD,
    ),
    (
        "a list of one length twice",
        "Content-Length: 3, 3\r\n\r\nabc",
        NO_HEAD,
    ),
    (
        "a coding behind nothing",
        "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        BAD_HEAD,
    ),
    (
        "a coding with a parameter",
        "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        NO_HEAD,
    ),
    (
        "a coding besides chunked",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        BAD_HEAD,
    ),
    (
        "chunked twice",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        BAD_HEAD,
    ),
    (
        "chunked in two fields",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD_HEAD,
    ),
    (
        "chunked not last",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        NO_HEAD,
    ),
    (
        "an unknown coding",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        NO_HEAD,
    ),
    (
        "a coding in quotes",
        "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        NO_HEAD,
    ),
    (
        "a space before the colon",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        NO_HEAD,
    ),
    (
        "a folded field",
        "X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n",
        NO_HEAD,
    ),
    ("a NUL in a field", "X-A: a\0b\r\n\r\n", NO_HEAD),
    ("a CR in a field", "X-A: a\rb\r\n\r\n", NO_HEAD),
    ("a field without a name", ": x\r\n\r\n", NO_HEAD),
    (
        "a coding on a line of its own",
        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        NO_HEAD,
    ),
    (
        "a field folded with a tab",
        "X-A: 1\r\n\tTransfer-Encoding: chunked\r\n\r\n",
        NO_HEAD,
    ),
    ("a NUL in a name", "X\0A: 1\r\n\r\n", NO_HEAD),
    ("a CR in a name", "X\rA: 1\r\n\r\n", NO_HEAD),
];

#[tokio::test]
async fn ambiguous_framing_is_refused_before_anything_is_sent_upstream_rfc9112_6() {
    for (vector, rest, counted) in AMBIGUOUS {
        let request = format!("POST http://origin.test:PORT/ HTTP/1.1\r\nHost: x\r\n{rest}");
        is_refused(vector, &request, counted).await;
    }
}

#[tokio::test]
async fn a_length_that_is_said_twice_goes_on_once_rfc9112_6_3() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let length = "Content-Length: 3\r\n".repeat(2);
    let answer = proxy
        .ask(&format!(
            "POST http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n{length}\r\nabc"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = origin.received().await;
    let head = seen.strip_suffix("\r\n\r\nabc").unwrap();
    let head = head.to_ascii_lowercase();
    let lengths = head
        .lines()
        .filter(|line| line.starts_with("content-length"));
    assert!(lengths.eq(["content-length: 3"]), "{head}");
    assert!(origin.is_untouched());
}

#[tokio::test]
async fn a_coding_of_http_1_0_is_refused() {
    let request =
        "POST http://origin.test:PORT/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    is_refused("a coding", request, NO_HEAD).await;
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
async fn bare_line_feeds_end_lines_here_and_reach_no_upstream_rfc9112_2_2() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    // To a parser that wants CRLF the second field would be part of the first.
    let answer = proxy
        .ask(&format!(
            "POST http://origin.test:{port}/ HTTP/1.1\nHost: x\nX-A: 1\nTransfer-Encoding: chunked\n\n\
             3\r\nabc\r\n0\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = origin.received().await;
    assert_eq!(seen.matches('\n').count(), seen.matches("\r\n").count());
    assert_eq!(field(&seen, "x-a"), Some("1"));
    assert_eq!(field(&seen, "transfer-encoding"), Some("chunked"));
    assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{seen:?}");
    assert!(origin.is_untouched());
}

#[tokio::test]
async fn content_of_a_connect_is_no_request_rfc9110_9_3_6() {
    let smuggled = "GET http://origin.test:PORT/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let counted = BAD_HEAD.replace("forward", "connect");
    for target in ["origin.test:PORT", "evil.test:443"] {
        for framing in [
            format!("Content-Length: {}", smuggled.len()),
            "Transfer-Encoding: chunked".to_owned(),
        ] {
            let head = connect_head(target).replace("\r\n\r\n", &format!("\r\n{framing}\r\n\r\n"));
            is_refused(&framing, &format!("{head}{smuggled}"), &counted).await;
        }
    }
}
