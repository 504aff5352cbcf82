use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::origin::{Origin, read_request};
use crate::harness::{TestProxy, read_head, read_response, send};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(port: u16) -> String {
    format!("GET http://origin.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[tokio::test]
async fn requests_of_different_clients_share_a_kept_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let origin = Origin::scripted(move |mut stream, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            while read_request(&mut stream).await.is_some() {
                send(&mut stream, OK.as_bytes()).await;
            }
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for _ in 0..5 {
        assert!(proxy.ask(&get(origin.port())).await.ends_with("ok"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    proxy
        .shows("outgate_pool_requests_total{reused=\"true\"} 4")
        .await;
    proxy
        .shows("outgate_pool_connections{state=\"idle\"} 1")
        .await;
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_closed_is_replaced_unnoticed() {
    let origin = Origin::scripted(|mut stream, _| async move {
        // One response a connection, though it promises to keep it.
        read_request(&mut stream).await;
        send(&mut stream, OK.as_bytes()).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for _ in 0..20 {
        assert!(proxy.ask(&get(origin.port())).await.ends_with("ok"));
    }
}

#[tokio::test]
async fn a_get_that_meets_the_close_of_a_kept_connection_is_sent_again_rfc9110_9_2_2() {
    let connections = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted(move |mut stream, seen| {
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let _ = seen.send(request.clone());
                if first && request.contains("/second") {
                    return;
                }
                send(&mut stream, OK.as_bytes()).await;
            }
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    assert!(proxy.ask(&get(origin.port())).await.ends_with("ok"));
    let second = get(origin.port()).replace("/ ", "/second ");
    assert!(proxy.ask(&second).await.ends_with("ok"));
    // The connection that was lost served nothing.
    for (reused, requests) in [(true, 0), (false, 2)] {
        proxy
            .shows(&format!(
                "outgate_pool_requests_total{{reused=\"{reused}\"}} {requests}"
            ))
            .await;
    }
}

#[tokio::test]
async fn a_connection_is_busy_from_the_request_to_the_end_of_the_response() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        while let Some(request) = read_request(&mut stream).await {
            let _ = seen.send(request.clone());
            if request.contains("/unanswered") {
                std::future::pending::<()>().await;
            }
            send(&mut stream, OK.as_bytes()).await;
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let unanswered = get(origin.port()).replace("/ ", "/unanswered ");
    // On a new connection, and on a kept one.
    for _ in 0..2 {
        let mut client = proxy.connect().await;
        send(&mut client, unanswered.as_bytes()).await;
        origin.received().await;
        shows_connections(&proxy, "busy", 1).await;
        shows_connections(&proxy, "idle", 0).await;
        client.set_zero_linger().unwrap();
        drop(client);
        shows_connections(&proxy, "busy", 0).await;
        assert!(proxy.ask(&get(origin.port())).await.ends_with("ok"));
        origin.received().await;
        shows_connections(&proxy, "busy", 0).await;
        shows_connections(&proxy, "idle", 1).await;
    }
}

async fn shows_connections(proxy: &TestProxy, state: &str, count: usize) {
    proxy
        .shows(&format!(
            "outgate_pool_connections{{state=\"{state}\"}} {count}"
        ))
        .await;
}

#[tokio::test]
async fn a_post_that_meets_the_close_is_not_sent_twice() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        while let Some(request) = read_request(&mut stream).await {
            let is_post = request.starts_with("POST");
            let _ = seen.send(request);
            if is_post {
                return;
            }
            send(&mut stream, OK.as_bytes()).await;
        }
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    assert!(proxy.ask(&get(origin.port())).await.ends_with("ok"));
    origin.received().await;
    let post = format!(
        "POST http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
        origin.port()
    );
    let answer = proxy.ask(&post).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: connection_reset\r\n"),
        "{answer}"
    );
    assert!(origin.received().await.starts_with("POST"));
    assert!(origin.is_untouched());
}

#[tokio::test]
async fn a_connection_that_sends_more_than_its_response_is_not_kept() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n")
            .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    for _ in 0..3 {
        assert!(proxy.ask(&get(origin.port())).await.ends_with("ok"));
    }
    proxy
        .shows("outgate_pool_requests_total{reused=\"true\"} 0")
        .await;
}

#[tokio::test]
async fn a_response_begun_before_the_upload_ended_does_not_stall_it() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        read_head(&mut stream).await;
        send(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await;
        let mut upload = vec![0; 4_000_000];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut upload)
            .await
            .unwrap();
        send(&mut stream, b"ok").await;
        let _ = seen.send("uploaded".to_owned());
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let head = format!(
        "PUT http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n",
        origin.port()
    );
    send(&mut client, head.as_bytes()).await;
    send(&mut client, &vec![b'u'; 4_000_000]).await;
    assert_eq!(origin.received().await, "uploaded");
    assert!(read_response(&mut client).await.ends_with("ok"));
}

#[tokio::test]
async fn idle_connections_are_closed_after_the_keep_alive_timeout() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        while read_request(&mut stream).await.is_some() {
            send(&mut stream, OK.as_bytes()).await;
        }
        let _ = seen.send("closed".to_owned());
    })
    .await;
    let proxy = TestProxy::builder()
        .allow("origin.test:*")
        .with(|config| config.keepalive_timeout = Duration::from_millis(50))
        .start()
        .await;
    assert!(proxy.ask(&get(origin.port())).await.ends_with("ok"));
    assert_eq!(origin.received().await, "closed");
    proxy
        .shows("outgate_pool_connections{state=\"idle\"} 0")
        .await;
}

#[tokio::test]
async fn kept_connections_leave_every_client_its_descriptors() {
    let origin = Origin::answering(OK).await;
    let proxy = TestProxy::builder()
        .allow("*.many.test:*")
        .host("127.0.0.1 0.many.test 1.many.test 2.many.test 3.many.test 4.many.test 5.many.test")
        .with(|config| config.max_connections = Some(3))
        .start()
        .await;
    let mut client = proxy.connect().await;
    for host in 0..6 {
        let port = origin.port();
        let request = format!("GET http://{host}.many.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
        send(&mut client, request.as_bytes()).await;
        assert!(read_response(&mut client).await.ends_with("ok"));
    }
    // Three clients may need three upstreams: six descriptors, of which the one client has two.
    proxy
        .shows("outgate_pool_connections{state=\"idle\"} 4")
        .await;
    let _second = proxy.connect().await;
    let _third = proxy.connect().await;
    proxy
        .shows("outgate_pool_connections{state=\"idle\"} 0")
        .await;
}

#[tokio::test]
async fn a_connection_that_a_client_has_authenticated_carries_no_other_requests_rfc4559_6() {
    for (credentials, kept) in [("NTLM TlRM", 0), ("negotiate YII=", 0), ("Basic eDp5", 1)] {
        let origin = Origin::answering(OK).await;
        let proxy = TestProxy::builder().allow("origin.test:*").start().await;
        let request = get(origin.port());
        let authenticated = request.replace(
            "Host: x",
            &format!("Host: x\r\nAuthorization: {credentials}"),
        );
        assert!(proxy.ask(&authenticated).await.ends_with("ok"));
        assert!(proxy.ask(&request).await.ends_with("ok"));
        proxy
            .shows(&format!(
                "outgate_pool_requests_total{{reused=\"true\"}} {kept}"
            ))
            .await;
    }
}
