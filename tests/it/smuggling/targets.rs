use super::{NO_HEAD, OK, is_refused};
use crate::harness::origin::Origin;
use crate::harness::watched::Watched;
use crate::harness::{TestProxy, field};

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
async fn the_host_field_gets_nobody_past_the_target_rfc9112_3_2_2() {
    let watched = Watched::start().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = watched.port();
    let answer = proxy
        .ask(&format!(
            "GET http://evil.test:{port}/ HTTP/1.1\r\nHost: origin.test:{port}\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    watched.is_untouched_by(&proxy, "evil.test").await;
    let mut origin = Origin::answering(OK).await;
    let port = origin.port();
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
    for line in [
        "GET http://origin.test:PORT/a b HTTP/1.1",
        "GET http://origin.test:PORT/a\rX-Split: yes HTTP/1.1",
        "GET http://origin.test:PORT/a\nX-Split: yes HTTP/1.1",
        "GET http://origin.test:PORT/a\r\n\r\nGET /smuggled HTTP/1.1",
        "GET http://origin.test:PORT/a\0b HTTP/1.1",
        "GET http://origin.test:PORT/a\tb HTTP/1.1",
        "GET http://origin.test:PORT/ HTTP/1.1  HTTP/1.1",
        "GET http://origin.test\rX:PORT/ HTTP/1.1",
        "GET http://origin.test\nX:PORT/ HTTP/1.1",
        "CONNECT origin.test:PORT\r\nX-Split: yes HTTP/1.1",
        "CONNECT origin.test:PORT\nX-Split: yes HTTP/1.1",
    ] {
        is_refused(line, &format!("{line}\r\nHost: x\r\n\r\n"), NO_HEAD).await;
    }
}

#[tokio::test]
async fn a_host_field_that_would_end_its_line_is_refused_rfc9112_3_2() {
    for host in ["x\ry", "x\r\0", "x\0y"] {
        let request = format!("GET http://origin.test:PORT/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
        is_refused(host, &request, NO_HEAD).await;
    }
}

#[tokio::test]
async fn a_fragment_leaves_no_empty_target_rfc9112_3_2_1() {
    let mut origin = Origin::answering(OK).await;
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
