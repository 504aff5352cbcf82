use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::harness::origin::{Origin, read_request};
use crate::harness::{TestProxy, connect_head, read_response, send, within};
use crate::policy_file::PolicyFolder;

const NOTHING: &str = "rules: []\n";

fn allowing(host: &str) -> String {
    format!("rules:\n  - {{ name: r, hosts: [{host}], ports: ['*'] }}\n")
}

async fn status(proxy: &TestProxy, target: &str) -> String {
    proxy
        .ask(&connect_head(target))
        .await
        .split(' ')
        .nth(1)
        .unwrap()
        .to_owned()
}

/// A change is in force within this time.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// What was refused is let through once the change has been seen, and that is soon.
async fn becomes_allowed(proxy: &TestProxy, target: &str) {
    let changed = Instant::now();
    within(async {
        while status(proxy, target).await == "403" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(changed.elapsed() < SEEN_WITHIN, "{:?}", changed.elapsed());
}

#[tokio::test]
async fn a_file_written_in_place_is_seen() {
    let folder = PolicyFolder::with(NOTHING);
    let proxy = folder.builder().start().await;
    assert_eq!(status(&proxy, "origin.test:9").await, "403");
    std::fs::write(folder.file(), allowing("origin.test")).unwrap();
    becomes_allowed(&proxy, "origin.test:9").await;
    proxy
        .shows("outgate_policy_reloads_total{result=\"ok\"} 1")
        .await;
    proxy.shows("outgate_policy_generation 2").await;
    proxy.shows("outgate_policy_rules 1").await;
}

#[tokio::test]
async fn a_file_replaced_by_rename_is_seen() {
    let folder = PolicyFolder::with(NOTHING);
    let proxy = folder.builder().start().await;
    let next = folder.path().join("next");
    std::fs::write(&next, allowing("origin.test")).unwrap();
    std::fs::rename(next, folder.file()).unwrap();
    becomes_allowed(&proxy, "origin.test:9").await;
}

#[tokio::test]
async fn a_config_map_that_kubernetes_swaps_is_seen() {
    let folder = PolicyFolder::with(NOTHING);
    let root = folder.path();
    // policy.yaml → ..data/policy.yaml, ..data → ..1; an update renames a new ..data over the old.
    std::fs::remove_file(folder.file()).unwrap();
    for (version, policy) in [
        ("..1", NOTHING.to_owned()),
        ("..2", allowing("origin.test")),
    ] {
        std::fs::create_dir(root.join(version)).unwrap();
        std::fs::write(root.join(version).join("policy.yaml"), policy).unwrap();
    }
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/policy.yaml", folder.file()).unwrap();
    let proxy = folder.builder().start().await;
    assert_eq!(status(&proxy, "origin.test:9").await, "403");
    symlink("..2", root.join("..data_tmp")).unwrap();
    std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    std::fs::remove_dir_all(root.join("..1")).unwrap();
    becomes_allowed(&proxy, "origin.test:9").await;
}

#[tokio::test]
async fn a_bad_file_leaves_the_old_policy_in_force_until_it_is_mended() {
    let folder = PolicyFolder::with(&allowing("origin.test"));
    let proxy = folder.builder().start().await;
    let mut errors = 0;
    let huge = "# much too much\n".repeat(300_000);
    for bad in [
        "",
        "# a template that rendered nothing",
        "rules: {",
        "rules:\n  - { name: r, hosts: ['*.com'] }\n",
        &huge,
    ] {
        std::fs::write(folder.file(), bad).unwrap();
        errors += 1;
        proxy
            .shows(&format!(
                "outgate_policy_reloads_total{{result=\"error\"}} {errors}"
            ))
            .await;
        proxy.shows("outgate_policy_last_reload_successful 0").await;
        assert_eq!(status(&proxy, "origin.test:9").await, "502");
    }
    std::fs::remove_file(folder.file()).unwrap();
    proxy
        .shows("outgate_policy_reloads_total{result=\"error\"} 6")
        .await;
    symlink("policy.yaml", folder.file()).unwrap();
    proxy
        .shows("outgate_policy_reloads_total{result=\"error\"} 6")
        .await;
    std::fs::remove_file(folder.file()).unwrap();
    std::fs::create_dir(folder.file()).unwrap();
    proxy
        .shows("outgate_policy_reloads_total{result=\"error\"} 7")
        .await;
    assert_eq!(status(&proxy, "origin.test:9").await, "502");
    std::fs::remove_dir(folder.file()).unwrap();
    std::fs::write(folder.file(), allowing("other.test")).unwrap();
    becomes_allowed(&proxy, "other.test:9").await;
    assert_eq!(status(&proxy, "origin.test:9").await, "403");
    proxy
        .shows("outgate_policy_reloads_total{result=\"ok\"} 1")
        .await;
}

#[tokio::test]
async fn a_kept_upstream_connection_goes_with_the_rule_that_allowed_it() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let folder = PolicyFolder::with(&allowing("origin.test"));
    let proxy = folder.builder().start().await;
    let request = format!(
        "GET http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    );
    assert!(proxy.ask(&request).await.ends_with("ok"));
    proxy
        .shows("outgate_pool_connections{state=\"idle\"} 1")
        .await;
    std::fs::write(folder.file(), NOTHING).unwrap();
    proxy
        .shows("outgate_pool_connections{state=\"idle\"} 0")
        .await;
    assert!(proxy.ask(&request).await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn a_kept_connection_that_may_still_be_used_survives_a_reload() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let port = origin.port();
    // Only one client, and only one path: it takes both to use the connection again.
    let policy = |name| {
        format!(
            "clients:\n  - {{ name: here, networks: [127.0.0.1] }}\n\
             rules:\n  - {{ name: {name}, hosts: [origin.test], ports: [{port}], path: /v1/, clients: [here] }}\n"
        )
    };
    let folder = PolicyFolder::with(&policy("old"));
    let proxy = folder.builder().start().await;
    let request = format!("GET http://origin.test:{port}/v1/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(proxy.ask(&request).await.ends_with("ok"));
    proxy
        .shows("outgate_pool_connections{state=\"idle\"} 1")
        .await;
    std::fs::write(folder.file(), policy("new")).unwrap();
    proxy
        .shows("outgate_policy_reloads_total{result=\"ok\"} 1")
        .await;
    assert!(proxy.ask(&request).await.ends_with("ok"));
    proxy
        .shows("outgate_pool_requests_total{reused=\"true\"} 1")
        .await;
}

#[tokio::test]
async fn a_request_in_flight_finishes_and_its_connection_is_not_kept() {
    let go_on = Arc::new(Notify::new());
    let gate = Arc::clone(&go_on);
    let origin = Origin::scripted(move |mut stream, seen| {
        let gate = Arc::clone(&gate);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let _ = seen.send(request);
                send(
                    &mut stream,
                    b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",
                )
                .await;
                gate.notified().await;
                send(&mut stream, b"rest").await;
            }
        }
    })
    .await;
    let folder = PolicyFolder::with(&allowing("origin.test"));
    let proxy = folder.builder().start().await;
    let mut client = proxy.connect().await;
    let request = format!(
        "GET http://origin.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    );
    send(&mut client, request.as_bytes()).await;
    proxy
        .shows("outgate_pool_connections{state=\"busy\"} 1")
        .await;
    std::fs::write(folder.file(), NOTHING).unwrap();
    proxy
        .shows("outgate_policy_reloads_total{result=\"ok\"} 1")
        .await;
    go_on.notify_one();
    let response = read_response(&mut client).await;
    assert!(response.ends_with("halfrest"), "{response}");
    for state in ["busy", "idle"] {
        proxy
            .shows(&format!("outgate_pool_connections{{state=\"{state}\"}} 0"))
            .await;
    }
}
