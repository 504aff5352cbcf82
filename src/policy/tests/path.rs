//! Rules with a path.

use super::*;

#[test]
fn a_path_rule_is_for_plain_http_below_the_path() {
    let rule = "http://api.example.com/v1/";
    let policy = policy(&[rule], &[]);
    let host = "api.example.com:80";
    assert_eq!(judge(&policy, host, forward("/v1/x")), allowed(rule));
    for path in [
        "/v10/x",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/..;/admin",
        "/v1/%2e%2e%2fadmin",
    ] {
        assert_eq!(
            judge(&policy, host, forward(path)),
            denied(Reason::PathNotAllowed, rule),
            "{path}"
        );
    }
    assert_eq!(
        judge(&policy, host, CONNECT),
        denied(Reason::MethodNotAllowed, rule)
    );
    assert_eq!(
        judge(&policy, "api.example.com:443", CONNECT),
        denied(Reason::PortNotAllowed, rule)
    );
}

#[test]
fn a_denied_path_is_denied_in_every_reading_and_through_a_tunnel_to_port_80() {
    let rule = "http://api.example.com/admin/";
    let policy = policy(&["api.example.com:*"], &[rule]);
    let host = "api.example.com:80";
    for path in [
        "/admin/x",
        "/%61dmin/",
        "//admin/x",
        "/v1/..%2fadmin/x",
        "/admin;a=b/x",
        "/v1/%zz",
    ] {
        assert_eq!(
            judge(&policy, host, forward(path)),
            denied(Reason::HostNotAllowed, rule),
            "{path}"
        );
    }
    assert_eq!(
        judge(&policy, host, CONNECT),
        denied(Reason::HostNotAllowed, rule)
    );
    assert_eq!(
        judge(&policy, host, forward("/v1/")),
        allowed("api.example.com:*")
    );
    assert_eq!(
        judge(&policy, "api.example.com:443", CONNECT),
        allowed("api.example.com:*")
    );
}
