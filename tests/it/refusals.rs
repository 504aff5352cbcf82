use tokio::io::AsyncReadExt;

use crate::harness::origin::Origin;
use crate::harness::vacant::Vacant;
use crate::harness::watched::Watched;
use crate::harness::{
    TestProxy, connect_head, field, read_head, read_response, read_to_end, send, within,
};

#[tokio::test]
async fn an_empty_allowlist_denies_everything() {
    let proxy = TestProxy::builder().start().await;
    let answer = proxy.ask(&connect_head("origin.test:443")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 egress denied: host_not_allowed\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_refusal_says_why_in_phrase_field_and_content() {
    let proxy = TestProxy::builder().allow("origin.test").start().await;
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (request, label, target) in [
        (
            connect_head("evil.test:443"),
            "host_not_allowed",
            "evil.test:443",
        ),
        (
            connect_head("origin.test:22"),
            "port_not_allowed",
            "origin.test:22",
        ),
        (
            "GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "host_not_allowed",
            "evil.test:80",
        ),
    ] {
        let request = request.replacen("\r\n", &format!("\r\n{trace}\r\n"), 1);
        let answer = proxy.ask(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 403 egress denied: {label}\r\n")),
            "{answer}"
        );
        let status = format!("outgate; error=http_request_denied; details=\"{label}\"");
        assert_eq!(field(&answer, "proxy-status"), Some(&*status));
        assert_eq!(field(&answer, "content-type"), Some("application/json"));
        let content = answer.split_once("\r\n\r\n").unwrap().1;
        let content: serde_json::Value = serde_json::from_str(content).unwrap();
        assert_eq!(content["error"], label);
        assert_eq!(content["target"], target);
        assert_eq!(content["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert!(
            content["message"]
                .as_str()
                .unwrap()
                .contains("owners of the gateway")
        );
    }
}

#[tokio::test]
async fn deny_wins_over_allow() {
    let proxy = TestProxy::builder()
        .allow("*.origin.test:*")
        .deny("a.origin.test")
        .start()
        .await;
    let answer = proxy.ask(&connect_head("a.origin.test:443")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 egress denied: host_not_allowed\r\n"),
        "{answer}"
    );
    proxy
        .shows("outgate_requests_total{kind=\"connect\",reason=\"host_not_allowed\",result=\"denied\",rule=\"a.origin.test\"} 1")
        .await;
}

#[tokio::test]
async fn no_spelling_of_a_denied_host_gets_round_the_rule() {
    let proxy = TestProxy::builder()
        .allow("*.test:*")
        .deny("evil.origin.test")
        .start()
        .await;
    for spelling in ["EVIL.origin.test", "evil.origin.test.", "Evil.Origin.TEST."] {
        let answer = proxy.ask(&connect_head(&format!("{spelling}:443"))).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{spelling}: {answer}");
    }
}

#[tokio::test]
async fn a_private_address_is_refused_in_every_spelling() {
    // An allow rule for a range names literals; a name that resolves there is another matter.
    let proxy = TestProxy::builder()
        .allow("*.test:*")
        .host("10.1.2.3 private.test\n169.254.169.254 metadata.test\n::ffff:10.0.0.1 mapped.test")
        .with(|config| config.allow_addresses.clear())
        .start()
        .await;
    for name in [
        "private.test",
        "metadata.test",
        "mapped.test",
        "origin.test",
    ] {
        let answer = proxy.ask(&connect_head(&format!("{name}:443"))).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 egress denied: address_prohibited\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains("error=destination_ip_prohibited"),
            "{answer}"
        );
        assert!(
            !answer.contains("10.") && !answer.contains("169."),
            "{answer}"
        );
    }
    for literal in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        let answer = proxy.ask(&connect_head(&format!("{literal}:443"))).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 egress denied: host_not_allowed\r\n"),
            "{literal}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_range_rule_opens_its_addresses_and_their_ports() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = TestProxy::builder()
        .allow(&format!("127.0.0.0/8:{}", origin.port()))
        .with(|config| config.allow_addresses.clear())
        .start()
        .await;
    proxy.tunnel(&format!("127.0.0.1:{}", origin.port())).await;
    proxy.tunnel(&format!("0x7f.1:{}", origin.port())).await;
    let answer = proxy.ask(&connect_head("127.0.0.1:1")).await;
    assert!(answer.contains("port_not_allowed"), "{answer}");
}

#[tokio::test]
async fn denied_addresses_are_never_dialled_whatever_allows_them() {
    let origin = Origin::answering("").await;
    let proxy = TestProxy::builder()
        .allow("127.0.0.0/8:*")
        .allow("origin.test:*")
        .with(|config| config.deny_addresses = vec!["127.0.0.1/32".parse().unwrap()])
        .start()
        .await;
    for host in ["127.0.0.1", "origin.test"] {
        let answer = proxy
            .ask(&connect_head(&format!("{host}:{}", origin.port())))
            .await;
        assert!(answer.contains("address_prohibited"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_for_the_gateway_itself_is_a_loop() {
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .allow("127.0.0.0/8:*")
        .start()
        .await;
    for port in [
        proxy.address.port(),
        proxy.admin.port(),
        proxy.inspect.port(),
    ] {
        for host in ["origin.test", "127.0.0.1", "127.0.0.2"] {
            let answer = proxy.ask(&connect_head(&format!("{host}:{port}"))).await;
            assert!(
                answer.starts_with("HTTP/1.1 502 egress denied: loop_detected\r\n"),
                "{answer}"
            );
            assert!(answer.contains("error=proxy_loop_detected"), "{answer}");
        }
    }
}

#[tokio::test]
async fn nothing_listening_is_told_from_not_allowed() {
    let taken = Vacant::take();
    let vacant = taken.port();
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let answer = proxy
        .ask(&connect_head(&format!("origin.test:{vacant}")))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: connection_refused\r\n"),
        "{answer}"
    );
    assert!(answer.contains("error=connection_refused"), "{answer}");
    assert!(
        !answer.contains("127.0.0.1") && !answer.contains("os error"),
        "{answer}"
    );
    let request = format!("GET http://origin.test:{vacant}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = proxy.ask(&request).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: connection_refused\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_plain_refusal_keeps_the_connection() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(
        &mut client,
        b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    assert!(
        read_response(&mut client)
            .await
            .starts_with("HTTP/1.1 403 ")
    );
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    assert!(read_response(&mut client).await.ends_with("ok"));
}

#[tokio::test]
async fn tunnel_data_behind_a_refused_connect_is_never_read_as_a_request() {
    let origin = Watched::start().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let smuggled = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(
        &mut client,
        format!("{}{smuggled}", connect_head("evil.test:443")).as_bytes(),
    )
    .await;
    let answer = read_response(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
    assert_eq!(read_to_end(&mut client).await, "");
    origin.is_untouched_by(&proxy, &smuggled).await;
}

#[tokio::test]
async fn a_refused_client_that_is_still_uploading_can_read_why() {
    let proxy = TestProxy::builder().start().await;
    let mut client = proxy.connect().await;
    let head = "PUT http://evil.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n";
    send(&mut client, head.as_bytes()).await;
    let (mut reading, mut writing) = client.into_split();
    let upload = tokio::spawn(async move {
        while tokio::io::AsyncWriteExt::write_all(&mut writing, &[0; 8192])
            .await
            .is_ok()
        {}
    });
    let mut answer = [0; 64];
    within(reading.read_exact(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 403 egress denied: host_not_allowed\r\n"));
    drop(reading);
    within(upload).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_protocol_error() {
    let origin = Origin::answering("SSH-2.0-OpenSSH_9.2\r\n").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = proxy.ask(&request).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: protocol_error\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_upstream_that_closes_without_an_answer_is_a_reset() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_head(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = proxy.ask(&request).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: connection_reset\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_path_rule_lets_through_only_what_is_below_it() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let port = origin.port();
    let rule = format!("http://origin.test:{port}/v1/");
    let proxy = TestProxy::builder().allow(&rule).start().await;
    let ask =
        |path: &str| format!("GET http://origin.test:{port}{path} HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(proxy.ask(&ask("/v1/ok")).await.starts_with("HTTP/1.1 200 "));
    for path in [
        "/v2/",
        "/v1/../v2/",
        "/v1/%2e%2e/v2/",
        "/v10/",
        "/v1%2f..%2fv2",
    ] {
        let answer = proxy.ask(&ask(path)).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 egress denied: path_not_allowed\r\n"),
            "{path}: {answer}"
        );
    }
    let answer = proxy
        .ask(&connect_head(&format!("origin.test:{port}")))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 403 egress denied: method_not_allowed\r\n"),
        "{answer}"
    );
}
