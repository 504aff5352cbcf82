//! What each notation reads, what it refuses, and that it reads back what it writes.

use super::*;

#[test]
fn durations_take_a_unit_and_add_up() {
    for (text, milliseconds) in [
        ("250ms", 250),
        ("10s", 10_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1d", 86_400_000),
        ("0s", 0),
    ] {
        assert_eq!(
            duration(text),
            Ok(Duration::from_millis(milliseconds)),
            "{text}"
        );
    }
}

#[test]
fn durations_without_a_sound_unit_or_number_are_refused_with_the_reason() {
    for (text, reason) in [
        ("10", "unit is missing"),
        ("10 s", "\" s\" is none of"),
        ("10x", "\"x\" is none of"),
        ("1.5s", "\".\" is none of"),
        ("-1s", "whole number"),
        ("s", "whole number"),
        ("366d", "longer than 365d"),
        ("18446744073709551615d", "longer than 365d"),
        ("99999999999999999999s", "too large"),
    ] {
        let error = duration(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    assert!(positive("0ms").is_err());
}

#[test]
fn durations_read_back_what_they_write() {
    for milliseconds in [
        0, 1, 999, 1_000, 1_500, 60_000, 90_000, 5_400_000, 86_400_000,
    ] {
        let value = Duration::from_millis(milliseconds);
        assert_eq!(duration(&show_duration(value)), Ok(value));
    }
    assert_eq!(show_duration(LONGEST_DURATION), "365d");
    assert_eq!(show_duration(Duration::from_secs(90)), "90s");
}

#[test]
fn sizes_are_powers_of_two_or_bytes_within_bounds() {
    let read = |text: &str| size(text, 8 << 10, 1 << 20);
    for (text, bytes) in [
        ("8KiB", 8_192),
        ("64KiB", 65_536),
        ("1MiB", 1 << 20),
        ("9000", 9_000),
        ("9000B", 9_000),
    ] {
        assert_eq!(read(text), Ok(bytes), "{text}");
        assert_eq!(read(&show_size(bytes)), Ok(bytes), "{text}");
    }
    for text in [
        "8191",
        "2MiB",
        "64KB",
        "64kib",
        "64KiB1",
        "KiB",
        "18446744073709551615MiB",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn counts_begin_at_one_and_end_at_their_bound() {
    assert_eq!(count("1", 8), Ok(1));
    for text in ["0", "9", "-1", "many", "1.0"] {
        assert!(count(text, 8).is_err(), "{text}");
    }
}

#[test]
fn lists_take_commas_spaces_and_newlines_in_any_mix() {
    let read = |text| list(text, str::parse::<u8>);
    assert_eq!(read("1,2 3\n4,\r\n\t5,"), Ok(vec![1, 2, 3, 4, 5]));
    assert_eq!(read(" , "), Ok(vec![]));
    let error = read("1,two,3,four").unwrap_err();
    assert!(
        error.contains("\"two\"") && error.contains("\"four\""),
        "{error}"
    );
}

#[test]
fn listeners_are_addresses_never_names_and_never_the_same_twice() {
    assert_eq!(
        listeners(":3128, 127.0.0.1:8080").unwrap(),
        [
            "[::]:3128".parse().unwrap(),
            "127.0.0.1:8080".parse().unwrap()
        ]
    );
    assert!(listeners("127.0.0.1:0,127.0.0.1:0").is_ok());
    for text in [
        "",
        "3128",
        "localhost:3128",
        "::1:3128",
        "[::]",
        "127.0.0.1",
        ":65536",
        ":80,:80",
    ] {
        assert!(listeners(text).is_err(), "{text}");
    }
}

#[test]
fn only_the_unspecified_ipv6_address_falls_back_to_ipv4() {
    let fallback = |text: &str| ipv4_fallback(text.parse().unwrap());
    assert_eq!(fallback("[::]:3128"), Some("0.0.0.0:3128".parse().unwrap()));
    assert_eq!(fallback("[::1]:3128"), None);
    assert_eq!(fallback("0.0.0.0:3128"), None);
}

#[test]
fn name_servers_default_to_port_53() {
    for (text, shown) in [
        ("10.0.0.10", "10.0.0.10:53"),
        ("10.0.0.10:5353", "10.0.0.10:5353"),
        ("fd00::a", "[fd00::a]:53"),
        ("[fd00::a]:5353", "[fd00::a]:5353"),
    ] {
        assert_eq!(name_server(text).unwrap().to_string(), shown);
    }
    for text in ["dns.example.com", "10.0.0.10:0", "10.0.0"] {
        assert!(name_server(text).is_err(), "{text}");
    }
}

#[test]
fn address_ranges_have_no_bits_beyond_their_prefix() {
    assert_eq!(network("10.20.0.0/16").unwrap().to_string(), "10.20.0.0/16");
    assert_eq!(
        network("2001:db8::1").unwrap().to_string(),
        "2001:db8::1/128"
    );
    assert!(
        network("10.20.0.5/16")
            .unwrap_err()
            .contains("10.20.0.0/16")
    );
    for text in [
        "10.0.0.0/33",
        "example.com",
        "10.0.0.0/",
        "10.0.0.0-10.0.0.9",
    ] {
        assert!(network(text).is_err(), "{text}");
    }
}

#[test]
fn pseudonyms_are_tokens_that_begin_with_a_letter() {
    for text in ["outgate", "egress-1.cluster_a", "A"] {
        assert_eq!(pseudonym(text).as_deref(), Ok(text));
    }
    for text in [
        "out gate",
        "out,gate",
        "out\"gate",
        "1outgate",
        "-a",
        "é",
        "a\r\nb",
        "a;b",
        "",
    ] {
        assert!(pseudonym(text).is_err(), "{text:?}");
    }
}
