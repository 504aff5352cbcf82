//! The upstreams: an origin that reads strictly, an echo at the end of tunnels, and listeners where nobody
//! may come.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::gateway::within;
use crate::strict::{self, Request};

/// `origin.test`: plain HTTP.
pub(crate) const ORIGIN: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
/// `tunnel.test`: whatever a tunnel carries.
pub(crate) const TUNNEL: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 2);
/// `guarded.test`: a rule names it, the address guard refuses its address.
pub(crate) const GUARDED: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 3);
/// `denied.test`: no rule names it.
pub(crate) const DENIED: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 4);

/// What the origin does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Length,
    Chunked,
    ToTheClose,
    /// Answers before the content has come.
    Early,
    Switch,
    NoContent,
    /// Sends the bytes of the input.
    Raw,
    /// Closes without a word.
    Gone,
}

impl Behaviour {
    pub(crate) const ALL: [Self; 8] = [
        Self::Length,
        Self::Chunked,
        Self::ToTheClose,
        Self::Early,
        Self::Switch,
        Self::NoContent,
        Self::Raw,
        Self::Gone,
    ];

    /// Whether its answers can be told apart in what the client reads.
    pub(crate) fn speaks_http(self) -> bool {
        self != Self::Raw
    }

    fn response(self, id: u64) -> String {
        match self {
            Self::Length | Self::Early | Self::Switch | Self::Gone => {
                format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: 2\r\n\r\nok")
            }
            Self::Chunked => format!(
                "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
            ),
            Self::ToTheClose => format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nConnection: close\r\n\r\nok"),
            Self::NoContent => format!("HTTP/1.1 204 No Content\r\nX-Id: {id}\r\n\r\n"),
            Self::Raw => String::new(),
        }
    }
}

/// What the upstreams saw of one input.
#[derive(Default)]
pub(crate) struct Seen {
    behaviour: Option<Behaviour>,
    raw: Vec<u8>,
    requests: Vec<Request>,
    answered: Vec<u64>,
    /// Answered before its content has come.
    unfinished: Option<u64>,
    open: usize,
    wrong: Vec<String>,
}

pub(crate) struct Upstreams {
    port: u16,
    shut: u16,
    /// The origin's listener once more, to ask the kernel itself what it has accepted.
    origin: std::net::TcpListener,
    seen: Arc<Mutex<Seen>>,
    /// Counts the inputs; connections of the last one end when it is over.
    round: watch::Sender<u64>,
}

/// What is asked after an input has been played.
pub(crate) struct Record(Seen);

impl Upstreams {
    pub(crate) async fn listen() -> Self {
        let origin = bind(ORIGIN, 0).await.into_std().unwrap();
        let port = origin.local_addr().unwrap().port();
        let shut = bind(ORIGIN, 0).await;
        let upstreams = Self {
            port,
            shut: shut.local_addr().unwrap().port(),
            origin: origin.try_clone().unwrap(),
            seen: Arc::default(),
            round: watch::Sender::new(0),
        };
        upstreams.serve(TcpListener::from_std(origin).unwrap(), plain);
        upstreams.serve(bind(TUNNEL, port).await, echo);
        for forbidden in [shut, bind(GUARDED, port).await, bind(DENIED, port).await] {
            upstreams.serve(forbidden, |_, seen| async move {
                lock(&seen).wrong.push("a denied target was dialled".to_owned());
            });
        }
        upstreams
    }

    fn serve<F>(&self, listener: TcpListener, script: fn(TcpStream, Arc<Mutex<Seen>>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (seen, round) = (Arc::clone(&self.seen), self.round.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                lock(&seen).open += 1;
                let (seen, mut round) = (Arc::clone(&seen), round.clone());
                round.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = script(stream, Arc::clone(&seen)) => {}
                        _ = round.changed() => {}
                    }
                    lock(&seen).open -= 1;
                });
            }
        });
    }

    /// The input's bytes with its placeholders filled in.
    pub(crate) fn with_ports(&self, bytes: &[u8]) -> Vec<u8> {
        let (port, shut) = (self.port.to_string(), self.shut.to_string());
        let mut filled = Vec::with_capacity(bytes.len() + 16);
        let mut rest = bytes;
        while let Some((first, tail)) = rest.split_first() {
            if let Some(tail) = rest.strip_prefix(b"PORT") {
                filled.extend_from_slice(port.as_bytes());
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix(b"SHUT") {
                filled.extend_from_slice(shut.as_bytes());
                rest = tail;
            } else {
                filled.push(*first);
                rest = tail;
            }
        }
        filled
    }

    /// Begins an input.
    pub(crate) fn play(&self, behaviour: Behaviour, raw: &[u8]) {
        *lock(&self.seen) = Seen { behaviour: Some(behaviour), raw: raw.to_vec(), ..Seen::default() };
    }

    /// Ends what is still open.
    pub(crate) async fn hang_up(&self) {
        // Accepted later, a request that a reset left behind would be taken for one of the next input.
        while let Ok((late, _)) = self.origin.accept() {
            drop(late);
        }
        self.round.send_modify(|round| *round += 1);
        within("the upstreams to close", async {
            while lock(&self.seen).open > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// What was seen of the input, which is over.
    pub(crate) fn record(&self) -> Record {
        Record(std::mem::take(&mut *lock(&self.seen)))
    }
}

impl Record {
    pub(crate) fn check(&self, restrictive: bool, accounts: u64) {
        let seen = &self.0;
        assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
        for request in &seen.requests {
            assert!(request.is_allowed(restrictive), "{request:?} was not to be forwarded");
        }
        let requests = seen.requests.len() as u64;
        assert!(requests <= accounts, "{requests} requests, {accounts} accounts");
    }

    /// The responses that the origin has sent.
    pub(crate) fn answered(&self) -> &[u64] {
        &self.0.answered
    }

    /// Whether this response must reach the client. One to content that never came whole may give way to a refusal of that.
    pub(crate) fn is_due(&self, id: u64) -> bool {
        self.0.unfinished != Some(id)
    }
}

async fn bind(address: Ipv4Addr, port: u16) -> TcpListener {
    TcpListener::bind((address, port)).await.unwrap()
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap()
}

async fn echo(mut stream: TcpStream, _: Arc<Mutex<Seen>>) {
    let (mut reading, mut writing) = stream.split();
    let _ = tokio::io::copy(&mut reading, &mut writing).await;
    let _ = writing.shutdown().await;
}

/// Reads requests until the connection ends; what is none is noted.
async fn plain(stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let mut stream = BufReader::new(stream);
    loop {
        match strict::head(&mut stream).await {
            Ok(Some(request)) => {
                if !respond(&mut stream, request, &seen).await {
                    return;
                }
            }
            Ok(None) => return,
            Err(wrong) => return lock(&seen).wrong.push(wrong),
        }
    }
}

/// Answers one request as the script says; whether another may follow.
async fn respond(stream: &mut BufReader<TcpStream>, request: Request, seen: &Mutex<Seen>) -> bool {
    let behaviour = lock(seen).behaviour.unwrap_or(Behaviour::Length);
    let framing = request.framing;
    let switches = behaviour == Behaviour::Switch && request.upgrades;
    if request.expects && behaviour != Behaviour::Gone {
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    let id = {
        let mut seen = lock(seen);
        seen.requests.push(request);
        seen.requests.len() as u64
    };
    if behaviour == Behaviour::Gone {
        return false;
    }
    if behaviour == Behaviour::Raw {
        let raw = lock(seen).raw.clone();
        let _ = stream.write_all(&raw).await;
        return false;
    }
    if switches {
        lock(seen).answered.push(id);
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nX-Id: {id}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes()).await;
        // What follows is the tunnel's, whatever it is.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        return false;
    }
    if behaviour == Behaviour::Early {
        {
            let mut seen = lock(seen);
            seen.answered.push(id);
            seen.unfinished = Some(id);
        }
        let _ = stream.write_all(behaviour.response(id).as_bytes()).await;
    }
    match strict::content(stream, framing).await {
        Ok(true) => lock(seen).unfinished = None,
        Ok(false) => return false,
        Err(wrong) => {
            lock(seen).wrong.push(wrong);
            return false;
        }
    }
    if behaviour != Behaviour::Early {
        lock(seen).answered.push(id);
        let _ = stream.write_all(behaviour.response(id).as_bytes()).await;
    }
    behaviour != Behaviour::ToTheClose
}
