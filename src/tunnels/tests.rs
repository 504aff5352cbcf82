use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::metrics::Kind;
use crate::trace::context::random_trace_id;

fn table() -> Arc<Tunnels> {
    let metrics = Arc::new(Metrics::new().unwrap());
    Arc::new(Tunnels::new(metrics, false, Duration::from_secs(60), None))
}

fn open(table: &Arc<Tunnels>) -> TunnelRecord {
    let rule = Arc::new(table.metrics.rule("*:443"));
    table.open(Opening {
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
        user: None,
        path: None,
        generation: 1,
        target: Target::from_authority("api.example.com:443").unwrap(),
        upstream: SocketAddr::from((Ipv4Addr::LOCALHOST, 443)),
        rule: Arc::from("*:443"),
        traffic: Arc::new(Traffic::new(Kind::Connect, rule)),
        trace_id: random_trace_id(),
        span: None,
    })
}

/// The ids of the table, page by page.
fn pages(table: &Tunnels, limit: usize) -> Vec<Vec<u64>> {
    let mut pages: Vec<Vec<u64>> = Vec::new();
    loop {
        let after = pages.last().and_then(|page| page.last()).copied();
        let (page, more) = table.page(after.unwrap_or(0), limit);
        pages.push(page.iter().map(|tunnel| tunnel.id).collect());
        if !more {
            return pages;
        }
    }
}

#[test]
fn a_page_ends_where_the_next_begins() {
    let table = table();
    assert_eq!(pages(&table, 2), [Vec::<u64>::new()]);
    let mut held: Vec<_> = (0..5).map(|_| open(&table)).collect();
    assert_eq!(pages(&table, 2), [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!(pages(&table, 5), [vec![1, 2, 3, 4, 5]]);
    held.remove(1);
    assert_eq!(pages(&table, 2), [vec![1, 3], vec![4, 5]]);
}

#[test]
fn ten_thousand_tunnels_are_listed_once_each_while_they_move_and_others_come_and_go() {
    const LASTING: u64 = 10_000;
    let table = table();
    let held: Vec<_> = (0..LASTING).map(|_| open(&table)).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for record in &held[..100] {
                    record.tunnel().moved(Direction::ClientToUpstream, 1);
                    drop(open(&table));
                }
            }
        });
        for _ in 0..20 {
            let listed = pages(&table, 1000).concat();
            assert!(listed.is_sorted_by(|one, next| one < next));
            let lasting = listed.iter().take_while(|id| **id <= LASTING);
            assert_eq!(lasting.count() as u64, LASTING);
        }
        over.store(true, Ordering::Relaxed);
    });
    let moved: u64 = held
        .iter()
        .map(|record| record.tunnel().opening.traffic.sent())
        .sum();
    assert!(moved > 0);
    drop(held);
    assert!(table.is_empty());
}
