//! Content of known length that is so large that it goes past HTTP's buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::origin::{Origin, read_request};
use crate::harness::{TestProxy, field, read_head, read_to_end, send, within};

// What ends it early, and what does not.
mod cut_short;

/// The least that is large.
pub(crate) const LARGE: usize = 256 * 1024;

/// More than all buffers on the way hold.
pub(crate) const HUGE: usize = 128 * LARGE;

fn get(port: u16, length: usize) -> String {
    format!("GET http://origin.test:{port}/{length} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// No piece of it looks like another.
fn content(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

fn length_asked_for(request: &str) -> usize {
    let path = request
        .split(' ')
        .nth(1)
        .and_then(|path| path.strip_prefix('/'));
    path.unwrap().parse().unwrap()
}

/// Sends as much as is asked for, the first `together` bytes of it with the head; counts connections.
pub(crate) async fn origin(together: usize) -> (Origin, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let origin = Origin::scripted(move |mut stream, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            stream.set_nodelay(true).unwrap();
            while let Some(request) = read_request(&mut stream).await {
                let length = length_asked_for(&request);
                let content = content(length);
                let (first, rest) = content.split_at(together.min(length));
                send(&mut stream, &[head(length).as_bytes(), first].concat()).await;
                if stream.write_all(rest).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (origin, connections)
}

/// A response with huge content, of which nobody tells the length before.
pub(crate) fn chunked() -> &'static str {
    let content = "c".repeat(HUGE);
    format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{HUGE:x}\r\n{content}\r\n0\r\n\r\n"
    )
    .leak()
}

async fn reads(client: &mut TcpStream, length: usize) {
    let head = read_head(client).await;
    assert!(head.contains(" 200 OK\r\n"), "{head}");
    assert_eq!(field(&head, "content-length"), Some(&*length.to_string()));
    let mut seen = vec![0; length];
    within(client.read_exact(&mut seen)).await.unwrap();
    assert!(seen == content(length), "other bytes than were sent");
}

/// Sends content and reads some.
async fn upload(client: &mut TcpStream, port: u16, length: usize, answer: usize) {
    let head = format!(
        "PUT http://origin.test:{port}/{answer} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    );
    send(client, head.as_bytes()).await;
    send(client, &vec![b'u'; length]).await;
    reads(client, answer).await;
}

#[tokio::test]
async fn it_arrives_as_it_was_sent_and_both_connections_go_on() {
    let lengths = [LARGE - 1, LARGE, LARGE + 1, 5, 3 * LARGE + 7, 0, 2 * LARGE];
    for together in [0, 1, 5_000, 100_000, 2 * LARGE] {
        let (origin, connections) = origin(together).await;
        let proxy = TestProxy::builder().allow("origin.test:*").start().await;
        let mut client = proxy.connect().await;
        for length in lengths {
            send(&mut client, get(origin.port(), length).as_bytes()).await;
            reads(&mut client, length).await;
        }
        // All at once.
        let requests: String = lengths.map(|length| get(origin.port(), length)).concat();
        send(&mut client, requests.as_bytes()).await;
        for length in lengths {
            reads(&mut client, length).await;
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        let moved = 2 * lengths.iter().sum::<usize>();
        let labels = "direction=\"upstream_to_client\",kind=\"forward\",rule=\"origin.test:*\"";
        proxy
            .shows(&format!("outgate_copied_bytes_total{{{labels}}} {moved}"))
            .await;
        let labels = "kind=\"forward\",reason=\"ok\",result=\"allowed\",rule=\"origin.test:*\"";
        proxy
            .shows(&format!("outgate_requests_total{{{labels}}} 14"))
            .await;
    }
}

#[tokio::test]
async fn a_tunnel_that_was_asked_for_behind_it_has_the_bytes_that_came_with_that() {
    let (origin, _) = origin(0).await;
    let echo = Origin::echoing().await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .allow("127.0.0.0/8:*")
        .start()
        .await;
    let mut client = proxy.connect().await;
    // Whoever has sent much is read in large pieces, and HTTP that begins again reads a small one first. So there is a part
    // that nobody has read again when the tunnel begins.
    upload(&mut client, origin.port(), 8 * LARGE, 5).await;
    let early = "early ".repeat(20_000);
    let request = format!(
        "{}CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n{early}",
        get(origin.port(), HUGE),
        echo.address
    );
    let (mut reading, mut writing) = client.split();
    let sends = async { writing.write_all(request.as_bytes()).await.unwrap() };
    let receives = async {
        let mut seen = vec![0; head(HUGE).len() + HUGE];
        // The head of the gateway is longer by its own fields, so the rest is read below.
        reading.read_exact(&mut seen).await.unwrap();
    };
    within(async { tokio::join!(sends, receives) }).await;
    client.shutdown().await.unwrap();
    let rest = within(async {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        rest
    })
    .await;
    assert!(rest.ends_with(early.as_bytes()));
}

#[tokio::test]
async fn a_connection_that_the_upstream_closes_behind_it_is_not_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let origin = Origin::scripted(move |mut stream, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            read_request(&mut stream).await;
            let head = head(LARGE).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            send(&mut stream, head.as_bytes()).await;
            send(&mut stream, &content(LARGE)).await;
            // It says so, and takes its time.
            read_to_end(&mut stream).await;
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        send(&mut client, get(origin.port(), LARGE).as_bytes()).await;
        reads(&mut client, LARGE).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_the_upstream_sends_behind_it_answers_no_request() {
    let chunked = chunked();
    let origin = Origin::scripted(move |mut stream, _| async move {
        let mut is_first = true;
        while let Some(request) = read_request(&mut stream).await {
            let length = length_asked_for(&request);
            // Whoever has sent much is read in large pieces.
            if std::mem::take(&mut is_first) && length == LARGE {
                send(&mut stream, chunked.as_bytes()).await;
                continue;
            }
            let smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
            let answer = [head(length).as_bytes(), &content(length), smuggled].concat();
            let _ = stream.write_all(&answer).await;
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(&mut client, get(origin.port(), LARGE).as_bytes()).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n0\r\n\r\n") {
        within(client.read_buf(&mut seen)).await.unwrap();
    }
    for length in [LARGE, 2 * LARGE, 3] {
        send(&mut client, get(origin.port(), length).as_bytes()).await;
        reads(&mut client, length).await;
    }
}

#[tokio::test]
async fn a_client_that_wants_no_more_than_it_has_it_and_the_end() {
    let (origin, _) = origin(0).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for (version, field) in [("1.0", "X: y"), ("1.1", "Connection: close")] {
        let mut client = proxy.connect().await;
        let request = format!(
            "GET http://origin.test:{}/{LARGE} HTTP/{version}\r\nHost: x\r\n{field}\r\n\r\n",
            origin.port()
        );
        send(&mut client, request.as_bytes()).await;
        reads(&mut client, LARGE).await;
        assert_eq!(read_to_end(&mut client).await, "");
    }
}

#[tokio::test]
async fn an_upload_before_it_is_none_of_the_next_requests() {
    let (origin, _) = origin(0).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    for _ in 0..2 {
        upload(&mut client, port, LARGE, LARGE).await;
        send(&mut client, get(port, 5).as_bytes()).await;
        reads(&mut client, 5).await;
    }
    let answer = proxy.ask(&get(port, 0)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Of both kinds: some that fills one read, and more than the gateway has read when it closes.
#[tokio::test]
async fn garbage_behind_it_is_answered_once_it_has_arrived_whole() {
    let (origin, _) = origin(0).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for garbage in [20, 64 * 1024] {
        let mut client = proxy.connect().await;
        let request = get(origin.port(), HUGE) + &"no http\r\n".repeat(garbage / 9);
        send(&mut client, request.as_bytes()).await;
        reads(&mut client, HUGE).await;
        let answer = read_to_end(&mut client).await;
        let expected = "HTTP/1.1 400 egress failed: bad_request\r\n";
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_has_said_all_has_it_and_what_it_asked_for_behind_it() {
    let (origin, connections) = origin(0).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for behind in [None, Some(5), Some(HUGE)] {
        let mut client = proxy.connect().await;
        let lengths: Vec<_> = [HUGE].into_iter().chain(behind).collect();
        let requests = lengths.iter().map(|length| get(origin.port(), *length));
        send(&mut client, requests.collect::<String>().as_bytes()).await;
        client.shutdown().await.unwrap();
        for length in lengths {
            reads(&mut client, length).await;
        }
        assert_eq!(read_to_end(&mut client).await, "");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_length_without_content_is_waited_for_by_nobody() {
    let origin = Origin::scripted(|mut stream, _| async move {
        while let Some(request) = read_request(&mut stream).await {
            let status = if request.starts_with("HEAD") {
                200
            } else {
                304
            };
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {HUGE}\r\n\r\n");
            send(&mut stream, head.as_bytes()).await;
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    for method in ["HEAD", "GET", "HEAD"] {
        let request = get(origin.port(), 0).replace("GET", method);
        send(&mut client, request.as_bytes()).await;
        let head = read_head(&mut client).await;
        // hyper tells no length with a 304.
        let length = (method == "HEAD").then(|| HUGE.to_string());
        assert_eq!(field(&head, "content-length"), length.as_deref(), "{head}");
    }
}

/// The rest of the first request would be the beginning of the second.
#[tokio::test]
async fn a_connection_that_has_not_taken_the_whole_head_is_not_used_again() {
    /// More than the sockets hold.
    const HEAD: usize = 16 * 1024 * 1024;
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let origin = Origin::scripted(move |mut stream, _| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            stream.read_u8().await.unwrap();
            if number > 0 {
                read_head(&mut stream).await;
            }
            send(&mut stream, head(LARGE).as_bytes()).await;
            send(&mut stream, &content(LARGE)).await;
            // What comes in the end is a reset, for not all was read.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.max_header_bytes = 2 * HEAD)
        .start()
        .await;
    let mut client = proxy.connect().await;
    let long = format!("\r\nX-Long: {}\r\n\r\n", "x".repeat(HEAD));
    let request = get(origin.port(), 0).replace("\r\n\r\n", &long);
    send(&mut client, request.as_bytes()).await;
    reads(&mut client, LARGE).await;
    send(&mut client, get(origin.port(), 0).as_bytes()).await;
    reads(&mut client, LARGE).await;
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}
