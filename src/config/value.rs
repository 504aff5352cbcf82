//! The notations of values. Each reader has a writer whose text it reads back to the same value; a reader's
//! error is the reason, worded to follow the value: `"10": the unit is missing`.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// Longest duration accepted. It keeps `Instant + Duration` from overflowing, and lies below the 2.2 years at which
/// tokio's timer wheel ends.
pub(super) const LONGEST_DURATION: Duration = Duration::from_hours(365 * 24);

/// Milliseconds per unit of a duration, the longest first, so that the writer picks the shortest text.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Bytes per unit of a size. Powers of two only: `KB` means two things.
const SIZE_UNITS: [(&str, usize); 3] = [("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `250ms`, `10s`, `1h30m`. Zero is a duration here; see [`positive`].
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let too_long = || format!("it is longer than {}", show_duration(LONGEST_DURATION));
    let mut milliseconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        let (_, factor) = DURATION_UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| unknown_unit(unit, "ms, s, m, h or d"))?;
        milliseconds = number
            .checked_mul(factor)
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or_else(too_long)?;
        rest = after;
    }
    let duration = Duration::from_millis(milliseconds);
    if duration > LONGEST_DURATION {
        return Err(too_long());
    }
    Ok(duration)
}

/// Reads a duration where zero would mean that nothing ever succeeds.
pub(super) fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("zero would fail every time".to_owned()),
        some => Ok(some),
    }
}

/// Writes a duration in the longest unit that divides it.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let (unit, factor) = DURATION_UNITS
        .into_iter()
        .find(|(_, factor)| milliseconds.is_multiple_of(u128::from(*factor)))
        .unwrap_or(("ms", 1));
    format!("{}{unit}", milliseconds / u128::from(factor))
}

/// Reads a size, `64KiB` or a bare number of bytes, between `least` and `most`.
pub(super) fn size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let outside = || {
        let (least, most) = (show_size(least), show_size(most));
        format!("it is not between {least} and {most}")
    };
    let bytes = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| outside())?
    } else {
        let (number, unit, after) = number_and_unit(text)?;
        if !after.is_empty() {
            return Err(format!("{after:?} follows the unit"));
        }
        let (_, factor) = SIZE_UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| unknown_unit(unit, "B, KiB or MiB"))?;
        usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .ok_or_else(outside)?
    };
    if (least..=most).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(outside())
    }
}

/// Writes a size in the largest unit that divides it.
pub(super) fn show_size(bytes: usize) -> String {
    let (unit, factor) = SIZE_UNITS
        .into_iter()
        .find(|(_, factor)| bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// Reads a whole number from 1 to `most`.
pub(super) fn count(text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        Ok(_) => Err(format!("it is not between 1 and {most}")),
        Err(error) => Err(format!("{error}")),
    }
}

/// Reads `word` as nothing, any other text with `read`.
pub(super) fn unless<T>(
    word: &str,
    text: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == word {
        return Ok(None);
    }
    read(text).map(Some)
}

/// Writes what [`unless`] reads.
pub(super) fn show_unless(word: &str, shown: Option<impl Display>) -> String {
    shown.map_or_else(|| word.to_owned(), |value| value.to_string())
}

/// Reads the one of `choices` whose name the text is.
pub(super) fn choice<T: Copy>(
    choices: &[T],
    name: fn(T) -> &'static str,
    text: &str,
) -> Result<T, String> {
    let found = choices.iter().find(|choice| name(**choice) == text);
    found
        .copied()
        .ok_or_else(|| "it is none of them".to_owned())
}

/// Name of a flag.
pub(super) fn flag_name(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}

/// Reads a list separated by commas, spaces or newlines; the error names every item that is wrong.
pub(super) fn list<T, E: Display>(
    text: &str,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    let mut reasons = Vec::new();
    for item in items(text) {
        match read(item) {
            Ok(value) => values.push(value),
            Err(reason) => reasons.push(format!("{item:?}: {reason}")),
        }
    }
    if reasons.is_empty() {
        Ok(values)
    } else {
        Err(reasons.join("; "))
    }
}

/// Writes what [`list`] reads.
pub(super) fn show_list(values: &[impl Display]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// Reads the addresses of a listener: at least one, none twice.
pub(super) fn listeners(text: &str) -> Result<Vec<SocketAddr>, String> {
    let addresses = list(text, listener)?;
    if addresses.is_empty() {
        return Err("the list is empty".to_owned());
    }
    for (index, address) in addresses.iter().enumerate() {
        // Port 0 asks for any free port, so two of them do not collide.
        if address.port() != 0 && addresses[..index].contains(address) {
            return Err(format!("{address} appears twice"));
        }
    }
    Ok(addresses)
}

/// Reads an address to listen on: `[::]:3128`, `127.0.0.1:9091`, or `:3128` for every address.
pub(super) fn listener(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix(':')
        && let Ok(port) = u16::from_str(port)
    {
        return Ok((Ipv6Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| {
        "it is not an IP address and a port (IPv6 in brackets, no host name)".to_owned()
    })
}

/// The address to bind when `address` is `[::]` and the host has no IPv6; nothing for every other address.
///
/// With IPv6, `[::]` takes IPv4 clients as well, so falling back never opens more than what was asked for.
pub fn ipv4_fallback(address: SocketAddr) -> Option<SocketAddr> {
    (address.ip() == Ipv6Addr::UNSPECIFIED).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// Reads the name servers to ask; an empty list means those of resolv.conf, and so does that word.
pub(super) fn name_servers(text: &str) -> Result<Vec<SocketAddr>, String> {
    let servers = unless("resolv.conf", text, |text| list(text, name_server))?;
    Ok(servers.unwrap_or_default())
}

/// Writes what [`name_servers`] reads.
pub(super) fn show_name_servers(servers: &[SocketAddr]) -> String {
    if servers.is_empty() {
        return "resolv.conf".to_owned();
    }
    show_list(servers)
}

/// Reads a name server: an IP address, and a port unless it is 53.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    const DNS_PORT: u16 = 53;

    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip, DNS_PORT).into());
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => Err("port 0 cannot be asked".to_owned()),
        Err(_) => Err("it is not an IP address, with or without a port".to_owned()),
    }
}

/// Reads an address range; a single address is the range of itself.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let range: IpNet = text
        .parse()
        .map_err(|_| "it is not an address range".to_owned())?;
    if range.addr() != range.network() {
        // Whether the address or the whole range was meant must not be guessed: it opens or closes the guard.
        return Err(format!(
            "bits are set beyond the prefix; the range is {}",
            range.trunc()
        ));
    }
    Ok(range)
}

/// Reads the path of a file, or `none`. Whether the file exists is for its reader to say.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (text != "none").then(|| text.into())
}

/// Writes what [`path`] reads.
pub(super) fn show_path(path: Option<&Path>) -> String {
    show_unless("none", path.map(Path::display))
}

/// Reads a pseudonym that stands both in `Via`, where it is a token (RFC 9110 §5.6.2, §7.6.3), and at the head of
/// `Proxy-Status`, where it is an sf-token, which begins with a letter (RFC 9209 §2, RFC 8941 §3.3.4).
pub(super) fn pseudonym(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if let Some(bad) = text.chars().find(|c| !u8::try_from(*c).is_ok_and(is_token)) {
        return Err(format!("{bad:?} is not allowed in a token"));
    }
    if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Err("it does not begin with a letter".to_owned());
    }
    Ok(text.to_owned())
}

/// Items of a list; empty ones, as between two separators, do not count.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|item| !item.is_empty())
}

/// Splits the leading number and its unit from the rest.
fn number_and_unit(text: &str) -> Result<(u64, &str, &str), String> {
    let is_digit = |c: char| c.is_ascii_digit();
    let (number, rest) = text.split_at(text.find(|c| !is_digit(c)).unwrap_or(text.len()));
    if number.is_empty() {
        return Err(format!("{text:?} does not begin with a whole number"));
    }
    let (unit, rest) = rest.split_at(rest.find(is_digit).unwrap_or(rest.len()));
    if unit.is_empty() {
        return Err("the unit is missing".to_owned());
    }
    let number = number
        .parse()
        .map_err(|_| "the number is too large".to_owned())?;
    Ok((number, unit, rest))
}

fn unknown_unit(unit: &str, known: &str) -> String {
    format!("the unit {unit:?} is none of {known}")
}

#[cfg(test)]
mod tests;
