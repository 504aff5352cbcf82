use std::net::Ipv6Addr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::harness::dns::{Answer, DnsServer};
use crate::harness::origin::Origin;
use crate::harness::{TestProxy, connect_head, read_head, send, within};

/// Answers for every name but those that begin with `silent`.
async fn silent_about_some(
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> (DnsServer, TestProxy) {
    let server = DnsServer::start(move |name, _| {
        if name.starts_with("silent") {
            Answer::Silence
        } else {
            answer(name)
        }
    })
    .await;
    let address = server.address;
    let proxy = TestProxy::builder()
        .allow("*.dns.test:*")
        .with(|config| {
            config.dns_servers = vec![address];
            config.dns_timeout = Duration::from_secs(20);
        })
        .start()
        .await;
    (server, proxy)
}

/// A client asks for so many names that nobody answers for; they wait as long as they are held.
async fn ask_in_vain(proxy: &TestProxy, client: [u8; 2], names: usize) -> Vec<TcpStream> {
    let mut waiting = Vec::new();
    for number in 0..names {
        let mut stream = proxy.connect_from(client).await;
        let name = format!("silent{number}-of-{}.dns.test:443", client[1]);
        send(&mut stream, connect_head(&name).as_bytes()).await;
        waiting.push(stream);
    }
    waiting
}

#[tokio::test]
async fn a_client_whose_names_nobody_answers_for_keeps_no_other_from_its_own() {
    let origin = Origin::answering("").await;
    let (_server, proxy) =
        silent_about_some(|_| Answer::Addresses(vec![[127, 0, 0, 1].into()], 60)).await;
    let waiting = ask_in_vain(&proxy, [0, 1], 100).await;
    let all = waiting.len();
    proxy
        .shows(&format!(
            "outgate_connections_active{{listener=\"proxy\"}} {all}"
        ))
        .await;
    let mut other = proxy.connect_from([0, 2]).await;
    let head = connect_head(&format!("a.dns.test:{}", origin.port()));
    send(&mut other, head.as_bytes()).await;
    let answer = within(read_head(&mut other)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Not because the others have given up.
    let metrics = proxy.metrics().await;
    assert!(!metrics.contains("lookup_duration_seconds_count{result=\"dns_timeout\"}"));
}

#[tokio::test]
async fn questions_that_are_sent_again_in_vain_keep_no_other_from_being_sent() {
    let origin = Origin::answering("").await;
    let (server, proxy) =
        silent_about_some(|_| Answer::Addresses(vec![[127, 0, 0, 1].into()], 60)).await;
    let _waiting = [
        ask_in_vain(&proxy, [0, 1], 20).await,
        ask_in_vain(&proxy, [0, 3], 20).await,
    ];
    // Both shares, and as many again from further sockets.
    server.hears(64).await;
    let mut other = proxy.connect_from([0, 2]).await;
    let head = connect_head(&format!("a.dns.test:{}", origin.port()));
    send(&mut other, head.as_bytes()).await;
    // A question that nobody answers has its sockets for five seconds.
    let answer = tokio::time::timeout(Duration::from_secs(3), read_head(&mut other)).await;
    let answer = answer.expect("a question waits for those that are in vain");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_question_that_a_client_had_no_place_for_is_not_remembered_as_unanswered() {
    let origin = TcpListener::bind("[::1]:0").await.unwrap();
    let (server, proxy) = silent_about_some(|_| {
        // Nothing listens at the one that is remembered.
        Answer::Fleeting6(vec![Ipv6Addr::LOCALHOST.into(), [127, 0, 0, 77].into()])
    })
    .await;
    let head = connect_head(&format!(
        "a.dns.test:{}",
        origin.local_addr().unwrap().port()
    ));
    let ask = async |client| {
        let mut stream = proxy.connect_from(client).await;
        send(&mut stream, head.as_bytes()).await;
        within(read_head(&mut stream)).await
    };
    let answer = ask([0, 2]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let _waiting = ask_in_vain(&proxy, [0, 1], 20).await;
    // Two of `a`, and all that the other client may ask.
    server.hears(18).await;
    let answer = ask([0, 1]).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 egress failed: connection_refused\r\n"),
        "{answer}"
    );
    let answer = ask([0, 2]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
