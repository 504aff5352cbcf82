use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::origin::Origin;
use crate::harness::{PATIENCE, connect_head, read_head, send, within};
use crate::policy_file::PolicyFolder;

/// How a tunnel's client saw it end.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Every byte came back as it was sent.
    Whole,
    Cut,
}

/// Sends numbered messages until told to stop, and checks that each comes back.
async fn converse(tunnel: TcpStream, stop: Arc<AtomicBool>) -> Seen {
    let (mut reading, mut writing) = tunnel.into_split();
    let sending = tokio::spawn(async move {
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            if writing.write_all(&sent.to_be_bytes()).await.is_err() {
                return None;
            }
            sent += 1;
            tokio::task::yield_now().await;
        }
        writing.shutdown().await.ok()?;
        Some(sent)
    });
    let mut received = 0_u64;
    let mut message = [0; 8];
    while reading.read_exact(&mut message).await.is_ok() {
        assert_eq!(u64::from_be_bytes(message), received);
        received += 1;
    }
    if sending.await.unwrap() == Some(received) {
        Seen::Whole
    } else {
        Seen::Cut
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_ends_exactly_the_tunnels_it_denies_and_costs_the_others_no_byte() {
    let origin = Origin::echoing().await;
    let both = "rules:\n  - { name: a, hosts: [origin.test, other.test], ports: ['*'] }\n";
    let folder = PolicyFolder::with(both);
    let proxy = folder.builder().start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut conversations = Vec::new();
    for number in 0..200 {
        let host = if number % 2 == 0 {
            "origin.test"
        } else {
            "other.test"
        };
        let tunnel = proxy.tunnel(&format!("{host}:{}", origin.port())).await;
        conversations.push(tokio::spawn(converse(tunnel, Arc::clone(&stop))));
    }
    proxy.shows("outgate_tunnels_active 200").await;
    let half = "rules:\n  - { name: a, hosts: [origin.test], ports: ['*'] }\n";
    std::fs::write(folder.file(), half).unwrap();
    proxy
        .shows("outgate_tunnels_closed_total{end=\"revoked\"} 100")
        .await;
    proxy.shows("outgate_tunnels_active 100").await;
    stop.store(true, Ordering::Relaxed);
    for (number, conversation) in conversations.into_iter().enumerate() {
        let seen = within(conversation).await.unwrap();
        let expected = if number % 2 == 0 {
            Seen::Whole
        } else {
            Seen::Cut
        };
        assert_eq!(seen, expected, "tunnel {number}, within {PATIENCE:?}");
    }
    proxy
        .shows("outgate_tunnels_closed_total{end=\"closed\"} 100")
        .await;
}

#[tokio::test]
async fn an_address_that_is_prohibited_from_now_on_ends_its_tunnels_too() {
    let origin = Origin::scripted(|mut stream, _| async move {
        let _ = stream.read_u8().await;
    })
    .await;
    let rule = |addresses: &str| {
        format!(
            "rules:\n  - {{ name: a, hosts: [origin.test], ports: ['*'], addresses: [{addresses}] }}\n"
        )
    };
    let folder = PolicyFolder::with(&rule("127.0.0.0/8"));
    let proxy = folder
        .builder()
        .with(|config| config.allow_addresses.clear())
        .start()
        .await;
    let _tunnel = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    std::fs::write(folder.file(), rule("10.0.0.0/8")).unwrap();
    proxy
        .shows("outgate_tunnels_closed_total{end=\"revoked\"} 1")
        .await;
}

#[tokio::test]
async fn a_user_that_a_rule_no_longer_names_loses_its_tunnel_and_another_does_not() {
    let origin = Origin::scripted(|mut stream, _| async move {
        while let Ok(byte) = stream.read_u8().await {
            let _ = stream.write_u8(byte).await;
        }
    })
    .await;
    let rule = |clients: &str| {
        format!(
            "clients:\n  - {{ name: day, user: d }}\n  - {{ name: night, user: n }}\n\
             rules:\n  - {{ name: a, hosts: [origin.test], ports: ['*'], clients: [{clients}] }}\n"
        )
    };
    let folder = PolicyFolder::with(&rule("day, night"));
    let proxy = folder.builder().start().await;
    let mut tunnels = Vec::new();
    // Of `d:` and `n:`.
    for credentials in ["ZDo=", "bjo="] {
        let mut tunnel = proxy.connect().await;
        let head = connect_head(&format!("origin.test:{}", origin.port()));
        let field = format!("\r\nProxy-Authorization: Basic {credentials}\r\n");
        send(&mut tunnel, head.replacen("\r\n", &field, 1).as_bytes()).await;
        assert!(read_head(&mut tunnel).await.starts_with("HTTP/1.1 200 "));
        tunnels.push(tunnel);
    }
    std::fs::write(folder.file(), rule("night")).unwrap();
    proxy
        .shows("outgate_tunnels_closed_total{end=\"revoked\"} 1")
        .await;
    assert!(within(tunnels[0].read_u8()).await.is_err());
    send(&mut tunnels[1], b"x").await;
    assert_eq!(within(tunnels[1].read_u8()).await.unwrap(), b'x');
}
