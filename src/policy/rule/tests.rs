use super::*;

#[test]
fn the_forms_of_a_rule_are_read() {
    for (text, host, ports, path) in [
        ("api.example.com", "api.example.com", "", None),
        (" API.Example.COM. ", "api.example.com", "", None),
        ("api.example.com:8443", "api.example.com", "8443", None),
        (
            "api.example.com:8000-8100",
            "api.example.com",
            "8000-8100",
            None,
        ),
        ("api.example.com:*", "api.example.com", "*", None),
        ("*.example.com", "*.example.com", "", None),
        ("*.example.com:8443", "*.example.com", "8443", None),
        ("*.bücher.example", "*.xn--bcher-kva.example", "", None),
        ("*.internal", "*.internal", "", None),
        ("10.20.0.0/16:5432", "10.20.0.0/16", "5432", None),
        ("203.0.113.7", "203.0.113.7", "", None),
        ("2130706433:80", "127.0.0.1", "80", None),
        ("[2001:db8::/32]:443", "[2001:db8::/32]", "443", None),
        ("[2001:db8::1]", "[2001:db8::1]", "", None),
        (
            "http://api.example.com/v1/",
            "api.example.com",
            "",
            Some("/v1/"),
        ),
        (
            "HTTP://api.example.com:8080",
            "api.example.com",
            "8080",
            Some("/"),
        ),
        (
            "http://[2001:db8::/32]:80/a",
            "[2001:db8::/32]",
            "80",
            Some("/a"),
        ),
    ] {
        let rule: Rule = text.parse().unwrap();
        assert_eq!(rule.name().as_ref(), text.trim());
        assert_eq!(rule.hosts()[0].to_string(), host, "{text}");
        assert_eq!(rule.ports().to_string(), ports, "{text}");
        assert_eq!(
            rule.path().map(ToString::to_string).as_deref(),
            path,
            "{text}"
        );
    }
}

#[test]
fn what_is_no_rule_is_refused_with_the_reason() {
    let host_bits = |network: &str| RuleError::HostBits {
        network: network.parse().unwrap(),
    };
    for (text, expected) in [
        ("", RuleError::Empty),
        ("  ", RuleError::Empty),
        ("*", RuleError::BareWildcard),
        ("*:443", RuleError::BareWildcard),
        ("*.", RuleError::BareWildcard),
        ("http://*/v1/", RuleError::BareWildcard),
        ("*.com", RuleError::PublicSuffix("com".into())),
        ("*.co.uk:443", RuleError::PublicSuffix("co.uk".into())),
        ("*.рф", RuleError::PublicSuffix("xn--p1ai".into())),
        ("a*.example.com", RuleError::WildcardInside),
        ("a.*.com", RuleError::WildcardInside),
        ("*.*.example.com", RuleError::WildcardInside),
        ("*example.com", RuleError::WildcardInside),
        ("*.10.0.0.1", RuleError::WildcardAddress),
        ("api.example.com:0", RuleError::PortZero),
        ("api.example.com:", RuleError::Port("".into())),
        ("api.example.com:http", RuleError::Port("http".into())),
        (
            "api.example.com:90-80",
            RuleError::ReversedPorts {
                first: 90,
                last: 80,
            },
        ),
        ("https://api.example.com/", RuleError::Https),
        ("ftp://api.example.com/", RuleError::Scheme("ftp".into())),
        ("http://user@api.example.com/", RuleError::Userinfo),
        ("user@api.example.com", RuleError::Userinfo),
        ("http://api.example.com/v1?x", RuleError::Query),
        ("http://api.example.com/v1/../", RuleError::Path),
        ("api.example.com/v1/", RuleError::PathWithoutScheme),
        ("api.example.com:80/v1/", RuleError::Port("80/v1/".into())),
        ("10.20.1.0/16", host_bits("10.20.0.0/16")),
        ("[2001:db8::1/32]:443", host_bits("2001:db8::/32")),
        ("10.20.0.0/33", RuleError::Range("10.20.0.0/33".into())),
        ("2001:db8::1", TargetError::BareIpv6.into()),
        ("2001:db8::/32", TargetError::BareIpv6.into()),
        ("[example.com]", TargetError::NotIpv6.into()),
        ("api..example.com", TargetError::EmptyLabel.into()),
        ("example.123", TargetError::BadIpv4.into()),
    ] {
        assert_eq!(text.parse::<Rule>(), Err(expected), "{text}");
    }
}

#[test]
fn a_deny_rule_may_name_a_whole_suffix_but_not_everything() {
    assert!(Rule::parse("*.zip", Action::Deny).is_ok());
    assert_eq!(Rule::parse("*", Action::Deny), Err(RuleError::BareWildcard));
}

#[test]
fn a_rule_of_the_file_needs_a_name_and_hosts_and_may_say_every_host() {
    let any = vec!["*".parse().unwrap()];
    assert!(Rule::new("all", Action::Allow, any.clone()).is_ok());
    assert_eq!(Rule::new(" ", Action::Allow, any), Err(RuleError::Unnamed));
    assert_eq!(
        Rule::new("none", Action::Allow, Vec::new()),
        Err(RuleError::NoHosts)
    );
    let suffix = vec!["*.com".parse().unwrap()];
    assert_eq!(
        Rule::new("com", Action::Allow, suffix),
        Err(RuleError::PublicSuffix("com".into()))
    );
}
