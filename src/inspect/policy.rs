//! `GET /policy`: the rules in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde::Serialize;

use super::{Inspector, json};
use crate::admin::apart;
use crate::policy::{Action, Policy, Rule};

/// Answers with the policy in force, apart from the data path: it may be long.
pub(super) async fn show(inspector: Arc<Inspector>) -> Response<Full<Bytes>> {
    apart(move || {
        let in_force = inspector.proxy.enforced().load();
        json(&PolicyView::of(in_force.policy(), in_force.generation()))
    })
    .await
}

#[derive(Serialize)]
struct PolicyView<'a> {
    /// Counts up with each policy put in force.
    generation: u64,
    mode: &'static str,
    /// By name.
    clients: BTreeMap<&'a str, ClientView<'a>>,
    /// In order.
    rules: Vec<RuleView<'a>>,
}

#[derive(Default, Serialize)]
struct ClientView<'a> {
    networks: Vec<String>,
    users: Vec<&'a str>,
}

#[derive(Serialize)]
struct RuleView<'a> {
    name: &'a str,
    action: &'static str,
    hosts: Vec<String>,
    /// As in a rule; left out where the rule does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    ports: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
}

impl<'a> PolicyView<'a> {
    fn of(policy: &'a Policy, generation: u64) -> Self {
        let mut clients: BTreeMap<_, ClientView<'_>> = BTreeMap::new();
        for (network, name) in policy.clients().networks() {
            let client = clients.entry(&**name).or_default();
            client.networks.push(network.to_string());
        }
        for (user, name) in policy.clients().users() {
            clients.entry(&**name).or_default().users.push(user);
        }
        for client in clients.values_mut() {
            client.networks.sort_unstable();
        }
        Self {
            generation,
            mode: policy.mode().label(),
            clients,
            rules: policy.rules().map(RuleView::of).collect(),
        }
    }
}

impl<'a> RuleView<'a> {
    fn of(rule: &'a Rule) -> Self {
        let clients = rule.clients();
        Self {
            name: rule.name(),
            action: match rule.action() {
                Action::Allow => "allow",
                Action::Deny => "deny",
            },
            hosts: rule.hosts().iter().map(ToString::to_string).collect(),
            ports: rule.ports().to_string(),
            path: rule.path().map(ToString::to_string),
            clients: clients.map(|names| names.iter().map(|name| &**name).collect()),
            addresses: rule.addresses().iter().map(ToString::to_string).collect(),
        }
    }
}
