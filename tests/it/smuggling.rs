use crate::harness::origin::{Origin, read_request};
use crate::harness::{TestProxy, connect_head, field, read_response, read_to_end, send};

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

/// One connection's requests as the origin reads them; each is answered.
async fn recording() -> Origin {
    Origin::scripted(|mut stream, seen| async move {
        while let Some(request) = read_request(&mut stream).await {
            let _ = seen.send(request);
            send(&mut stream, OK.as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn bare_line_feeds_end_lines_here_and_reach_no_upstream_rfc9112_2_2() {
    let mut origin = recording().await;
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
async fn a_length_beside_chunks_hides_no_request_whichever_comes_first_rfc9112_6_1() {
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nContent-Length: 400",
    ] {
        let mut origin = recording().await;
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
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_to_end(&mut stream).await);
    })
    .await;
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

#[tokio::test]
async fn the_host_field_gets_nobody_past_the_target_rfc9112_3_2_2() {
    let mut origin = recording().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let answer = proxy
        .ask(&format!(
            "GET http://evil.test:{port}/ HTTP/1.1\r\nHost: origin.test:{port}\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(origin.is_untouched());
    proxy
        .ask(&format!(
            "GET http://origin.test:{port}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"
        ))
        .await;
    let seen = origin.received().await;
    assert_eq!(field(&seen, "host"), Some(&*format!("origin.test:{port}")));
    assert!(!seen.contains("evil"), "{seen}");
}

#[tokio::test]
async fn a_target_that_would_end_its_line_is_refused_rfc9112_3_2() {
    let mut origin = recording().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    for path in [
        "/a b",
        "/a\rX-Split: yes",
        "/a\r\n\r\nGET /smuggled",
        "/a\0b",
        "/a\tb",
        "/ HTTP/1.1 ",
    ] {
        let answer = proxy
            .ask(&format!(
                "GET http://origin.test:{port}{path} HTTP/1.1\r\nHost: x\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path:?}: {answer}");
        assert!(origin.is_untouched(), "{path:?}");
    }
}

#[tokio::test]
async fn content_of_a_connect_is_no_request_rfc9110_9_3_6() {
    let mut origin = recording().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let smuggled = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    for target in [format!("origin.test:{port}"), "evil.test:443".to_owned()] {
        let head = connect_head(&target).replace(
            "\r\n\r\n",
            &format!("\r\nContent-Length: {}\r\n\r\n", smuggled.len()),
        );
        let mut client = proxy.connect().await;
        send(&mut client, format!("{head}{smuggled}").as_bytes()).await;
        let answers = read_to_end(&mut client).await;
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
        assert!(origin.is_untouched(), "{target}");
    }
}

#[tokio::test]
async fn a_fragment_leaves_no_empty_target_rfc9112_3_2_1() {
    let mut origin = recording().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    for (end, target) in [("#/", "/"), ("?q#f", "/?q"), ("/a#f", "/a"), ("", "/")] {
        proxy
            .ask(&format!(
                "GET http://origin.test:{port}{end} HTTP/1.1\r\nHost: x\r\n\r\n"
            ))
            .await;
        let seen = origin.received().await;
        let line = format!("GET {target} HTTP/1.1\r\n");
        assert!(seen.starts_with(&line), "{end}: {seen}");
    }
}
