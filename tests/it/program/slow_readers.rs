use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::{Running, metric, wait_for};

/// Clients that ask for a response without end and read nothing of it.
const READERS: usize = 32;

/// What one may hold of the gateway's memory, in bytes: a buffer of 408 KiB is filled from the upstream, another is
/// written to the client, and a third may be on its way between the two. The rest of a connection is small, with what
/// the allocator rounds up.
const MOST_EACH: u64 = (3 * 408 + 64) * 1024;

/// Does the same on every connection.
fn origin(serve: fn(TcpStream)) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // The kernel must not run out of memory for what nobody reads.
            rustix::net::sockopt::set_socket_send_buffer_size(&stream, 64 * 1024).unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Sends for as long as anybody takes it.
fn without_end(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1024]);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    while stream.write_all(&[7; 256 * 1024]).is_ok() {}
}

/// Answers every request with 64 KiB.
fn pages(mut stream: TcpStream) {
    let mut page = b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n".to_vec();
    page.resize(page.len() + 65536, 7);
    let requests = BufReader::new(stream.try_clone().unwrap());
    // The last line of a head is empty.
    for line in requests.lines().map_while(Result::ok) {
        if line.is_empty() && stream.write_all(&page).is_err() {
            return;
        }
    }
}

/// Waits until no more comes from an origin, as nobody takes it; tells the resident memory then.
fn at_rest(gateway: &Running, kind: &str, target: &str) -> u64 {
    nothing_moves(gateway, kind, target);
    metric(gateway, "process_resident_memory_bytes ")
}

/// Waits until no more comes from an origin, as nobody takes it.
pub(super) fn nothing_moves(gateway: &Running, kind: &str, target: &str) {
    let taken = format!(
        "outgate_copied_bytes_total{{direction=\"upstream_to_client\",kind=\"{kind}\",rule=\"{target}\"}} "
    );
    let mut before = 0;
    // Some bytes have come, and in a while no more.
    while before == 0 || metric(gateway, &taken) != before {
        before = metric(gateway, &taken);
        thread::sleep(Duration::from_millis(500));
    }
}

/// A client of the gateway, with little room for what comes.
fn narrow(gateway: &Running) -> TcpStream {
    let client = TcpStream::connect(gateway.proxy).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&client, 4096).unwrap();
    client
}

#[test]
fn a_client_that_reads_nothing_holds_a_bounded_amount_of_memory() {
    let target = format!("127.0.0.1:{}", origin(without_end));
    let gateway = Running::start(&[("OUTGATE_ALLOW", &target)]);
    let ask = || {
        let mut client = narrow(&gateway);
        write!(client, "GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client
    };
    let _first = ask();
    let resident_before = at_rest(&gateway, "forward", &target);
    let _readers: Vec<_> = (0..READERS).map(|_| ask()).collect();
    let resident = at_rest(&gateway, "forward", &target);
    let each = resident.saturating_sub(resident_before) / READERS as u64;
    assert!(each < MOST_EACH, "{each} bytes each");
}

#[test]
fn tunnels_whose_clients_read_nothing_hold_no_more_memory_than_one_read_each() {
    /// One read, and a tunnel, with what the allocator keeps of the requests. Pipes are the kernel's memory.
    const MOST_EACH: u64 = (64 + 32) * 1024;
    /// More than there are pipes in which bytes may wait.
    const TUNNELS: usize = 4 * READERS;
    let target = format!("127.0.0.1:{}", origin(without_end));
    let gateway = Running::start(&[("OUTGATE_ALLOW", &*target), ("OUTGATE_WORKERS", "2")]);
    let ask = || {
        let mut client = narrow(&gateway);
        // The origin begins when something comes.
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        write!(client, "{head}begin").unwrap();
        client
    };
    let are_open = |tunnels: usize| {
        wait_for(&gateway, "outgate_tunnels_active ", |open| {
            open == tunnels as u64
        });
        at_rest(&gateway, "connect", &target)
    };
    let _first: Vec<_> = (0..READERS).map(|_| ask()).collect();
    let resident_before = are_open(READERS);
    let _readers: Vec<_> = (0..TUNNELS).map(|_| ask()).collect();
    let resident = are_open(READERS + TUNNELS);
    let each = resident.saturating_sub(resident_before) / TUNNELS as u64;
    assert!(each < MOST_EACH, "{each} bytes each");
}

#[test]
fn a_client_that_asks_on_and_on_and_reads_nothing_holds_no_more_and_gives_it_back_in_time() {
    const ACTIVE: &str = "outgate_connections_active{listener=\"proxy\"} ";
    let target = format!("127.0.0.1:{}", origin(pages));
    let gateway = Running::start(&[
        ("OUTGATE_ALLOW", &*target),
        // Longer than a busy machine takes for what is looked at before.
        ("OUTGATE_RESPONSE_TIMEOUT", "15s"),
    ]);
    let requests = format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n").repeat(100);
    let flood = || {
        let mut client = narrow(&gateway);
        rustix::net::sockopt::set_socket_send_buffer_size(&client, 4096).unwrap();
        client
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let stalled = loop {
            if let Err(stalled) = client.write_all(requests.as_bytes()) {
                break stalled;
            }
        };
        assert_eq!(stalled.kind(), ErrorKind::WouldBlock);
        client
    };
    let first = flood();
    let resident_before = at_rest(&gateway, "forward", &target);
    let floods: Vec<_> = thread::scope(|scope| {
        let floods: Vec<_> = (0..READERS).map(|_| scope.spawn(flood)).collect();
        floods
            .into_iter()
            .map(|flood| flood.join().unwrap())
            .collect()
    });
    let resident = at_rest(&gateway, "forward", &target);
    let each = resident.saturating_sub(resident_before) / READERS as u64;
    assert!(each < MOST_EACH, "{each} bytes each");
    assert_eq!(
        metric(&gateway, ACTIVE),
        1 + READERS as u64,
        "it took too long"
    );
    wait_for(&gateway, ACTIVE, |active| active == 0);
    drop((first, floods));
}
