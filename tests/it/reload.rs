use std::os::unix::fs::symlink;

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, connect_head, within};
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

/// What was refused is let through once the change has been seen.
async fn becomes_allowed(proxy: &TestProxy, target: &str) {
    within(async {
        while status(proxy, target).await == "403" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
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
        assert_eq!(status(&proxy, "origin.test:9").await, "502");
    }
    std::fs::remove_file(folder.file()).unwrap();
    proxy
        .shows("outgate_policy_reloads_total{result=\"error\"} 5")
        .await;
    std::fs::create_dir(folder.file()).unwrap();
    proxy
        .shows("outgate_policy_reloads_total{result=\"error\"} 6")
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
