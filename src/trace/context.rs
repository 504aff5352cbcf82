//! W3C Trace Context: which trace a request belongs to, read from and written to `traceparent`.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// §3.2 of the recommendation.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// §3.3 of the recommendation.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `tracestate` that everyone is to pass on (§3.3.1.5).
const MOST_STATE: usize = 512;
/// Members of a `tracestate` (§3.3.1.1).
const MOST_MEMBERS: usize = 32;

/// Flags that have a meaning: sampled, and random trace id (level 2). Others are to be zero when they are passed
/// on, for whoever gives them one later (§3.2.2.5).
const KNOWN_FLAGS: u8 = 0x03;

/// The caller's span, as `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace the request belongs to.
    pub trace_id: TraceId,
    /// The caller's span in it.
    pub span_id: SpanId,
    /// Whether the caller keeps the trace, and whether its id is random.
    pub flags: TraceFlags,
}

impl Parent {
    /// The caller's span, where the fields of a request name exactly one (§3.2.2).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        let only = fields.next().filter(|_| fields.next().is_none())?;
        Self::parse(only.to_str().ok()?)
    }

    /// `version "-" trace-id "-" parent-id "-" trace-flags`, lower-case hexadecimal.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32).filter(|id| *id != 0)?;
        let span_id = hex(parts.next()?, 16).filter(|id| *id != 0)?;
        let flags = hex(parts.next()?, 2)?;
        // A later version may say more behind a dash (§3.2.2.5); 255 is none.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        Some(Self {
            trace_id: trace_id.into(),
            span_id: u64::try_from(span_id).ok()?.into(),
            flags: TraceFlags::new(u8::try_from(flags).ok()? & KNOWN_FLAGS),
        })
    }

    /// The caller's span with its `tracestate`; what does not parse of that is none (§3.3.1), and
    /// so is what is larger than others pass on: parsed, it takes a multiple of its size.
    #[must_use]
    pub fn with_state(self, headers: &HeaderMap) -> SpanContext {
        let fields = headers.get_all(TRACESTATE).iter();
        let fields: Option<Vec<_>> = fields.map(|field| field.to_str().ok()).collect();
        let state = fields
            .filter(|fields| fields.iter().map(|field| field.len()).sum::<usize>() <= MOST_STATE)
            .map(|fields| fields.join(","))
            .filter(|state| !state.is_empty() && state.split(',').count() <= MOST_MEMBERS)
            .and_then(|state| state.parse().ok())
            .unwrap_or(TraceState::NONE);
        SpanContext::new(self.trace_id, self.span_id, self.flags, true, state)
    }
}

/// The trace of a request: its caller's, or a new one.
#[must_use]
pub fn trace_id(parent: Option<&Parent>) -> TraceId {
    parent.map_or_else(random_trace_id, |parent| parent.trace_id)
}

/// A new trace.
#[must_use]
pub fn random_trace_id() -> TraceId {
    // Zero is the one value the recommendation calls invalid (§3.2.2.3).
    fastrand::u128(1..).into()
}

/// A new span (§3.2.2.4).
pub(super) fn random_span_id() -> SpanId {
    fastrand::u64(1..).into()
}

/// The field that names a span as the parent of what the next hop does.
pub(super) fn traceparent(span: &SpanContext) -> Option<HeaderValue> {
    let mut field = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut field[3..35], &span.trace_id().to_bytes());
    write_hex(&mut field[36..52], &span.span_id().to_bytes());
    write_hex(&mut field[53..], &[span.trace_flags().to_u8()]);
    HeaderValue::from_bytes(&field).ok()
}

/// Two digits a byte.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
}

/// Exactly so many digits of lower-case hexadecimal.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != digits || !text.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_parent_is_taken_from_a_sound_traceparent_only() {
        let parent = Parent::of(&headers(&[(TRACEPARENT, SOUND)])).unwrap();
        assert_eq!(
            parent.trace_id.to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(parent.span_id.to_string(), "b7ad6b7169203331");
        assert!(parent.flags.is_sampled());
        for broken in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c0-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        ] {
            assert_eq!(Parent::parse(broken), None, "{broken}");
        }
        assert!(Parent::parse(&format!("cc{}-more", &SOUND[2..])).is_some());
    }

    #[test]
    fn two_parents_are_none() {
        assert_eq!(
            Parent::of(&headers(&[(TRACEPARENT, SOUND), (TRACEPARENT, SOUND)])),
            None
        );
    }

    #[test]
    fn a_state_in_several_fields_is_one_list() {
        let headers = headers(&[
            (TRACEPARENT, SOUND),
            (TRACESTATE, "a=1"),
            (TRACESTATE, "b=2"),
        ]);
        let context = Parent::of(&headers).unwrap().with_state(&headers);
        assert_eq!(context.trace_state().header(), "a=1,b=2");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let parent = Parent::parse(SOUND).unwrap();
        let written = traceparent(&parent.with_state(&HeaderMap::new())).unwrap();
        assert_eq!(written, SOUND);
    }

    #[test]
    fn flags_that_nobody_has_defined_are_not_passed_on() {
        for (received, passed_on) in [
            ("00", "00"),
            ("01", "01"),
            ("02", "02"),
            ("03", "03"),
            ("fc", "00"),
            ("ff", "03"),
        ] {
            for version in ["00", "cc"] {
                let field = format!("{version}{}{received}", &SOUND[2..SOUND.len() - 2]);
                let parent = Parent::parse(&field).unwrap();
                let written = traceparent(&parent.with_state(&HeaderMap::new())).unwrap();
                let flags = &written.as_bytes()[SOUND.len() - 2..];
                assert_eq!(flags, passed_on.as_bytes(), "{field}");
            }
        }
    }

    #[test]
    fn a_tracestate_is_read_only_as_far_as_everyone_passes_it_on() {
        let read = |state: &'static str| {
            let fields = headers(&[(TRACEPARENT, SOUND), (TRACESTATE, state)]);
            let parent = Parent::of(&fields).unwrap().with_state(&fields);
            parent.trace_state().header()
        };
        assert_eq!(read("vendor=one,other=two"), "vendor=one,other=two");
        let many: Vec<_> = (0..33).map(|number| format!("v{number}=x")).collect();
        assert_eq!(read(many.join(",").leak()), "");
        assert_eq!(read(many[..32].join(",").leak()), many[..32].join(","));
        assert_eq!(read(format!("vendor={}", "x".repeat(512)).leak()), "");
    }
}
