use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::origin::{Origin, read_request};
use crate::harness::vacant::{Unanswering, Vacant};
use crate::harness::{
    TestProxy, any_port, connect_head, field, read_head, read_response, read_to_end, send, within,
};

const SHORT: Duration = Duration::from_millis(50);
/// Many times what a pause of `SHORT` becomes on a busy machine, and less than `PAUSES` of them.
const LONGER: Duration = Duration::from_secs(1);
const PAUSES: usize = 25;

#[tokio::test]
async fn over_the_connection_limit_a_client_is_told_to_retry() {
    let proxy = TestProxy::builder()
        .with(|config| config.max_connections = Some(2))
        .start()
        .await;
    let first = proxy.connect().await;
    let _second = proxy.connect().await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 2")
        .await;
    let answer = proxy.ask(&connect_head("origin.test:443")).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 egress failed: connection_limit\r\n"),
        "{answer}"
    );
    assert_eq!(field(&answer, "retry-after"), Some("1"));
    proxy
        .shows("outgate_connections_rejected_total{reason=\"connection_limit\"} 1")
        .await;
    // A place that is given back is taken again.
    drop(first);
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 1")
        .await;
    let answer = proxy.ask(&connect_head("origin.test:443")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn a_tunnel_keeps_its_place_until_it_ends() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.max_connections = Some(1))
        .start()
        .await;
    let tunnel = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    let answer = proxy.ask(&connect_head("origin.test:443")).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(tunnel);
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
}

#[tokio::test]
async fn one_client_cannot_have_more_than_its_share() {
    let proxy = TestProxy::builder()
        .with(|config| config.max_connections_per_client = Some(1))
        .start()
        .await;
    let _first = proxy.connect().await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 1")
        .await;
    let answer = proxy.ask(&connect_head("origin.test:443")).await;
    assert!(
        answer.starts_with("HTTP/1.1 429 egress failed: client_limit\r\n"),
        "{answer}"
    );
    assert_eq!(field(&answer, "retry-after"), Some("1"));
    proxy
        .shows("outgate_connections_rejected_total{reason=\"client_limit\"} 1")
        .await;
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_answered_408() {
    let proxy = TestProxy::builder()
        .with(|config| config.header_timeout = SHORT)
        .start()
        .await;
    let client = proxy.connect().await;
    is_late_with_its_head(&proxy, client).await;
}

/// Begins a head and says no more; how long it is then waited for.
async fn is_late_with_its_head(proxy: &TestProxy, mut client: TcpStream) -> Duration {
    let beginning = Instant::now();
    send(&mut client, b"GET http://origin.test/ HT").await;
    let answer = read_to_end(&mut client).await;
    let waited = beginning.elapsed();
    assert!(
        answer.starts_with("HTTP/1.1 408 egress failed: header_timeout\r\n"),
        "{answer}"
    );
    proxy
        .shows("outgate_connections_rejected_total{reason=\"header_timeout\"} 1")
        .await;
    waited
}

#[tokio::test]
async fn a_later_head_that_does_not_come_in_time_is_answered_408_as_well() {
    let proxy = TestProxy::builder()
        .with(|config| config.header_timeout = SHORT)
        .start()
        .await;
    let mut client = proxy.connect().await;
    send(
        &mut client,
        b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    let answer = read_response(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let waited = is_late_with_its_head(&proxy, client).await;
    // The gateway's clock is read in whole milliseconds.
    assert!(waited >= SHORT - Duration::from_millis(1));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_without_a_word_and_counted() {
    let proxy = TestProxy::builder()
        .with(|config| config.header_timeout = SHORT)
        .start()
        .await;
    let mut client = proxy.connect().await;
    assert_eq!(read_to_end(&mut client).await, "");
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    proxy
        .shows("outgate_connections_rejected_total{reason=\"header_timeout\"} 1")
        .await;
}

#[tokio::test]
async fn an_idle_kept_alive_client_is_closed_after_its_timeout_which_is_no_rejection() {
    let proxy = TestProxy::builder()
        .with(|config| config.keepalive_timeout = LONGER)
        .start()
        .await;
    let mut client = proxy.connect().await;
    // The second shows that the connection was kept behind the first.
    for _ in 0..2 {
        let request = b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n";
        send(&mut client, request).await;
        let answer = read_response(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    assert_eq!(read_to_end(&mut client).await, "");
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    let metrics = proxy.metrics().await;
    let rejected = "outgate_connections_rejected_total{reason=\"header_timeout\"}";
    assert!(!metrics.contains(rejected), "{metrics}");
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_a_504() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.response_timeout = SHORT)
        .start()
        .await;
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = proxy.ask(&request).await;
    assert!(
        answer.starts_with("HTTP/1.1 504 egress failed: response_timeout\r\n"),
        "{answer}"
    );
    proxy
        .shows("outgate_requests_total{kind=\"forward\",reason=\"response_timeout\",result=\"failed\",rule=\"origin.test:*\"} 1")
        .await;
}

#[tokio::test]
async fn an_upload_that_goes_on_is_no_silence_of_the_upstream() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_request(&mut stream).await;
        send(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.response_timeout = LONGER)
        .start()
        .await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let head = format!(
        "PUT http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {PAUSES}\r\n\r\n"
    );
    send(&mut client, head.as_bytes()).await;
    // In all longer than the timeout, each byte well within it.
    for _ in 0..PAUSES {
        tokio::time::sleep(SHORT).await;
        send(&mut client, b"x").await;
    }
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_tunnel_is_idle_only_when_neither_side_sends() {
    for by_client in [false, true] {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let target = format!("origin.test:{}", listener.local_addr().unwrap().port());
        let proxy = TestProxy::builder()
            .allow("origin.test:*")
            .with(|config| config.idle_timeout = LONGER)
            .start()
            .await;
        let (mut client, accepted) = tokio::join!(proxy.tunnel(&target), listener.accept());
        let mut upstream = accepted.unwrap().0;
        let (sender, receiver) = if by_client {
            (&mut client, &mut upstream)
        } else {
            (&mut upstream, &mut client)
        };
        // One-way traffic, longer in all than the timeout.
        for _ in 0..PAUSES {
            send(sender, b"x").await;
            within(receiver.read_exact(&mut [0])).await.unwrap();
            tokio::time::sleep(SHORT).await;
        }
        // And now nothing: it ends.
        for side in [sender, receiver] {
            assert!(within(side.read(&mut [0])).await.is_err(), "{by_client}");
        }
        proxy
            .shows("outgate_tunnels_closed_total{end=\"idle_timeout\"} 1")
            .await;
    }
}

#[tokio::test]
async fn a_tunnel_ends_at_its_greatest_age_however_busy() {
    let origin = Origin::echoing().await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.max_lifetime = Some(SHORT * 2))
        .start()
        .await;
    let opening = Instant::now();
    let mut client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    within(async {
        use tokio::io::AsyncWriteExt;
        while client.write_all(b"x").await.is_ok() && client.read_exact(&mut [0]).await.is_ok() {}
    })
    .await;
    assert!(opening.elapsed() >= SHORT * 2);
    proxy
        .shows("outgate_tunnels_closed_total{end=\"lifetime\"} 1")
        .await;
}

#[tokio::test]
async fn an_address_that_drops_packets_is_a_timeout() {
    let upstream = Unanswering::start().await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.connect_timeout = SHORT)
        .start()
        .await;
    let answer = proxy
        .ask(&connect_head(&format!("origin.test:{}", upstream.port())))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 504 egress failed: connection_timeout\r\n"),
        "{answer}"
    );
    proxy
        .shows("outgate_connect_duration_seconds_count{result=\"connection_timeout\"} 1")
        .await;
    proxy
        .shows("outgate_requests_total{kind=\"connect\",reason=\"connection_timeout\",result=\"failed\",rule=\"origin.test:*\"} 1")
        .await;
}

#[tokio::test]
async fn an_address_that_refuses_says_more_than_another_that_drops_packets() {
    let refusing = Vacant::take();
    let port = refusing.port();
    let _silent = Unanswering::at(([127, 0, 0, 2], port).into()).await;
    let proxy = TestProxy::builder()
        .allow("two.test:*")
        .host("127.0.0.1 two.test")
        .host("127.0.0.2 two.test")
        .with(|config| config.connect_timeout = SHORT * 10)
        .start()
        .await;
    let answer = proxy.ask(&connect_head(&format!("two.test:{port}"))).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: connection_refused\r\n"),
        "{answer}"
    );
}
