//! A page to try the gateway on: answers every request on port 8000 of this host.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

const PAGE: &str = "hello from the other side\n";

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:8000")?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let head = BufReader::new(&stream).lines().map_while(Result::ok);
        // The head ends with an empty line; what it says does not matter here.
        let _ = head.take_while(|line| !line.is_empty()).count();
        let length = PAGE.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{PAGE}"
        )?;
    }
    Ok(())
}
