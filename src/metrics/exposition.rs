//! The two texts that a scraper may ask for: Prometheus' own, and OpenMetrics 1.0.
//!
//! The `prometheus` crate writes the first only, and its histograms hold no exemplars; so
//! OpenMetrics is made from it, sample by sample, and carries none.

use std::fmt::Write;

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus::TextEncoder;
use prometheus::proto::{MetricFamily, MetricType};

/// Units that the name of a family may end with (OpenMetrics 1.0, *Unit*).
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// The form of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// What a request prefers; the text unless OpenMetrics is asked for by name.
    #[must_use]
    pub fn accepted(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(ACCEPT).iter();
        let ranges = fields
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(','));
        let (mut text, mut open_metrics) = (0.0, 0.0);
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let (kind, mut quality, mut version) = (parts.next().unwrap_or_default(), 1.0, "1.0.0");
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value,
                    _ => {}
                }
            }
            if kind.eq_ignore_ascii_case("application/openmetrics-text") && version == "1.0.0" {
                open_metrics = f64::max(open_metrics, quality);
            } else if kind.eq_ignore_ascii_case("text/plain") {
                text = f64::max(text, quality);
            }
        }
        if open_metrics > 0.0 && open_metrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes families in this form.
    ///
    /// # Errors
    /// When a family has no samples or no name: a defect.
    pub(super) fn write(self, families: &[MetricFamily]) -> Result<String, prometheus::Error> {
        let mut text = String::with_capacity(16 * 1024);
        match self {
            Self::Text => TextEncoder::new().encode_utf8(families, &mut text)?,
            Self::OpenMetrics => {
                for family in families {
                    write_family(family, &mut text)?;
                }
                text.push_str("# EOF\n");
            }
        }
        Ok(text)
    }
}

fn write_family(family: &MetricFamily, text: &mut String) -> Result<(), prometheus::Error> {
    let kind = family.get_field_type();
    // The suffix of a counter belongs to its sample, not to its family.
    let name = match family.name().strip_suffix("_total") {
        Some(base) if kind == MetricType::COUNTER => base,
        _ => family.name(),
    };
    let help = family.help().replace('\\', "\\\\").replace('\n', "\\n");
    let help = help.replace('"', "\\\"");
    let kind_name = format!("{kind:?}").to_ascii_lowercase();
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind_name}");
    let suffix = name.rsplit('_').next();
    if let Some(unit) = suffix.filter(|suffix| UNITS.contains(suffix)) {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let samples = TextEncoder::new().encode_to_string(std::slice::from_ref(family))?;
    for sample in samples.lines().filter(|line| !line.starts_with('#')) {
        write_sample(sample, text);
    }
    Ok(())
}

/// Copies a sample; the bound of a bucket is a number with a point (*Canonical Numbers*).
fn write_sample(sample: &str, text: &mut String) {
    let bound = sample
        .rsplit_once("le=\"")
        .and_then(|(before, after)| Some((before, after.split_once("\"} ")?)));
    match bound {
        Some((before, (bound, count)))
            if before.ends_with(['{', ',']) && bound.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            let _ = writeln!(text, "{before}le=\"{bound}.0\"}} {count}");
        }
        _ => {
            text.push_str(sample);
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use prometheus::core::Collector;
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

    use super::*;

    #[test]
    fn openmetrics_is_given_to_whoever_prefers_it() {
        for (accept, expected) in [
            ("", Exposition::Text),
            ("*/*", Exposition::Text),
            ("text/plain", Exposition::Text),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Exposition::OpenMetrics,
            ),
            (
                "application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.8",
                Exposition::Text,
            ),
            ("application/openmetrics-text;q=0", Exposition::Text),
            (
                "application/openmetrics-text;version=2.0.0",
                Exposition::Text,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Exposition::accepted(&headers), expected, "{accept}");
        }
    }

    #[test]
    fn a_counter_and_a_histogram_read_as_openmetrics_wants_them() {
        let counter = IntCounterVec::new(Opts::new("moved_bytes_total", "Say \"how\"."), &["rule"]);
        let counter = counter.unwrap();
        counter.with_label_values(&["a\"} le=\"7"]).inc_by(3);
        let rule = IntCounterVec::new(Opts::new("asked_total", "Asked."), &["rule"]).unwrap();
        rule.with_label_values(&["80"]).inc_by(4);
        let opts = HistogramOpts::new("took_seconds", "Time.").buckets(vec![0.5, 1.0]);
        let histogram = HistogramVec::new(opts, &[]).unwrap();
        histogram.with_label_values::<&str>(&[]).observe(0.75);
        let families = [counter.collect(), rule.collect(), histogram.collect()].concat();
        let expected = r#"# HELP moved_bytes Say \"how\".
# TYPE moved_bytes counter
# UNIT moved_bytes bytes
moved_bytes_total{rule="a\"} le=\"7"} 3
# HELP asked Asked.
# TYPE asked counter
asked_total{rule="80"} 4
# HELP took_seconds Time.
# TYPE took_seconds histogram
# UNIT took_seconds seconds
took_seconds_bucket{le="0.5"} 0
took_seconds_bucket{le="1.0"} 1
took_seconds_bucket{le="+Inf"} 1
took_seconds_sum 0.75
took_seconds_count 1
# EOF
"#;
        assert_eq!(Exposition::OpenMetrics.write(&families).unwrap(), expected);
    }
}
