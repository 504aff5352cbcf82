//! Traces over OTLP: spans made from the account of a request, waiting in a bounded queue.
//!
//! Spans are made when what they tell of is over, because the account of a request
//! ([`crate::access`]) knows it all by then: when it began, how long each step took, how it ended.
//! So the data path carries no span context, and without a collector there is no [`Tracer`] and
//! nothing is allocated. With one, the data path hands over what it knows and no more: that is put
//! into attributes and encoded by the exporter's own thread. Handing over never waits: a span that
//! finds the queue full is counted as dropped, and nothing of it is put together.
//!
//! [`context`] reads and writes W3C Trace Context, `queue.rs` holds the spans that wait,
//! `export.rs` exports them, `collector.rs` makes the exporter.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
};
use opentelemetry::{Context, InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, ShouldSample, SpanData, SpanEvents, SpanLinks,
};
use prometheus::IntCounter;

use crate::config::{self, Tracing};

mod collector;
pub mod context;
mod export;
mod queue;

pub use collector::TraceError;
use context::Parent;
use queue::Queue;

/// Decides which requests are traced and takes their spans.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    queue: Queue,
}

impl Tracer {
    /// Starts exporting as configured; spans that get nowhere are added to `dropped`.
    ///
    /// # Errors
    /// When the certificate cannot be read, the collector not be spoken to as configured, or there
    /// is no thread to be had. A collector that does not answer is no error.
    pub fn start(settings: &Tracing, dropped: IntCounter) -> Result<Arc<Self>, TraceError> {
        Ok(Arc::new(Self {
            sampler: sampler(settings.sampler),
            queue: Queue::start(settings, dropped)?,
        }))
    }

    /// Begins the span of a request, under its caller's span where there is one.
    pub(crate) fn begin(
        self: &Arc<Self>,
        trace_id: TraceId,
        parent: Option<Parent>,
        headers: &HeaderMap,
    ) -> Span {
        let caller = parent.map(|parent| parent.with_state(headers));
        let remote = caller
            .clone()
            .map(|caller| Context::new().with_remote_span_context(caller));
        let sampled =
            self.sampler
                .should_sample(remote.as_ref(), trace_id, "", &SpanKind::Server, &[], &[]);
        let is_kept = sampled.decision == SamplingDecision::RecordAndSample;
        let flags = caller
            .as_ref()
            .map_or(TraceFlags::default(), SpanContext::trace_flags);
        Span {
            tracer: Arc::clone(self),
            context: SpanContext::new(
                trace_id,
                context::random_span_id(),
                flags.with_sampled(is_kept),
                false,
                sampled.trace_state,
            ),
            parent: caller.map_or(SpanId::INVALID, |caller| caller.span_id()),
            parent_is_remote: parent.is_some(),
            kind: SpanKind::Server,
            started: SystemTime::now(),
        }
    }

    /// Exports what waits, for so long at most, and then no more.
    pub async fn shutdown(&self, within: Duration) {
        self.queue.shutdown(within).await;
    }
}

/// A span that has begun. Nothing is told of it until it ends, and nothing of one that ends unsampled.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    tracer: Arc<Tracer>,
    context: SpanContext,
    parent: SpanId,
    parent_is_remote: bool,
    kind: SpanKind,
    started: SystemTime,
}

impl Span {
    /// Whether its trace is kept, so that it is worth describing.
    pub(crate) fn is_kept(&self) -> bool {
        self.context.is_sampled()
    }

    /// Whether a caller's span is above it.
    pub(crate) fn has_parent(&self) -> bool {
        self.parent_is_remote
    }

    /// Begins a span below it.
    pub(crate) fn child(&self, kind: SpanKind) -> Self {
        Self {
            tracer: Arc::clone(&self.tracer),
            context: SpanContext::new(
                self.context.trace_id(),
                context::random_span_id(),
                self.context.trace_flags(),
                false,
                self.context.trace_state().clone(),
            ),
            parent: self.context.span_id(),
            parent_is_remote: false,
            kind,
            started: SystemTime::now(),
        }
    }

    /// Sets its beginning back.
    pub(crate) fn begun_before(mut self, took: Duration) -> Self {
        self.started = self.started.checked_sub(took).unwrap_or(self.started);
        self
    }

    /// The `traceparent` that makes it the parent of what the next hop does.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        context::traceparent(&self.context)
    }

    /// Ends it now. What it tells is put together later, elsewhere, and only if there is room for it.
    pub(crate) fn end<T>(self, name: &'static str, told: T)
    where
        T: FnOnce() -> Attributes + Send + 'static,
    {
        if !self.is_kept() {
            return;
        }
        let Self {
            tracer,
            context,
            parent,
            parent_is_remote,
            kind,
            started,
        } = self;
        tracer.queue.push(|| Ended {
            context,
            parent,
            parent_is_remote,
            kind,
            name,
            started,
            ended: SystemTime::now(),
            told: Box::new(told),
        });
    }
}

/// A span that has ended, as the data path hands it over.
pub(crate) struct Ended {
    context: SpanContext,
    parent: SpanId,
    parent_is_remote: bool,
    kind: SpanKind,
    name: &'static str,
    started: SystemTime,
    ended: SystemTime,
    told: Box<dyn FnOnce() -> Attributes + Send>,
}

impl Ended {
    /// As the exporter takes it.
    fn into_data(self, scope: &InstrumentationScope) -> SpanData {
        let told = (self.told)();
        SpanData {
            span_context: self.context,
            parent_span_id: self.parent,
            parent_span_is_remote: self.parent_is_remote,
            span_kind: self.kind,
            name: Cow::Borrowed(self.name),
            start_time: self.started,
            end_time: self.ended,
            attributes: told.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: told.status,
            instrumentation_scope: scope.clone(),
        }
    }
}

/// What a span tells.
#[derive(Debug)]
pub(crate) struct Attributes {
    attributes: Vec<KeyValue>,
    status: Status,
}

impl Attributes {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            // The span of a request has about as many.
            attributes: Vec::with_capacity(16),
            status: Status::Unset,
        }
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes
            .push(KeyValue::new(Key::from_static_str(key), value));
        self
    }

    /// Adds an attribute where it has a value.
    pub(crate) fn with_some(self, key: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Says what went wrong (`error.type`).
    pub(crate) fn with_error(self, what: impl Into<Value>) -> Self {
        self.with("error.type", what)
    }

    /// Says what an HTTP status from `worst` on went wrong with.
    pub(crate) fn with_status(self, status: StatusCode, worst: u16) -> Self {
        if status.as_u16() < worst {
            return self;
        }
        self.with_error(status.as_str().to_owned()).failed()
    }

    /// Marks the span as failed.
    pub(crate) fn failed(mut self) -> Self {
        // The description is for what `error.type` cannot tell; here that tells it all.
        self.status = Status::error("");
        self
    }
}

fn sampler(settings: config::Sampler) -> Sampler {
    let own = match settings.ratio {
        all if all >= 1.0 => Sampler::AlwaysOn,
        none if none <= 0.0 => Sampler::AlwaysOff,
        some => Sampler::TraceIdRatioBased(some),
    };
    if settings.parent_based {
        Sampler::ParentBased(Box::new(own))
    } else {
        own
    }
}
