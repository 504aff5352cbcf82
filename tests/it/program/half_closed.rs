use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::{Running, metric};

/// Clients that have closed their side and wait for their answer.
const WAITING: usize = 4;

#[test]
fn a_client_that_has_closed_its_side_costs_no_processor_time_while_it_waits() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap();
    let gateway = Running::start(&[("OUTGATE_ALLOW", &target.to_string())]);
    let waiting: Vec<_> = (0..WAITING)
        .map(|_| {
            let mut client = TcpStream::connect(gateway.proxy).unwrap();
            write!(client, "GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let (mut upstream, _) = origin.accept().unwrap();
            assert!(upstream.read(&mut [0; 1024]).unwrap() > 0);
            (client, upstream)
        })
        .collect();
    let seconds = || metric(&gateway, "process_cpu_seconds_total ");
    let before = seconds();
    // One that ran without a pause would take as much, and four of them all there is.
    thread::sleep(Duration::from_secs(4));
    assert!(seconds() - before < 2);
    for (mut client, mut upstream) in waiting {
        write!(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nhi"), "{answer}");
    }
}
