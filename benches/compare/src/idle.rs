//! Many tunnels that do nothing.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Load, PATIENCE};

/// Opens tunnels, says how many, and holds them until standard input has a line; then each must
/// still answer.
pub(crate) async fn run(load: &Load) -> io::Result<()> {
    let mut tunnels = Vec::new();
    while tunnels.len() < load.connections {
        match load.tunnel().await {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(_) => break,
        }
    }
    println!("{}", tunnels.len());
    io::stdin().read_line(&mut String::new())?;
    let mut answering = 0;
    for tunnel in &mut tunnels {
        let echo = async {
            tunnel.write_all(b"E").await?;
            tunnel.read_exact(&mut [0]).await
        };
        answering += usize::from(matches!(timeout(PATIENCE, echo).await, Ok(Ok(_))));
    }
    println!("{answering}");
    Ok(())
}
