use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;

use super::{Running, get, output};
use crate::docs::table;
use crate::harness::collector::Collector;

const DENIED: &str = "GET http://evil.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A request that makes one span.
fn ask(gateway: &Running) {
    let mut client = std::net::TcpStream::connect(gateway.proxy).unwrap();
    client.write_all(DENIED.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn headers_of_the_variables_reach_the_collector_over_both_protocols() {
    let of_all = (
        "OTEL_EXPORTER_OTLP_HEADERS",
        "authorization=Bearer%20t0p%2C,x-tenant=a",
    );
    let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-tenant=b%3D");
    for (protocol, mut collector) in [
        ("http/protobuf", Collector::start().await),
        ("grpc", Collector::over_grpc().await),
    ] {
        let endpoint = format!("http://{}", collector.address);
        let common = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            of_all,
        ];
        for (variables, expected) in [
            (common.to_vec(), [Some("Bearer t0p,"), Some("a")]),
            // The variable for traces takes the place of the other one as a whole.
            ([&common[..], &[of_traces]].concat(), [None, Some("b=")]),
        ] {
            let gateway = Running::start(&variables);
            ask(&gateway);
            let span = collector.spans(1).await.remove(0);
            for (name, value) in ["authorization", "x-tenant"].into_iter().zip(expected) {
                let fields: Vec<_> = span.sent_with.get_all(name).iter().collect();
                let value: Vec<_> = value.into_iter().collect();
                assert_eq!(fields, value, "{protocol}: {name}");
            }
        }
    }
}

#[test]
fn either_timeout_of_the_variables_ends_an_export_and_its_batch_is_counted() {
    // Connections are established by the kernel, and nobody answers.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", hangs.local_addr().unwrap());
    for protocol in ["http/protobuf", "grpc"] {
        for timeout in ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_BSP_EXPORT_TIMEOUT"] {
            let mut gateway = Running::start(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_BSP_SCHEDULE_DELAY", "10"),
                (timeout, "200"),
            ]);
            ask(&gateway);
            let line = gateway.line("the collector takes no spans; they are dropped until it does");
            let error = line["error"].as_str().unwrap();
            // gRPC's own timer runs for the first of the two.
            let is_told = error == "no answer within 200ms" || error.contains("Timeout expired");
            assert!(is_told, "{protocol} {timeout}: {error}");
            let metrics = get(gateway.admin, "/metrics");
            assert!(
                metrics.contains("\noutgate_spans_dropped_total 1\n"),
                "{protocol} {timeout}: {metrics}"
            );
        }
    }
}

#[test]
fn the_readme_has_exactly_the_tracing_variables() {
    let rows = table("tracing variable");
    let documented: BTreeSet<_> = rows.iter().map(|row| row[0].clone()).collect();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
    ];
    let text = String::from_utf8(output(&variables, &["config"]).stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_once('='));
    let names = names.map(|(name, _)| name.replace("OTLP_TRACES_", "OTLP_"));
    let shown = names.filter(|name| name.starts_with("OTEL_"));
    // Shown as what comes of them.
    let others = [
        "OTEL_SERVICE_NAME",
        "OTEL_TRACES_EXPORTER",
        "OTEL_SDK_DISABLED",
    ];
    let real: BTreeSet<_> = shown.chain(others.map(str::to_owned)).collect();
    assert_eq!(documented, real);
}

#[test]
fn an_endpoint_with_credentials_stops_the_start_and_they_are_not_repeated() {
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let variables = [(name, "http://user:t0p@127.0.0.1:9")];
    for arguments in [&[][..], &["config"]] {
        let output = output(&variables, arguments);
        assert_eq!(output.status.code(), Some(78));
        let message = String::from_utf8([output.stderr, output.stdout].concat()).unwrap();
        let is_told = message.contains(name) && message.contains("OTEL_EXPORTER_OTLP_HEADERS");
        assert!(is_told && !message.contains("t0p"), "{message}");
    }
}

#[test]
fn a_bad_tracing_variable_or_certificate_stops_the_start_with_78() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
    ] {
        let output = output(&[endpoint, (name, value)], &[]);
        assert_eq!(output.status.code(), Some(78));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains(name) && message.contains(value),
            "{message}"
        );
    }
}

#[test]
fn config_prints_tracing_without_its_secrets() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=t0p"),
    ];
    let text = String::from_utf8(output(&variables, &["config"]).stdout).unwrap();
    assert!(
        text.contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://collector:4318/v1/traces"),
        "{text}"
    );
    assert!(
        text.contains("api-key=***") && !text.contains("t0p"),
        "{text}"
    );
}
