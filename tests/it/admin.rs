use crate::harness::origin::Origin;
use crate::harness::{TestProxy, call, get, read_to_end, within};

#[tokio::test]
async fn probes_and_metrics_answer_on_the_admin_port_only() {
    let proxy = TestProxy::builder().start().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(
            call(proxy.admin, "GET", path)
                .await
                .starts_with("HTTP/1.1 200 OK\r\n")
        );
        assert!(
            call(proxy.admin, "HEAD", path)
                .await
                .starts_with("HTTP/1.1 200 OK\r\n")
        );
        assert!(
            call(proxy.address, "GET", path)
                .await
                .starts_with("HTTP/1.1 400 ")
        );
    }
    assert!(
        call(proxy.admin, "GET", "/tunnels")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        call(proxy.admin, "POST", "/metrics")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
}

#[tokio::test]
async fn the_inspector_lists_tunnels_and_closes_one() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let target = format!("origin.test:{}", origin.port());
    let mut client = proxy.tunnel(&target).await;
    let tunnels: serde_json::Value =
        serde_json::from_str(&get(proxy.inspect, "/tunnels").await).unwrap();
    assert_eq!(tunnels[0]["target"], target);
    assert_eq!(tunnels[0]["rule"], "origin.test:*");
    let id = &tunnels[0]["id"];
    let answer = call(proxy.inspect, "DELETE", &format!("/tunnels/{id}")).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert!(
        within(tokio::io::AsyncReadExt::read(&mut client, &mut [0]))
            .await
            .is_err()
    );
    proxy
        .shows("outgate_tunnels_closed_total{end=\"revoked\"} 1")
        .await;
    let answer = call(proxy.inspect, "DELETE", &format!("/tunnels/{id}")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn the_inspector_shows_the_effective_configuration() {
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let config: serde_json::Value =
        serde_json::from_str(&get(proxy.inspect, "/config").await).unwrap();
    assert_eq!(config["OUTGATE_ALLOW"], "origin.test:*");
    assert_eq!(config["OUTGATE_CONNECT_TIMEOUT"], "10s");
}
