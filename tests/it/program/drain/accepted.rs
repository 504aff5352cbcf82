use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::gateway;

/// Far more than a task does in one turn.
const WAITING: usize = 400;

/// A client that asks for what no rule allows, which needs no origin.
fn ask(proxy: SocketAddr) -> std::io::Result<TcpStream> {
    let mut client = TcpStream::connect(proxy)?;
    client.write_all(b"GET http://denied.test/ HTTP/1.1\r\nHost: x\r\n\r\n")?;
    Ok(client)
}

/// What there is of an answer until the other side closes, or has sent a whole one.
fn answer(mut client: &TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    while !answer.ends_with(b"}") {
        match client.read(&mut bytes) {
            Ok(length @ 1..) => answer.extend_from_slice(&bytes[..length]),
            Ok(0) | Err(_) => break,
        }
    }
    answer
}

#[test]
fn whoever_waits_to_be_accepted_when_the_listener_closes_is_answered() {
    // Long enough for a busy machine to stop the process in.
    const DELAY: Duration = Duration::from_secs(5);
    let mut running = gateway(1, "5s", "10s");
    running.signal(Signal::TERM);
    running.line("draining");
    let draining = Instant::now();
    // So that all of them wait when the delay is over.
    running.signal(Signal::STOP);
    let clients: Vec<_> = (0..WAITING).map(|_| ask(running.proxy).unwrap()).collect();
    thread::sleep(DELAY.saturating_sub(draining.elapsed()));
    running.signal(Signal::CONT);
    let answered = clients
        .iter()
        .filter(|client| answer(client).starts_with(b"HTTP/1.1 403 "))
        .count();
    assert_eq!(answered, WAITING);
    assert_eq!(running.line("drained")["connections_cut"], 0);
}

/// Connects and asks until it is refused a connection: how often it got one and no answer.
fn lost(proxy: SocketAddr) -> usize {
    let mut lost = 0;
    loop {
        match ask(proxy) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return lost,
            Ok(client) if answer(&client).starts_with(b"HTTP/1.1 403 ") => {}
            Ok(_) | Err(_) => lost += 1,
        }
    }
}

#[test]
fn clients_that_come_until_the_listener_is_closed_are_answered() {
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 4;
    // The kernel resets whom it accepts between the gateway's last look and the close: once in fifty rounds, where
    // nothing comes between the two. Then each client may lose its connection, and gets no other.
    const ROUNDS_WITH_LOSSES: usize = 3;
    let round = |_| {
        let mut running = gateway(1, "50ms", "5s");
        let proxy = running.proxy;
        let clients = [(); CLIENTS].map(|()| thread::spawn(move || lost(proxy)));
        running.signal(Signal::TERM);
        let lost = clients.map(|client| client.join().unwrap());
        assert_eq!(running.line("drained")["connections_cut"], 0);
        lost.iter().sum::<usize>()
    };
    let lost: Vec<_> = (0..ROUNDS).map(round).collect();
    let with_losses = lost.iter().filter(|lost| **lost > 0).count();
    assert!(
        with_losses <= ROUNDS_WITH_LOSSES && lost.iter().all(|lost| *lost <= CLIENTS),
        "lost in each round: {lost:?}"
    );
}
