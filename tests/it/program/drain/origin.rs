//! An origin that answers as slowly as its path says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::super::head;

/// What takes time comes in so many pieces, this far apart.
pub(super) const PIECES: usize = 25;
pub(super) const PAUSE: Duration = Duration::from_millis(100);
pub(super) const PIECE: usize = 40_000;

/// The content of everything that takes time: no piece of it is like another.
pub(super) fn content() -> Vec<u8> {
    (0..PIECES * PIECE).map(|at| (at % 251) as u8).collect()
}

/// Answers `/after/MILLISECONDS` then and `/never` not at all, streams `/stream`, and sends back content and what is no
/// request.
pub(super) fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

/// Until the gateway closes; what it cuts is seen on its other side.
fn serve(mut stream: TcpStream) -> Option<()> {
    loop {
        let mut first = [0];
        stream.peek(&mut first).ok().filter(|read| *read > 0)?;
        if !first[0].is_ascii_uppercase() {
            return send_back(stream);
        }
        let head = head(&mut stream)?;
        let path = head.split(' ').nth(1)?;
        if let Some(after) = path.strip_prefix("/after/") {
            thread::sleep(Duration::from_millis(after.parse().ok()?));
            answer(&mut stream, b"ok")?;
        } else if path == "/stream" {
            stream_slowly(&mut stream)?;
        } else if path == "/upload" {
            let mut content = vec![0; PIECES * PIECE];
            stream.read_exact(&mut content).ok()?;
            answer(&mut stream, &content)?;
        } else if path == "/switch" {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(head.as_bytes()).ok()?;
            return send_back(stream);
        }
    }
}

fn stream_slowly(stream: &mut TcpStream) -> Option<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .ok()?;
    for piece in content().chunks(PIECE) {
        stream.write_all(format!("{PIECE:x}\r\n").as_bytes()).ok()?;
        stream.write_all(piece).ok()?;
        stream.write_all(b"\r\n").ok()?;
        thread::sleep(PAUSE);
    }
    stream.write_all(b"0\r\n\r\n").ok()
}

fn answer(stream: &mut TcpStream, content: &[u8]) -> Option<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    stream.write_all(&[head.as_bytes(), content].concat()).ok()
}

fn send_back(mut stream: TcpStream) -> Option<()> {
    let mut reading = stream.try_clone().ok()?;
    std::io::copy(&mut reading, &mut stream).ok()?;
    Some(())
}
