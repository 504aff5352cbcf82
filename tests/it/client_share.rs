use tokio::net::TcpStream;

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, connect_head, field, read_head, read_response, read_to_end, send};
use crate::policy_file::PolicyFolder;

const CLIENTS: &str = "clients:\n  - { name: ci, networks: [127.0.1.0/24] }\n  - { name: batch, user: batch }\nrules: []\n";

/// `batch:x`.
const BATCH: &str = "Proxy-Authorization: Basic YmF0Y2g6eA==\r\n";

async fn proxy(policy: &PolicyFolder) -> TestProxy {
    policy
        .builder()
        .allow("origin.test:*")
        .with(|config| config.max_connections_per_client = Some(1))
        .start()
        .await
}

/// What comes of a request on a connection, which stays open where it may.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    send(stream, request.as_bytes()).await;
    read_response(stream).await
}

fn is_over_the_limit(answer: &str) {
    assert!(
        answer.starts_with("HTTP/1.1 429 egress failed: client_limit\r\n"),
        "{answer}"
    );
    assert_eq!(field(answer, "retry-after"), Some("1"));
    assert_eq!(field(answer, "connection"), Some("close"));
}

#[tokio::test]
async fn all_addresses_of_a_named_network_have_one_share() {
    let policy = PolicyFolder::with(CLIENTS);
    let proxy = proxy(&policy).await;
    let first = proxy.connect_from([1, 1]).await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 1")
        .await;
    let mut second = proxy.connect_from([1, 2]).await;
    is_over_the_limit(&read_to_end(&mut second).await);
    proxy
        .shows("outgate_connections_rejected_total{reason=\"client_limit\"} 1")
        .await;
    // Somebody else, and the same again when the first is gone.
    let mut other = proxy.connect_from([2, 1]).await;
    let refused = ask(&mut other, &connect_head("evil.test:443")).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    drop((first, other));
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    let mut second = proxy.connect_from([1, 2]).await;
    let refused = ask(&mut second, &connect_head("evil.test:443")).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
}

#[tokio::test]
async fn whoever_claims_the_user_name_of_another_client_does_not_keep_it_out() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let policy = PolicyFolder::with(CLIENTS);
    let proxy = proxy(&policy).await;
    let target = format!("origin.test:{}", origin.port());
    let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n{BATCH}\r\n");
    let get = format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n{BATCH}\r\n");

    // As many connections as one address may have.
    let mut claims = proxy.connect_from([0, 2]).await;
    send(&mut claims, connect.as_bytes()).await;
    assert!(read_head(&mut claims).await.starts_with("HTTP/1.1 200 "));
    let mut more = proxy.connect_from([0, 2]).await;
    is_over_the_limit(&read_to_end(&mut more).await);

    let mut batch = proxy.connect_from([0, 3]).await;
    let answer = ask(&mut batch, &get).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_user_name_does_not_get_a_client_out_of_the_share_of_its_network() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let policy = PolicyFolder::with(CLIENTS);
    let proxy = proxy(&policy).await;
    let mut claims = proxy.connect_from([1, 1]).await;
    let request = format!(
        "GET http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\n{BATCH}\r\n",
        origin.port()
    );
    let answer = ask(&mut claims, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut second = proxy.connect_from([1, 2]).await;
    is_over_the_limit(&read_to_end(&mut second).await);
}
