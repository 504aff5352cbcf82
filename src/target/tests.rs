use proptest::prelude::*;

use super::*;

fn connect(authority: &str) -> Result<String, TargetError> {
    Target::from_authority(authority).map(|target| target.to_string())
}

#[test]
fn a_connect_target_is_normalised() {
    for (authority, expected) in [
        ("api.example.com:443", "api.example.com:443"),
        ("API.Example.COM:443", "api.example.com:443"),
        ("api.example.com.:443", "api.example.com:443"),
        ("_dmarc.example.com:53", "_dmarc.example.com:53"),
        ("r3---sn-x.example.com:443", "r3---sn-x.example.com:443"),
        ("bücher.example:443", "xn--bcher-kva.example:443"),
        ("XN--BCHER-KVA.example:443", "xn--bcher-kva.example:443"),
        ("straße.example:443", "xn--strae-oqa.example:443"),
        ("exam\u{ad}ple.com:443", "example.com:443"),
        ("example。com:443", "example.com:443"),
        ("localhost:00443", "localhost:443"),
        ("[2001:DB8:0::1]:443", "[2001:db8::1]:443"),
        ("[::ffff:10.1.2.3]:443", "[::ffff:10.1.2.3]:443"),
        ("1.2.3.com:1", "1.2.3.com:1"),
        ("a.0xg:1", "a.0xg:1"),
    ] {
        assert_eq!(connect(authority).as_deref(), Ok(expected), "{authority}");
    }
}

#[test]
fn every_spelling_of_ipv4_that_inet_aton_takes_is_an_address() {
    for spelling in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0X7F.0.0.1",
        "017700000001",
        "2130706433",
        "0x7f000001",
        "0177.0.0.01",
        "127.0.0.1.",
        "2130706433.",
        "１２７.0.0.1",
        "127。0．0｡1",
    ] {
        let target = Target::from_authority(&format!("{spelling}:80")).unwrap();
        assert_eq!(
            target.host(),
            &Host::Address([127, 0, 0, 1].into()),
            "{spelling}"
        );
    }
    assert_eq!(connect("0:80").as_deref(), Ok("0.0.0.0:80"));
    assert_eq!(
        connect("255.255.255.255:80").as_deref(),
        Ok("255.255.255.255:80")
    );
}

#[test]
fn what_ends_in_a_number_but_is_no_address_is_refused() {
    for host in [
        "256.0.0.1",
        "1.2.3.4.5",
        "4294967296",
        "08.0.0.1",
        "1.2.3.08",
        "example.123",
        "1.0x",
        "0x",
        "example.0xff",
        "127.0.0.0x100",
        "1.256.1",
        "99999999999999999999",
        "1.2.65536",
    ] {
        assert_eq!(
            connect(&format!("{host}:80")),
            Err(TargetError::BadIpv4),
            "{host}"
        );
    }
}

#[test]
fn each_fault_of_a_target_has_an_error_of_its_own() {
    let label = "a".repeat(64);
    let long = format!("{}.com", "a.".repeat(130));
    let long_port = format!("{long}:443");
    for (authority, expected) in [
        ("user@example.com:443", TargetError::Userinfo),
        ("user:password@example.com:443", TargetError::Userinfo),
        (":443", TargetError::EmptyHost),
        ("", TargetError::MissingPort),
        ("example.com", TargetError::MissingPort),
        ("example.com:", TargetError::MissingPort), // RFC 9110 §9.3.6
        ("[::1]", TargetError::MissingPort),
        ("example.com:0", TargetError::PortZero),
        ("example.com:65536", TargetError::PortTooLarge),
        (
            "example.com:99999999999999999999",
            TargetError::PortTooLarge,
        ),
        ("example.com:+443", TargetError::BadPort),
        ("example.com:https", TargetError::BadPort),
        ("example.com:443:443", TargetError::BadPort),
        ("2001:db8::1", TargetError::BareIpv6),
        ("2001:db8::1:443", TargetError::BareIpv6),
        ("2001:db8:0:0:0:0:0:1:443", TargetError::BareIpv6),
        ("[example.com]:443", TargetError::NotIpv6),
        ("[127.0.0.1]:443", TargetError::NotIpv6),
        ("[]:443", TargetError::NotIpv6),
        ("[v1.x]:443", TargetError::NotIpv6),
        ("[::1:443", TargetError::Brackets),
        ("[::1]443", TargetError::Brackets),
        ("[[::1]]:443", TargetError::Brackets),
        ("[fe80::1%25eth0]:443", TargetError::ZoneId), // RFC 6874
        ("exa mple.com:443", TargetError::SpaceOrControl),
        ("exa\0mple.com:443", TargetError::SpaceOrControl),
        ("example.com\r\n:443", TargetError::SpaceOrControl),
        ("ex%61mple.com:443", TargetError::Percent),
        ("ex％61mple.com:443", TargetError::Percent),
        ("example.com/x:443", TargetError::BadCharacter('/')),
        ("*.example.com:443", TargetError::BadCharacter('*')),
        ("example.com]:443", TargetError::BadCharacter(']')),
        ("example.com..:443", TargetError::EmptyLabel),
        (".example.com:443", TargetError::EmptyLabel),
        ("a..example.com:443", TargetError::EmptyLabel),
        (".:443", TargetError::EmptyLabel),
        ("\u{ad}:443", TargetError::EmptyHost),
        (&format!("{label}.com:443"), TargetError::LabelTooLong),
        (&long_port, TargetError::NameTooLong),
        ("xn--a.com:443", TargetError::Idna),
        ("xn--abc-.com:443", TargetError::Idna),
        ("a\u{200d}b.com:443", TargetError::Idna),
    ] {
        assert_eq!(connect(authority), Err(expected), "{authority}");
    }
}

#[test]
fn an_absolute_target_defaults_to_port_80_and_refuses_https() {
    let absolute = |scheme, authority| Target::from_absolute(scheme, authority);
    // RFC 9110 §4.2.1; an empty port is no port (RFC 3986 §3.2.3).
    for authority in ["example.com", "example.com:", "EXAMPLE.com:80"] {
        let target = absolute("HTTP", authority).unwrap();
        assert_eq!(target.to_string(), "example.com:80");
        assert_eq!(target.host_field(), "example.com"); // RFC 9110 §7.2
    }
    assert_eq!(
        absolute("http", "[::1]:8080").unwrap().host_field(),
        "[::1]:8080"
    );
    assert_eq!(absolute("http", "[::1]").unwrap().host_field(), "[::1]");
    assert_eq!(absolute("http", ""), Err(TargetError::EmptyHost));
    assert_eq!(absolute("http", ":80"), Err(TargetError::EmptyHost));
    assert_eq!(absolute("https", "example.com"), Err(TargetError::Https));
    assert_eq!(
        absolute("ftp", "example.com"),
        Err(TargetError::UnsupportedScheme)
    );
    assert!(TargetError::Https.to_string().contains("CONNECT"));
}

proptest! {
    #[test]
    fn normalisation_is_idempotent(authority in "\\PC{0,40}:[0-9]{1,5}") {
        if let Ok(target) = Target::from_authority(&authority) {
            prop_assert_eq!(Target::from_authority(&target.to_string()), Ok(target));
        }
    }

    #[test]
    fn normalisation_of_name_like_input_is_idempotent(
        host in "([a-zA-Z0-9_üßΣς。．０-９א-ת\u{ad}-]{1,9}|xn--[a-z0-9-]{1,8}|0x[0-9a-f]{0,4})([.。]([a-z0-9ß-]{1,6}|0x1)){0,4}\\.?"
    ) {
        if let Ok(target) = Target::from_authority(&format!("{host}:443")) {
            prop_assert_eq!(Target::from_authority(&target.to_string()), Ok(target));
        }
    }

    #[test]
    fn an_address_in_any_radix_is_that_address(bits: u32) {
        for text in [format!("{bits}"), format!("0x{bits:X}"), format!("0{bits:o}")] {
            let target = Target::from_authority(&format!("{text}:1")).unwrap();
            prop_assert_eq!(target.host(), &Host::Address(std::net::Ipv4Addr::from_bits(bits).into()));
        }
    }
}
