//! The notations of the specification's values. A reader's error is the reason, worded to follow the value.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::Protocol;
use crate::config::value::LONGEST_DURATION;

pub(super) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn flag(text: &str) -> Result<bool, String> {
    parse(&text.to_ascii_lowercase())
}

pub(super) fn is_exporter(text: &str) -> Result<bool, String> {
    match text {
        "otlp" => Ok(true),
        "none" => Ok(false),
        _ => Err("no such exporter here".to_owned()),
    }
}

pub(super) fn is_gzip(text: &str) -> Result<bool, String> {
    match text {
        "gzip" => Ok(true),
        _ => Err("no such compression here".to_owned()),
    }
}

pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    [Protocol::Grpc, Protocol::HttpProtobuf]
        .into_iter()
        .find(|protocol| protocol.name() == text)
        .ok_or_else(|| "no such protocol here".to_owned())
}

pub(super) fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = parse(text)?;
    let authority = url.authority().map_or("", |own| own.as_str());
    if authority.contains('@') {
        return Err(
            "a user name or password stands in it; state it in OTEL_EXPORTER_OTLP_HEADERS"
                .to_owned(),
        );
    }
    match url.scheme_str() {
        Some("http" | "https") => Ok(url),
        _ => Err("it does not begin with http:// or https://".to_owned()),
    }
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    match Duration::from_millis(parse(text)?) {
        // The specification has zero mean no end, and a collector that hangs would have none.
        Duration::ZERO => Err("zero is no time".to_owned()),
        some if some > LONGEST_DURATION => Err("it is longer than a year".to_owned()),
        some => Ok(some),
    }
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    match parse(text)? {
        share if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("it is out of range".to_owned()),
    }
}

/// Whether the parent decides, and the share of the rest unless `OTEL_TRACES_SAMPLER_ARG` states it.
pub(super) fn sampler(text: &str) -> Result<(bool, Option<f64>), String> {
    let own = text.strip_prefix("parentbased_");
    let ratio = match own.unwrap_or(text) {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        "traceidratio" => None,
        _ => return Err("no such sampler here".to_owned()),
    };
    Ok((own.is_some(), ratio))
}

/// Reads `key=value,key2=value2`; values are percent-encoded.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .filter(|(key, _)| !key.trim().is_empty())
                .ok_or("a part is no `key=value`")?;
            let value = percent_decode_str(value.trim())
                .decode_utf8()
                .map_err(|_| "a value is not UTF-8")?;
            Ok((key.trim().to_owned(), value.into_owned()))
        })
        .collect()
}

pub(super) fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let fields = pairs(text)?.into_iter().map(|(name, value)| {
        let name =
            HeaderName::from_str(&name).map_err(|_| format!("{name:?} names no header field"))?;
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| format!("the value of {name} cannot be sent"))?;
        value.set_sensitive(true);
        Ok((name, value))
    });
    fields.collect()
}
