//! The load and the origin of the comparison, over blocking sockets of the standard library.
//!
//! `origin` prints its port and serves until its standard input closes. Every other command puts
//! load on a proxy and prints how many units it did.

use std::env::args;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

mod origin;

/// What a thread of this program needs; thousands of them hold idle tunnels.
const STACK: usize = 64 * 1024;
const CHUNK: usize = 256 * 1024;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = args().skip(1).collect();
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    if argument(0) == "origin" {
        return origin::run();
    }
    let proxy: SocketAddr = argument(1).parse().expect("the proxy's address");
    let port: u16 = argument(2).parse().expect("the origin's port");
    let connections: usize = argument(3).parse().expect("a number of connections");
    let seconds: f64 = argument(4).parse().expect("seconds");
    let load = Load {
        proxy,
        port,
        connections,
        seconds,
    };
    match argument(0) {
        "connect" => load.run(|load, until, units| {
            while Instant::now() < until {
                let mut tunnel = load.tunnel()?;
                tunnel.write_all(b"E")?;
                tunnel.read_exact(&mut [0])?;
                units.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }),
        "ping" => load.run(|load, until, units| {
            let mut tunnel = load.tunnel()?;
            let message = [b'E'; 64];
            while Instant::now() < until {
                tunnel.write_all(&message)?;
                tunnel.read_exact(&mut [0; 64])?;
                units.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }),
        "down" => load.run(|load, until, units| {
            let mut tunnel = load.tunnel()?;
            tunnel.write_all(b"D")?;
            pull(&mut tunnel, until, units)
        }),
        "up" => load.run(|load, until, units| {
            let mut tunnel = load.tunnel()?;
            let chunk = vec![b'U'; CHUNK];
            while Instant::now() < until {
                tunnel.write_all(&chunk)?;
                units.fetch_add(CHUNK as u64, Ordering::Relaxed);
            }
            Ok(())
        }),
        "get" => {
            let size: usize = argument(5).parse().expect("bytes of the response");
            load.run(move |load, until, units| get(load, size, until, units))
        }
        "idle" => load.idle(),
        other => panic!("{other:?} is no command"),
    }
}

#[derive(Clone, Copy)]
struct Load {
    proxy: SocketAddr,
    port: u16,
    connections: usize,
    seconds: f64,
}

impl Load {
    /// An open tunnel to the origin.
    fn tunnel(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.proxy)?;
        stream.set_nodelay(true)?;
        let authority = format!("127.0.0.1:{}", self.port);
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = [0; 1024];
        let mut length = 0;
        while !answer[..length].ends_with(b"\r\n\r\n") {
            match stream.read(&mut answer[length..])? {
                0 => return Err(io::Error::other("no answer to CONNECT")),
                read => length += read,
            }
        }
        if answer[..length].split(|byte| *byte == b' ').nth(1) != Some(b"200") {
            return Err(io::Error::other(
                String::from_utf8_lossy(&answer[..length]).into_owned(),
            ));
        }
        Ok(stream)
    }

    /// Runs a worker a connection and prints the units of all.
    fn run<W>(self, worker: W) -> io::Result<()>
    where
        W: Fn(&Self, Instant, &AtomicU64) -> io::Result<()> + Send + Sync + 'static,
    {
        let (worker, units) = (Arc::new(worker), Arc::new(AtomicU64::new(0)));
        let started = Instant::now();
        let until = started + Duration::from_secs_f64(self.seconds);
        let threads: Vec<_> = (0..self.connections)
            .map(|_| {
                let (worker, units) = (Arc::clone(&worker), Arc::clone(&units));
                thread::spawn(move || worker(&self, until, &units))
            })
            .collect();
        for thread in threads {
            thread.join().expect("a worker")?;
        }
        println!(
            "{} {}",
            units.load(Ordering::Relaxed),
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Opens tunnels, says how many, and holds them until standard input has a line; then each must
    /// still answer.
    fn idle(self) -> io::Result<()> {
        let mut tunnels = Vec::new();
        while tunnels.len() < self.connections {
            match self.tunnel() {
                Ok(tunnel) => tunnels.push(tunnel),
                Err(_) => break,
            }
        }
        println!("{}", tunnels.len());
        io::stdin().read_line(&mut String::new())?;
        let mut answering = 0;
        for tunnel in &mut tunnels {
            let answered = tunnel
                .write_all(b"E")
                .and_then(|()| tunnel.read_exact(&mut [0]));
            answering += usize::from(answered.is_ok());
        }
        println!("{answering}");
        Ok(())
    }
}

fn pull(stream: &mut TcpStream, until: Instant, units: &AtomicU64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while Instant::now() < until {
        let read = stream.read(&mut chunk)?;
        units.fetch_add(read as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Keep-alive requests in absolute-form; a proxy that closes is connected to again.
fn get(load: &Load, size: usize, until: Instant, units: &AtomicU64) -> io::Result<()> {
    let authority = format!("127.0.0.1:{}", load.port);
    let request = format!("GET http://{authority}/{size} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let mut buffer = vec![0; CHUNK];
    while Instant::now() < until {
        let mut stream = TcpStream::connect(load.proxy)?;
        stream.set_nodelay(true)?;
        while Instant::now() < until {
            if stream.write_all(request.as_bytes()).is_err()
                || !response(&mut stream, size, &mut buffer)?
            {
                break;
            }
            units.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Reads a 200 with so many bytes of content; false where the connection has ended.
fn response(stream: &mut TcpStream, size: usize, buffer: &mut [u8]) -> io::Result<bool> {
    let mut length = 0;
    let head = loop {
        match stream.read(&mut buffer[length..]) {
            Ok(0) | Err(_) => return Ok(false),
            Ok(read) => length += read,
        }
        if let Some(end) = buffer[..length]
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
        {
            break end + 4;
        }
    };
    if !buffer.starts_with(b"HTTP/1.") || &buffer[9..12] != b"200" {
        return Err(io::Error::other(
            String::from_utf8_lossy(&buffer[..head]).into_owned(),
        ));
    }
    let mut left = size.saturating_sub(length - head);
    while left > 0 {
        let most = left.min(buffer.len());
        match stream.read(&mut buffer[..most])? {
            0 => return Ok(false),
            read => left -= read,
        }
    }
    Ok(true)
}
