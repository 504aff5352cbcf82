//! The account of a request, answered or refused, allocates nothing while neither the access log nor tracing is on.
//!
//! A test program of its own: it counts what its whole process allocates.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::alloc::System;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use outgate::access::{AccessRecord, Detail};
use outgate::config::Tracing;
use outgate::metrics::Metrics;
use outgate::policy::{Access, Policy};
use outgate::reason::Reason;
use outgate::target::Target;
use outgate::trace::Tracer;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 1000;

/// Allocations of so many requests that were let through, answered, and accounted for.
fn allocations(metrics: &Arc<Metrics>, tracer: Option<&Arc<Tracer>>) -> usize {
    let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let mut request = Request::new(());
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request
        .headers_mut()
        .insert("traceparent", traceparent.parse().unwrap());
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        let mut record = AccessRecord::open(Arc::clone(metrics), false, tracer, client, &request);
        record.resolved(Reason::Ok, Duration::from_millis(1));
        record.dialled(Ok(client), Duration::from_millis(1));
        record.sending(request.headers_mut());
        record.answered(StatusCode::OK);
    }
    region.change().allocations
}

/// Allocations of so many requests that were refused: by the rules, by the guard, by an upstream.
fn allocations_of_refusals(metrics: &Arc<Metrics>, policy: &Arc<Policy>) -> usize {
    let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let who = policy.identify(client.ip(), None);
    let ask = |authority: &str| Target::from_authority(authority).unwrap();
    let [allowed, unknown, other_port] = [
        "allowed.example:443",
        "unknown.example:443",
        "allowed.example:444",
    ]
    .map(ask);
    let permit = policy.authorize(&who, &allowed, Access::Connect).unwrap();
    let request = Request::new(());
    let open = || AccessRecord::open(Arc::clone(metrics), false, None, client, &request);
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        for target in [&unknown, &other_port] {
            let mut record = open();
            let denial = policy.authorize(&who, target, Access::Connect).unwrap_err();
            record.denied(&denial);
            record.refused(denial.reason(), Some(denial.into()));
        }
        let prohibited = permit.admits(client.ip()).unwrap_err();
        open().refused(Reason::AddressProhibited, Some(prohibited.into()));
        let refused = io::ErrorKind::ConnectionRefused.into();
        let refused = Detail::Dial(client, refused);
        open().refused(Reason::ConnectionRefused, Some(refused));
    }
    region.change().allocations
}

#[test]
fn a_request_costs_no_allocation_for_log_or_trace_while_both_are_off() {
    let metrics = Arc::new(Metrics::new().unwrap());
    // The first one makes the series that all of them count in.
    allocations(&metrics, None);
    assert_eq!(allocations(&metrics, None), 0);

    let rule = "allowed.example".parse().unwrap();
    let policy = Arc::new(Policy::builder().allow(rule).build());
    allocations_of_refusals(&metrics, &policy);
    assert_eq!(allocations_of_refusals(&metrics, &policy), 0);

    // That this would be seen: with tracing on, every request allocates.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tracer = runtime
        .block_on(async { Tracer::start(&tracing(), metrics.spans_dropped.clone()).unwrap() });
    assert!(allocations(&metrics, Some(&tracer)) > REQUESTS);
}

fn tracing() -> Tracing {
    Tracing {
        timeout: Duration::from_secs(1),
        export_timeout: Duration::from_secs(1),
        ..Tracing::to("http://127.0.0.1:9/v1/traces".parse().unwrap())
    }
}
