use std::future::pending;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Mutex, mpsc};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::config::Tracing;
use crate::metrics::Exposition;

/// Whatever is waited for here comes at once, or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a request leaves traces: metrics, log lines, spans.
struct Witnesses {
    metrics: Arc<Metrics>,
    tracer: Arc<Tracer>,
    exported: mpsc::Receiver<ExportTraceServiceRequest>,
    lines: Lines,
    _logging: tracing::subscriber::DefaultGuard,
}

/// What one request left.
#[derive(Debug, PartialEq)]
struct Left {
    counts: Vec<String>,
    /// Message and reason.
    lines: Vec<[String; 2]>,
    /// Name and reason.
    spans: Vec<[String; 2]>,
}

impl Witnesses {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let tracer = Tracer::start(&tracing_to(address), metrics.spans_dropped.clone()).unwrap();
        let lines = Lines::default();
        let writer = lines.clone();
        let (exports, exported) = mpsc::channel();
        std::thread::spawn(move || exports.send(one_export(&listener)));
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(move || writer.clone());
        let logging = tracing_subscriber::registry().with(layer);
        Self {
            metrics,
            tracer,
            exported,
            lines,
            _logging: tracing::subscriber::set_default(logging),
        }
    }

    fn open(&self) -> AccessRecord {
        let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let metrics = Arc::clone(&self.metrics);
        AccessRecord::open(metrics, true, Some(&self.tracer), client, &Request::new(()))
    }

    /// Every request that was counted, as the metrics show it.
    fn counts(&self) -> Vec<String> {
        let exposition = Exposition::accepted(&HeaderMap::new());
        let text = self.metrics.render(exposition, 0).unwrap();
        let lines = text.lines().filter(|line| !line.ends_with(" 0"));
        let lines = lines.filter(|line| line.starts_with("outgate_requests_total{"));
        lines.map(str::to_owned).collect()
    }

    /// All that was left.
    async fn left(self) -> Left {
        // Every span waits until now, so they come in one export.
        self.tracer.shutdown(PATIENCE).await;
        let export = self.exported.recv_timeout(PATIENCE).unwrap();
        let scopes = export
            .resource_spans
            .into_iter()
            .flat_map(|one| one.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        let written = self.lines.0.lock().unwrap().clone();
        let lines = String::from_utf8(written).unwrap();
        let lines = lines.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["target"], "access");
            [&line["message"], &line["reason"]].map(|value| value.as_str().unwrap().to_owned())
        });
        Left {
            counts: self.counts(),
            lines: lines.collect(),
            spans: spans.map(named_with_reason).collect(),
        }
    }
}

fn named_with_reason(span: Span) -> [String; 2] {
    let reason = span
        .attributes
        .into_iter()
        .find(|pair| pair.key == "reason");
    match reason.and_then(|pair| pair.value?.value) {
        Some(any_value::Value::StringValue(reason)) => [span.name, reason],
        other => panic!("{other:?}"),
    }
}

/// What is logged in this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes one export.
fn one_export(listener: &TcpListener) -> ExportTraceServiceRequest {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(&stream);
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut content = vec![0; length];
    reader.read_exact(&mut content).unwrap();
    (&stream)
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    ExportTraceServiceRequest::decode(&*content).unwrap()
}

/// Everything is kept, and exported at the end.
fn tracing_to(collector: SocketAddr) -> Tracing {
    let endpoint = format!("http://{collector}/v1/traces").parse().unwrap();
    Tracing {
        timeout: PATIENCE,
        export_timeout: PATIENCE,
        schedule_delay: Duration::from_secs(3600),
        ..Tracing::to(endpoint)
    }
}

/// A request that failed, everywhere once.
fn once(reason: &str) -> Left {
    let reason = reason.to_owned();
    Left {
        counts: vec![format!(
            "outgate_requests_total{{kind=\"forward\",reason=\"{reason}\",result=\"failed\",rule=\"\"}} 1"
        )],
        lines: vec![["request".to_owned(), reason.clone()]],
        spans: vec![["GET".to_owned(), reason]],
    }
}

#[tokio::test]
async fn a_request_whose_task_is_aborted_is_accounted_once_everywhere() {
    let witnesses = Witnesses::new();
    let record = witnesses.open();
    let task = tokio::spawn(async move {
        let _record = record;
        pending::<()>().await;
    });
    tokio::task::yield_now().await;
    assert_eq!(witnesses.counts(), Vec::<String>::new());
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(witnesses.left().await, once("client_closed"));
}

#[tokio::test]
async fn a_request_whose_task_panics_is_accounted_once_everywhere_as_internal() {
    let witnesses = Witnesses::new();
    let record = witnesses.open();
    let task = tokio::spawn(async move {
        let _record = record;
        panic!("a defect, which this test makes");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(witnesses.left().await, once("internal"));
}

#[tokio::test]
async fn what_is_resolved_and_dialled_twice_takes_the_time_of_both() {
    let witnesses = Witnesses::new();
    let mut record = witnesses.open();
    for took in [5, 7].map(Duration::from_millis) {
        record.resolved(Reason::Ok, took);
        record.dialled(Err(Reason::ConnectionRefused), took * 2);
    }
    drop(record);
    let written = witnesses.lines.0.lock().unwrap().clone();
    let line: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(
        [&line["dns_ms"], &line["connect_ms"]],
        [12.0, 24.0],
        "{line}"
    );
}
