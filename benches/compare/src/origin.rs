//! An origin that does what the first byte says: `G` of a GET is answered by path, `E` echoes, `D` sends
//! for ever, `U` takes whatever comes.

use std::io;
use std::net::Ipv4Addr;
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CHUNK, sink, sockets};

/// Prints its port; serves until standard input closes.
pub(crate) async fn run() -> io::Result<()> {
    let socket = sockets::new()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    // As many as `TcpListener::bind` lets wait.
    let listener = socket.listen(1024)?;
    println!("{}", listener.local_addr()?.port());
    let (closed, stop) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        // Whatever ends standard input ends the origin.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = closed.send(());
    });
    let accept = async {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                // A connection that fails is the proxy's to report.
                tokio::spawn(async move { serve(stream).await.ok() });
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stop => {}
    }
    Ok(())
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(());
    }
    match first[0] {
        b'G' => pages(&mut stream).await,
        b'D' => {
            let chunk = vec![b'd'; CHUNK];
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        b'U' => {
            while sink::some(&stream, CHUNK).await? > 0 {}
            Ok(())
        }
        _ => echo(&mut stream).await,
    }
}

async fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut chunk = [0; 512];
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            read => stream.write_all(&chunk[..read]).await?,
        }
    }
}

/// `GET /1024` gets so many bytes, in one write with the head as far as a chunk holds them.
async fn pages(stream: &mut TcpStream) -> io::Result<()> {
    let (mut head, mut length) = (vec![0; 8192], 0);
    let mut page: (usize, Vec<u8>) = (0, Vec::new());
    loop {
        match stream.read(&mut head[length..]).await? {
            0 => return Ok(()),
            read => length += read,
        }
        if !head[..length].ends_with(b"\r\n\r\n") {
            continue;
        }
        let path = head[5..length].split(|byte| *byte == b' ').next();
        let size: usize = path
            .and_then(|path| std::str::from_utf8(path).ok())
            .and_then(|size| size.parse().ok())
            .unwrap_or(0);
        if page.0 != size || page.1.is_empty() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            page = (size, head.into_bytes());
            page.1.resize(page.1.len() + size.min(CHUNK), b'p');
        }
        stream.write_all(&page.1).await?;
        let mut left = size - size.min(CHUNK);
        while left > 0 {
            let more = left.min(CHUNK);
            stream.write_all(&page.1[page.1.len() - more..]).await?;
            left -= more;
        }
        length = 0;
    }
}
