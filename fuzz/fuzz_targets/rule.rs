//! What a deny rule denies stays denied in whatever spelling it is asked for; input is a rule, then
//! an authority, each on a line.
#![no_main]

use std::net::IpAddr;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use outgate::policy::{Access, Action, Client, HostPattern, Policy, Ports, Rule};
use outgate::target::Target;

fuzz_target!(|text: &str| {
    let Some((rule, authority)) = text.split_once('\n') else { return };
    let Ok(deny) = Rule::parse(rule, Action::Deny) else { return };
    let everything = Rule::new("all", Action::Allow, vec![HostPattern::Any]);
    let Ok(everything) = everything else { return };
    let policy = Policy::builder().allow(everything.with_ports(Ports::Any)).deny(deny).build();
    let policy = Arc::new(policy);
    let client = Client { address: IpAddr::from([127, 0, 0, 1]), name: None };
    let Ok(target) = Target::from_authority(authority) else { return };
    let denied = policy.authorize(&client, &target, Access::Connect).is_err();
    // The cases an attacker reaches for first.
    for spelling in [authority.to_ascii_uppercase(), authority.to_ascii_lowercase()] {
        if let Ok(other) = Target::from_authority(&spelling)
            && other == target
        {
            assert_eq!(policy.authorize(&client, &other, Access::Connect).is_err(), denied);
        }
    }
    let _ = policy.explain(&client, &target, Access::Forward { path: rule }).to_string();
});
