use crate::harness::origin::Origin;
use crate::harness::{TestProxy, read_response, send};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What comes behind the authority, and the target that the origin is to read (RFC 9112 §3.2.4).
const TARGETS: [(&str, &str); 6] = [
    ("", "*"),
    ("/", "/"),
    ("/ok/x", "/ok/x"),
    ("", "*"),
    ("?q", "/?q"),
    ("/*", "/*"),
];

fn options(port: u16, end: &str) -> String {
    format!("OPTIONS http://origin.test:{port}{end} HTTP/1.1\r\nHost: x\r\n\r\n")
}

async fn is_asked(origin: &mut Origin, target: &str) {
    let seen = origin.received().await;
    let line = format!("OPTIONS {target} HTTP/1.1\r\n");
    assert!(seen.starts_with(&line), "{target}: {seen}");
}

#[tokio::test]
async fn options_of_a_uri_without_path_asks_the_server_itself_rfc9112_3_2_4() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for (end, target) in TARGETS {
        proxy.ask(&options(origin.port(), end)).await;
        is_asked(&mut origin, target).await;
    }
}

#[tokio::test]
async fn each_of_several_pipelined_options_keeps_its_own_target() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let all = TARGETS.map(|(end, _)| options(origin.port(), end));
    send(&mut client, all.concat().as_bytes()).await;
    for (_, target) in TARGETS {
        read_response(&mut client).await;
        is_asked(&mut origin, target).await;
    }
}

#[tokio::test]
async fn options_that_come_byte_by_byte_keep_their_target() {
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    client.set_nodelay(true).unwrap();
    for (end, target) in TARGETS {
        for byte in options(origin.port(), end).bytes() {
            send(&mut client, &[byte]).await;
        }
        read_response(&mut client).await;
        is_asked(&mut origin, target).await;
    }
}

#[tokio::test]
async fn a_rule_for_a_path_does_not_admit_options_of_the_server_itself() {
    let mut origin = Origin::answering(OK).await;
    let port = origin.port();
    let rule = format!("http://origin.test:{port}/ok/");
    let proxy = TestProxy::builder().allow(&rule).start().await;
    let mut client = proxy.connect().await;
    let both = options(port, "") + &options(port, "/ok/x");
    send(&mut client, both.as_bytes()).await;
    let refused = read_response(&mut client).await;
    assert!(refused.contains("path_not_allowed"), "{refused}");
    let answer = read_response(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    is_asked(&mut origin, "/ok/x").await;
    assert!(origin.is_untouched());
}
