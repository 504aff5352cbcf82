//! The address guard as a permit applies it.

use proptest::prelude::*;

use super::*;

#[test]
fn the_guard_stands_unless_a_range_lifts_it() {
    let ledger = "ledger.example.com"
        .parse::<Rule>()
        .unwrap()
        .with_addresses(["10.20.0.0/16".parse().unwrap()]);
    let policy = Arc::new(
        builder(&["*.example.com", "10.30.0.0/16", "[fd00::/8]"], &[])
            .allow(ledger)
            .allow_addresses([
                "10.40.0.0/16".parse().unwrap(),
                "0.0.0.0/32".parse().unwrap(),
            ])
            .deny_addresses([
                "10.20.9.0/24".parse().unwrap(),
                "8.8.8.0/24".parse().unwrap(),
            ])
            .build(),
    );
    for (authority, address, admitted) in [
        ("a.example.com:443", "1.1.1.1", true),
        ("a.example.com:443", "10.1.2.3", false),
        ("a.example.com:443", "::ffff:10.1.2.3", false),
        ("a.example.com:443", "10.20.0.1", false),
        ("a.example.com:443", "10.30.0.1", false),
        ("a.example.com:443", "10.40.0.1", true),
        ("a.example.com:443", "::ffff:10.40.0.1", true),
        ("a.example.com:443", "64:ff9b::10.40.0.1", true),
        ("a.example.com:443", "64:ff9b:1::10.40.0.1", false),
        // Teredo: server 10.40.0.1, client 10.1.2.3. What one carries does not excuse the other.
        ("a.example.com:443", "2001:0:a28:1::f5fe:fdfc", false),
        ("ledger.example.com:443", "10.20.0.1", true),
        ("ledger.example.com:443", "10.21.0.1", false),
        ("ledger.example.com:443", "10.20.9.1", false), // denied addresses win
        ("a.example.com:443", "8.8.8.8", false),
        ("a.example.com:443", "64:ff9b::8.8.8.8", false),
        ("10.30.0.1:443", "10.30.0.1", true),
        ("10.30.0.1:443", "10.30.0.2", false),
        ("[::ffff:10.30.0.1]:443", "10.30.0.1", true),
        ("[::ffff:10.30.0.1]:443", "::ffff:10.30.0.1", true),
        ("[fd00::5efe:10.1.2.3]:443", "fd00::5efe:10.1.2.3", true),
    ] {
        let verdict = permit(&policy, authority).admits(ip(address));
        assert_eq!(
            verdict.is_ok(),
            admitted,
            "{authority} {address} {verdict:?}"
        );
    }
}

#[test]
fn a_prohibited_address_says_where_it_lies() {
    let policy = Arc::new(
        builder(&["example.com"], &[])
            .deny_addresses(["8.8.8.0/24".parse().unwrap()])
            .build(),
    );
    let permit = permit(&policy, "example.com:443");
    for (address, expected) in [
        (
            "10.1.2.3",
            "10.1.2.3 is in 10.0.0.0/8 (Private-Use, RFC 1918)",
        ),
        (
            "8.8.8.8",
            "8.8.8.8 is in 8.8.8.0/24 (OUTGATE_DENY_ADDRESSES)",
        ),
        (
            "64:ff9b::10.1.2.3",
            "64:ff9b::a01:203 carries 10.1.2.3 (NAT64, RFC 6052 §2.1), which is in 10.0.0.0/8 (Private-Use, RFC 1918)",
        ),
        (
            "2002:808:808::1",
            "2002:808:808::1 carries 8.8.8.8 (6to4, RFC 3056 §2), which is in 8.8.8.0/24 (OUTGATE_DENY_ADDRESSES)",
        ),
    ] {
        assert_eq!(
            permit.admits(ip(address)).unwrap_err().to_string(),
            expected
        );
    }
}

#[test]
fn report_mode_lets_hosts_through_and_keeps_the_guard() {
    let report = Arc::new(
        builder(&["a.example.com"], &["b.example.com"])
            .mode(Mode::Report)
            .build(),
    );
    for (authority, rule, reason) in [
        ("b.example.com:443", "b.example.com", Reason::HostNotAllowed),
        (
            "a.example.com:8443",
            "a.example.com",
            Reason::PortNotAllowed,
        ),
        ("c.example.com:443", "(none)", Reason::HostNotAllowed),
        ("10.1.2.3:443", "(none)", Reason::HostNotAllowed),
    ] {
        let permit = permit(&report, authority);
        assert_eq!(
            permit.would_deny().map(Denial::reason),
            Some(reason),
            "{authority}"
        );
        assert_eq!(permit.rule().as_ref(), rule);
        assert_eq!(
            report.rule_names()[permit.rule_id().0 as usize].as_ref(),
            rule
        );
        assert!(permit.admits(ip("10.1.2.3")).is_err());
        assert!(permit.admits(ip("1.1.1.1")).is_ok());
    }
    assert!(permit(&report, "a.example.com:443").would_deny().is_none());
}

proptest! {
    #[test]
    fn nothing_special_is_admitted_for_a_plain_rule(bits: u128) {
        let policy = policy(&["example.com"], &[]);
        let address = IpAddr::V6(bits.into());
        let admitted = permit(&policy, "example.com:443").admits(address).is_ok();
        prop_assert_eq!(admitted, address::classify(address).is_none());
    }
}
