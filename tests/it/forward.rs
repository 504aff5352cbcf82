use std::fmt::Write;

use tokio::io::AsyncWriteExt;

use crate::harness::origin::{Origin, read_request};
use crate::harness::{TestProxy, field, read_head, read_response, read_to_end, send, within};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn an_absolute_form_request_arrives_in_origin_form_rfc9112_3_2_2() {
    let mut origin = Origin::answering(HELLO).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let response = proxy
        .ask(&format!(
            "GET http://Origin.TEST:{port}/a%20b?c=%64 HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n"
        ))
        .await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nhello"), "{response}");
    let seen = origin.received().await;
    // Path and query untouched (RFC 9110 §7.7), Host made again from the target.
    assert!(seen.starts_with("GET /a%20b?c=%64 HTTP/1.1\r\n"), "{seen}");
    assert_eq!(field(&seen, "host"), Some(&*format!("origin.test:{port}")));
    assert!(!seen.contains("elsewhere"), "{seen}");
}

#[tokio::test]
async fn any_method_passes_even_one_nobody_registered() {
    let mut origin = Origin::answering(HELLO).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "PROPFIND", "BREW"] {
        let port = origin.port();
        let request = format!("{method} http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(proxy.ask(&request).await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(
            origin
                .received()
                .await
                .starts_with(&format!("{method} / HTTP/1.1\r\n"))
        );
    }
}

#[tokio::test]
async fn the_phrase_of_the_upstream_reaches_the_client() {
    let origin = Origin::answering("HTTP/1.1 404 Nothing Here\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let response = proxy.ask(&get(origin.port())).await;
    assert!(
        response.starts_with("HTTP/1.1 404 Nothing Here\r\n"),
        "{response}"
    );
}

#[tokio::test]
async fn an_upload_streams_before_it_is_complete() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_head(&mut stream).await);
        let mut first = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first)
            .await
            .unwrap();
        let _ = seen.send(String::from_utf8_lossy(&first).into_owned());
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first)
            .await
            .unwrap();
        send(&mut stream, HELLO.as_bytes()).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let head = format!(
        "PUT http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst"
    );
    send(&mut client, head.as_bytes()).await;
    assert_eq!(
        field(&origin.received().await, "content-length"),
        Some("10")
    );
    // The first half has arrived although the second was not sent yet.
    assert_eq!(origin.received().await, "first");
    send(&mut client, b"later").await;
    assert!(read_response(&mut client).await.ends_with("hello"));
}

#[tokio::test]
async fn a_response_streams_before_it_is_complete() {
    let origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_head(&mut stream).await);
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        )
        .await;
        // The rest comes only when the client has the first part.
        let _ = seen.send(read_head(&mut stream).await);
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port()).as_bytes()).await;
    let head = read_head(&mut client).await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    let mut chunk = [0; 8];
    within(tokio::io::AsyncReadExt::read_exact(&mut client, &mut chunk))
        .await
        .unwrap();
    assert_eq!(&chunk, b"3\r\none\r\n");
}

#[tokio::test]
async fn trailers_pass_in_both_directions_and_stay_trailers_rfc9110_6_5_1() {
    let mut origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         3\r\none\r\n0\r\nX-Sum: 42\r\n\r\n",
    )
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let request = format!(
        "POST http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\n\
         Trailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Check: 7\r\n\r\n",
        origin.port()
    );
    send(&mut client, request.as_bytes()).await;
    let seen = origin.received().await;
    assert!(
        seen.ends_with("3\r\nabc\r\n0\r\nx-check: 7\r\n\r\n"),
        "{seen}"
    );
    let head = read_head(&mut client).await;
    assert_eq!(field(&head, "trailer"), Some("X-Sum"));
    let mut content = String::new();
    while !content.ends_with("\r\n\r\n") {
        content.push(
            within(tokio::io::AsyncReadExt::read_u8(&mut client))
                .await
                .unwrap()
                .into(),
        );
    }
    assert_eq!(content, "3\r\none\r\n0\r\nx-sum: 42\r\n\r\n");
}

#[tokio::test]
async fn content_is_asked_for_only_when_the_upstream_says_continue_rfc9110_10_1_1() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_head(&mut stream).await);
        send(&mut stream, b"HTTP/1.1 100 Continue\r\n\r\n").await;
        let mut content = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut content)
            .await
            .unwrap();
        let _ = seen.send(String::from_utf8_lossy(&content).into_owned());
        send(&mut stream, HELLO.as_bytes()).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, expecting(origin.port()).as_bytes()).await;
    assert_eq!(
        field(&origin.received().await, "expect"),
        Some("100-continue")
    );
    assert_eq!(
        read_head(&mut client).await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    send(&mut client, b"data").await;
    assert_eq!(origin.received().await, "data");
    assert!(read_response(&mut client).await.ends_with("hello"));
}

#[tokio::test]
async fn an_upstream_that_refuses_at_once_spares_the_client_its_upload_rfc9110_10_1_1() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, expecting(origin.port()).as_bytes()).await;
    // No 100 before it.
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_refused_client_is_not_asked_for_its_content() {
    let proxy = TestProxy::builder().start().await;
    let mut client = proxy.connect().await;
    send(&mut client, expecting(80).as_bytes()).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn an_upstream_that_ignores_the_expectation_gets_the_content_all_the_same() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_request(&mut stream).await.unwrap());
        send(&mut stream, HELLO.as_bytes()).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, expecting(origin.port()).as_bytes()).await;
    assert_eq!(
        read_head(&mut client).await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    send(&mut client, b"data").await;
    assert!(origin.received().await.ends_with("\r\n\r\ndata"));
    assert!(read_response(&mut client).await.ends_with("hello"));
}

#[tokio::test]
async fn an_http_1_0_client_gets_content_of_unknown_length_to_the_close() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
    )
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let request = format!("GET http://origin.test:{}/ HTTP/1.0\r\n\r\n", origin.port());
    send(&mut client, request.as_bytes()).await;
    let response = read_to_end(&mut client).await;
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nonetwo"), "{response}");
    assert_eq!(field(&response, "transfer-encoding"), None);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        while let Some(request) = read_request(&mut stream).await {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            let _ = seen.send(path.clone());
            let length = path.len();
            send(
                &mut stream,
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}").as_bytes(),
            )
            .await;
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let mut requests = String::new();
    for number in 0..20 {
        let port = origin.port();
        write!(
            requests,
            "GET http://origin.test:{port}/{number} HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        .unwrap();
    }
    send(&mut client, requests.as_bytes()).await;
    for number in 0..20 {
        assert!(
            read_response(&mut client)
                .await
                .ends_with(&format!("\r\n\r\n/{number}"))
        );
        assert_eq!(origin.received().await, format!("/{number}"));
    }
    proxy
        .shows("outgate_connections_total{listener=\"proxy\"} 1")
        .await;
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_the_response_rfc9112_9_6() {
    let origin = Origin::answering(HELLO).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port()).as_bytes()).await;
    client.shutdown().await.unwrap();
    assert!(read_to_end(&mut client).await.ends_with("hello"));
}

#[tokio::test]
async fn a_response_cut_short_is_a_broken_one_for_the_client_too() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        )
        .await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port()).as_bytes()).await;
    let response = read_to_end(&mut client).await;
    assert_eq!(field(&response, "content-length"), Some("10"));
    assert!(
        !response.ends_with("\r\n\r\n"),
        "nothing of the content came"
    );
    proxy
        .shows(
            "outgate_requests_total{kind=\"forward\",reason=\"response_incomplete\",result=\"failed\",rule=\"origin.test:*\"} 1",
        )
        .await;
}

#[tokio::test]
async fn a_head_response_keeps_its_length_and_has_no_content() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let request = format!(
        "HEAD http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    );
    send(&mut client, request.as_bytes()).await;
    assert_eq!(
        field(&read_head(&mut client).await, "content-length"),
        Some("1234")
    );
    // The connection is still in step.
    send(&mut client, request.as_bytes()).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
}

fn get(port: u16) -> String {
    format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn expecting(port: u16) -> String {
    format!(
        "PUT http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
         Content-Length: 4\r\n\r\n"
    )
}
