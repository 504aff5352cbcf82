use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::Running;
use crate::harness::collector::{Collector, Span};

/// No batch is whole, and none waits long enough, before the gateway ends.
const ONLY_AT_THE_END: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "3600000");

/// Trace ids by which a ratio of a half keeps the first and drops the second.
const LOW: &str = "00000000000000010000000000000001";
const HIGH: &str = "0000000000000001ffffffffffffffff";

fn start(collector: &Collector, more: &[(&str, &str)]) -> Running {
    let endpoint = format!("http://{}", collector.address);
    let common = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OUTGATE_DRAIN_DELAY", "0s"),
        ("OUTGATE_DRAIN_TIMEOUT", "1s"),
        ONLY_AT_THE_END,
    ];
    Running::start(&[&common[..], more].concat())
}

/// Has a request refused, as part of a trace or not.
fn ask(gateway: &Running, traceparent: Option<String>) {
    let field = traceparent.map_or_else(String::new, |parent| format!("traceparent: {parent}\r\n"));
    let mut client = TcpStream::connect(gateway.proxy).unwrap();
    let head = "GET http://evil.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    client
        .write_all(format!("{head}{field}\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

/// Terminates the gateway, and gives what was exported until it had ended.
fn exported(gateway: Running, collector: &mut Collector) -> Vec<Span> {
    gateway.last_lines();
    collector.arrived()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sampler_of_the_variables_decides_what_is_kept() {
    // Trace, whether its caller keeps it.
    let asked = [(LOW, true), (LOW, false), (HIGH, true), (HIGH, false)];
    for (sampler, share, kept, without_parent) in [
        ("always_on", "", [true, true, true, true], true),
        ("always_off", "", [false, false, false, false], false),
        ("traceidratio", "0.5", [true, true, false, false], true),
        (
            "parentbased_always_on",
            "",
            [true, false, true, false],
            true,
        ),
        (
            "parentbased_always_off",
            "",
            [true, false, true, false],
            false,
        ),
        (
            "parentbased_traceidratio",
            "0.5",
            [true, false, true, false],
            true,
        ),
    ] {
        let mut collector = Collector::start().await;
        let gateway = start(
            &collector,
            &[
                ("OTEL_TRACES_SAMPLER", sampler),
                ("OTEL_TRACES_SAMPLER_ARG", share),
            ],
        );
        for (parent, (trace, is_kept)) in asked.into_iter().enumerate() {
            let flags = u8::from(is_kept);
            let traceparent = format!("00-{trace}-{:016x}-{flags:02x}", parent + 1);
            ask(&gateway, Some(traceparent));
        }
        // So many that a ratio of a half keeps some and drops some.
        const NEW: usize = 64;
        for _ in 0..NEW {
            ask(&gateway, None);
        }
        let spans = exported(gateway, &mut collector);
        let (of_callers, new): (Vec<_>, Vec<_>) =
            spans.iter().partition(|span| !span.parent.is_empty());
        let parents: BTreeSet<_> = of_callers.iter().map(|span| span.parent.clone()).collect();
        let expected = (1..).zip(kept).filter(|(_, kept)| *kept);
        let expected: BTreeSet<_> = expected
            .map(|(parent, _): (u64, _)| format!("{parent:016x}"))
            .collect();
        assert_eq!(parents, expected, "{sampler}");
        let is_share = share.is_empty() || new.len() < NEW;
        assert!(is_share, "{sampler}: {} new traces", new.len());
        assert_eq!(!new.is_empty(), without_parent, "{sampler}");
        if without_parent && share.is_empty() {
            assert_eq!(new.len(), NEW, "{sampler}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_gateway_exports_what_waits_and_the_tunnels_it_cut() {
    for (protocol, mut collector) in [
        ("http/protobuf", Collector::start().await),
        ("grpc", Collector::over_grpc().await),
    ] {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = origin.local_addr().unwrap().to_string();
        let gateway = start(
            &collector,
            &[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OUTGATE_ALLOW", &target),
            ],
        );
        ask(&gateway, None);
        let mut client = TcpStream::connect(gateway.proxy).unwrap();
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
        let mut status = [0; 13];
        client.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 200 ");
        assert!(collector.is_untouched(), "{protocol}");

        let spans = exported(gateway, &mut collector);
        let mut names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["CONNECT", "GET", "tcp connect", "tunnel"],
            "{protocol}"
        );
        let of = |name| spans.iter().find(|span| span.name == name).unwrap();
        let tunnel = of("tunnel");
        assert_eq!(tunnel.get("end"), "drained", "{protocol}");
        assert_eq!(tunnel.parent, of("CONNECT").id, "{protocol}");
    }
}
