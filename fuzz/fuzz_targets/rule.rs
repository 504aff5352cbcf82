//! What a deny rule denies stays denied in whatever spelling it is asked for, and is explained as it is judged; input
//! is a rule, then an authority, each on a line.
#![no_main]

use std::net::IpAddr;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use outgate::policy::{Access, Action, Client, Denial, HostPattern, Permit, Policy, Ports, Rule};
use outgate::target::{Host, Target};

fuzz_target!(|text: &str| {
    let Some((rule, authority)) = text.split_once('\n') else { return };
    let Ok(deny) = Rule::parse(rule, Action::Deny) else { return };
    let everything = Rule::new("all", Action::Allow, vec![HostPattern::Any]);
    let Ok(everything) = everything else { return };
    let policy = Policy::builder().allow(everything.with_ports(Ports::Any)).deny(deny).build();
    let policy = Arc::new(policy);
    let client = Client { address: IpAddr::from([127, 0, 0, 1]), name: None };
    let Ok(target) = Target::from_authority(authority) else { return };
    // What an attacker reaches for first: each is the same target, so it has the same verdict.
    let mut spellings = vec![authority.to_ascii_uppercase(), authority.to_ascii_lowercase()];
    if let Host::Name(name) = target.host() {
        spellings.push(format!("{name}.:{}", target.port()));
    }
    for access in [Access::Connect, Access::Forward { path: rule }] {
        let verdict = told(policy.authorize(&client, &target, access));
        for spelling in &spellings {
            let other = Target::from_authority(spelling);
            assert_eq!(other.as_ref(), Ok(&target), "{spelling}");
            let Ok(other) = other else { continue };
            assert_eq!(told(policy.authorize(&client, &other, access)), verdict, "{spelling}");
        }
        let explanation = policy.explain(&client, &target, access);
        assert_eq!(told(explanation.verdict().cloned().map_err(Clone::clone)), verdict);
        let _ = explanation.to_string();
    }
});

/// The rule that lets through, or the denial.
fn told(verdict: Result<Permit, Denial>) -> Result<Arc<str>, Denial> {
    verdict.map(|permit| Arc::clone(permit.rule()))
}
