use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::{Running, metric};

/// Clients that ask for a response without end and read nothing of it.
const READERS: usize = 32;

/// What one may hold of the gateway's memory, in bytes: a buffer of 408 KiB is filled from the upstream, another is
/// written to the client, and a third may be on its way between the two. The rest of a connection is small, with what
/// the allocator rounds up.
const MOST_EACH: u64 = (3 * 408 + 64) * 1024;

/// Sends for as long as anybody takes it.
fn origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while stream.write_all(&[7; 256 * 1024]).is_ok() {}
            });
        }
    });
    port
}

#[test]
fn a_client_that_reads_nothing_holds_a_bounded_amount_of_memory() {
    let target = format!("127.0.0.1:{}", origin());
    let gateway = Running::start(&[("OUTGATE_ALLOW", &target)]);
    let ask = || {
        let mut client = TcpStream::connect(gateway.proxy).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&client, 4096).unwrap();
        write!(client, "GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client
    };
    let taken = format!(
        "outgate_copied_bytes_total{{direction=\"upstream_to_client\",kind=\"forward\",rule=\"{target}\"}} "
    );
    let at_rest = || {
        let mut before = 0;
        // Some bytes have come, and in a while no more.
        while before == 0 || metric(&gateway, &taken) != before {
            before = metric(&gateway, &taken);
            thread::sleep(Duration::from_millis(500));
        }
        metric(&gateway, "process_resident_memory_bytes ")
    };
    let _first = ask();
    let resident_before = at_rest();
    let _readers: Vec<_> = (0..READERS).map(|_| ask()).collect();
    let resident = at_rest();
    let each = resident.saturating_sub(resident_before) / READERS as u64;
    assert!(each < MOST_EACH, "{each} bytes each");
}
