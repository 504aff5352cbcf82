//! What a client reads: responses as RFC 9112 has them, then what a tunnel carries.

use crate::gateway::Gateway;
use crate::upstream::Record;

/// The responses on one connection.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Final responses and protocol switches.
    count: u64,
    /// Those of the origin, by its number.
    ids: Vec<u64>,
    /// Whether the last one breaks off.
    broken: bool,
}

impl Answers {
    /// Reads to the end; bytes that are no response fail.
    pub(crate) fn read(mut bytes: &[u8]) -> Self {
        let mut answers = Self::default();
        while !bytes.is_empty() && !answers.broken {
            bytes = answers.next(bytes);
        }
        answers
    }

    fn next<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
            self.broken = true;
            return &[];
        };
        let (head, rest) = (Head::parse(&bytes[..end]), &bytes[end + 4..]);
        if head.status == 100 {
            return rest;
        }
        self.count += 1;
        self.ids.extend(head.id);
        if head.status == 101 {
            return &[];
        }
        // To HEAD there is a length and no content. Nothing here begins as a response does but responses.
        if matches!(head.status, 204 | 304) || rest.is_empty() || rest.starts_with(b"HTTP/1.") {
            return rest;
        }
        match (head.chunked, head.length) {
            (true, _) => match after_chunks(rest) {
                Some(rest) => rest,
                None => self.breaks_off(),
            },
            (false, Some(length)) => match rest.get(length..) {
                Some(rest) => rest,
                None => self.breaks_off(),
            },
            // To the close, or a tunnel.
            (false, None) => &[],
        }
    }

    fn breaks_off(&mut self) -> &'static [u8] {
        self.broken = true;
        &[]
    }

    /// Each is one of the origin's, none came twice, none overtook another.
    pub(crate) fn check_order(&self, answered: &[u64]) {
        assert!(self.ids.is_sorted_by(|one, next| one < next), "out of order or twice: {:?}", self.ids);
        assert!(self.ids.iter().all(|id| answered.contains(id)), "{:?} of {answered:?}", self.ids);
    }

    /// Of a connection that ended regularly: nothing was lost on the way.
    pub(crate) fn check_whole(&self, seen: &Record, requests: u64, gateway: &Gateway) {
        if self.broken {
            return;
        }
        let due = |ids: &[u64]| -> Vec<u64> { ids.iter().copied().filter(|id| seen.is_due(*id)).collect() };
        assert_eq!(due(&self.ids), due(seen.answered()), "a response was lost");
        // One more than the requests is the gateway's, to what was no request. It ends the connection.
        if self.count != requests {
            assert_eq!(self.count, requests + 1, "responses and requests");
            assert!(gateway.rejections() > 0, "a response to nothing");
        }
    }
}

struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    id: Option<u64>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.strip_prefix("HTTP/1.1 ").or(first.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {first:?}"));
        let mut head = Self { status, length: None, chunked: false, id: None };
        for line in lines {
            assert!(!line.contains(['\r', '\n', '\0']), "no field: {line:?}");
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
            let value = value.trim();
            match &*name.to_ascii_lowercase() {
                "content-length" => {
                    assert!(head.length.is_none(), "two lengths: {text:?}");
                    head.length = Some(value.parse().unwrap());
                }
                "transfer-encoding" => head.chunked = value == "chunked",
                "x-id" => head.id = value.parse().ok(),
                _ => {}
            }
        }
        assert!(!(head.chunked && head.length.is_some()), "two framings: {text:?}");
        head
    }
}

/// What follows the last chunk and its trailers; none where they break off.
fn after_chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (size, rest) = line(bytes)?;
        let size = std::str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.unwrap_or_else(|| panic!("no size of a chunk in {bytes:?}"));
        if size == 0 {
            bytes = rest;
            break;
        }
        let (end, rest) = rest.get(size..)?.split_first_chunk::<2>()?;
        assert_eq!(end, b"\r\n", "a chunk without its end");
        bytes = rest;
    }
    loop {
        let (trailer, rest) = line(bytes)?;
        bytes = rest;
        if trailer.is_empty() {
            return Some(bytes);
        }
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|end| end == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}
