//! The configuration as an operator meets it: variables and a file in, settings or messages out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;

fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(variables.iter().copied())
}

/// Lines of the error that these variables cause.
fn complaints(variables: &[(&str, &str)]) -> Vec<String> {
    let error = load(variables).unwrap_err().to_string();
    error.lines().map(str::to_owned).collect()
}

/// Loads a file of that name and content beneath the given variables.
fn load_file(name: &str, content: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap();
    Config::load(variables.iter().copied().chain([("OUTGATE_CONFIG", path)]))
}

#[test]
fn without_a_variable_every_setting_has_the_default_of_the_table() {
    let config = load(&[("PATH", "/bin"), ("HTTP_PROXY", "http://outgate:3128")]).unwrap();
    assert_eq!(config, Config::default());
    for (variable, shown, origin) in config.values() {
        assert_eq!(shown, variable.default, "{}", variable.name);
        assert_eq!(origin, Origin::Default);
    }
}

#[test]
fn every_variable_sets_a_field_of_its_own_and_reads_back_what_it_shows() {
    let settings = every_setting();
    assert_eq!(
        settings.len() + 1,
        VARIABLES.len(),
        "all but OUTGATE_CONFIG"
    );
    let first = load(&settings).unwrap();
    for (variable, shown, origin) in first.values().skip(1) {
        assert_ne!(shown, variable.default, "{}", variable.name);
        assert_eq!(origin, Origin::Variable);
    }

    let text = first.to_string();
    let printed = text.lines().map(|line| {
        let (setting, _) = line.rsplit_once("  # ").unwrap();
        setting.split_once('=').unwrap()
    });
    let mut second = Config::load(printed).unwrap();
    second.origins.clone_from(&first.origins);
    assert_eq!(second, first);
}

fn every_setting() -> Vec<(&'static str, &'static str)> {
    vec![
        ("OUTGATE_LISTEN", "0.0.0.0:8080, [::1]:8081"),
        ("OUTGATE_ADMIN_LISTEN", ":9190"),
        ("OUTGATE_INSPECT_LISTEN", "off"),
        ("OUTGATE_ALLOW", "api.example.com\n*.example.org:8443"),
        ("OUTGATE_DENY", "paste.example.org"),
        ("OUTGATE_ALLOW_ADDRESSES", "10.20.0.0/16 fd00::/8"),
        ("OUTGATE_DENY_ADDRESSES", "192.0.2.1"),
        ("OUTGATE_POLICY_FILE", "/etc/outgate/policy #1.yaml"),
        ("OUTGATE_MODE", "report"),
        ("OUTGATE_CONNECT_TIMEOUT", "1500ms"),
        ("OUTGATE_DNS_TIMEOUT", "2s"),
        ("OUTGATE_DNS_SERVERS", "10.0.0.10,[fd00::a]:5353"),
        ("OUTGATE_DNS_SEARCH", "true"),
        ("OUTGATE_HEADER_TIMEOUT", "1m30s"),
        ("OUTGATE_RESPONSE_TIMEOUT", "1h"),
        ("OUTGATE_IDLE_TIMEOUT", "365d"),
        ("OUTGATE_KEEPALIVE_TIMEOUT", "30s"),
        ("OUTGATE_MAX_LIFETIME", "12h"),
        ("OUTGATE_MAX_CONNECTIONS", "10000"),
        ("OUTGATE_MAX_CONNECTIONS_PER_CLIENT", "100"),
        ("OUTGATE_MAX_HEADER_BYTES", "16384"),
        ("OUTGATE_DRAIN_DELAY", "0s"),
        ("OUTGATE_DRAIN_TIMEOUT", "10m"),
        ("OUTGATE_ACCESS_LOG", "false"),
        ("OUTGATE_LOG", "outgate=debug, warn"),
        ("OUTGATE_LOG_FORMAT", "json"),
        ("OUTGATE_WORKERS", "4"),
        ("OUTGATE_VIA", "egress-1"),
    ]
}

#[test]
fn a_bad_value_is_named_with_what_was_expected_and_why_it_is_not_that() {
    for (name, value, reason) in [
        ("OUTGATE_LISTEN", "localhost:3128", "not an IP address"),
        ("OUTGATE_ADMIN_LISTEN", "off", "not an IP address"),
        ("OUTGATE_INSPECT_LISTEN", "9091", "not an IP address"),
        ("OUTGATE_ALLOW", "a.example.com,*", "\"*\": a bare *"),
        (
            "OUTGATE_ALLOW_ADDRESSES",
            "10.0.0.1/8",
            "the range is 10.0.0.0/8",
        ),
        ("OUTGATE_MODE", "audit", "none of them"),
        ("OUTGATE_CONNECT_TIMEOUT", "0s", "zero"),
        ("OUTGATE_IDLE_TIMEOUT", "off", "whole number"),
        ("OUTGATE_MAX_LIFETIME", "1y", "the unit"),
        ("OUTGATE_MAX_CONNECTIONS", "0", "between 1 and"),
        ("OUTGATE_MAX_HEADER_BYTES", "4KiB", "between 8KiB and 1MiB"),
        ("OUTGATE_WORKERS", "2000", "between 1 and 1024"),
        ("OUTGATE_ACCESS_LOG", "yes", "none of them"),
        ("OUTGATE_LOG_FORMAT", "xml", "none of them"),
        ("OUTGATE_VIA", "out gate", "token"),
        ("OUTGATE_LOG", "info\nwarn", "control character"),
    ] {
        let variable = VARIABLES.iter().find(|variable| variable.name == name);
        let expected = variable.unwrap().expected;
        let lines = complaints(&[(name, value)]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with(&format!("{name}={value:?}: ")),
            "{lines:?}"
        );
        assert!(
            lines[0].ends_with(&format!("expected {expected}")),
            "{lines:?}"
        );
        assert!(lines[0].contains(reason), "{lines:?}");
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let lines = complaints(&[
        ("OUTGATE_CONFIG", "/nowhere/outgate.yaml"),
        ("OUTGATE_DNS_TIMEOUT", "soon"),
        ("OUTGATE_ALOW", "api.example.com"),
        ("OUTGATE_MODE", ""),
    ]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    for name in [
        "OUTGATE_CONFIG",
        "OUTGATE_DNS_TIMEOUT",
        "OUTGATE_ALOW",
        "OUTGATE_MODE",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(name)),
            "{name}: {lines:?}"
        );
    }
}

#[test]
fn an_unknown_variable_is_refused_with_the_name_it_resembles() {
    for (unknown, meant) in [
        ("OUTGATE_ALOW", "OUTGATE_ALLOW"),
        ("OUTGATE_ALLOWLIST", "OUTGATE_ALLOW"),
        ("OUTGATE_CONECT_TIMEOUT", "OUTGATE_CONNECT_TIMEOUT"),
        ("outgate_deny", "OUTGATE_DENY"),
    ] {
        let lines = complaints(&[(unknown, "x")]);
        assert_eq!(
            lines,
            [format!("{unknown}: unknown; did you mean {meant}?")]
        );
    }
    for unlike_any in ["OUTGATE_PORT", "OUTGATE_FOO", "OUTGATE_"] {
        let lines = complaints(&[(unlike_any, "8080")]);
        assert!(lines[0].contains("--help"), "{lines:?}");
    }
}

#[test]
fn the_service_links_of_kubernetes_are_passed_over() {
    let config = load(&[
        ("OUTGATE_SERVICE_HOST", "10.96.0.10"),
        ("OUTGATE_SERVICE_PORT", "3128"),
        ("OUTGATE_PORT", "tcp://10.96.0.10:3128"),
        ("OUTGATE_PORT_3128_TCP_ADDR", "10.96.0.10"),
        ("OUTGATE_ADMIN_PORT_9090_TCP", "tcp://10.96.0.10:9090"),
    ]);
    assert_eq!(config, Ok(Config::default()));
}

#[test]
fn an_empty_list_is_a_list_and_an_empty_scalar_is_a_mistake() {
    for variable in VARIABLES {
        let result = load(&[(variable.name, " ")]);
        let may_be_empty = variable.list && variable.name != "OUTGATE_LISTEN";
        assert_eq!(result.is_ok(), may_be_empty, "{}", variable.name);
    }
}

#[test]
fn a_value_that_is_not_utf8_is_named() {
    let bytes = OsString::from_vec(b"api\xff.example.com".to_vec());
    let error = Config::load([("OUTGATE_ALLOW", bytes.clone())]).unwrap_err();
    assert!(error.to_string().starts_with("OUTGATE_ALLOW="), "{error}");
    assert!(Config::load([("OTHER", bytes)]).is_ok());
}

#[test]
fn two_listeners_cannot_have_one_address() {
    let lines = complaints(&[("OUTGATE_ADMIN_LISTEN", ":3128")]);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("OUTGATE_LISTEN and OUTGATE_ADMIN_LISTEN both listen on [::]:3128")
    );
    let free = [
        ("OUTGATE_LISTEN", "127.0.0.1:0"),
        ("OUTGATE_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    assert!(load(&free).is_ok());
}

#[test]
fn variables_win_over_the_file_and_the_file_over_defaults() {
    let yaml = "connect_timeout: 3s\ndns_timeout: 4s\ninspect_listen: off\nworkers: 2\ndns_search: true\n\
                allow: [a.example.com, b.example.com]\ndeny: c.example.com, d.example.com\nallow_addresses:\n";
    let toml = "connect_timeout = '3s'\ndns_timeout = '4s'\ninspect_listen = 'off'\nworkers = 2\ndns_search = true\n\
                allow = ['a.example.com', 'b.example.com']\ndeny = 'c.example.com, d.example.com'\n";
    for (name, content) in [("c.yaml", yaml), ("c.yml", yaml), ("c.toml", toml)] {
        let config = load_file(name, content, &[("OUTGATE_DNS_TIMEOUT", "6s")]).unwrap();
        let text = config.to_string();
        for line in [
            "OUTGATE_CONNECT_TIMEOUT=3s  # file",
            "OUTGATE_DNS_TIMEOUT=6s  # variable",
            "OUTGATE_HEADER_TIMEOUT=30s  # default",
            "OUTGATE_INSPECT_LISTEN=off  # file",
            "OUTGATE_WORKERS=2  # file",
            "OUTGATE_DNS_SEARCH=true  # file",
            "OUTGATE_ALLOW=a.example.com,b.example.com  # file",
            "OUTGATE_DENY=c.example.com,d.example.com  # file",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{name}: {line}\n{text}"
            );
        }
    }
}

#[test]
fn bad_and_unknown_keys_of_a_file_are_told_with_the_file() {
    let yaml = "conect_timeout: 3s\ndns_timeout: [1s, 2s]\nmode: {a: [b, {c: 1}]}\nconfig: other.yaml\nvia:\nidle_timeout: 10\n";
    let error = load_file("c.yaml", yaml, &[]).unwrap_err().to_string();
    for part in [
        "c.yaml: conect_timeout: unknown; did you mean connect_timeout?",
        "c.yaml: dns_timeout=\"1s,2s\": a list stands where one value is expected",
        "c.yaml: mode=",
        "c.yaml: config: unknown",
        "c.yaml: via=\"\": the value is empty",
        "c.yaml: idle_timeout=\"10\": the unit is missing",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
    assert_eq!(error.lines().count(), 6, "{error}");
}

#[test]
fn a_file_that_is_not_what_its_extension_says_is_told_with_the_line() {
    for (name, content, reason) in [
        ("c.yaml", "mode: report\nlisten: [::]:3128\n", "line 2"),
        ("c.yaml", "mode: report\nmode: enforce\n", "duplicate"),
        ("c.toml", "mode = 'report'\nvia = \n", "line 2, column 7"),
        ("c.toml", "mode = 'report'\nmode = 'report'\n", "duplicate"),
        ("c.yaml", "- mode\n", "map"),
        ("c.json", "{}", "extension"),
        ("c", "", "extension"),
    ] {
        let error = load_file(name, content, &[]).unwrap_err().to_string();
        assert!(error.starts_with("OUTGATE_CONFIG="), "{error}");
        assert!(error.contains(reason), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert_eq!(
        load_file("c.yaml", "", &[]).unwrap().mode,
        crate::policy::Mode::Enforce
    );
}

#[test]
fn a_long_value_is_cut_and_its_bad_item_still_named() {
    let rules = format!("{}*", "api.example.com,".repeat(1000));
    let error = load(&[("OUTGATE_ALLOW", &rules)]).unwrap_err().to_string();
    assert!(error.len() < 500 && error.contains("\"*\""), "{error}");
}

#[test]
fn names_are_unique_and_help_shows_each_with_its_default() {
    let help = help();
    for (index, variable) in VARIABLES.iter().enumerate() {
        let earlier = &VARIABLES[..index];
        assert!(earlier.iter().all(|other| other.name != variable.name));
        let line = format!("  {}={}\n", variable.name, variable.default);
        assert!(help.contains(&line), "{line}");
    }
}
