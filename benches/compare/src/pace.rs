//! One client that asks little, and how long it waits.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::Load;

/// Another client than the one with all the load.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(1);

/// Sends messages through one tunnel, with pauses; prints the median and the 99th percentile of the
/// round trips, in microseconds.
pub(crate) async fn run(load: &Load) -> io::Result<()> {
    let mut tunnel = load.tunnel().await?;
    let until = Instant::now() + Duration::from_secs_f64(load.seconds);
    let mut took = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        tunnel.write_all(&[b'E'; 64]).await?;
        tunnel.read_exact(&mut [0; 64]).await?;
        took.push(started.elapsed().as_micros());
        sleep(PAUSE).await;
    }
    took.sort_unstable();
    println!("{} {}", took[took.len() / 2], took[took.len() * 99 / 100]);
    Ok(())
}
