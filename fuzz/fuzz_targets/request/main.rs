//! The request path as a whole: bytes from a client through the gateway to upstreams.
//!
//! The client's bytes come to the connection handler over a stream in memory, or over TCP on loopback. In memory a gateway that
//! resets a connection just ends it, and a response that it cuts looks whole: that none is lost is asked over TCP only.
//! Upstreams are dialled, so they listen on loopback.
//!
//! What must hold, whatever the bytes:
//! - nothing that is denied is dialled: listeners stand where a dial would arrive (`upstream.rs`);
//! - what reaches the upstream is a sequence of strictly valid requests, each for a host and a path that the
//!   policy allows, and no more of them than were accounted for: none was smuggled (`strict.rs`);
//! - the client reads a sequence of valid responses, and each of the upstream's exactly once (`answers.rs`);
//! - each request has one account;
//! - the connection ends, and nothing stays open (`gateway.rs`).
//!
//! The first byte of the input says how client and upstream behave ([`Script`]), its highest bit that it is over TCP; then come
//! the client's bytes, with `PORT` for the port of the upstreams and `SHUT` for one that no rule names; behind a byte of
//! 0x1e come those of an upstream that speaks no HTTP.
#![no_main]

mod answers;
mod gateway;
mod strict;
mod upstream;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use answers::Answers;
use gateway::{Gateway, within};
use upstream::{Behaviour, Upstreams};

/// What lives across inputs.
struct World {
    runtime: Runtime,
    upstreams: Upstreams,
    permissive: Gateway,
    restrictive: Gateway,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    // The sockets are looked at after each task, so a turn given up lets bytes arrive.
    let runtime = Builder::new_current_thread().enable_all().event_interval(1).build().unwrap();
    let guard = runtime.enter();
    // libFuzzer's main, unlike Rust's, lets a write to a peer that is gone end the process. A handler stays.
    let _ = signal(SignalKind::pipe()).unwrap();
    let upstreams = runtime.block_on(Upstreams::listen());
    let permissive = runtime.block_on(Gateway::start(&upstreams, gateway::PERMISSIVE));
    let restrictive = runtime.block_on(Gateway::start(&upstreams, gateway::RESTRICTIVE));
    drop(guard);
    World { runtime, upstreams, permissive, restrictive }
});

/// How one input is played.
struct Script {
    restrictive: bool,
    /// The client's bytes come in pieces of seven.
    in_pieces: bool,
    /// The client resets the connection instead of reading to the end, which takes TCP.
    resets: bool,
    over_tcp: bool,
    behaviour: Behaviour,
    from_client: Vec<u8>,
    from_upstream: Vec<u8>,
}

impl Script {
    fn of(input: &[u8], upstreams: &Upstreams) -> Option<Self> {
        let (how, bytes) = input.split_first()?;
        let mut parts = bytes.splitn(2, |byte| *byte == 0x1e);
        let from_client = parts.next().unwrap_or_default();
        let from_upstream = parts.next().unwrap_or_default().to_vec();
        Some(Self {
            restrictive: how & 1 != 0,
            in_pieces: how & 2 != 0,
            resets: how & 4 != 0,
            // The highest bit, or a reset.
            over_tcp: how & 0x84 != 0,
            behaviour: Behaviour::ALL[usize::from(how >> 3 & 7)],
            from_client: upstreams.with_ports(from_client),
            from_upstream,
        })
    }
}

fuzz_target!(|input: &[u8]| {
    let world = &*WORLD;
    let Some(script) = Script::of(input, &world.upstreams) else { return };
    world.runtime.block_on(play(world, &script));
});

async fn play(world: &World, script: &Script) {
    let gateway = if script.restrictive { &world.restrictive } else { &world.permissive };
    world.upstreams.play(script.behaviour, &script.from_upstream);
    let before = gateway.requests();
    let mut client = if script.over_tcp { gateway.connect().await } else { gateway.connect_in_memory() };
    let (mut reading, mut writing) = client.split();
    let send = async {
        let piece = if script.in_pieces { 7 } else { script.from_client.len().max(1) };
        for piece in script.from_client.chunks(piece) {
            // A gateway that has closed takes no more, which is its right.
            if writing.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if !script.resets {
            let _ = writing.shutdown().await;
        }
    };
    let mut received = Vec::new();
    let ended = if script.resets {
        send.await;
        client.set_zero_linger().unwrap();
        drop(client);
        Err(())
    } else {
        let read = async { reading.read_to_end(&mut received).await.map_err(|_| ()) };
        within("the end of the connection", async { tokio::join!(send, read).1 }).await
    };
    gateway.has_let_go().await;
    world.upstreams.hang_up().await;
    gateway.is_at_rest().await;
    // Once more, for whatever was on its way before the gateway was at rest.
    world.upstreams.hang_up().await;
    let seen = world.upstreams.record();
    let requests = gateway.requests() - before;
    seen.check(script.restrictive, requests);
    if script.behaviour.speaks_http() {
        let answers = Answers::read(&received);
        answers.check_order(seen.answered());
        if script.over_tcp && ended.is_ok() {
            answers.check_whole(&seen, requests, gateway);
        }
    }
}
