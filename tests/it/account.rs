use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::dns::{Answer, DnsServer};
use crate::harness::origin::Origin;
use crate::harness::{
    TestProxy, connect_head, read_head, read_response, read_to_end, send, within,
};

#[tokio::test]
async fn a_request_whose_client_goes_away_is_accounted_once() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let _ = seen.send(read_head(&mut stream).await);
        read_to_end(&mut stream).await;
        let _ = seen.send("upstream connection closed".to_owned());
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.response_timeout = Duration::from_secs(60))
        .start()
        .await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    origin.received().await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(origin.received().await, "upstream connection closed");
    proxy
        .shows("outgate_requests_total{kind=\"forward\",reason=\"client_closed\",result=\"failed\",rule=\"origin.test:*\"} 1")
        .await;
    proxy
        .shows("outgate_pool_connections{state=\"busy\"} 0")
        .await;
}

#[tokio::test]
async fn a_request_that_is_read_together_with_the_reset_behind_it_is_accounted() {
    const REQUESTS: usize = 50;
    let proxy = TestProxy::builder().start().await;
    for _ in 0..REQUESTS {
        let mut client = proxy.connect().await;
        let request = b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n";
        send(&mut client, request).await;
        client.set_zero_linger().unwrap();
    }
    proxy
        .shows(&format!(
            "outgate_connections_total{{listener=\"proxy\"}} {REQUESTS}"
        ))
        .await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    let metrics = proxy.metrics().await;
    let counts = metrics.lines().filter_map(|line| {
        let count = line.strip_prefix("outgate_requests_total{kind=\"forward\",")?;
        count.rsplit(' ').next()?.parse::<usize>().ok()
    });
    assert_eq!(counts.sum::<usize>(), REQUESTS, "{metrics}");
}

#[tokio::test]
async fn bulk_is_counted_while_its_tunnel_is_open() {
    // So much that it leaves the buffers for pipes.
    const BYTES: usize = 4 * 1024 * 1024;
    let origin = Origin::echoing().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let target = format!("origin.test:{}", origin.port());
    let (mut reading, mut writing) = proxy.tunnel(&target).await.into_split();
    let sending = tokio::spawn(async move {
        writing.write_all(&vec![7; BYTES]).await.unwrap();
        writing
    });
    let mut received = vec![0; BYTES];
    within(reading.read_exact(&mut received)).await.unwrap();
    let _open = within(sending).await.unwrap();
    for direction in ["client_to_upstream", "upstream_to_client"] {
        let series = format!(
            "outgate_copied_bytes_total{{direction=\"{direction}\",kind=\"connect\",rule=\"origin.test:*\"}}"
        );
        proxy.shows(&format!("{series} {BYTES}")).await;
    }
    proxy.shows("outgate_tunnels_active 1").await;
}

#[tokio::test]
async fn a_thousand_destinations_under_one_wildcard_add_no_series() {
    let loopback = |_: &_, _| Answer::Addresses(vec![[127, 0, 0, 1].into()], 60);
    let server = DnsServer::start(loopback).await;
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let port = origin.port();
    let proxy = TestProxy::builder()
        .allow("*.origin.test:*")
        .with(|config| config.dns_servers = vec![server.address])
        .start()
        .await;
    let visit = async |host: &str| {
        let target = format!("{host}.origin.test:{port}");
        let request = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
        assert!(proxy.ask(&request).await.ends_with("ok"));
        let mut tunnel = proxy.tunnel(&target).await;
        send(&mut tunnel, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(read_response(&mut tunnel).await.ends_with("ok"));
        drop(tunnel);
        proxy.shows("outgate_tunnels_active 0").await;
    };
    let series = async || {
        let metrics = proxy.metrics().await;
        metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    visit("first").await;
    let before = series().await;
    for number in 0..1000 {
        visit(&format!("host{number}")).await;
    }
    proxy
        .shows("outgate_requests_total{kind=\"connect\",reason=\"ok\",result=\"allowed\",rule=\"*.origin.test:*\"} 1001")
        .await;
    assert_eq!(series().await, before);
}

#[tokio::test]
async fn a_refusal_counts_as_denied_and_a_failure_as_failed() {
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    proxy.ask(&connect_head("evil.test:443")).await;
    proxy.ask(&connect_head("origin.test:9")).await;
    proxy
        .shows("outgate_requests_total{kind=\"connect\",reason=\"host_not_allowed\",result=\"denied\",rule=\"\"} 1")
        .await;
    proxy
        .shows("outgate_requests_total{kind=\"connect\",reason=\"connection_refused\",result=\"failed\",rule=\"origin.test:*\"} 1")
        .await;
    proxy
        .shows("outgate_request_duration_seconds_count{kind=\"connect\",result=\"denied\"} 1")
        .await;
    proxy
        .shows("outgate_connect_duration_seconds_count{result=\"connection_refused\"} 1")
        .await;
}
