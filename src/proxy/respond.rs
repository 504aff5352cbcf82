//! A reason becomes a response: the only place where the gateway speaks for itself.
//!
//! A client of a refused `CONNECT` sees the status code, often the reason phrase, sometimes the
//! fields, never the content; so each of them says why. None of them carries a resolved address
//! or an operating-system error: those are in the log line under the same trace id.

use std::any::Any;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, PROXY_AUTHENTICATE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};
use hyper::ext::ReasonPhrase;
use opentelemetry::trace::TraceId;
use serde::Serialize;

use crate::access::Detail;
use crate::panics;
use crate::reason::{Reason, Retry};
use crate::target::Target;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Why a request is answered by the gateway, with the detail that only the log may show, if there is more to say.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) detail: Option<Detail>,
}

impl Failure {
    pub(crate) fn new(reason: Reason, detail: impl Into<Detail>) -> Self {
        let detail = Some(detail.into());
        Self { reason, detail }
    }

    /// One whose reason says it all.
    pub(crate) fn plain(reason: Reason) -> Self {
        let detail = None;
        Self { reason, detail }
    }

    /// A head the gateway cannot act on; `detail` is about the client's own bytes, so the client
    /// is told as well.
    pub(crate) fn bad_request(detail: impl Into<Detail>) -> Self {
        Self::new(Reason::BadRequest, detail)
    }

    /// A defect; its backtrace is in the log already.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let words = panics::message(panic);
        Self::new(Reason::Internal, Detail::Panicked(words.into()))
    }
}

/// The content of a refusal, for whoever gets to read it.
#[derive(Serialize)]
struct Explanation<'a> {
    error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    message: std::borrow::Cow<'a, str>,
    trace_id: String,
}

/// The response for a failure.
///
/// `via` is the pseudonym of the gateway, which opens `Proxy-Status` (RFC 9209 §2).
pub(crate) fn response(
    failure: &Failure,
    target: Option<&Target>,
    trace_id: TraceId,
    via: &str,
) -> Response<Bytes> {
    let row = failure.reason.row();
    let mut response = Response::new(content(failure, target, trace_id));
    *response.status_mut() = row.status;
    if let Ok(phrase) = ReasonPhrase::try_from(phrase(failure.reason).into_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(status) = proxy_status(failure.reason, via) {
        headers.insert(PROXY_STATUS, status);
    }
    if let Retry::After(seconds) = row.retry {
        headers.insert(RETRY_AFTER, HeaderValue::from(u16::from(seconds)));
    }
    if failure.reason == Reason::AuthRequired {
        // RFC 9110 §11.7.1: a 407 says which scheme would do.
        let challenge = HeaderValue::from_static("Basic realm=\"outgate\", charset=\"UTF-8\"");
        headers.insert(PROXY_AUTHENTICATE, challenge);
    }
    response
}

/// The same response as bytes, for a connection on which no request was parsed.
pub(crate) fn raw(failure: &Failure, trace_id: TraceId, via: &str) -> Vec<u8> {
    let mut response = response(failure, None, trace_id, via);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    let status = response.status().as_u16();
    let mut bytes = format!("HTTP/1.1 {status} {}\r\n", phrase(failure.reason)).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let content = response.body();
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", content.len()).as_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// What Python, Go and Java print of a failed `CONNECT`.
fn phrase(reason: Reason) -> String {
    let verdict = if reason.is_denial() {
        "denied"
    } else {
        "failed"
    };
    format!("egress {verdict}: {}", reason.label())
}

/// `outgate; error=dns_timeout; details="dns_timeout"` (RFC 9209 §2.1).
fn proxy_status(reason: Reason, via: &str) -> Option<HeaderValue> {
    let row = reason.row();
    let error = row.proxy_error?;
    HeaderValue::try_from(format!("{via}; error={error}; details=\"{}\"", row.label)).ok()
}

fn content(failure: &Failure, target: Option<&Target>, trace_id: TraceId) -> Bytes {
    let advice = failure.reason.row().advice;
    let message = match &failure.detail {
        Some(detail) if failure.reason == Reason::BadRequest => format!("{advice} {detail}").into(),
        _ => advice.into(),
    };
    let explanation = Explanation {
        error: failure.reason.label(),
        target: target.map(ToString::to_string),
        message,
        trace_id: trace_id.to_string(),
    };
    let mut json = serde_json::to_vec(&explanation).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::context::random_trace_id;

    #[test]
    fn every_reason_is_told_alike_in_phrase_field_and_content() {
        for reason in Reason::ALL {
            let Some(error) = reason.row().proxy_error else {
                continue;
            };
            let failure = Failure::new(reason, "192.0.2.1: Connection refused");
            let text = String::from_utf8(raw(&failure, random_trace_id(), "gate")).unwrap();
            let label = reason.label();
            assert!(text.starts_with(&format!("HTTP/1.1 {} egress ", reason.status().as_u16())));
            assert!(text.contains(&format!(": {label}\r\n")), "{text}");
            let field = format!("proxy-status: gate; error={error}; details=\"{label}\"\r\n");
            assert!(text.contains(&field), "{text}");
            assert!(text.contains(&format!("{{\"error\":\"{label}\"")), "{text}");
        }
    }

    #[test]
    fn the_client_never_reads_an_address_or_an_operating_system_error() {
        for reason in Reason::ALL
            .into_iter()
            .filter(|reason| *reason != Reason::BadRequest)
        {
            let failure = Failure::new(reason, "192.0.2.1: Connection refused (os error 111)");
            let text = String::from_utf8(raw(&failure, random_trace_id(), "outgate")).unwrap();
            assert!(
                !text.contains("192.0.2.1") && !text.contains("os error"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_407_carries_a_challenge_rfc9110_11_7_1() {
        let failure = Failure::plain(Reason::AuthRequired);
        let response = response(&failure, None, random_trace_id(), "outgate");
        assert!(response.headers().contains_key(PROXY_AUTHENTICATE));
    }
}
