//! The least that bulk in a tunnel can cost: `CONNECT` is answered, and each direction is spliced by a thread of its own.
//!
//! It has no policy, counts nothing, times nothing out and reads no HTTP but a target. What a proxy costs
//! above it is the proxy's; what it costs itself is the kernel's.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// As large as an unprivileged user may make a pipe (`fs.pipe-max-size`).
const PIPE: usize = 1024 * 1024;
const STACK: usize = 64 * 1024;

/// Serves a port until it is killed.
pub(crate) fn run(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for client in listener.incoming().flatten() {
        spawn(move || tunnel(client))?;
    }
    Ok(())
}

fn spawn(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    // What ends a tunnel is the load's to notice.
    let thread = thread::Builder::new().stack_size(STACK);
    thread.spawn(move || drop(work())).map(drop)
}

fn tunnel(mut client: TcpStream) -> io::Result<()> {
    let (mut head, mut length) = ([0; 4096], 0);
    while !head[..length].ends_with(b"\r\n\r\n") {
        match client.read(&mut head[length..])? {
            0 => return Ok(()),
            read => length += read,
        }
    }
    let head = String::from_utf8_lossy(&head[..length]);
    let target = head.split(' ').nth(1).unwrap_or_default();
    let upstream = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (client, upstream) = (Arc::new(client), Arc::new(upstream));
    let (from, to) = (Arc::clone(&upstream), Arc::clone(&client));
    spawn(move || one_way(&from, &to))?;
    one_way(&client, &upstream)
}

fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&write, PIPE)?;
    let flags = SpliceFlags::MOVE;
    loop {
        let mut held = splice(from, None, &write, None, PIPE, flags)?;
        if held == 0 {
            return to.shutdown(Shutdown::Write);
        }
        while held > 0 {
            held -= splice(&read, None, to, None, held, flags)?;
        }
    }
}
