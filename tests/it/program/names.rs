use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpStream};

use super::{PATIENCE, Running, metric};
use crate::harness::dns::{Answer, DnsServer};

const MEMORY: &str = "process_resident_memory_bytes ";

/// A gateway whose names this server looks up.
fn start(server: &DnsServer, variables: &[(&str, &str)]) -> Running {
    let servers = server.address.to_string();
    let mut all = vec![
        ("OUTGATE_DNS_SERVERS", &*servers),
        ("OUTGATE_ALLOW", "*.dns.test:*"),
    ];
    all.extend(variables);
    Running::start(&all)
}

fn ask(running: &Running, target: &str) -> TcpStream {
    let mut client = TcpStream::connect(running.proxy).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(client, "CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    client
}

/// The first line of what it is told.
fn answer(client: TcpStream) -> String {
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_thousands_of_addresses_cost_no_more_memory_than_others() {
    const NAMES: u64 = 100;
    let server = DnsServer::start(|_, _| {
        // Of which none may be dialled.
        let addresses =
            (0..2_000_u32).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        Answer::TooMany(addresses.collect())
    })
    .await;
    let running = start(&server, &[]);
    let look_up = |name: u64| {
        let answer = answer(ask(&running, &format!("n{name}.dns.test:443")));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    };
    // What one answer costs while it is read is no matter of the cache.
    (0..10).for_each(look_up);
    let before = metric(&running, MEMORY);
    (10..10 + NAMES).for_each(look_up);
    let each = metric(&running, MEMORY).saturating_sub(before) / NAMES;
    assert!(each < 64 * 1024, "{each} bytes for each name");
}
