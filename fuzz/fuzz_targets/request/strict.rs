//! Requests as RFC 9112 has them, and not one byte otherwise: what an upstream may be given to read.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

/// How the content of a request is framed (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
}

#[derive(Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    host: String,
    pub(crate) framing: Framing,
    pub(crate) expects: bool,
    pub(crate) upgrades: bool,
}

impl Request {
    /// Whether the policies of `gateway.rs` allow it, by reading its path in the two ways that servers do.
    pub(crate) fn is_allowed(&self, restrictive: bool) -> bool {
        if self.target == "*" {
            return self.method == "OPTIONS" && !restrictive && self.is_for_origin();
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let readings = [segments(path, false), segments(path, true)];
        let below = |name| readings.each_ref().map(|path| path.len() > 1 && path[0] == name);
        self.is_for_origin()
            && if restrictive { below("ok") == [true, true] } else { below("secret") == [false, false] }
    }

    fn is_for_origin(&self) -> bool {
        self.host.split(':').next() == Some("origin.test")
    }
}

/// The segments of a path without its dots; loosely, `%2f` and `\` separate too, empty segments and
/// parameters are dropped.
fn segments(path: &str, loosely: bool) -> Vec<String> {
    let mut stack: Vec<String> = Vec::new();
    let path = if loosely { decoded(path).replace('\\', "/") } else { path.to_owned() };
    let count = path.split('/').count();
    for (index, segment) in path.split('/').enumerate().skip(1) {
        let segment = if loosely {
            segment.split(';').next().unwrap_or_default().to_owned()
        } else {
            decoded(segment)
        };
        let is_last = index + 1 == count;
        match &*segment {
            ".." => {
                stack.pop();
                if is_last {
                    stack.push(String::new());
                }
            }
            "." if is_last => stack.push(String::new()),
            "." => {}
            "" if loosely && !is_last => {}
            _ => stack.push(segment),
        }
    }
    stack
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The next request head; none where the connection ends, be it within a head.
pub(crate) async fn head(stream: &mut BufReader<TcpStream>) -> Result<Option<Request>, String> {
    let Some(line) = line(stream).await? else { return Ok(None) };
    let Some(fields) = fields(stream).await? else { return Ok(None) };
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("no request line: {line:?}"));
    };
    let in_form = target.starts_with('/') || (method == "OPTIONS" && target == "*");
    if !is_token(method) || !in_form || target.contains('#') || version != "HTTP/1.1" {
        return Err(format!("no request line in origin-form: {line:?}"));
    }
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(field, _)| field == name).map(|(_, value)| &**value).collect()
    };
    for gone in ["proxy-authorization", "proxy-connection", "proxy-authenticate", "keep-alive"] {
        if !all(gone).is_empty() {
            return Err(format!("{gone} belongs to another connection"));
        }
    }
    let [host] = all("host")[..] else { return Err(format!("not one Host in {fields:?}")) };
    if !all("via").last().is_some_and(|via| via.ends_with(" outgate")) {
        return Err(format!("no Via of the gateway in {fields:?}"));
    }
    let upgrades = !all("upgrade").is_empty();
    let framing = match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => Framing::Length(0),
        (["chunked"], []) => Framing::Chunked,
        ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            Framing::Length(length.parse().map_err(|_| format!("a length of {length}"))?)
        }
        framing => return Err(format!("framing with several readings: {framing:?}")),
    };
    Ok(Some(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        host: host.to_owned(),
        framing,
        expects: all("expect").iter().any(|value| value.eq_ignore_ascii_case("100-continue")),
        upgrades,
    }))
}

/// Reads the content; whether it was whole.
pub(crate) async fn content(stream: &mut BufReader<TcpStream>, framing: Framing) -> Result<bool, String> {
    let Framing::Length(length) = framing else { return chunks(stream).await };
    let mut left = stream.take(length as u64);
    let read = tokio::io::copy(&mut left, &mut tokio::io::sink()).await;
    Ok(read.is_ok_and(|read| read == length as u64))
}

async fn chunks(stream: &mut BufReader<TcpStream>) -> Result<bool, String> {
    loop {
        let Some(size) = line(stream).await? else { return Ok(false) };
        if size.is_empty() || size.len() > 8 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("no size of a chunk: {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|error| error.to_string())?;
        if size == 0 {
            let Some(trailers) = fields(stream).await? else { return Ok(false) };
            let framing = ["content-length", "transfer-encoding", "host"];
            if let Some(wrong) = trailers.iter().find(|(name, _)| framing.contains(&&**name)) {
                return Err(format!("a trailer that no trailer may be: {wrong:?}"));
            }
            return Ok(true);
        }
        let mut data = vec![0; size];
        if stream.read_exact(&mut data).await.is_err() {
            return Ok(false);
        }
        match line(stream).await? {
            Some(end) if end.is_empty() => {}
            Some(more) => return Err(format!("{more:?} behind a chunk")),
            None => return Ok(false),
        }
    }
}

/// Field lines to the empty one.
async fn fields(stream: &mut BufReader<TcpStream>) -> Result<Option<Vec<(String, String)>>, String> {
    let mut fields = Vec::new();
    loop {
        let Some(line) = line(stream).await? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(fields));
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(format!("no field: {line:?}"));
        };
        if !is_token(name) || value.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
            return Err(format!("no field: {line:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

/// A line without its CRLF; none where the connection ends before it.
async fn line(stream: &mut BufReader<TcpStream>) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await.is_err() || line.last() != Some(&b'\n') {
        return Ok(None);
    }
    let Some(line) = line.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r')) else {
        return Err(format!("a line with another end: {:?}", String::from_utf8_lossy(&line)));
    };
    // Bytes beyond ASCII pass as they are; one character each keeps the lengths.
    Ok(Some(line.iter().map(|byte| char::from(*byte)).collect()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
