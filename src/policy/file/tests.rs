use super::*;

const WHOLE: &str = r#"
mode: report
clients:
  - { name: ci, networks: [10.244.3.0/24, "fd00::/64"] }
  - { name: batch, user: batch }
rules:
  - name: github
    hosts: [api.github.com, "*.githubusercontent.com"]
    ports: [443, 8000-8100]
    clients: [ci]
  - name: ledger
    hosts: [ledger.internal.example.com]
    ports: [5432]
    addresses: [10.20.0.0/16]
  - name: everything-http
    hosts: ["*"]
    path: /public/
  - name: no-paste
    action: deny
    hosts: ["*.pastebin.com"]
"#;

#[test]
fn a_whole_file_becomes_mode_clients_and_rules() {
    let file = PolicyFile::parse(WHOLE).unwrap();
    assert_eq!(file.mode, Some(Mode::Report));
    assert!(file.clients.know_users());
    let names: Vec<_> = file
        .rules
        .iter()
        .map(|rule| rule.name().to_string())
        .collect();
    assert_eq!(names, ["github", "ledger", "everything-http", "no-paste"]);
    assert_eq!(file.rules[0].hosts().len(), 2);
    assert_eq!(file.rules[1].addresses().len(), 1);
    assert!(file.rules[2].path().is_some());
    assert_eq!(file.rules[3].action(), Action::Deny);
}

#[test]
fn a_file_that_allows_nothing_is_a_policy() {
    let file = PolicyFile::parse("rules: []\n").unwrap();
    assert!(file.rules.is_empty() && file.mode.is_none());
}

#[test]
fn every_error_has_its_line_and_says_what_to_do() {
    let rule = |rest: &str| format!("rules:\n  - name: a\n{rest}\n");
    for (text, line, hint) in [
        (String::new(), 0, "empty"),
        ("rules: {\n".to_owned(), 1, ""),
        ("rulez: []\n".to_owned(), 1, "rulez"),
        ("mode: off\n".to_owned(), 1, "off"),
        (rule("    hosts: [a.example]\n    port: [1]"), 4, "port"),
        (rule("    hosts: []"), 2, "no host"),
        (rule("    hosts: ['*.com']"), 3, "example.com"),
        (
            rule("    hosts:\n      - a.example\n      - a.*.example"),
            5,
            "*.example.com",
        ),
        (rule("    hosts: [10.0.0.1/8]"), 3, "10.0.0.0/8"),
        (rule("    hosts: [a.example]\n    ports: [0]"), 4, "port 0"),
        (
            rule("    hosts: [a.example]\n    ports: []"),
            2,
            "leave it out",
        ),
        (rule("    hosts: [a.example]\n    ports: [9-1]"), 4, "1-9"),
        (rule("    hosts: [a.example]\n    clients: [ci]"), 4, "ci"),
        (
            rule("    hosts: [a.example]\n    clients: []"),
            2,
            "everyone",
        ),
        (
            rule("    hosts: [a.example]\n    addresses: [10.0.0.0/33]"),
            4,
            "10.0.0.0/33",
        ),
        (
            rule("    hosts: [a.example]\n    path: v1"),
            4,
            "begin with /",
        ),
        (
            rule("    hosts: [a.example]\n  - name: a\n    hosts: [b.example]"),
            4,
            "another rule",
        ),
        ("clients:\n  - name: ci\n".to_owned(), 2, "networks"),
        (
            "clients:\n  - { name: ci, networks: [10.0.0.0/8], certificate: x }\n".to_owned(),
            2,
            "TLS",
        ),
        (
            "clients:\n  - { name: a, user: x }\n  - { name: b, user: x }\n".to_owned(),
            3,
            "user name",
        ),
    ] {
        let error = PolicyFile::parse(&text).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.to_string().contains(hint), "{text}: {error}");
    }
}

#[test]
fn what_is_there_by_accident_is_refused_at_its_place() {
    let rule = |rest: &str| format!("rules:\n  - name: a\n    hosts: [a.example]\n{rest}\n");
    let clients = |rest: &str| format!("rules: []\nclients:\n{rest}\n");
    for (text, line, column, hint) in [
        // A template that rendered nothing: no null ever comes to mean everything.
        ("# why\n".to_owned(), 0, 0, "empty"),
        ("{}\n".to_owned(), 0, 0, "empty"),
        ("rules:\n".to_owned(), 1, 6, "a list"),
        ("rules: []\nmode:\n".to_owned(), 2, 5, ""),
        (rule("    clients:"), 4, 12, "a list"),
        (rule("    ports:"), 4, 10, "a list"),
        (rule("    path:"), 4, 9, "null"),
        (rule("    path: ~"), 4, 11, "null"),
        (rule("    action:"), 4, 11, ""),
        (clients("  - { name: '', user: x }"), 3, 13, "no name"),
        (clients("  - { name: a, user: }"), 3, 20, "null"),
        (rule("    hosts: [b.example]"), 4, 5, "twice"),
        (rule("    ports: [70000]"), 4, 13, "8000-8100"),
        (rule("    ports: [443, null]"), 4, 18, "8000-8100"),
        (
            rule("    action: deny\n    addresses: [10.0.0.0/8]"),
            5,
            17,
            "OUTGATE_DENY_ADDRESSES",
        ),
        (
            clients(
                "  - { name: a, networks: [10.0.0.0/8] }\n  - { name: b, networks: [10.0.0.0/8] }",
            ),
            4,
            27,
            "before",
        ),
        (
            "rules: []\n---\nrules: []\n".to_owned(),
            3,
            1,
            "one document",
        ),
    ] {
        let error = PolicyFile::parse(&text).unwrap_err();
        assert_eq!(
            (error.line, error.column),
            (line, column),
            "{text}: {error}"
        );
        assert!(error.to_string().contains(hint), "{text}: {error}");
        assert!(!error.to_string().contains("Policy in Options"), "{error}");
    }
}

#[test]
fn aliases_cannot_blow_a_file_up() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (this, last) in ('b'..='j').zip('a'..) {
        use std::fmt::Write;
        writeln!(text, "{this}: &{this} [{}]", format!("*{last},").repeat(9)).unwrap();
    }
    assert!(PolicyFile::parse(&text).is_err());
    assert!(PolicyFile::parse("rules: &r\n  - *r\n").is_err());
}

#[test]
fn an_alias_may_stand_for_one_list_in_many_rules() {
    use std::fmt::Write;
    let mut text = "rules:\n  - { name: r, hosts: &shared [a.example, b.example] }\n".to_owned();
    for number in 0..1000 {
        writeln!(
            text,
            "  - {{ name: r{number}, hosts: *shared, ports: [{}] }}",
            number + 1
        )
        .unwrap();
    }
    let file = PolicyFile::parse(&text).unwrap();
    assert_eq!(file.rules.len(), 1001);
    assert!(file.rules.iter().all(|rule| rule.hosts().len() == 2));
}

#[test]
fn a_file_of_the_greatest_size_can_be_all_rules() {
    use std::fmt::Write;
    let most = usize::try_from(MOST_BYTES).unwrap();
    let mut text = "rules:\n".to_owned();
    while text.len() < most {
        let number = text.len();
        writeln!(
            text,
            "  - {{ name: a{number}, hosts: [h{number}.example.com] }}"
        )
        .unwrap();
    }
    assert!(PolicyFile::parse(&text).unwrap().rules.len() > 60_000);
    let error = PolicyFile::parse(&format!("rules: [{}]", "a,".repeat(most / 2))).unwrap_err();
    assert!(error.to_string().starts_with("line 1, column "), "{error}");
}

#[test]
fn comments_of_any_length_are_no_matter() {
    let text = format!(
        "{}rules: []\n{}",
        "# why\n".repeat(500),
        "# more\n".repeat(500)
    );
    assert!(PolicyFile::parse(&text).is_ok());
}

#[test]
fn the_schema_for_editors_is_the_one_of_these_types() {
    let committed = include_str!("../../../deploy/policy.schema.json");
    let committed: serde_json::Value = serde_json::from_str(committed).unwrap();
    let real = PolicyFile::schema();
    assert!(
        committed == real,
        "deploy/policy.schema.json should be:\n{}",
        serde_json::to_string_pretty(&real).unwrap()
    );
}
