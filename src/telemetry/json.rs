//! Log lines as JSON: one flat object a line.
//!
//! The formatter of `tracing-subscriber` goes through a serialiser and a second adapter for every
//! value, which costs an access log line more than all the rest of it; this one writes into the
//! subscriber's own buffer, and allocates nothing.

use std::error::Error;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as `{"timestamp":…,"level":…,` its fields `,"target":…}`.
#[derive(Debug)]
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        line.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut line)?;
        line.write_str("\",\"level\":\"")?;
        line.write_str(event.metadata().level().as_str())?;
        line.write_char('"')?;
        let mut members = Members {
            line: &mut line,
            result: Ok(()),
        };
        event.record(&mut members);
        members.result?;
        line.write_str(",\"target\":")?;
        text(&mut line, event.metadata().target())?;
        line.write_str("}\n")
    }
}

/// Writes fields as members of an object that has some already.
struct Members<'a> {
    line: &'a mut dyn Write,
    result: fmt::Result,
}

impl Members<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        if self.result.is_err() {
            return;
        }
        self.result = (|| {
            self.line.write_char(',')?;
            text(self.line, field.name())?;
            self.line.write_char(':')?;
            value(self.line)
        })();
    }
}

impl Visit for Members<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |line| {
            if value.is_finite() {
                write!(line, "{value:?}")
            } else {
                // JSON has no other number for it (RFC 8259 section 6).
                line.write_str("null")
            }
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| {
            line.write_str(if value { "true" } else { "false" })
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |line| text(line, value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |line| {
            line.write_char('"')?;
            write!(Escaped(line), "{value:?}")?;
            line.write_char('"')
        });
    }
}

/// Writes a string with its quotes.
fn text(line: &mut dyn Write, text: &str) -> fmt::Result {
    line.write_char('"')?;
    Escaped(line).write_str(text)?;
    line.write_char('"')
}

/// Escapes what must not stand in a string as it is (RFC 8259 section 7).
struct Escaped<'a>(&'a mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let must_escape = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| must_escape(&byte)) {
            self.0.write_str(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'"' => self.0.write_str("\\\""),
                b'\\' => self.0.write_str("\\\\"),
                b'\n' => self.0.write_str("\\n"),
                b'\r' => self.0.write_str("\\r"),
                b'\t' => self.0.write_str("\\t"),
                control => write!(self.0, "\\u{control:04x}"),
            }?;
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What `emit` logs, as text.
    fn logged(emit: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Written {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Json)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, emit);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_one_object_with_every_kind_of_value() {
        let line = logged(|| {
            tracing::info!(
                target: "access",
                {
                    http.request.method = "GET",
                    server.port = 443_u16,
                    bytes = Some(u64::MAX),
                    less = -1_i64,
                    duration_ms = 2.0,
                    never = f64::NAN,
                    is_so = true,
                    absent = None::<u64>,
                    client.address = %std::net::Ipv4Addr::LOCALHOST,
                    error = &io::Error::other("no \"luck\"") as &(dyn Error + 'static),
                },
                "request"
            );
        });
        assert_eq!(line.matches('\n').count(), 1);
        let mut value: Value = serde_json::from_str(&line).unwrap();
        let timestamp = value.as_object_mut().unwrap().remove("timestamp").unwrap();
        let is_time = |text: &str| text.len() == 27 && text.ends_with('Z') && text.contains('T');
        assert!(is_time(timestamp.as_str().unwrap()), "{timestamp}");
        assert_eq!(
            value,
            json!({
                "level": "INFO", "message": "request", "http.request.method": "GET",
                "server.port": 443, "bytes": u64::MAX, "less": -1, "duration_ms": 2.0,
                "never": null, "is_so": true, "client.address": "127.0.0.1",
                "error": "no \"luck\"", "target": "access",
            })
        );
    }

    #[test]
    fn nothing_in_a_value_ends_the_line_or_its_string() {
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        let line = logged(|| tracing::warn!(shown = %all, plain = &*all, "\"}}\n{{"));
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["shown"], *all);
        assert_eq!(value["plain"], *all);
        assert_eq!(value["message"], "\"}\n{");
    }
}
