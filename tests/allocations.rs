//! The account of a request allocates nothing while neither the access log nor tracing is on.
//!
//! A test program of its own: it counts what its whole process allocates.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::alloc::System;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use outgate::access::AccessRecord;
use outgate::config::{Protocol, Sampler, Tracing};
use outgate::metrics::Metrics;
use outgate::reason::Reason;
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

#[test]
fn a_request_costs_no_allocation_for_log_or_trace_while_both_are_off() {
    let metrics = Arc::new(Metrics::new().unwrap());
    // The first one makes the series that all of them count in.
    allocations(&metrics, None);
    assert_eq!(allocations(&metrics, None), 0);

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
        endpoint: "http://127.0.0.1:9/v1/traces".parse().unwrap(),
        protocol: Protocol::HttpProtobuf,
        headers: Vec::new(),
        timeout: Duration::from_secs(1),
        gzip: false,
        certificate: None,
        resource: Vec::new(),
        sampler: Sampler {
            parent_based: true,
            ratio: 1.0,
        },
        max_queue_size: 2048,
        max_export_batch_size: 512,
        schedule_delay: Duration::from_secs(5),
    }
}
