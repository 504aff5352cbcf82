//! What an explanation tells.

use super::*;

#[test]
fn an_explanation_names_the_deciding_rule_and_the_runner_up() {
    let policy = policy(
        &["a.example.com", "*.example.com", "a.example.com:8443"],
        &["*.bad.example.com"],
    );
    let explain = |authority| policy.explain(&nobody(), &target(authority), CONNECT);
    let explanation = explain("a.example.com:443");
    assert_eq!(
        explanation.deciding().unwrap().rule.as_ref(),
        "a.example.com"
    );
    assert_eq!(
        explanation.runner_up().unwrap().rule.as_ref(),
        "*.example.com"
    );
    assert_eq!(explanation.to_string(), "allowed by rule `a.example.com`");
    let considered = explanation.considered().iter();
    assert_eq!(
        considered.map(ToString::to_string).collect::<Vec<_>>(),
        [
            "allow `a.example.com`: decides",
            "allow `a.example.com:8443`: names the host, but misses (port_not_allowed)",
            "allow `*.example.com`: matches, but a deny rule, a more specific or an earlier one decides",
        ]
    );
    let explanation = explain("x.bad.example.com:443");
    assert_eq!(
        explanation.deciding().unwrap().rule.as_ref(),
        "*.bad.example.com"
    );
    assert_eq!(
        explanation.verdict().unwrap_err().to_string(),
        "denied by rule `*.bad.example.com`"
    );
    assert_eq!(
        explanation.runner_up().unwrap().rule.as_ref(),
        "*.example.com"
    );
    assert_eq!(
        explain("example.net:443").to_string(),
        "host_not_allowed: no rule names the host"
    );
}
