use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::origin::Origin;
use crate::harness::tls::TlsEcho;
use crate::harness::{
    TestProxy, any_port, connect_head, field, read_head, read_to_end, send, within,
};

#[tokio::test]
async fn a_tunnel_carries_tls_to_a_real_tls_origin() {
    let origin = TlsEcho::start("origin.test").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let stream = proxy.tunnel(&format!("origin.test:{}", origin.port)).await;
    assert_eq!(
        origin.ask(stream, "origin.test", b"drawer").await,
        b"reward"
    );
    proxy
        .shows("outgate_tunnels_closed_total{end=\"closed\"} 1")
        .await;
}

#[tokio::test]
async fn a_200_has_no_framing_fields_and_comes_after_the_upstream_is_reached_rfc9110_9_3_6() {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    send(
        &mut client,
        connect_head(&format!("origin.test:{port}")).as_bytes(),
    )
    .await;
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(field(&head, "content-length"), None);
    assert_eq!(field(&head, "transfer-encoding"), None);
    // Accepted by the kernel already: the dial came first.
    within(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn bytes_that_come_with_the_head_are_the_first_of_the_tunnel() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        let _ = seen.send(String::from_utf8_lossy(&bytes).into_owned());
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy.connect().await;
    let head = connect_head(&format!("origin.test:{}", origin.port()));
    send(&mut client, format!("{head}early").as_bytes()).await;
    assert_eq!(origin.received().await, "early");
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_the_whole_answer() {
    let origin = Origin::scripted(|mut stream, _| async move {
        let request = read_to_end(&mut stream).await;
        assert_eq!(request, "question");
        stream
            .write_all(&vec![b'a'; 4 * 1024 * 1024])
            .await
            .unwrap();
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    send(&mut client, b"question").await;
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.len(), 4 * 1024 * 1024);
    proxy
        .shows("outgate_tunnels_closed_total{end=\"closed\"} 1")
        .await;
}

#[tokio::test]
async fn an_upstream_that_closes_its_side_still_gets_all_the_client_sends() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        stream.shutdown().await.unwrap();
        let _ = seen.send(read_to_end(&mut stream).await.len().to_string());
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    assert_eq!(read_to_end(&mut client).await, "");
    client
        .write_all(&vec![b'u'; 4 * 1024 * 1024])
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(origin.received().await, (4 * 1024 * 1024).to_string());
}

#[tokio::test]
async fn a_reset_by_the_client_is_a_reset_for_the_upstream() {
    let mut origin = Origin::scripted(|mut stream, seen| async move {
        let error = stream.read(&mut [0; 16]).await.unwrap_err();
        let _ = seen.send(error.kind().to_string());
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(
        origin.received().await,
        io::ErrorKind::ConnectionReset.to_string()
    );
    proxy
        .shows("outgate_tunnels_closed_total{end=\"client_reset\"} 1")
        .await;
}

#[tokio::test]
async fn a_reset_by_the_upstream_is_a_reset_for_the_client() {
    let origin = Origin::scripted(|stream, _| async move {
        stream.set_zero_linger().unwrap();
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    let error = within(client.read(&mut [0; 16])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    proxy
        .shows("outgate_tunnels_closed_total{end=\"upstream_reset\"} 1")
        .await;
}

#[tokio::test]
async fn what_an_upstream_sent_before_it_went_arrives_although_the_client_still_uploads() {
    let origin = Origin::scripted(|mut stream, _| async move {
        stream.read_u8().await.unwrap();
        stream.write_all(&vec![b'a'; 100_000]).await.unwrap();
        // Closed with the upload unread: the gateway's next write to it is answered by a reset.
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    let (mut reading, mut writing) = client.into_split();
    let upload = tokio::spawn(async move {
        while writing.write_all(&[0; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    let mut received = Vec::new();
    let _ = within(reading.read_to_end(&mut received)).await;
    assert_eq!(received.len(), 100_000);
    within(upload).await.unwrap();
}

#[tokio::test]
async fn both_sockets_are_closed_whoever_ends_the_tunnel() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let before = open_descriptors();
    for _ in 0..50 {
        let client = proxy
            .tunnel(&format!("origin.test:{}", origin.port()))
            .await;
        drop(client);
    }
    proxy
        .shows("outgate_tunnels_closed_total{end=\"closed\"} 50")
        .await;
    proxy.shows("outgate_tunnels_active 0").await;
    within(async {
        // Other tests of this process open and close sockets too, so it settles rather than is.
        while open_descriptors() > before + 40 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn bytes_are_counted_while_the_tunnel_is_open() {
    let origin = Origin::scripted(|mut stream, _| async move {
        let mut request = [0; 1000];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(&[0; 2000]).await.unwrap();
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let mut client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    send(&mut client, &[0; 1000]).await;
    within(client.read_exact(&mut [0; 2000])).await.unwrap();
    let series = |direction| {
        format!(
            "outgate_copied_bytes_total{{direction=\"{direction}\",kind=\"connect\",rule=\"origin.test:*\"}}"
        )
    };
    proxy
        .shows(&format!("{} 1000", series("client_to_upstream")))
        .await;
    proxy
        .shows(&format!("{} 2000", series("upstream_to_client")))
        .await;
    proxy.shows("outgate_tunnels_active 1").await;
}

#[tokio::test]
async fn megabytes_arrive_unchanged_both_ways_at_once() {
    let origin = Origin::echoing().await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    let (mut reading, mut writing) = client.into_split();
    let sent: Vec<u8> = (0..8_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let expected = sent.clone();
    let upload = tokio::spawn(async move {
        writing.write_all(&sent).await.unwrap();
        writing.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    within(reading.read_to_end(&mut received)).await.unwrap();
    upload.await.unwrap();
    assert!(
        received == expected,
        "{} bytes came back changed",
        received.len()
    );
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
