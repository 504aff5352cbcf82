use serde_json::{Value, json};

use crate::harness::{TestProxy, call, connect_head, field, get};
use crate::policy_file::PolicyFolder;

const POLICY: &str = "\
clients:
  - { name: ci, networks: [192.0.2.0/24] }
  - { name: batch, user: nightly }
rules:
  - { name: exact, hosts: [a.origin.test], ports: [443] }
  - { name: below, hosts: ['*.origin.test'], ports: ['*'] }
  - { name: build, hosts: [other.test], ports: [8000-8100], path: /v1/, clients: [ci, batch] }
  - { name: mixed, hosts: [mixed.test], addresses: [10.1.0.0/16] }
  - { name: no, action: deny, hosts: [b.origin.test] }
";

async fn explain(proxy: &TestProxy, query: &str) -> Value {
    serde_json::from_str(&get(proxy.inspect, &format!("/explain?{query}")).await).unwrap()
}

async fn proxy() -> TestProxy {
    PolicyFolder::with(POLICY)
        .builder()
        .host("10.1.2.3 mixed.test")
        .host("10.9.8.7 mixed.test private.origin.test")
        .start()
        .await
}

#[tokio::test]
async fn explain_tells_the_deciding_rule_the_runner_up_and_each_address() {
    let proxy = proxy().await;
    let told = explain(&proxy, "target=a.origin.test:443").await;
    assert_eq!(
        told,
        json!({
            "target": "a.origin.test:443",
            "client": { "address": "127.0.0.1", "name": null },
            "result": "allowed",
            "reason": "ok",
            "rule": "exact",
            "runner_up": "below",
            "considered": [
                { "rule": "exact", "action": "allow", "outcome": "decides" },
                { "rule": "below", "action": "allow", "outcome": "overruled" },
            ],
            "addresses": [{ "address": "127.0.0.1", "verdict": "admitted" }],
        })
    );
    let told = explain(&proxy, "target=mixed.test:443").await;
    assert_eq!(told["result"], "allowed");
    let verdict_on = |address| {
        let addresses = told["addresses"].as_array().unwrap();
        let of = |judged: &&Value| judged["address"] == address;
        addresses.iter().find(of).unwrap()["verdict"].clone()
    };
    assert_eq!(verdict_on("10.1.2.3"), "admitted");
    assert_eq!(verdict_on("10.9.8.7"), "prohibited");
}

#[tokio::test]
async fn explain_and_the_gateway_give_the_same_reason() {
    let proxy = proxy().await;
    for (target, reason) in [
        ("a.origin.test:444", None),
        ("b.origin.test:443", Some("host_not_allowed")),
        ("origin.test:443", Some("host_not_allowed")),
        ("mixed.test:80", Some("port_not_allowed")),
        ("other.test:8000", Some("auth_required")),
        ("private.origin.test:443", Some("address_prohibited")),
    ] {
        let told = explain(&proxy, &format!("target={target}")).await;
        let answer = proxy.ask(&connect_head(target)).await;
        match reason {
            Some(reason) => {
                assert_eq!(told["reason"], reason, "{told}");
                let status = answer.lines().next().unwrap();
                assert!(status.ends_with(&format!(": {reason}")), "{answer}");
            }
            // Let through, though nothing listens there.
            None => {
                assert_eq!(told["result"], "allowed", "{told}");
                assert!(answer.contains("connection_refused"), "{answer}");
            }
        }
    }
    let own = proxy.address.port();
    let told = explain(&proxy, &format!("target=a.origin.test:{own}")).await;
    assert_eq!(told["reason"], "loop_detected");
    assert_eq!(told["addresses"][0]["verdict"], "loop");
}

#[tokio::test]
async fn explain_asks_for_a_client_by_address_or_by_name_and_for_a_path() {
    let proxy = proxy().await;
    for (client, result, reason) in [
        ("", "denied", "auth_required"),
        ("&client=192.0.2.7", "allowed", "ok"),
        ("&client=198.51.100.7", "denied", "auth_required"),
        ("&client=ci", "allowed", "ok"),
        ("&client=batch", "allowed", "ok"),
    ] {
        let target = "target=http%3A%2F%2Fother.test%3A8000%2Fv1%2Fx";
        let told = explain(&proxy, &format!("{target}{client}")).await;
        assert_eq!(
            (&told["result"], &told["reason"]),
            (&json!(result), &json!(reason))
        );
    }
    let told = explain(&proxy, "target=http://other.test:8000/v2/&client=ci").await;
    assert_eq!(told["reason"], "path_not_allowed");
    assert_eq!(told["considered"][0]["misses"], "path_not_allowed");
}

#[tokio::test]
async fn in_report_mode_explain_tells_what_would_be_denied() {
    let proxy = TestProxy::builder()
        .with(|config| config.mode = outgate::policy::Mode::Report)
        .start()
        .await;
    let told = explain(&proxy, "target=origin.test:443").await;
    assert_eq!(told["result"], "would_deny");
    assert_eq!(told["reason"], "host_not_allowed");
}

#[tokio::test]
async fn a_question_that_is_none_is_answered_with_what_is_expected() {
    let proxy = proxy().await;
    for (path, hint) in [
        ("/explain", "?target="),
        ("/explain?client=ci", "?target="),
        ("/explain?target=a.test", "a.test"),
        ("/explain?target=https://a.test/", "https"),
        ("/explain?target=a.test:443&cleint=ci", "cleint"),
        ("/explain?target=a.test:443&client=typo", "typo"),
    ] {
        let answer = call(proxy.inspect, "GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert!(answer.contains(hint), "{path}: {answer}");
    }
    for path in ["/explain?target=a.test:443", "/policy"] {
        let answer = call(proxy.inspect, "POST", path).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert_eq!(field(&answer, "allow"), Some("GET"));
        let elsewhere = call(proxy.admin, "GET", path).await;
        assert!(elsewhere.starts_with("HTTP/1.1 404 "), "{elsewhere}");
    }
}

#[tokio::test]
async fn the_inspector_shows_the_policy_in_force() {
    let folder = PolicyFolder::with(POLICY);
    let proxy = folder.builder().allow("more.test:*").start().await;
    let policy = || async {
        let shown = get(proxy.inspect, "/policy").await;
        serde_json::from_str::<Value>(&shown).unwrap()
    };
    let shown = policy().await;
    assert_eq!(shown["generation"], 1);
    assert_eq!(shown["mode"], "enforce");
    assert_eq!(
        shown["clients"],
        json!({
            "batch": { "networks": [], "users": ["nightly"] },
            "ci": { "networks": ["192.0.2.0/24"], "users": [] },
        })
    );
    assert_eq!(
        shown["rules"][0],
        json!({ "name": "more.test:*", "action": "allow", "hosts": ["more.test"], "ports": "*" })
    );
    assert_eq!(
        shown["rules"][3],
        json!({
            "name": "build",
            "action": "allow",
            "hosts": ["other.test"],
            "ports": "8000-8100",
            "path": "/v1/",
            "clients": ["batch", "ci"],
        })
    );
    assert_eq!(shown["rules"][4]["addresses"], json!(["10.1.0.0/16"]));
    assert_eq!(shown["rules"][5]["action"], "deny");
    std::fs::write(folder.file(), "mode: report\nrules: []\n").unwrap();
    proxy.shows("outgate_policy_generation 2").await;
    let shown = policy().await;
    assert_eq!(
        (&shown["generation"], &shown["mode"]),
        (&json!(2), &json!("report"))
    );
    assert_eq!(shown["rules"].as_array().unwrap().len(), 1);
}
