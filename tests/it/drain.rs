use std::time::{Duration, Instant};

use outgate::drain::Stop;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::harness::origin::Origin;
use crate::harness::{
    Builder, TestProxy, call, field, read_head, read_response, read_to_end, send, within,
};

async fn holding() -> Origin {
    Origin::scripted(|mut stream, _| async move {
        read_to_end(&mut stream).await;
    })
    .await
}

fn builder(delay: Duration, timeout: Duration) -> Builder {
    TestProxy::builder()
        .allow("origin.test:*")
        .with(move |config| {
            config.drain_delay = delay;
            config.drain_timeout = timeout;
        })
}

async fn becomes_unready(proxy: &TestProxy) {
    within(async {
        while !call(proxy.admin, "GET", "/readyz")
            .await
            .starts_with("HTTP/1.1 503 ")
        {}
    })
    .await;
}

#[tokio::test]
async fn readiness_goes_first_and_accepting_goes_on_for_the_delay() {
    let proxy = builder(Duration::from_secs(5), Duration::from_secs(5))
        .start()
        .await;
    assert!(
        call(proxy.admin, "GET", "/readyz")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    proxy.stop(Stop::Gently).await;
    becomes_unready(&proxy).await;
    assert!(
        call(proxy.admin, "GET", "/livez")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let answer = proxy
        .ask("GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    proxy.stop(Stop::Now).await;
    proxy.ended().await;
}

#[tokio::test]
async fn clients_leave_kept_alive_connections_while_new_ones_are_still_accepted() {
    let proxy = builder(Duration::from_secs(60), Duration::from_secs(60))
        .start()
        .await;
    let request = b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = proxy.connect().await;
    send(&mut client, request).await;
    let answer = read_response(&mut client).await;
    assert_eq!(field(&answer, "connection"), None);

    proxy.stop(Stop::Gently).await;
    becomes_unready(&proxy).await;
    send(&mut client, request).await;
    let answer = read_response(&mut client).await;
    assert_eq!(field(&answer, "connection"), Some("close"));
    assert_eq!(read_to_end(&mut client).await, "");
    assert!(TcpStream::connect(proxy.address).await.is_ok());
    proxy.stop(Stop::Now).await;
    proxy.ended().await;
}

#[tokio::test]
async fn with_nothing_open_the_drain_ends_at_once() {
    let proxy = builder(Duration::ZERO, Duration::from_secs(60))
        .start()
        .await;
    let address = proxy.address;
    proxy.stop(Stop::Gently).await;
    let drained = proxy.ended().await;
    assert_eq!(drained.tunnels_closed, 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_request_in_flight_is_answered_and_its_connection_closed() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_head(&mut stream).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
        send(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        .await;
    })
    .await;
    let proxy = builder(Duration::ZERO, Duration::from_secs(10))
        .start()
        .await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    origin.received().await;
    proxy.stop(Stop::Gently).await;
    let answer = read_response(&mut client).await;
    assert!(answer.ends_with("ok"), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
    assert_eq!(read_to_end(&mut client).await, "");
    assert_eq!(proxy.ended().await.connections_cut, 0);
}

const REFUSED: &str = "GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n";

/// What comes on idle connections of one client right before the end, more than its share, so that it waits for its turns,
/// is answered with this status.
async fn is_answered_at_the_end(came: &str, status: &str) {
    let proxy = builder(Duration::ZERO, Duration::from_secs(10))
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = proxy.connect().await;
        send(&mut client, REFUSED.as_bytes()).await;
        read_response(&mut client).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.try_write(came.as_bytes()).unwrap(), came.len());
    }
    proxy.stop(Stop::Gently).await;
    for client in &mut clients {
        let answer = read_response(client).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert_eq!(field(&answer, "connection"), Some("close"));
    }
    assert_eq!(proxy.ended().await.connections_cut, 0);
}

#[tokio::test]
async fn requests_that_came_before_the_end_are_all_answered() {
    is_answered_at_the_end(REFUSED, "403").await;
}

#[tokio::test]
async fn heads_that_had_begun_before_the_end_are_all_told_to_try_elsewhere() {
    is_answered_at_the_end("GET http://evil.test/ HT", "503").await;
}

#[tokio::test]
async fn an_accepted_connection_still_gets_its_first_request_answered() {
    let proxy = builder(Duration::ZERO, Duration::from_secs(10))
        .start()
        .await;
    let mut client = proxy.connect().await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 1")
        .await;
    proxy.stop(Stop::Gently).await;
    within(async { while TcpStream::connect(proxy.address).await.is_ok() {} }).await;
    send(
        &mut client,
        b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    let answer = read_response(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
    proxy.ended().await;
}

#[tokio::test]
async fn a_tunnel_that_ends_in_time_is_not_cut() {
    let origin = holding().await;
    let proxy = builder(Duration::ZERO, Duration::from_secs(60))
        .start()
        .await;
    let client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    proxy.stop(Stop::Gently).await;
    within(async { while TcpStream::connect(proxy.address).await.is_ok() {} }).await;
    proxy.shows("outgate_drain_tunnels_remaining 1").await;
    drop(client);
    assert_eq!(proxy.ended().await.tunnels_closed, 0);
}

#[tokio::test]
async fn tunnels_left_are_closed_one_by_one_before_the_deadline() {
    let origin = holding().await;
    // The last quarter is two seconds, so that a machine that stands still for one closes only some at once.
    let timeout = Duration::from_secs(8);
    let proxy = builder(Duration::ZERO, timeout).start().await;
    let mut closings = Vec::new();
    for _ in 0..8 {
        let mut client = proxy
            .tunnel(&format!("origin.test:{}", origin.port()))
            .await;
        closings.push(tokio::spawn(async move {
            let _ = client.read(&mut [0]).await;
            Instant::now()
        }));
    }
    let started = Instant::now();
    proxy.stop(Stop::Gently).await;
    let drained = proxy.ended().await;
    assert_eq!(drained.tunnels_closed, 8);
    assert_eq!(drained.connections_cut, 0);
    let mut times = Vec::new();
    for closing in closings {
        times.push(within(closing).await.unwrap() - started);
    }
    times.sort();
    assert!(times[0] >= timeout / 2, "closed early: {times:?}");
    assert!(
        times[7] - times[0] >= Duration::from_millis(100),
        "all at once: {times:?}"
    );
}

#[tokio::test]
async fn a_head_that_is_not_whole_when_the_grace_is_over_is_told_to_try_elsewhere() {
    let proxy = builder(Duration::ZERO, Duration::from_secs(10))
        .start()
        .await;
    let mut client = proxy.connect().await;
    send(&mut client, b"GET http://evil.test/ HT").await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 1")
        .await;
    proxy.stop(Stop::Gently).await;
    let answer = read_to_end(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 egress failed: draining\r\n"),
        "{answer}"
    );
    assert_eq!(field(&answer, "retry-after"), Some("1"));
    proxy.ended().await;
}
