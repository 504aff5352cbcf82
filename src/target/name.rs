//! Host names and the spellings of IPv4 addresses.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::{Host, TargetError};

/// RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;
/// 255 octets on the wire (RFC 1035 §2.3.4) less the first length octet and the root label.
const MAX_NAME: usize = 253;
/// Longest host that is put through IDNA: its work per label is quadratic, and four octets of
/// UTF-8 are the most that one octet of a name comes from.
const MAX_UNMAPPED: usize = 4 * MAX_NAME;

/// Normalises a host without brackets to a name or an IPv4 address.
pub(super) fn normalise(text: &str) -> Result<Host, TargetError> {
    if text.is_empty() {
        return Err(TargetError::EmptyHost);
    }
    match needs(text) {
        Needs::Nothing => from_ascii(text),
        Needs::LowerCase => from_ascii(&text.to_ascii_lowercase()),
        // Before the addresses are told from the names: full-width digits and dots become ASCII.
        Needs::Idna => from_ascii(&to_ascii(text)?),
    }
}

/// What stands between a host as received and its normal form.
#[derive(PartialEq, Eq)]
enum Needs {
    Nothing,
    LowerCase,
    Idna,
}

fn needs(text: &str) -> Needs {
    let mut needs = Needs::Nothing;
    for byte in text.bytes() {
        if !byte.is_ascii() {
            return Needs::Idna;
        }
        if byte.is_ascii_uppercase() {
            needs = Needs::LowerCase;
        }
    }
    let is_a_label = |label: &str| {
        label
            .get(..4)
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case("xn--"))
    };
    // The search is for a substring first, because almost no name has one.
    if text.contains("--") && text.split('.').any(is_a_label) {
        return Needs::Idna;
    }
    needs
}

/// UTS #46 ToASCII, non-transitional; A-labels that are already there are validated. Hyphens are
/// free (`r3---sn-x.googlevideo.com` is in use), and lengths and characters are checked after.
fn to_ascii(text: &str) -> Result<Cow<'_, str>, TargetError> {
    if let Some(error) = text.chars().find_map(forbidden_ascii) {
        return Err(error);
    }
    if text.len() > MAX_UNMAPPED {
        return Err(TargetError::NameTooLong);
    }
    Uts46::new()
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::EMPTY,
            Hyphens::Allow,
            DnsLength::Ignore,
        )
        .map_err(|_| TargetError::Idna)
}

fn from_ascii(text: &str) -> Result<Host, TargetError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(if text.is_empty() {
            TargetError::EmptyHost
        } else {
            TargetError::EmptyLabel
        });
    }
    let last = check_labels(name)?;
    if is_number(last) {
        let address = parse_ipv4(name).ok_or(TargetError::BadIpv4)?;
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    Ok(Host::Name(Arc::from(name)))
}

/// Checks characters and lengths; returns the last label.
fn check_labels(name: &str) -> Result<&str, TargetError> {
    if name.len() > MAX_NAME {
        // A control character is the more telling fault, whatever the length.
        return Err(name
            .chars()
            .find_map(forbidden_ascii)
            .unwrap_or(TargetError::NameTooLong));
    }
    let mut start = 0;
    for (end, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' => {
                check_length(end - start)?;
                start = end + 1;
            }
            // A name is cut by nothing else, so a byte that is not a character cannot occur.
            other => return Err(forbidden(char::from(other))),
        }
    }
    check_length(name.len() - start)?;
    Ok(&name[start..])
}

fn check_length(length: usize) -> Result<(), TargetError> {
    match length {
        0 => Err(TargetError::EmptyLabel),
        1..=MAX_LABEL => Ok(()),
        _ => Err(TargetError::LabelTooLong),
    }
}

/// The error for an ASCII character that no host has, in either case of letters.
fn forbidden_ascii(character: char) -> Option<TargetError> {
    let allowed = !character.is_ascii()
        || character.is_ascii_alphanumeric()
        || matches!(character, '-' | '_' | '.');
    (!allowed).then(|| forbidden(character))
}

fn forbidden(character: char) -> TargetError {
    match character {
        '%' => TargetError::Percent,
        '\0'..=' ' | '\x7f' => TargetError::SpaceOrControl,
        other => TargetError::BadCharacter(other),
    }
}

/// Whether a last label makes the whole an address or nothing (WHATWG URL, "ends in a number"):
/// no top-level domain is numeric, and a C library would take such a name for an address.
fn is_number(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_digit())
        || label
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// `inet_aton` of the C library: one to four parts, each decimal, octal after `0` or hexadecimal
/// after `0x`; the last part fills all octets that are left. `text` is lower case.
fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets_left: u32 = 4;
    let mut address: u32 = 0;
    let mut parts = text.split('.').peekable();
    while let Some(part) = parts.next() {
        let value = parse_part(part)?;
        let octets = if parts.peek().is_some() {
            1
        } else {
            octets_left
        };
        // More than four parts: nothing is left for this one.
        octets_left = octets_left.checked_sub(octets)?;
        if octets == 0 || u64::from(value) >> (8 * octets) != 0 {
            return None;
        }
        address |= value << (8 * octets_left);
    }
    Some(Ipv4Addr::from_bits(address))
}

fn parse_part(part: &str) -> Option<u32> {
    let (digits, radix) = match part.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if part.len() > 1 && part.starts_with('0') => (part, 8),
        None => (part, 10),
    };
    // No sign can stand here: characters were checked.
    u32::from_str_radix(digits, radix).ok()
}
