use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, connect_head, read_head, send, within};

/// Requests of a busy client, of 200 and of 1,000, or messages, of 300, that may go before the other's. Without turns it is
/// all 200, 242, and all 300.
const MOST_BEFORE: usize = 80;

/// Counts again where another client's went before: once in a thousand, by a secret of the gateway's, two clients are one to it.
async fn few_go_before<F: Future<Output = usize>>(count: impl Fn() -> F) {
    let mut before = count().await;
    if before >= MOST_BEFORE {
        before = count().await;
    }
    assert!(
        before < MOST_BEFORE,
        "{before} of the other client went before"
    );
}

#[tokio::test]
async fn a_request_passes_those_of_another_client_beyond_its_share() {
    few_go_before(requests_before_the_last).await;
}

async fn requests_before_the_last() -> usize {
    const BUSY: usize = 200;
    let mut origin = Origin::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let clients = connect(&proxy, BUSY).await;
    let all = clients.len();
    // The gateway shares this thread, so it learns of all of them at once, in this order.
    for (mut client, number) in clients.iter().zip(0..) {
        let port = origin.port();
        let head = format!("GET http://origin.test:{port}/{number} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
    }
    let last = format!("GET /{BUSY} ");
    let mut before = 0;
    while !origin.received().await.starts_with(&last) {
        before += 1;
    }
    // Nobody is left waiting.
    for _ in before + 1..all {
        origin.received().await;
    }
    before
}

/// So many connections of one client, and one of another.
async fn connect(proxy: &TestProxy, busy: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..busy {
        clients.push(proxy.connect().await.into_std().unwrap());
    }
    clients.push(proxy.connect_from([0, 2]).await.into_std().unwrap());
    let all = busy + 1;
    proxy
        .shows(&format!(
            "outgate_connections_active{{listener=\"proxy\"}} {all}"
        ))
        .await;
    clients
}

#[tokio::test]
async fn a_message_in_a_tunnel_passes_those_of_another_client_beyond_its_share() {
    few_go_before(messages_before_the_last).await;
}

async fn messages_before_the_last() -> usize {
    const BUSY: usize = 300;
    let origin = Origin::echoing().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let clients = connect(&proxy, BUSY).await;
    let head = connect_head(&format!("origin.test:{}", origin.port()));
    let mut tunnels = Vec::new();
    for client in clients {
        let mut tunnel = tokio::net::TcpStream::from_std(client).unwrap();
        send(&mut tunnel, head.as_bytes()).await;
        assert!(read_head(&mut tunnel).await.starts_with("HTTP/1.1 200 "));
        tunnels.push(tunnel.into_std().unwrap());
    }
    for mut tunnel in &tunnels {
        tunnel.write_all(b"ping").unwrap();
    }
    let mut last = tokio::net::TcpStream::from_std(tunnels.pop().unwrap()).unwrap();
    within(last.read_exact(&mut [0; 4])).await.unwrap();
    // The gateway is at rest while this thread counts.
    let came = |mut tunnel: &TcpStream| tunnel.read(&mut [0; 4]).is_ok();
    let (before, behind): (Vec<_>, Vec<_>) = tunnels.into_iter().partition(came);
    // Nobody is left waiting.
    for tunnel in behind {
        let mut tunnel = tokio::net::TcpStream::from_std(tunnel).unwrap();
        within(tunnel.read_exact(&mut [0; 4])).await.unwrap();
    }
    before.len()
}

#[tokio::test]
async fn a_refusal_passes_those_of_another_client_that_asked_for_many_at_once() {
    few_go_before(refusals_before_the_last).await;
}

async fn refusals_before_the_last() -> usize {
    const BUSY: usize = 50;
    const AT_ONCE: usize = 20;
    let proxy = TestProxy::builder().start().await;
    let mut clients = connect(&proxy, BUSY).await;
    let head = "GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n";
    for (client, number) in clients.iter_mut().zip(0..) {
        let heads = head.repeat(if number == BUSY { 1 } else { AT_ONCE });
        client.write_all(heads.as_bytes()).unwrap();
    }
    let last = clients.pop().unwrap();
    let mut last = tokio::net::TcpStream::from_std(last).unwrap();
    within(read_head(&mut last)).await;
    // The gateway is at rest while this thread counts.
    let mut before = 0;
    for client in &mut clients {
        let mut answers = Vec::new();
        // All there is by now; an error says that there will be more.
        let _ = client.read_to_end(&mut answers);
        let answers = String::from_utf8(answers).unwrap();
        before += answers.matches("HTTP/1.1 403 ").count();
    }
    before
}

/// All heads come whole in the very moment in which their time is over, and more of them than the client's share.
#[tokio::test]
async fn a_head_that_came_in_time_and_waits_for_its_turn_is_not_late() {
    const BUSY: usize = 200;
    const TIME: Duration = Duration::from_millis(500);
    let proxy = TestProxy::builder()
        .with(|config| config.header_timeout = TIME)
        .start()
        .await;
    let clients = connect(&proxy, BUSY).await;
    let (begin, end) = ("GET http://evil.test/ HTTP/1.1\r\n", "Host: x\r\n\r\n");
    for mut client in &clients {
        client.write_all(begin.as_bytes()).unwrap();
    }
    // A request of the test's own is answered when the gateway has read what came before.
    proxy.metrics().await;
    for mut client in &clients {
        client.write_all(end.as_bytes()).unwrap();
    }
    // The gateway shares this thread, and learns of both at once.
    std::thread::sleep(TIME);
    for client in clients {
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        let head = within(read_head(&mut client)).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    }
}
