//! The load and the origin of the comparison, each on one thread that waits for many sockets at once.
//!
//! They share the cores with the proxy, so what they do costs as little as can be: no thread is woken
//! for a message while another is at work, and bulk that arrives is counted and dropped in the kernel.
//!
//! `origin` prints its port and serves until its standard input closes; `bare` is the relay that proxies
//! are compared with. Every other command puts load on a proxy and prints how many units it did, and in
//! how many seconds. `--buffers BYTES` before `origin` or a load is the size of its sockets' buffers.

use std::cell::Cell;
use std::env::args;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

mod bare;
mod get;
mod idle;
mod origin;
mod pace;
mod sink;
mod sockets;

/// Bytes of one write or read of bulk.
const CHUNK: usize = 256 * 1024;
/// A proxy that takes longer to answer `CONNECT`, or an idle tunnel, does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut arguments: Vec<String> = args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--buffers") {
        let bytes = arguments.get(1).and_then(|bytes| bytes.parse().ok());
        sockets::have_buffers_of(bytes.expect("a number of bytes"));
        arguments.drain(..2);
    }
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    if argument(0) == "origin" {
        return origin::run().await;
    }
    if argument(0) == "bare" {
        return bare::run(argument(1).parse().expect("a port"));
    }
    let load = Load {
        client: (argument(0) == "pace").then_some(pace::CLIENT),
        proxy: argument(1).parse().expect("the proxy's address"),
        port: argument(2).parse().expect("the origin's port"),
        connections: argument(3).parse().expect("a number of connections"),
        seconds: argument(4).parse().expect("seconds"),
        size: argument(5).parse().unwrap_or(0),
        paced: Rc::default(),
        units: Rc::default(),
    };
    match argument(0) {
        "connect" => load.run(connect).await,
        "ping" => load.run(ping).await,
        "down" => load.run(down).await,
        "up" => load.run(up).await,
        "get" => load.run(get::run).await,
        "pace" => pace::run(&load).await,
        "idle" => idle::run(&load).await,
        other => panic!("{other:?} is no command"),
    }
}

#[derive(Clone)]
struct Load {
    /// The address that the connections come from, where it matters.
    client: Option<Ipv4Addr>,
    proxy: SocketAddr,
    port: u16,
    connections: usize,
    seconds: f64,
    /// Bytes of a response, or bytes a second that each connection takes; 0 is as many as come.
    size: usize,
    /// Connections that take no more than `size` bytes a second.
    paced: Rc<Cell<usize>>,
    /// What was done by all connections.
    units: Rc<Cell<u64>>,
}

impl Load {
    /// Runs a worker for every connection until the time is up, and prints what all did.
    ///
    /// What is under way when the time is up is neither waited for nor counted.
    async fn run<W, F>(self, worker: W) -> io::Result<()>
    where
        W: Fn(Self) -> F,
        F: Future<Output = io::Result<()>> + 'static,
    {
        let (local, mut workers) = (LocalSet::new(), JoinSet::new());
        for _ in 0..self.connections {
            workers.spawn_local_on(worker(self.clone()), &local);
        }
        let started = Instant::now();
        let limit = Duration::from_secs_f64(self.seconds);
        let all = local.run_until(async {
            while let Some(ended) = workers.join_next().await {
                // A worker ends only where the proxy has failed it.
                ended.expect("a worker")?;
            }
            Err::<(), _>(io::Error::other("every connection has ended"))
        });
        if let Ok(failed) = timeout(limit, all).await {
            failed?;
        }
        println!("{} {}", self.units.get(), started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Ticks for every chunk that a connection may take; those of all connections are spread evenly.
    fn pace(&self) -> Interval {
        let period = CHUNK as f64 / self.size as f64;
        let place = self.paced.replace(self.paced.get() + 1) as f64 / self.connections as f64;
        let first = Instant::now() + Duration::from_secs_f64(period * place);
        let mut pace = interval_at(first, Duration::from_secs_f64(period));
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        pace
    }

    fn done(&self, units: usize) {
        self.units.set(self.units.get() + units as u64);
    }

    /// A connection to the proxy.
    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = sockets::new()?;
        if let Some(client) = self.client {
            socket.bind((client, 0).into())?;
        }
        let stream = socket.connect(self.proxy).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// An open tunnel to the origin.
    async fn tunnel(&self) -> io::Result<TcpStream> {
        match timeout(PATIENCE, self.open_tunnel()).await {
            Ok(opened) => opened,
            Err(_) => Err(io::Error::other("CONNECT is not answered")),
        }
    }

    async fn open_tunnel(&self) -> io::Result<TcpStream> {
        let mut stream = self.connect().await?;
        let authority = format!("127.0.0.1:{}", self.port);
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = [0; 1024];
        let mut length = 0;
        while !answer[..length].ends_with(b"\r\n\r\n") {
            match stream.read(&mut answer[length..]).await? {
                0 => return Err(io::Error::other("no answer to CONNECT")),
                read => length += read,
            }
        }
        if answer[..length].split(|byte| *byte == b' ').nth(1) != Some(b"200") {
            let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
            return Err(io::Error::other(answer));
        }
        Ok(stream)
    }
}

async fn connect(load: Load) -> io::Result<()> {
    loop {
        let mut tunnel = load.tunnel().await?;
        tunnel.write_all(b"E").await?;
        tunnel.read_exact(&mut [0]).await?;
        load.done(1);
    }
}

async fn ping(load: Load) -> io::Result<()> {
    let mut tunnel = load.tunnel().await?;
    let message = [b'E'; 64];
    loop {
        tunnel.write_all(&message).await?;
        tunnel.read_exact(&mut [0; 64]).await?;
        load.done(1);
    }
}

async fn down(load: Load) -> io::Result<()> {
    let mut tunnel = load.tunnel().await?;
    tunnel.write_all(b"D").await?;
    let mut pace = (load.size > 0).then(|| load.pace());
    loop {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let mut left = CHUNK;
        while left > 0 {
            match sink::some(&tunnel, left).await? {
                0 => return Err(io::Error::other("the tunnel has ended")),
                read => {
                    load.done(read);
                    left -= read;
                }
            }
        }
    }
}

async fn up(load: Load) -> io::Result<()> {
    let mut tunnel = load.tunnel().await?;
    let chunk = vec![b'U'; CHUNK];
    loop {
        load.done(tunnel.write(&chunk).await?);
    }
}
