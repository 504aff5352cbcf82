//! What a decision costs, and what a long policy costs to build.
//!
//! `cargo bench --bench policy`; compare two states of the source with `--save-baseline` and
//! `--baseline`.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use outgate::policy::{Access, Client, Policy, Rule};
use outgate::target::Target;

/// Ten thousand exact hosts and as many wildcards.
const EACH: usize = 10_000;

fn rules() -> Vec<Rule> {
    let exact = (0..EACH).map(|number| format!("host{number}.example{}.com", number % 97));
    let below = (0..EACH).map(|number| format!("*.zone{number}.example{}.org", number % 89));
    exact
        .chain(below)
        .map(|rule| rule.parse().expect("a rule"))
        .collect()
}

fn build(rules: &[Rule]) -> Policy {
    rules
        .iter()
        .cloned()
        .fold(Policy::builder(), |policy, rule| policy.allow(rule))
        .build()
}

fn decisions(criterion: &mut Criterion) {
    let rules = rules();
    let policy = Arc::new(build(&rules));
    let client = Client {
        address: IpAddr::from([10, 0, 0, 1]),
        name: None,
    };
    let mut group = criterion.benchmark_group("authorize among 20,000 rules");
    for (name, authority) in [
        ("exact host", "host5000.example53.com:443"),
        ("below a wildcard", "a.b.c.zone5000.example16.org:443"),
        ("no rule", "www.elsewhere.example:443"),
        ("an address", "203.0.113.7:443"),
    ] {
        let target = Target::from_authority(authority).expect("a target");
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| black_box(policy.authorize(&client, black_box(&target), Access::Connect)));
        });
    }
    group.finish();
    criterion.bench_function("build a policy of 20,000 rules", |bencher| {
        bencher.iter(|| build(black_box(&rules)));
    });
}

fn targets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse a target");
    for authority in [
        "api.example.com:443",
        "API.Example.COM.:443",
        "bücher.example:443",
        "[2001:db8::1]:443",
    ] {
        group.bench_function(authority, |bencher| {
            bencher.iter(|| Target::from_authority(black_box(authority)));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, targets);
criterion_main!(benches);
