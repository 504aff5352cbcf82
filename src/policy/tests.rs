mod explain;
mod guard;
mod path;
mod spelling;

use std::net::Ipv4Addr;

use super::*;
use crate::reason::Reason;

const CONNECT: Access<'_> = Access::Connect;

fn forward(path: &str) -> Access<'_> {
    Access::Forward { path }
}

fn nobody() -> Client {
    Client {
        address: Ipv4Addr::LOCALHOST.into(),
        name: None,
    }
}

fn target(authority: &str) -> Target {
    Target::from_authority(authority).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn builder(allow: &[&str], deny: &[&str]) -> PolicyBuilder {
    let allowed = allow.iter().fold(Policy::builder(), |builder, text| {
        builder.allow(text.parse().unwrap())
    });
    deny.iter().fold(allowed, |builder, text| {
        builder.deny(Rule::parse(text, Action::Deny).unwrap())
    })
}

fn policy(allow: &[&str], deny: &[&str]) -> Arc<Policy> {
    Arc::new(builder(allow, deny).build())
}

/// The rule that allows, or the reason and the rule of the denial.
fn judge(
    policy: &Arc<Policy>,
    authority: &str,
    access: Access<'_>,
) -> Result<String, (Reason, String)> {
    match policy.authorize(&nobody(), &target(authority), access) {
        Ok(permit) => Ok(permit.rule().to_string()),
        Err(denial) => Err((
            denial.reason(),
            denial.rule().map(ToString::to_string).unwrap_or_default(),
        )),
    }
}

fn allowed(rule: &str) -> Result<String, (Reason, String)> {
    Ok(rule.to_owned())
}

fn denied(reason: Reason, rule: &str) -> Result<String, (Reason, String)> {
    Err((reason, rule.to_owned()))
}

#[test]
fn an_empty_policy_denies_everything() {
    let policy = policy(&[], &[]);
    for authority in [
        "example.com:443",
        "8.8.8.8:443",
        "[2606:4700::1]:443",
        "localhost:80",
    ] {
        assert_eq!(
            judge(&policy, authority, CONNECT),
            denied(Reason::HostNotAllowed, "")
        );
        assert_eq!(
            judge(&policy, authority, forward("/")),
            denied(Reason::HostNotAllowed, "")
        );
    }
}

#[test]
fn a_host_without_port_is_443_for_connect_and_80_for_plain_http() {
    let policy = policy(&["api.example.com", "other.example.com:8000-8100"], &[]);
    assert_eq!(
        judge(&policy, "api.example.com:443", CONNECT),
        allowed("api.example.com")
    );
    assert_eq!(
        judge(&policy, "api.example.com:80", forward("/x")),
        allowed("api.example.com")
    );
    for (port, access) in [(80, CONNECT), (443, forward("/")), (8443, CONNECT)] {
        let authority = format!("api.example.com:{port}");
        let expected = denied(Reason::PortNotAllowed, "api.example.com");
        assert_eq!(judge(&policy, &authority, access), expected, "{authority}");
    }
    for access in [CONNECT, forward("/")] {
        let rule = "other.example.com:8000-8100";
        assert_eq!(
            judge(&policy, "other.example.com:8100", access),
            allowed(rule)
        );
        assert_eq!(
            judge(&policy, "other.example.com:8101", access),
            denied(Reason::PortNotAllowed, rule)
        );
    }
}

#[test]
fn a_wildcard_names_every_name_below_and_not_its_base() {
    let policy = policy(&["*.example.com"], &[]);
    assert_eq!(
        judge(&policy, "a.example.com:443", CONNECT),
        allowed("*.example.com")
    );
    assert_eq!(
        judge(&policy, "a.b.c.example.com:443", CONNECT),
        allowed("*.example.com")
    );
    for authority in [
        "example.com:443",
        "badexample.com:443",
        "example.com.evil.net:443",
        "com:443",
    ] {
        assert_eq!(
            judge(&policy, authority, CONNECT),
            denied(Reason::HostNotAllowed, ""),
            "{authority}"
        );
    }
}

#[test]
fn the_most_specific_host_names_the_rule_and_ties_go_by_order() {
    let mut builder = builder(
        &[
            "*.example.com",
            "*.b.example.com",
            "a.b.example.com",
            "a.b.example.com:443",
            "10.0.0.0/8",
            "10.1.0.0/16",
        ],
        &[],
    );
    let any = Rule::new("any", Action::Allow, vec![HostPattern::Any]).unwrap();
    builder = builder.rule(any);
    let policy = Arc::new(builder.build());
    for (authority, rule) in [
        ("a.b.example.com:443", "a.b.example.com"),
        ("c.b.example.com:443", "*.b.example.com"),
        ("c.example.com:443", "*.example.com"),
        ("example.net:443", "any"),
        ("10.1.2.3:443", "10.1.0.0/16"),
        ("10.2.2.3:443", "10.0.0.0/8"),
    ] {
        assert_eq!(
            judge(&policy, authority, CONNECT),
            allowed(rule),
            "{authority}"
        );
    }
    // A less specific rule still allows what the more specific one leaves out.
    let policy = self::policy(&["a.example.com:8443", "*.example.com"], &[]);
    assert_eq!(
        judge(&policy, "a.example.com:443", CONNECT),
        allowed("*.example.com")
    );
}

#[test]
fn deny_wins_over_a_more_specific_allow_and_is_for_every_port() {
    let policy = policy(
        &["a.pastebin.com:*", "*.example.com:*", "10.0.0.0/8:*"],
        &["*.pastebin.com", "b.example.com:8443", "10.1.0.0/16"],
    );
    let reason = Reason::HostNotAllowed;
    for port in [443, 80, 8080] {
        let authority = format!("a.pastebin.com:{port}");
        assert_eq!(
            judge(&policy, &authority, CONNECT),
            denied(reason, "*.pastebin.com")
        );
        assert_eq!(
            judge(&policy, &authority, forward("/")),
            denied(reason, "*.pastebin.com")
        );
    }
    assert_eq!(
        judge(&policy, "b.example.com:8443", CONNECT),
        denied(reason, "b.example.com:8443")
    );
    assert_eq!(
        judge(&policy, "b.example.com:443", CONNECT),
        allowed("*.example.com:*")
    );
    assert_eq!(
        judge(&policy, "10.2.0.1:1", CONNECT),
        allowed("10.0.0.0/8:*")
    );
    for authority in [
        "10.1.0.1:1",
        "[::ffff:10.1.0.1]:1",
        "[64:ff9b::10.1.0.1]:1",
        "0xa.0x10001:1",
    ] {
        assert_eq!(
            judge(&policy, authority, CONNECT),
            denied(reason, "10.1.0.0/16"),
            "{authority}"
        );
    }
}

#[test]
fn an_ip_literal_matches_ranges_alone() {
    let any = Rule::new("any", Action::Allow, vec![HostPattern::Any]).unwrap();
    let policy = Arc::new(
        builder(&["203.0.113.7", "[2001:db8::/32]:443"], &[])
            .rule(any.clone())
            .build(),
    );
    assert_eq!(
        judge(&policy, "203.0.113.7:443", CONNECT),
        allowed("203.0.113.7")
    );
    assert_eq!(
        judge(&policy, "[::ffff:203.0.113.7]:443", CONNECT),
        allowed("203.0.113.7")
    );
    assert_eq!(
        judge(&policy, "[2001:db8::1]:443", CONNECT),
        allowed("[2001:db8::/32]:443")
    );
    for authority in ["8.8.8.8:443", "[64:ff9b::203.0.113.7]:443", "134744072:443"] {
        assert_eq!(
            judge(&policy, authority, CONNECT),
            denied(Reason::HostNotAllowed, ""),
            "{authority}"
        );
    }
    let policy = Arc::new(builder(&["8.8.8.8"], &[]).deny(any).build());
    assert_eq!(
        judge(&policy, "8.8.8.8:443", CONNECT),
        denied(Reason::HostNotAllowed, "any")
    );
}

#[test]
fn a_rule_for_clients_is_for_those_alone() {
    let rule = "api.example.com"
        .parse::<Rule>()
        .unwrap()
        .with_clients(["ci".into(), "batch".into()]);
    let policy = Arc::new(Policy::builder().allow(rule).build());
    let ask = |name: Option<&str>| {
        let client = Client {
            name: name.map(Arc::from),
            ..nobody()
        };
        policy.authorize(&client, &target("api.example.com:443"), CONNECT)
    };
    assert!(ask(Some("ci")).is_ok());
    for name in [None, Some("other")] {
        let denial = ask(name).unwrap_err();
        assert_eq!(denial.reason(), Reason::ClientNotAllowed);
        assert_eq!(
            denial.to_string(),
            "rule `api.example.com` names the host, but not this client"
        );
    }
}

#[test]
fn the_nearest_rule_is_the_one_that_matches_furthest() {
    let policy = policy(
        &["api.example.com:8443", "http://*.example.com:80/v1/"],
        &[],
    );
    let nearest = "http://*.example.com:80/v1/";
    assert_eq!(
        judge(&policy, "api.example.com:80", forward("/")),
        denied(Reason::PathNotAllowed, nearest)
    );
}

fn permit(policy: &Arc<Policy>, authority: &str) -> Permit {
    policy
        .authorize(&nobody(), &target(authority), CONNECT)
        .unwrap()
}

#[test]
fn rule_names_are_distinct_and_fixed_by_configuration() {
    let policy = policy(
        &["a.example.com", "b.example.com", "a.example.com"],
        &["c.example.com"],
    );
    assert_eq!(policy.rule_count(), 4);
    let names: Vec<&str> = policy.rule_names().iter().map(|name| &**name).collect();
    assert_eq!(names, ["a.example.com", "b.example.com", "c.example.com"]);
    assert_eq!(permit(&policy, "b.example.com:443").rule_id(), RuleId(1));
}

#[test]
fn an_address_can_be_reached_while_some_request_of_some_client_may() {
    let ledger = Rule::new("ledger", Action::Allow, vec!["a.example".parse().unwrap()])
        .unwrap()
        .with_clients(["ci".into()])
        .with_path("/v1/".parse().unwrap())
        .with_addresses(["10.0.0.0/8".parse().unwrap()]);
    let with = |deny: &[&str], mode| {
        let policy = builder(&["b.example:8080"], deny).rule(ledger.clone());
        Arc::new(policy.mode(mode).build())
    };
    let policy = with(&[], Mode::Enforce);
    for (policy, authority, address, expected) in [
        (&policy, "a.example:80", "8.8.8.8", true),
        (&policy, "a.example:80", "10.1.2.3", true),
        (&policy, "a.example:80", "192.168.1.1", false),
        (&policy, "a.example:443", "8.8.8.8", false),
        (&policy, "b.example:8080", "8.8.8.8", true),
        (&policy, "b.example:8080", "10.1.2.3", false),
        (&policy, "c.example:80", "8.8.8.8", false),
        (
            &with(&["a.example"], Mode::Enforce),
            "a.example:80",
            "8.8.8.8",
            false,
        ),
        (
            &with(&["http://a.example/v1/x/"], Mode::Enforce),
            "a.example:80",
            "8.8.8.8",
            true,
        ),
        (
            &with(&["a.example"], Mode::Report),
            "a.example:80",
            "8.8.8.8",
            true,
        ),
        (&with(&[], Mode::Report), "c.example:80", "8.8.8.8", true),
        (&with(&[], Mode::Report), "c.example:80", "10.1.2.3", false),
    ] {
        let could = policy.could_reach(&target(authority), ip(address));
        assert_eq!(could, expected, "{authority} at {address}");
    }
}

#[test]
fn a_policy_that_only_denies_lets_nothing_through() {
    assert!(policy(&[], &["a.example"]).denies_all());
    assert!(!policy(&["a.example"], &[]).denies_all());
    assert!(!builder(&[], &[]).mode(Mode::Report).build().denies_all());
}
