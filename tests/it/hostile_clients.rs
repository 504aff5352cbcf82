use std::io::Write;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::origin::Origin;
use crate::harness::{
    TestProxy, connect_head, read_head, read_response, read_to_end, send, within,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_client_that_never_reads_holds_back_its_upstream() {
    let origin = Origin::scripted(|mut stream, seen| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            .await
            .unwrap();
        let mut sent = 0;
        let chunk = vec![0; 64 * 1024];
        // Once it does not go on for a while, every buffer on the way is full.
        let pause = Duration::from_millis(500);
        while let Ok(Ok(())) = tokio::time::timeout(pause, stream.write_all(&chunk)).await {
            sent += chunk.len();
        }
        let _ = seen.send(sent.to_string());
    })
    .await;
    let mut origin = origin;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let port = origin.port();
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    let sent: usize = origin.received().await.parse().unwrap();
    // Two sockets' worth of kernel buffers, and little of the gateway's own.
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_tunnel_that_is_never_read_holds_back_its_upstream() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let mut sent = 0;
        let chunk = vec![0; 64 * 1024];
        let pause = Duration::from_millis(500);
        while let Ok(Ok(())) = tokio::time::timeout(pause, stream.write_all(&chunk)).await {
            sent += chunk.len();
        }
        let _ = seen.send(sent.to_string());
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let _client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    let sent: usize = origin.received().await.parse().unwrap();
    // Two sockets' worth of kernel buffers, and a pipe.
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_thousand_silent_connections_keep_nobody_waiting() {
    let proxy = TestProxy::builder()
        .with(|config| config.header_timeout = Duration::from_millis(500))
        .start()
        .await;
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(proxy.connect().await);
    }
    let answer = proxy.ask(&connect_head("evil.test:443")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    for mut connection in silent {
        assert_eq!(read_to_end(&mut connection).await, "");
    }
}

#[tokio::test]
async fn a_refused_client_that_goes_on_sending_holds_no_thread_and_is_soon_closed() {
    let proxy = TestProxy::builder().start().await;
    let mut client = proxy.connect().await;
    let head = "PUT http://evil.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n";
    send(&mut client, head.as_bytes()).await;
    let mut client = client.into_std().unwrap();
    client.set_nonblocking(false).unwrap();
    let flood = tokio::task::spawn_blocking(move || {
        // Not ended from the thread of the test: the gateway may hold it.
        let deadline = Instant::now() + Duration::from_secs(5);
        let chunk = vec![0; 1024 * 1024];
        let mut sent = 0;
        while client.write_all(&chunk).is_ok() {
            assert!(Instant::now() < deadline, "{sent} bytes and no end");
            sent += chunk.len();
        }
        sent
    });
    let answer = proxy.ask(&connect_head("evil.test:443")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let sent = within(flood).await.unwrap();
    // What is read of it, and two sockets' worth of kernel buffers.
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were taken");
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
}

#[tokio::test]
async fn a_flood_of_pipelined_requests_is_answered_one_by_one() {
    let proxy = TestProxy::builder().start().await;
    let client = proxy.connect().await;
    let (mut reading, mut writing) = client.into_split();
    let flood = tokio::spawn(async move {
        for _ in 0..5000 {
            writing
                .write_all(b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
        }
        writing.shutdown().await.unwrap();
    });
    let mut answers = Vec::new();
    within(reading.read_to_end(&mut answers)).await.unwrap();
    flood.await.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(
        answers
            .matches("HTTP/1.1 403 egress denied: host_not_allowed\r\n")
            .count(),
        5000
    );
}

#[tokio::test]
async fn a_flood_of_pipelined_requests_reaches_the_upstream_once_each_and_in_order() {
    const REQUESTS: usize = 1000;
    let mut origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let (mut reading, mut writing) = proxy.connect().await.into_split();
    let flood = tokio::spawn(async move {
        for number in 0..REQUESTS {
            let request =
                format!("GET http://origin.test:{port}/{number} HTTP/1.1\r\nHost: x\r\n\r\n");
            writing.write_all(request.as_bytes()).await.unwrap();
        }
        writing.shutdown().await.unwrap();
    });
    let mut answers = String::new();
    within(reading.read_to_string(&mut answers)).await.unwrap();
    flood.await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), REQUESTS);
    for number in 0..REQUESTS {
        let seen = origin.received().await;
        assert!(seen.starts_with(&format!("GET /{number} ")), "{seen}");
    }
    assert!(origin.is_untouched());
}

#[tokio::test]
async fn a_slow_upload_is_no_reason_to_keep_another_waiting() {
    let origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let port = origin.port();
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut client = proxy.connect().await;
        let head = format!(
            "PUT http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx"
        );
        send(&mut client, head.as_bytes()).await;
        slow.push(client);
    }
    let mut client = proxy.connect().await;
    let request = format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    send(&mut client, request.as_bytes()).await;
    assert!(read_response(&mut client).await.ends_with("ok"));
}

async fn read_to_end_of_any_kind(stream: &mut tokio::net::TcpStream) {
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
}

/// A client that has sent half of its content.
async fn short_put(proxy: &TestProxy, origin: &Origin) -> TcpStream {
    let mut client = proxy.connect().await;
    let head = format!(
        "PUT http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nshort",
        origin.port()
    );
    send(&mut client, head.as_bytes()).await;
    client
}

#[tokio::test]
async fn content_that_a_client_cuts_short_is_refused_at_once() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_to_end_of_any_kind(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = short_put(&proxy, &origin).await;
    client.shutdown().await.unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 egress failed: bad_request\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn content_that_a_client_cuts_short_behind_the_head_of_its_response_is_given_up_at_once() {
    // A response that is whole by then, and one that would go on behind the content.
    for (length, outcome) in [
        (4, "reason=\"ok\",result=\"allowed\""),
        (10, "reason=\"response_incomplete\",result=\"failed\""),
    ] {
        let mut origin = Origin::scripted(move |mut stream, seen| async move {
            read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhalf");
            send(&mut stream, answer.as_bytes()).await;
            let mut content = Vec::new();
            let _ = stream.read_to_end(&mut content).await;
            let _ = seen.send(String::from_utf8(content).unwrap());
        })
        .await;
        let proxy = TestProxy::builder().allow("origin.test:*").start().await;
        let mut client = short_put(&proxy, &origin).await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
        within(client.read_exact(&mut [0; 4])).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(origin.received().await, "short");
        assert_eq!(read_to_end(&mut client).await, "");
        for line in [
            format!(
                "outgate_requests_total{{kind=\"forward\",{outcome},rule=\"origin.test:*\"}} 1"
            ),
            "outgate_connections_active{listener=\"proxy\"} 0".to_owned(),
            "outgate_pool_connections{state=\"busy\"} 0".to_owned(),
        ] {
            proxy.shows(&line).await;
        }
    }
}
