//! Requests in absolute-form on connections that are kept alive.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CHUNK, Load, sink};

/// A proxy that closes is connected to again.
pub(crate) async fn run(load: Load) -> io::Result<()> {
    let authority = format!("127.0.0.1:{}", load.port);
    let request = format!(
        "GET http://{authority}/{} HTTP/1.1\r\nHost: {authority}\r\n\r\n",
        load.size
    );
    let mut head = vec![0; 16 * 1024];
    loop {
        let mut stream = load.connect().await?;
        while stream.write_all(request.as_bytes()).await.is_ok()
            && response(&load, &mut stream, &mut head).await?
        {}
    }
}

/// Reads a 200 and its content; false where the connection has ended.
///
/// Bulk is counted as it comes in, in bytes; anything smaller as one when it is whole.
async fn response(load: &Load, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
    let mut length = 0;
    let head = loop {
        match stream.read(&mut buffer[length..]).await {
            Ok(0) | Err(_) => return Ok(false),
            Ok(read) => length += read,
        }
        let end = buffer[..length]
            .windows(4)
            .position(|end| end == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
    };
    if !buffer.starts_with(b"HTTP/1.") || &buffer[9..12] != b"200" {
        let answer = String::from_utf8_lossy(&buffer[..head]).into_owned();
        return Err(io::Error::other(answer));
    }
    let bulk = load.size > CHUNK;
    let came = length - head;
    load.done(if bulk { came } else { 0 });
    let mut left = load.size.saturating_sub(came);
    while left > 0 {
        match sink::some(stream, left.min(CHUNK)).await? {
            0 => return Ok(false),
            read => {
                left -= read;
                load.done(if bulk { read } else { 0 });
            }
        }
    }
    load.done(usize::from(!bulk));
    Ok(true)
}
