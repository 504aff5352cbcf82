use http::HeaderValue;
use http::header::AUTHORIZATION;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::collector;
use crate::harness::origin::Origin;
use crate::harness::{
    TestProxy, call, connect_head, field, get, read_head, read_response, read_to_end, send, within,
};

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
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.write_all(b"welcome").await.unwrap();
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let target = format!("origin.test:{}", origin.port());
    let mut client = proxy.tunnel(&target).await;
    send(&mut client, b"hello").await;
    within(client.read_exact(&mut [0; 7])).await.unwrap();
    proxy
        .shows("outgate_copied_bytes_total{direction=\"upstream_to_client\",kind=\"connect\",rule=\"origin.test:*\"} 7")
        .await;
    let mut tunnels: serde_json::Value =
        serde_json::from_str(&get(proxy.inspect, "/tunnels").await).unwrap();
    let tunnel = tunnels[0].as_object_mut().unwrap();
    let mut seconds = |name| tunnel.remove(name).unwrap().as_f64().unwrap();
    let (age, idle) = (seconds("age_seconds"), seconds("idle_seconds"));
    for seconds in [age, idle] {
        assert!((0.0..60.0).contains(&seconds), "{seconds}");
    }
    let expected = serde_json::json!([{
        "id": 1, "target": target, "rule": "origin.test:*",
        "client": client.local_addr().unwrap().to_string(),
        "address": format!("127.0.0.1:{}", origin.port()),
        "bytes_sent": 5, "bytes_received": 7,
    }]);
    assert_eq!(tunnels, expected);
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

#[tokio::test]
async fn the_inspector_redacts_what_is_sent_to_the_collector() {
    let proxy = TestProxy::builder()
        .with(|config| {
            let mut tracing = collector::settings("http://127.0.0.1:9/v1/traces");
            let secret = HeaderValue::from_static("Bearer t0p");
            tracing.headers = vec![(AUTHORIZATION, secret)];
            config.tracing = Some(tracing);
        })
        .start()
        .await;
    let answer = get(proxy.inspect, "/config").await;
    assert!(!answer.contains("t0p"), "{answer}");
    let config: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        config["OTEL_EXPORTER_OTLP_TRACES_HEADERS"],
        "authorization=***"
    );
    assert_eq!(
        config["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"],
        "http://127.0.0.1:9/v1/traces"
    );
}

#[tokio::test]
async fn tunnels_are_listed_a_page_at_a_time_in_the_order_they_were_opened() {
    let origin = Origin::scripted(|mut stream, _| async move {
        read_to_end(&mut stream).await;
    })
    .await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let target = format!("origin.test:{}", origin.port());
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(proxy.tunnel(&target).await);
    }
    let mut path = "/tunnels?limit=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let answer = call(proxy.inspect, "GET", &path).await;
        let (head, content) = answer.split_once("\r\n\r\n").unwrap();
        let page: Vec<serde_json::Value> = serde_json::from_str(content).unwrap();
        pages.push(
            page.iter()
                .map(|tunnel| tunnel["id"].as_u64().unwrap())
                .collect::<Vec<_>>(),
        );
        let Some(next) = field(head, "link") else {
            break;
        };
        path = next
            .strip_prefix('<')
            .unwrap()
            .strip_suffix(">; rel=\"next\"")
            .unwrap()
            .to_owned();
    }
    assert_eq!(pages, [vec![1, 2], vec![3, 4], vec![5]]);
    for wrong in ["limit=0", "limit=two", "after=-1", "page=2", "limit"] {
        let answer = call(proxy.inspect, "GET", &format!("/tunnels?{wrong}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{wrong}: {answer}");
    }
}

/// With one thread for everything, whatever holds it up holds up the tunnels too.
#[tokio::test]
async fn listing_thousands_of_tunnels_holds_up_none_of_them() {
    const TUNNELS: usize = 2000;
    const PAGES: usize = 20;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    let target = format!("origin.test:{}", Origin::echoing().await.port());
    let mut clients = Vec::with_capacity(TUNNELS);
    for _ in 0..TUNNELS {
        clients.push(proxy.tunnel(&target).await);
    }
    let inspect = proxy.inspect;
    let lister = tokio::spawn(async move {
        let mut seen = 0;
        for _ in 0..PAGES {
            let page = get(inspect, "/tunnels?after=1000").await;
            seen += page.matches("\"id\":").count();
        }
        seen
    });
    let mut rounds = 0;
    while !lister.is_finished() {
        let client = &mut clients[rounds % TUNNELS];
        send(client, b"ping").await;
        within(client.read_exact(&mut [0; 4])).await.unwrap();
        rounds += 1;
    }
    assert_eq!(lister.await.unwrap(), PAGES * 1000);
    assert!(
        rounds > 5 * PAGES,
        "{rounds} round trips in the time of {PAGES} pages"
    );
}

/// With one thread for everything, whatever holds it up holds up the tunnel too.
#[tokio::test]
async fn a_scrape_of_thousands_of_rules_holds_up_no_tunnel() {
    const RULES: usize = 5000;
    const ROUNDS: usize = 5;
    let origin = Origin::echoing().await;
    let rules = (0..RULES).fold(
        TestProxy::builder().allow("origin.test:*"),
        |proxy, rule| proxy.allow(&format!("host-{rule}.test")),
    );
    let proxy = rules.start().await;
    let mut client = proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    let mut scraper = tokio::net::TcpStream::connect(proxy.admin).await.unwrap();
    send(&mut scraper, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = tokio::spawn(async move { read_head(&mut scraper).await });
    let mut rounds = 0;
    while !head.is_finished() {
        send(&mut client, b"ping").await;
        within(client.read_exact(&mut [0; 4])).await.unwrap();
        rounds += 1;
    }
    let head = head.await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        rounds > ROUNDS,
        "{rounds} round trips in the time of a scrape"
    );
}

#[tokio::test]
async fn metrics_are_openmetrics_for_whoever_asks_for_it() {
    let proxy = TestProxy::builder().start().await;
    proxy.ask(&connect_head("evil.test:443")).await;
    let mut stream = tokio::net::TcpStream::connect(proxy.admin).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n";
    send(&mut stream, request.as_bytes()).await;
    let answer = read_response(&mut stream).await;
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(field(&answer, "content-type"), Some(media_type));
    assert!(
        answer.contains("\n# TYPE outgate_requests counter\n"),
        "{answer}"
    );
    assert!(answer.contains("\noutgate_requests_total{"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    assert!(!proxy.metrics().await.contains("# EOF"));
}

#[tokio::test]
async fn the_connection_limit_is_shown() {
    let proxy = TestProxy::builder()
        .with(|config| config.max_connections = Some(77))
        .start()
        .await;
    proxy.shows("outgate_connections_limit 77").await;
    // From the start, so that the first rejection is an increase.
    let none = "outgate_connections_rejected_total{reason=\"connection_limit\"} 0";
    proxy.shows(none).await;
}

#[tokio::test]
async fn one_address_cannot_keep_the_admin_port_from_another() {
    let proxy = TestProxy::builder().start().await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(TcpStream::connect(proxy.admin).await.unwrap());
    }
    let probe = TcpSocket::new_v4().unwrap();
    probe.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut probe = probe.connect(proxy.admin).await.unwrap();
    send(
        &mut probe,
        b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    let answer = read_to_end(&mut probe).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
