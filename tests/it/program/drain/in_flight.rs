//! Clients in the middle of what takes a while.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;

use super::super::head;
use super::origin::{PAUSE, PIECE, PIECES, content};

/// What one client does; each says so once it is under way.
type Doing = fn(TcpStream, u16, &Sender<()>);

pub(super) const ALL: [Doing; 3] = [upload, download, switched];

/// Starts one client; it panics over any byte that is lost.
pub(super) fn start(
    doing: Doing,
    proxy: SocketAddr,
    origin: u16,
    begun: Sender<()>,
) -> thread::JoinHandle<()> {
    let stream = TcpStream::connect(proxy).unwrap();
    thread::spawn(move || doing(stream, origin, &begun))
}

fn ask(stream: &mut TcpStream, method: &str, origin: u16, path: &str, fields: &str) {
    let request =
        format!("{method} http://127.0.0.1:{origin}{path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

fn upload(mut stream: TcpStream, origin: u16, begun: &Sender<()>) {
    let length = format!("Content-Length: {}\r\n", PIECES * PIECE);
    ask(&mut stream, "PUT", origin, "/upload", &length);
    for (at, piece) in content().chunks(PIECE).enumerate() {
        stream.write_all(piece).unwrap();
        if at == 0 {
            begun.send(()).unwrap();
        }
        thread::sleep(PAUSE);
    }
    let head = head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == content(), "{} bytes came back", back.len());
}

fn download(mut stream: TcpStream, origin: u16, begun: &Sender<()>) {
    ask(&mut stream, "GET", origin, "/stream", "");
    let head = head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    begun.send(()).unwrap();
    let mut chunked = Vec::new();
    // Its connection was not told to close: the head left before the drain.
    while !chunked.ends_with(b"\r\n0\r\n\r\n") {
        let mut bytes = [0; 64 * 1024];
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "cut after {} bytes", chunked.len());
        chunked.extend_from_slice(&bytes[..length]);
    }
    let came = without_chunks(&chunked);
    assert!(came == content(), "{} bytes came", came.len());
}

fn without_chunks(mut chunked: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let end = chunked.windows(2).position(|end| end == b"\r\n").unwrap();
        let length = std::str::from_utf8(&chunked[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return content;
        }
        content.extend_from_slice(&chunked[end + 2..end + 2 + length]);
        chunked = &chunked[end + 2 + length + 2..];
    }
}

fn switched(mut stream: TcpStream, origin: u16, begun: &Sender<()>) {
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    ask(&mut stream, "GET", origin, "/switch", fields);
    let head = head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for (at, piece) in content().chunks(PIECE).enumerate() {
        stream.write_all(piece).unwrap();
        let mut back = vec![0; PIECE];
        stream.read_exact(&mut back).unwrap();
        assert!(back == piece, "changed");
        if at == 0 {
            begun.send(()).unwrap();
        }
        thread::sleep(PAUSE);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}
