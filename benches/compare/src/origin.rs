//! An origin that does what the first byte says: `G` of a GET is answered by path, `E` echoes, `D` sends
//! for ever, `U` takes whatever comes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::{CHUNK, STACK};

pub fn run() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = thread::Builder::new()
                .stack_size(STACK)
                .spawn(move || serve(stream));
        }
    });
    io::stdin().read_to_string(&mut String::new())?;
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first)? == 0 {
        return Ok(());
    }
    match first[0] {
        b'G' => pages(&mut stream),
        b'D' => {
            let chunk = vec![b'd'; CHUNK];
            loop {
                stream.write_all(&chunk)?;
            }
        }
        b'U' => {
            let mut chunk = vec![0; CHUNK];
            while stream.read(&mut chunk)? > 0 {}
            Ok(())
        }
        _ => {
            let mut chunk = [0; 4096];
            loop {
                match stream.read(&mut chunk)? {
                    0 => return Ok(()),
                    read => stream.write_all(&chunk[..read])?,
                }
            }
        }
    }
}

/// `GET /1024` gets so many bytes.
fn pages(stream: &mut TcpStream) -> io::Result<()> {
    let (mut head, mut length) = ([0; 8192], 0);
    let mut page: (usize, Vec<u8>) = (0, Vec::new());
    loop {
        match stream.read(&mut head[length..])? {
            0 => return Ok(()),
            read => length += read,
        }
        if !head[..length].ends_with(b"\r\n\r\n") {
            continue;
        }
        let path = head[5..length]
            .split(|byte| *byte == b' ')
            .next()
            .unwrap_or_default();
        let size = std::str::from_utf8(path)
            .ok()
            .and_then(|size| size.parse().ok())
            .unwrap_or(0);
        if page.0 != size || page.1.is_empty() {
            let mut bytes =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
            bytes.resize(bytes.len() + size, b'p');
            page = (size, bytes);
        }
        stream.write_all(&page.1)?;
        length = 0;
    }
}
