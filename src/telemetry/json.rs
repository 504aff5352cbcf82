//! Log lines as JSON: one flat object a line.
//!
//! The formatter of `tracing-subscriber` goes through a serialiser and a second adapter for every
//! value, which costs an access log line more than all the rest of it; this one writes into a
//! buffer that each thread keeps, and allocates nothing.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Clock};
use tracing_subscriber::registry::LookupSpan;

/// Digits of a timestamp up to the point behind its seconds.
const SECONDS: usize = "2026-01-02T03:04:05.".len();

thread_local! {
    /// What one line leaves to the next of its thread.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

#[derive(Default)]
struct Scratch {
    line: String,
    /// The second, since 1970, that `date` shows.
    second: u64,
    date: String,
}

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
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Taken and put back: a value may log while it is written.
        let mut scratch = SCRATCH.take();
        let written = scratch
            .write(event)
            .and_then(|()| writer.write_str(&scratch.line));
        SCRATCH.set(scratch);
        written
    }
}

impl Scratch {
    fn write(&mut self, event: &Event<'_>) -> fmt::Result {
        self.line.clear();
        self.line.push_str("{\"timestamp\":\"");
        self.write_time()?;
        self.line.push_str("\",\"level\":\"");
        self.line.push_str(event.metadata().level().as_str());
        self.line.push('"');
        event.record(&mut Members(&mut self.line));
        self.line.push_str(",\"target\":");
        write_text(&mut self.line, event.metadata().target());
        self.line.push_str("}\n");
        Ok(())
    }

    /// Writes the time with microseconds, and the date anew with each second only.
    fn write_time(&mut self) -> fmt::Result {
        let mut now = since_epoch();
        // Until the second has not turned while its date was written.
        while self.date.is_empty() || self.second != now.as_secs() {
            self.date.clear();
            Clock.format_time(&mut Writer::new(&mut self.date))?;
            self.date.truncate(SECONDS);
            self.second = now.as_secs();
            now = since_epoch();
        }
        self.line.push_str(&self.date);
        write!(self.line, "{:06}Z", now.subsec_micros())
    }
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Writes fields as members of an object that has some already.
struct Members<'a>(&'a mut String);

impl Members<'_> {
    /// Writes the name of a member. It is an identifier of this program, so nothing in it is escaped.
    fn name(&mut self, field: &Field) -> &mut String {
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
        self.0
    }

    fn display(&mut self, field: &Field, value: impl fmt::Display) {
        // Writing to a string cannot fail, and a value that fails is cut short.
        let _ = write!(self.name(field), "{value}");
    }
}

impl Visit for Members<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.display(field, format_args!("{value:?}"));
        } else {
            // JSON has no number for it (RFC 8259 section 6).
            self.display(field, "null");
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.display(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.display(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.display(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write_text(self.name(field), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let line = self.name(field);
        line.push('"');
        let _ = write!(Escaped(line), "{value:?}");
        line.push('"');
    }
}

/// Writes a string with its quotes.
fn write_text(line: &mut String, text: &str) {
    line.push('"');
    let _ = Escaped(line).write_str(text);
    line.push('"');
}

/// Escapes what must not stand in a string as it is (RFC 8259 section 7).
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let must_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        // Without a way out of the loop, which lets it look at many bytes at once.
        let is_plain = !text
            .bytes()
            .fold(false, |found, byte| found | must_escape(byte));
        if is_plain {
            self.0.push_str(text);
            return Ok(());
        }
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                control if control < ' ' => write!(self.0, "\\u{:04x}", u32::from(control))?,
                other => self.0.push(other),
            }
        }
        Ok(())
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
        assert_eq!(timestamp.as_str().unwrap().len(), clock().len());
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

    /// The time as `tracing-subscriber` writes it.
    fn clock() -> String {
        let mut text = String::new();
        Clock.format_time(&mut Writer::new(&mut text)).unwrap();
        text
    }

    #[test]
    fn a_line_has_the_time_it_was_written_at() {
        // Over the turn of a second.
        for _ in 0..30 {
            let before = clock();
            let line = logged(|| tracing::info!("now"));
            let after = clock();
            let value: Value = serde_json::from_str(&line).unwrap();
            let written = value["timestamp"].as_str().unwrap();
            assert!(
                *before <= *written && *written <= *after,
                "{before} {written} {after}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
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
