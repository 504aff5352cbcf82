use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::origin::Origin;
use crate::harness::sockets::{self, Socket};
use crate::harness::{TestProxy, read_head, read_response, read_to_end, send, within};

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

/// It would be megabytes, as Linux comes.
#[tokio::test]
async fn what_is_not_sent_yet_to_a_reader_that_takes_nothing_is_not_a_megabyte_in_the_kernel() {
    // What the gateway lets it take, and a segment.
    const MOST: u64 = 256 * 1024;
    let origin = Origin::scripted(|mut stream, _| async move {
        let _ = stream.write_all(&vec![b'd'; 64 << 20]).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let target = format!("origin.test:{}", origin.port());
    let _client = proxy.tunnel(&target).await;
    let down = unsent(|socket| socket.local_port == proxy.address.port()).await;
    assert!(down < MOST, "{down} bytes for the client");

    let idle = Origin::scripted(|stream, _| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let mut client = proxy.tunnel(&format!("origin.test:{}", idle.port())).await;
    tokio::spawn(async move { client.write_all(&vec![b'u'; 64 << 20]).await });
    let up = unsent(|socket| socket.remote_port == idle.port()).await;
    assert!(up < MOST, "{up} bytes for the upstream");
}

/// Bytes that wait in a socket, more than begin to, when they become no more.
async fn unsent(is_meant: impl Fn(&Socket) -> bool) -> u64 {
    let look = || {
        let meant = sockets::all().into_iter().filter(|socket| is_meant(socket));
        meant.map(|socket| socket.unacknowledged).max().unwrap()
    };
    let settled = async {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = look();
            if now > 64 * 1024 && now == last {
                return now;
            }
            last = now;
        }
    };
    within(settled).await
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

/// The content ends when all of the answer is with the gateway, more than the socket has room for: nothing is left for
/// HTTP to do but to write it. To HTTP/1.0 a close would make it look whole.
#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_arrives_whole_however_late_it_is_read() {
    // Of what the gateway itself holds.
    const LESS: u64 = 100_000;
    let origin = Origin::scripted(|mut stream, _| async move {
        let head = read_head(&mut stream).await;
        let length = head
            .split('/')
            .nth(1)
            .and_then(|path| path.split(' ').next());
        let content = "z".repeat(length.unwrap().parse().unwrap());
        send(&mut stream, b"HTTP/1.1 200 OK\r\n\r\n").await;
        let _ = stream.write_all(content.as_bytes()).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let ask = async |length: u64, version: &str| {
        let mut client = within(TcpStream::connect(proxy.address)).await.unwrap();
        let port = origin.port();
        let head = format!(
            "POST http://origin.test:{port}/{length} {version}\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\nbegun"
        );
        send(&mut client, head.as_bytes()).await;
        client
    };
    let (mut before, mut length) = (0, 100 << 20);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut client = loop {
            let client = ask(length, version).await;
            let taken = copied(&proxy, before).await;
            before += taken;
            if taken == length {
                break client;
            }
            length = taken - LESS;
        };
        send(&mut client, b" and").await;
        let answer = read_to_end(&mut client).await;
        assert_eq!(answer.matches('z').count() as u64, length, "{version}");
    }
}

/// Bytes of content that the gateway has taken from upstreams, less those of before, when they become no more.
async fn copied(proxy: &TestProxy, before: u64) -> u64 {
    let mut last = None;
    loop {
        let metrics = proxy.metrics().await;
        let taken = metrics.lines().find_map(|line| {
            let labels = "direction=\"upstream_to_client\",kind=\"forward\",rule=\"origin.test:*\"";
            line.strip_prefix(&format!("outgate_copied_bytes_total{{{labels}}} "))
        });
        let taken = taken.map(|taken| taken.parse::<u64>().unwrap() - before);
        if taken.is_some_and(|taken| taken > 0) && taken == last {
            return taken.unwrap();
        }
        last = taken;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
