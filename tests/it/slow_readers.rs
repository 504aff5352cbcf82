use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, read_response, read_to_end, send, within};

/// More than any kernel buffer has left when it is full, and less than the gateway holds back.
const LENGTH: usize = 200_000;

#[tokio::test]
async fn a_client_that_begins_a_head_and_reads_nothing_gives_its_place_back() {
    let content = "x".repeat(LENGTH);
    let response: &'static str =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{content}").leak();
    let origin = Origin::answering(response).await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.response_timeout = Duration::from_millis(600))
        .start()
        .await;
    let request = format!(
        "GET http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    );
    let (mut client, _) = with_its_tail_at_the_gateway(&proxy, &request, Some(4096)).await;
    send(&mut client, b"GET http://ori").await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
}

#[tokio::test]
async fn a_client_that_pauses_longer_than_the_keep_alive_timeout_gets_its_answers_whole() {
    const KEEP_ALIVE: Duration = Duration::from_millis(300);
    let content = "x".repeat(LENGTH);
    let response: &'static str =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{content}").leak();
    let origin = Origin::answering(response).await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.keepalive_timeout = KEEP_ALIVE)
        .start()
        .await;
    let request = format!(
        "GET http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    );
    let (mut client, asked) = with_its_tail_at_the_gateway(&proxy, &request, None).await;
    // All are over, and the tail of the last one is with the gateway.
    tokio::time::sleep(KEEP_ALIVE * 3).await;
    for _ in 0..asked {
        assert!(read_response(&mut client).await.ends_with(&content));
    }
    assert_eq!(read_to_end(&mut client).await, "");
}

/// A client that has asked so often that the last bytes of its last response have no room in any socket.
///
/// A first one finds out how many responses that takes.
async fn with_its_tail_at_the_gateway(
    proxy: &TestProxy,
    request: &str,
    window: Option<u32>,
) -> (TcpStream, usize) {
    let (mut over, mut fit) = (0, 1000);
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(window) = window {
            socket.set_recv_buffer_size(window).unwrap();
        }
        let mut client = within(socket.connect(proxy.address)).await.unwrap();
        let served = ask_without_reading(proxy, &mut client, request, fit, over).await;
        over += served;
        if served == fit {
            return (client, fit);
        }
        fit = served;
    }
}

/// Sends a request when the one before is over, until one is not; tells how many were.
async fn ask_without_reading(
    proxy: &TestProxy,
    client: &mut TcpStream,
    request: &str,
    most: usize,
    over_before: usize,
) -> usize {
    for served in 0..most {
        send(client, request.as_bytes()).await;
        if !are_over(proxy, over_before + served + 1).await {
            return served;
        }
    }
    most
}

/// Whether so many requests are over within half a second.
async fn are_over(proxy: &TestProxy, requests: usize) -> bool {
    let line = format!(
        "outgate_request_duration_seconds_count{{kind=\"forward\",result=\"allowed\"}} {requests}"
    );
    let seen = async {
        while !proxy.metrics().await.lines().any(|seen| seen == line) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_millis(500), seen)
        .await
        .is_ok()
}
