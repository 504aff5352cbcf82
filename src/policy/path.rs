//! Path prefixes of plain HTTP rules.
//!
//! A server may read a path more loosely than RFC 3986 does: `%2f` and `\` as separators, empty
//! segments merged, `;parameters` dropped. A rule must not be got round by that, so a path is read
//! both ways, and where the readings part, an allow rule does not cover it and a deny rule does.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::rule::RuleError;

/// A path prefix, matched on segment borders: `/v1` covers `/v1` and `/v1/x`, `/v1/` covers only
/// what is below, and neither covers `/v10`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix {
    text: Arc<str>,
}

/// How a path stands to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// Under it, however it is read.
    Inside,
    /// Not under it, however it is read.
    Outside,
    /// Under it or not, depending on the server.
    Unclear,
}

impl PathPrefix {
    /// How `path`, as received and without its query, stands to this prefix.
    pub(super) fn cover(&self, path: &str) -> Cover {
        if &*self.text == "/" {
            return Cover::Inside;
        }
        let Some(decoded) = decode(path) else {
            return Cover::Unclear;
        };
        let loose = loose_segments(&decoded);
        let dots = loose.iter().any(|segment| matches!(&**segment, "." | ".."));
        if dots && is_loose(&decoded) {
            // How far up the dots lead then depends on which of the liberties a server takes.
            return Cover::Unclear;
        }
        let strict = self.covers(&without_dots(decoded.split('/')));
        let loose = self.covers(&without_dots(loose.iter().map(|segment| &**segment)));
        match (strict, loose) {
            (true, true) => Cover::Inside,
            (false, false) => Cover::Outside,
            (true, false) | (false, true) => Cover::Unclear,
        }
    }

    fn covers(&self, segments: &[&str]) -> bool {
        let (stem, only_below) = match self.text.strip_suffix('/') {
            Some(stem) => (stem, true),
            None => (&*self.text, false),
        };
        let mut segments = segments.iter();
        stem.split('/')
            .all(|wanted| segments.next() == Some(&wanted))
            && (!only_below || segments.next().is_some())
    }
}

impl FromStr for PathPrefix {
    type Err = RuleError;

    /// Reads a prefix that begins with `/` and is in normal form.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let decoded = decode(text)
            .filter(|decoded| !is_loose(decoded))
            .ok_or(RuleError::Path)?;
        if decoded
            .split('/')
            .any(|segment| matches!(segment, "." | ".."))
        {
            return Err(RuleError::Path);
        }
        Ok(Self {
            text: decoded.into(),
        })
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Writes a path in one form: what may stand in a segment plainly is decoded, all else is encoded
/// in upper case (RFC 3986 §6.2.2). That goes beyond the unreserved characters, because servers
/// treat `@` and `%40` alike. `;` and `\` are left encoded, as `%3B` and `%5C`.
///
/// `None` where no two servers need agree: no `/` in front, a broken encoding, a control
/// character, a query or fragment, an encoding of an encoding, overlong UTF-8.
fn decode(path: &str) -> Option<String> {
    let mut rest = path.as_bytes();
    if rest.first() != Some(&b'/') {
        return None;
    }
    let mut decoded = String::with_capacity(path.len());
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let mut byte = first;
        if first == b'%' {
            let (digits, tail) = rest.split_first_chunk::<2>()?;
            byte = from_hex(*digits)?;
            rest = tail;
        }
        let encoded = first == b'%';
        match byte {
            b'/' if !encoded => decoded.push('/'),
            b' ' | b'?' | b'#' if !encoded => return None,
            // 0xC0 and 0xC1 occur in no UTF-8 but have been read as `.` and `/`.
            0..0x20 | 0x7f | 0xc0 | 0xc1 => return None,
            b'%' if rest
                .first_chunk::<2>()
                .is_some_and(|digits| from_hex(*digits).is_some()) =>
            {
                return None;
            }
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte) => {
                decoded.push(char::from(byte));
            }
            _ => {
                decoded.push('%');
                decoded.extend(
                    [byte >> 4, byte & 0xf].map(|digit| char::from(HEX[usize::from(digit)])),
                );
            }
        }
    }
    Some(decoded)
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn from_hex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// Whether a decoded path has anything in it that servers read differently.
fn is_loose(decoded: &str) -> bool {
    ["%3B", "%2F", "%5C", "//"]
        .iter()
        .any(|sign| decoded.contains(sign))
}

/// The segments as the most lenient server has them. An empty last one stays: it is the `/` at
/// the end.
fn loose_segments(decoded: &str) -> Vec<Box<str>> {
    let separated = decoded.replace("%2F", "/").replace("%5C", "/");
    let mut segments = vec![Box::from("")];
    let mut parts = separated.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let (segment, _) = part.split_once("%3B").unwrap_or((part, ""));
        if !segment.is_empty() || parts.peek().is_none() {
            segments.push(Box::from(segment));
        }
    }
    segments
}

/// Removes dot segments (RFC 3986 §5.2.4). The first segment is the empty one before the first
/// `/` and stays.
fn without_dots<'a>(segments: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => kept.truncate(kept.len().saturating_sub(1).max(1)),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    kept
}

#[cfg(test)]
mod tests;
