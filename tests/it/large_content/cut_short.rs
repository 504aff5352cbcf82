use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use outgate::config::Config;
use outgate::drain::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::{HUGE, LARGE, content, get, head, origin, reads};
use crate::harness::origin::{Origin, read_request};
use crate::harness::{PATIENCE, TestProxy, failed, read_head, read_to_end, send, within};

/// A client that has asked for huge content, and has read the head of the response.
async fn under_way(change: impl FnOnce(&mut Config)) -> (TestProxy, TcpStream, u16) {
    let (origin, _) = origin(0).await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(change)
        .start()
        .await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port(), HUGE).as_bytes()).await;
    read_head(&mut client).await;
    (proxy, client, origin.port())
}

#[tokio::test]
async fn it_breaks_off_where_the_upstream_does() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_request(&mut stream).await;
        send(&mut stream, head(2 * LARGE).as_bytes()).await;
        send(&mut stream, &content(LARGE)).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port(), 0).as_bytes()).await;
    read_head(&mut client).await;
    let mut seen = Vec::new();
    within(client.read_to_end(&mut seen)).await.unwrap();
    assert!(seen == content(LARGE), "{} bytes", seen.len());
    proxy.shows(&failed("response_incomplete")).await;
}

#[tokio::test]
async fn a_client_that_resets_within_it_takes_the_upstream_along() {
    let gone = Arc::new(Notify::new());
    let is_gone = Arc::clone(&gone);
    let origin = Origin::scripted(move |mut stream, _| {
        let gone = Arc::clone(&gone);
        async move {
            read_request(&mut stream).await;
            send(&mut stream, head(HUGE).as_bytes()).await;
            assert!(stream.write_all(&content(HUGE)).await.is_err());
            gone.notify_one();
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port(), HUGE).as_bytes()).await;
    read_head(&mut client).await;
    client.set_zero_linger().unwrap();
    drop(client);
    within(is_gone.notified()).await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    proxy
        .shows("outgate_pool_connections{state=\"busy\"} 0")
        .await;
}

#[tokio::test]
async fn it_is_given_up_when_the_client_takes_nothing() {
    let (origin, _) = origin(0).await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.response_timeout = Duration::from_millis(400))
        .start()
        .await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port(), HUGE).as_bytes()).await;
    proxy.shows(&failed("content_timeout")).await;
    let error = within(client.read_to_end(&mut Vec::new()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn it_is_given_up_when_the_upstream_sends_nothing() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_request(&mut stream).await;
        send(&mut stream, head(2 * LARGE).as_bytes()).await;
        send(&mut stream, &content(LARGE)).await;
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.idle_timeout = Duration::from_millis(400))
        .start()
        .await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port(), 0).as_bytes()).await;
    let read = within(client.read_to_end(&mut Vec::new())).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.shows(&failed("response_timeout")).await;
}

#[tokio::test]
async fn a_client_may_take_all_the_time_it_needs_as_long_as_it_takes_something() {
    let (_proxy, mut client, port) = under_way(|config| {
        config.response_timeout = Duration::from_millis(400);
        config.keepalive_timeout = PATIENCE;
    })
    .await;
    let mut seen = vec![0; HUGE];
    for piece in seen.chunks_mut(HUGE / 8) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        within(client.read_exact(piece)).await.unwrap();
    }
    assert!(seen == content(HUGE));
    send(&mut client, get(port, 5).as_bytes()).await;
    reads(&mut client, 5).await;
}

#[tokio::test]
async fn a_drain_lets_it_end_and_then_the_connection() {
    let (proxy, mut client, _) = under_way(|config| {
        config.drain_delay = Duration::ZERO;
        config.drain_timeout = PATIENCE;
    })
    .await;
    proxy.stop(Stop::Gently).await;
    // Nothing is accepted any more when its listener is gone.
    within(async { while TcpStream::connect(proxy.address).await.is_ok() {} }).await;
    let mut seen = vec![0; HUGE];
    within(client.read_exact(&mut seen)).await.unwrap();
    assert!(seen == content(HUGE));
    assert_eq!(read_to_end(&mut client).await, "");
    proxy.ended().await;
}

#[tokio::test]
async fn the_end_of_a_drain_cuts_it_off() {
    let (proxy, mut client, _) = under_way(|config| {
        config.drain_delay = Duration::ZERO;
        config.drain_timeout = Duration::from_millis(300);
    })
    .await;
    proxy.stop(Stop::Gently).await;
    proxy.ended().await;
    let mut seen = Vec::new();
    let _ = within(client.read_to_end(&mut seen)).await;
    assert!(seen.len() < HUGE);
}
