//! Tracing as the OpenTelemetry specification's variables state it.
//!
//! Their names, units and defaults are that specification's (*OTLP Exporter Configuration*, *SDK Environment
//! Variables*): an empty value is an unset one, times are in milliseconds, and what begins with
//! `OTEL_EXPORTER_OTLP_TRACES_` wins over the same without `TRACES_`. A value that does not parse is told like any
//! other, where the specification would have it ignored: a trace that is silently missing is found too late. Told like
//! it are also a time of zero, which would have no end, and a compression of `none` or nothing, at which the exporter fails.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::Problem;

mod notation;

use notation::{
    flag, headers, is_exporter, is_gzip, milliseconds, pairs, parse, protocol, sampler, share, url,
};

/// What a span is named after where nothing else says so.
const SERVICE_NAME: &str = "outgate";

/// Stands in for what must not be shown.
const REDACTED: &str = "***";

/// Where spans go, which ones, and how many may wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The collector; over HTTP with the path of the traces, over gRPC without one.
    pub endpoint: Uri,
    /// How the collector is spoken to; `http/protobuf` by default.
    pub protocol: Protocol,
    /// Sent with every export; often a credential, so marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For one request to the collector, its connection included; 10 s by default.
    pub timeout: Duration,
    /// For one export, whatever requests it takes; 30 s by default. There are no further tries, so the shorter
    /// one of the two ends it.
    pub export_timeout: Duration,
    /// Whether exports are compressed; no by default.
    pub gzip: bool,
    /// PEM file of the only authorities to trust for the collector; `None`, the default, trusts the public ones.
    pub certificate: Option<PathBuf>,
    /// What the spans say of this process, `service.name` among it.
    pub resource: Vec<(String, String)>,
    /// Which traces are kept; by default what the caller decided, and all without a caller's trace.
    pub sampler: Sampler,
    /// Spans that may wait for export, from 1 to what a channel of tokio's holds; 2048 by default. Further
    /// ones are dropped.
    pub max_queue_size: usize,
    /// Spans of one export, at most `max_queue_size`; 512 by default.
    pub max_export_batch_size: usize,
    /// Longest time a span waits for others to go with; 5 s by default.
    pub schedule_delay: Duration,
}

/// Transport of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`.
    HttpProtobuf,
}

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether the caller's decision comes first, where there is a caller's trace.
    pub parent_based: bool,
    /// The share of the others, from 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    /// `parentbased_always_on`.
    fn default() -> Self {
        Self {
            parent_based: true,
            ratio: 1.0,
        }
    }
}

impl Tracing {
    /// To this collector, by default.
    #[must_use]
    pub fn to(endpoint: Uri) -> Self {
        Self {
            endpoint,
            protocol: Protocol::HttpProtobuf,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            export_timeout: Duration::from_secs(30),
            gzip: false,
            certificate: None,
            resource: vec![("service.name".to_owned(), SERVICE_NAME.to_owned())],
            sampler: Sampler::default(),
            max_queue_size: 2048,
            max_export_batch_size: 512,
            schedule_delay: Duration::from_secs(5),
        }
    }

    /// What the variables say; `None` when they name no collector or turn tracing off.
    pub(super) fn read<'a>(
        variables: impl IntoIterator<Item = &'a (OsString, OsString)>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let mut reader = Reader::of(variables, problems);
        let disabled = reader.get("OTEL_SDK_DISABLED", "`true` or `false`", flag);
        let exporter = reader.get("OTEL_TRACES_EXPORTER", "`otlp` or `none`", is_exporter);
        if disabled == Some(true) || exporter == Some(false) {
            return None;
        }
        let protocol = reader
            .get_otlp("PROTOCOL", "`grpc` or `http/protobuf`", protocol)
            .unwrap_or(Protocol::HttpProtobuf);
        let known = reader.problems.len();
        let endpoint = reader.endpoint(protocol);
        // A bad one stops the start: what else is wrong is told with it.
        let is_bad = reader.problems.len() > known;
        let defaults = Self::to(endpoint.or_else(|| is_bad.then(Uri::default))?);
        let resource = reader.resource();
        let sampler = reader.sampler();
        let max_queue_size = reader.count("OTEL_BSP_MAX_QUEUE_SIZE", defaults.max_queue_size);
        let batch = defaults.max_export_batch_size.min(max_queue_size);
        let batch = reader.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", batch);
        Some(Self {
            protocol,
            headers: reader
                .get_otlp("HEADERS", "`name=value`, separated by commas", headers)
                .unwrap_or_default(),
            timeout: reader
                .get_otlp("TIMEOUT", MILLISECONDS, milliseconds)
                .unwrap_or(defaults.timeout),
            export_timeout: reader
                .get("OTEL_BSP_EXPORT_TIMEOUT", MILLISECONDS, milliseconds)
                .unwrap_or(defaults.export_timeout),
            gzip: reader
                .get_otlp("COMPRESSION", "`gzip`, or no such variable", is_gzip)
                .unwrap_or(defaults.gzip),
            certificate: reader.get_otlp("CERTIFICATE", "the path of a PEM file", |path| {
                Ok(PathBuf::from(path))
            }),
            resource,
            sampler,
            max_queue_size,
            max_export_batch_size: batch.min(max_queue_size),
            schedule_delay: reader
                .get("OTEL_BSP_SCHEDULE_DELAY", MILLISECONDS, milliseconds)
                .unwrap_or(defaults.schedule_delay),
            ..defaults
        })
    }

    /// The collector as it is shown: without the query, where some want a key.
    #[must_use]
    pub fn collector(&self) -> String {
        let text = self.endpoint.to_string();
        match text.split_once('?') {
            Some((bare, _)) => format!("{bare}?{REDACTED}"),
            None => text,
        }
    }

    /// Its values by the variables that state them; secrets are not among them.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        let headers = self.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, _)| format!("{name}={REDACTED}"))
            .collect();
        let resource = self.resource.iter();
        let resource: Vec<_> = resource
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mut values = vec![
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", self.collector()),
            (
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                self.protocol.name().to_owned(),
            ),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", headers.join(",")),
            (
                "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
                self.timeout.as_millis().to_string(),
            ),
            ("OTEL_RESOURCE_ATTRIBUTES", resource.join(",")),
            ("OTEL_TRACES_SAMPLER", self.sampler.name().to_owned()),
            ("OTEL_TRACES_SAMPLER_ARG", self.sampler.ratio.to_string()),
            ("OTEL_BSP_MAX_QUEUE_SIZE", self.max_queue_size.to_string()),
            (
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                self.max_export_batch_size.to_string(),
            ),
            (
                "OTEL_BSP_SCHEDULE_DELAY",
                self.schedule_delay.as_millis().to_string(),
            ),
            (
                "OTEL_BSP_EXPORT_TIMEOUT",
                self.export_timeout.as_millis().to_string(),
            ),
        ];
        if self.gzip {
            let gzip = "gzip".to_owned();
            values.push(("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", gzip));
        }
        if let Some(path) = &self.certificate {
            values.push((
                "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
                path.display().to_string(),
            ));
        }
        values
    }
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

impl Sampler {
    fn name(self) -> &'static str {
        match self.parent_based {
            true => "parentbased_traceidratio",
            false => "traceidratio",
        }
    }
}

/// A channel with room for more cannot be made.
const MOST_WAITING: usize = tokio::sync::Semaphore::MAX_PERMITS;

const MILLISECONDS: &str = "milliseconds, a number above zero";

/// The variables by name, and what is wrong with them so far.
struct Reader<'a> {
    texts: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn of<'v: 'a>(
        variables: impl IntoIterator<Item = &'v (OsString, OsString)>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        let texts = variables
            .into_iter()
            .map(|(name, value)| (name.to_string_lossy(), value.to_string_lossy()))
            .filter(|(name, value)| {
                // The exporter reads this one too, and fails at an empty value, and at `none`.
                let is_set = !value.trim().is_empty() || name.ends_with("_COMPRESSION");
                name.starts_with("OTEL_") && is_set
            })
            .collect();
        Self { texts, problems }
    }

    /// The value of a variable, where it is set and sound.
    fn get<T>(
        &mut self,
        name: &str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.texts.get(name)?.trim().to_owned();
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                let is_secret = name.ends_with("_HEADERS")
                    || (name.ends_with("_ENDPOINT") && text.contains(['@', '?']));
                let value = if is_secret { REDACTED.to_owned() } else { text };
                self.problems.push(Problem::Invalid {
                    place: name.to_owned(),
                    value,
                    expected,
                    reason,
                });
                None
            }
        }
    }

    /// The value of an exporter's variable: that for traces, else that for every signal.
    fn get_otlp<T>(
        &mut self,
        name: &str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let of_traces = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
        let name = match self.texts.contains_key(&*of_traces) {
            true => of_traces,
            false => format!("OTEL_EXPORTER_OTLP_{name}"),
        };
        self.get(&name, expected, parse)
    }

    /// The endpoint of the traces; that of all signals is completed by their path, except for gRPC, which has none.
    fn endpoint(&mut self, protocol: Protocol) -> Option<Uri> {
        const EXPECTED: &str = "a URL such as `http://collector:4318`";
        let of_traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        if self.texts.contains_key(of_traces) {
            return self.get(of_traces, EXPECTED, url);
        }
        let path = match protocol {
            Protocol::Grpc => "",
            Protocol::HttpProtobuf => "/v1/traces",
        };
        self.get("OTEL_EXPORTER_OTLP_ENDPOINT", EXPECTED, |text| {
            let (base, query) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
            url(&format!("{}{path}{query}", base.trim_end_matches('/')))
        })
    }

    fn resource(&mut self) -> Vec<(String, String)> {
        const EXPECTED: &str = "`key=value`, separated by commas";
        let mut resource = self
            .get("OTEL_RESOURCE_ATTRIBUTES", EXPECTED, pairs)
            .unwrap_or_default();
        let name = self.get("OTEL_SERVICE_NAME", "a name", |name| Ok(name.to_owned()));
        let is_named = resource.iter().any(|(key, _)| key == "service.name");
        if let Some(name) = name.or_else(|| (!is_named).then(|| SERVICE_NAME.to_owned())) {
            resource.retain(|(key, _)| key != "service.name");
            resource.push(("service.name".to_owned(), name));
        }
        resource
    }

    fn sampler(&mut self) -> Sampler {
        const EXPECTED: &str =
            "`always_on`, `always_off` or `traceidratio`, or one of them after `parentbased_`";
        let default = Sampler::default();
        let (parent_based, ratio) = self
            .get("OTEL_TRACES_SAMPLER", EXPECTED, sampler)
            .unwrap_or((default.parent_based, Some(default.ratio)));
        let ratio =
            ratio.or_else(|| self.get("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1", share));
        Sampler {
            parent_based,
            // The specification's default for a ratio that is not given.
            ratio: ratio.unwrap_or(1.0),
        }
    }

    fn count(&mut self, name: &str, default: usize) -> usize {
        let parse = |text: &str| {
            parse(text).and_then(|count| match count {
                0 => Err("zero would drop everything".to_owned()),
                1..=MOST_WAITING => Ok(count),
                _ => Err(format!("at most {MOST_WAITING} can wait")),
            })
        };
        self.get(name, "a number above zero", parse)
            .unwrap_or(default)
    }
}

#[cfg(test)]
mod tests;
