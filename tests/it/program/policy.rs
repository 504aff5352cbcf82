use std::io::Write;
use std::net::TcpStream;

use super::{Running, metric, output};
use crate::harness::vacant::Vacant;

fn policy(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_bad_policy_file_stops_the_start_with_its_line() {
    let file = policy("rules:\n  - name: a\n    hosts: ['*.com']\n");
    let path = file.path().to_str().unwrap();
    for arguments in [&[][..], &["check", "a.example:443"]] {
        let output = output(&[("OUTGATE_POLICY_FILE", path)], arguments);
        assert_eq!(output.status.code(), Some(78));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains(path) && message.contains("line 3, column 13"),
            "{message}"
        );
    }
}

#[test]
fn check_judges_by_a_file_and_for_a_client_of_it() {
    let file = policy(
        "clients:\n  - { name: ci, networks: [10.1.0.0/16] }\n\
         rules:\n  - { name: build, hosts: [localhost], clients: [ci], addresses: [127.0.0.0/8, '::1'] }\n",
    );
    let path = file.path().to_str().unwrap();
    let code = |client: &[&str]| {
        let arguments = [&["check", "localhost:443", "--policy", path][..], client].concat();
        output(&[("OUTGATE_DNS_SERVERS", "127.0.0.1:9")], &arguments)
            .status
            .code()
    };
    assert_eq!(code(&[]), Some(1));
    assert_eq!(code(&["--client", "ci"]), Some(0));
    assert_eq!(code(&["--client", "10.1.2.3"]), Some(0));
    assert_eq!(code(&["--client", "10.2.2.3"]), Some(1));
    // A name with a typing error is no client that may not.
    let unknown = output(
        &[],
        &["check", "localhost:443", "--policy", path, "--client", "cl"],
    );
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stdout.is_empty());
    let message = String::from_utf8(unknown.stderr).unwrap();
    assert!(message.contains("knows no client \"cl\""), "{message}");
}

#[test]
fn report_mode_writes_what_it_would_have_denied_and_by_which_rule() {
    let mut running = Running::start(&[
        ("OUTGATE_MODE", "report"),
        ("OUTGATE_DENY", "127.0.0.1"),
        ("OUTGATE_ALLOW_ADDRESSES", "127.0.0.0/8"),
    ]);
    let started = running
        .before
        .iter()
        .find(|line| line["message"] == "starting");
    assert_eq!(started.unwrap()["mode"], "report");
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let vacant = Vacant::take();
    // Also where nobody is there now: a report leaves out nothing.
    for (target, status, detail) in [
        (
            origin.local_addr().unwrap(),
            200,
            "denied by rule `127.0.0.1`",
        ),
        (vacant.address(), 502, "refused"),
    ] {
        let mut client = TcpStream::connect(running.proxy).unwrap();
        write!(client, "CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let line = running.line("request");
        assert_eq!(line["result"], "would_deny", "{line}");
        assert_eq!(line["reason"], "host_not_allowed");
        assert_eq!(line["rule"], "127.0.0.1");
        assert_eq!(line["http.response.status_code"], status);
        let told = line["detail"].as_str().unwrap();
        assert!(told.contains(detail), "{told}");
    }
    let series = "outgate_requests_total{kind=\"connect\",reason=\"host_not_allowed\",result=\"would_deny\",rule=\"127.0.0.1\"} ";
    assert_eq!(metric(&running, series), 2);
}

#[test]
fn lint_names_rules_that_never_decide_and_fails_only_when_strict() {
    let file = policy(
        "rules:\n  - { name: a, hosts: [a.example.com] }\n  - { name: b, hosts: [a.example.com] }\n\
         \x20 - { name: c, hosts: [c.example.org] }\n  - { name: no, action: deny, hosts: ['*.example.org'] }\n",
    );
    let path = file.path().to_str().unwrap();
    let lint = output(&[], &["check", "--policy", path, "--lint"]);
    assert!(lint.status.success());
    let text = String::from_utf8(lint.stdout).unwrap();
    assert!(
        text.contains("rule `b`: says the same of a.example.com as `a`"),
        "{text}"
    );
    assert!(
        text.contains("rule `c`: all it allows for c.example.org is denied by `no`"),
        "{text}"
    );
    let strict = output(&[], &["check", "--policy", path, "--lint", "--strict"]);
    assert_eq!(strict.status.code(), Some(1));
}

#[test]
fn a_hangup_reads_the_policy_file_at_once() {
    let file = policy("rules: []\n");
    let path = file.path().to_str().unwrap();
    let mut running = Running::start(&[("OUTGATE_POLICY_FILE", path)]);
    std::fs::write(file.path(), "rules:\n  - { name: a, hosts: [a.example] }\n").unwrap();
    running.signal(rustix::process::Signal::HUP);
    let line = running.line("policy reloaded");
    assert_eq!(
        (&line["rules"], &line["mode"]),
        (&1.into(), &"enforce".into())
    );
    std::fs::write(file.path(), "rules:\n  - { name: a }\n").unwrap();
    running.signal(rustix::process::Signal::HUP);
    let line = running.line("policy not reloaded; the last one stays in force");
    assert!(line["error"].as_str().unwrap().contains("line 2"), "{line}");
}
