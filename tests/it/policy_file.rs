use std::path::{Path, PathBuf};

use crate::harness::origin::Origin;
use crate::harness::{Builder, TestProxy, connect_head, field, read_head, read_response, send};

/// A folder with a policy in it.
pub(crate) struct PolicyFolder {
    folder: tempfile::TempDir,
}

impl PolicyFolder {
    pub(crate) fn with(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("policy.yaml"), policy).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("policy.yaml")
    }

    /// A gateway that follows the file.
    pub(crate) fn builder(&self) -> Builder {
        let file = self.file();
        TestProxy::builder().with(move |config| config.policy_file = Some(file))
    }
}

#[tokio::test]
async fn rules_of_the_file_are_added_to_those_of_the_variables() {
    let origin = Origin::answering("").await;
    let port = origin.port();
    let policy = format!(
        "rules:\n  - {{ name: from-file, hosts: [origin.test], ports: [{port}] }}\n  - {{ name: no, action: deny, hosts: [a.origin.test] }}\n"
    );
    let proxy = PolicyFolder::with(&policy)
        .builder()
        .allow(&format!("other.test:{port}"))
        .allow("*.origin.test:*")
        .start()
        .await;
    proxy.tunnel(&format!("origin.test:{port}")).await;
    proxy.tunnel(&format!("other.test:{port}")).await;
    let answer = proxy
        .ask(&connect_head(&format!("a.origin.test:{port}")))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    proxy.shows("outgate_policy_rules 4").await;
    proxy
        .shows("outgate_requests_total{kind=\"connect\",reason=\"ok\",result=\"allowed\",rule=\"from-file\"} 1")
        .await;
}

#[tokio::test]
async fn a_rule_of_the_file_lets_its_hosts_resolve_into_its_addresses_only() {
    let origin = Origin::answering("").await;
    let port = origin.port();
    let policy = format!(
        "rules:\n  - {{ name: ledger, hosts: [origin.test], ports: [{port}], addresses: [127.0.0.1] }}\n  - {{ name: rest, hosts: ['*'], ports: [{port}] }}\n"
    );
    let proxy = PolicyFolder::with(&policy)
        .builder()
        .with(|config| config.allow_addresses.clear())
        .start()
        .await;
    proxy.tunnel(&format!("origin.test:{port}")).await;
    let answer = proxy
        .ask(&connect_head(&format!("other.test:{port}")))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 403 egress denied: address_prohibited\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_client_is_known_by_its_network_or_by_the_user_it_gives() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let port = origin.port();
    let policy = format!(
        "clients:\n  - {{ name: elsewhere, networks: [192.0.2.0/24] }}\n  - {{ name: batch, user: batch }}\n\
         rules:\n  - {{ name: r, hosts: [origin.test], ports: [{port}], clients: [elsewhere, batch] }}\n"
    );
    let proxy = PolicyFolder::with(&policy).builder().start().await;
    let mut client = proxy.connect().await;
    // A client that has not said who it is may say so, on the same connection.
    send(
        &mut client,
        connect_head(&format!("origin.test:{port}")).as_bytes(),
    )
    .await;
    let refusal = read_response(&mut client).await;
    assert!(
        refusal.starts_with("HTTP/1.1 407 egress denied: auth_required\r\n"),
        "{refusal}"
    );
    assert!(
        field(&refusal, "proxy-authenticate")
            .unwrap()
            .starts_with("Basic realm=")
    );
    assert_eq!(field(&refusal, "connection"), None);
    let head = connect_head(&format!("origin.test:{port}")).replacen(
        "\r\n",
        "\r\nProxy-Authorization: Basic YmF0Y2g6eA==\r\n",
        1,
    );
    send(&mut client, head.as_bytes()).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn without_users_a_client_that_may_not_is_simply_refused() {
    let policy = "clients:\n  - { name: elsewhere, networks: [192.0.2.0/24] }\n\
                  rules:\n  - { name: r, hosts: [origin.test], clients: [elsewhere] }\n";
    let proxy = PolicyFolder::with(policy).builder().start().await;
    let answer = proxy.ask(&connect_head("origin.test:443")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 egress denied: client_not_allowed\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn report_mode_lets_through_what_it_would_deny_but_no_address() {
    let origin = Origin::answering("").await;
    let port = origin.port();
    let policy = "mode: report\nrules:\n  - { name: no, action: deny, hosts: [other.test] }\n";
    let proxy = PolicyFolder::with(policy)
        .builder()
        .host("10.9.8.7 private.test")
        .start()
        .await;
    proxy.tunnel(&format!("origin.test:{port}")).await;
    proxy.tunnel(&format!("other.test:{port}")).await;
    let series = |rule| {
        format!(
            "outgate_requests_total{{kind=\"connect\",reason=\"host_not_allowed\",result=\"would_deny\",rule=\"{rule}\"}} 1"
        )
    };
    proxy.shows(&series("(none)")).await;
    proxy.shows(&series("no")).await;
    let answer = proxy.ask(&connect_head("private.test:443")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 egress denied: address_prohibited\r\n"),
        "{answer}"
    );
}
