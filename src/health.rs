//! `outgate healthcheck`: asks a running gateway's admin port, for images without a shell.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A gateway that takes longer is not healthy.
const PATIENCE: Duration = Duration::from_secs(3);

/// The gateway did not answer as a healthy one does.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// Nothing answers.
    #[error("http://{address}{path}: {error}")]
    Unreachable {
        /// Where it was asked.
        address: SocketAddr,
        /// What for.
        path: &'static str,
        /// What went wrong.
        error: io::Error,
    },
    /// It answers that it is not.
    #[error("http://{address}{path}: {status}")]
    Refused {
        /// Where it was asked.
        address: SocketAddr,
        /// What for.
        path: &'static str,
        /// The status line of the answer.
        status: String,
    },
}

/// Asks the admin port that listens on `admin_listen` for `path`.
///
/// # Errors
/// When it does not answer 200 within three seconds.
pub fn check(admin_listen: SocketAddr, path: &'static str) -> Result<(), Unhealthy> {
    let address = reachable(admin_listen);
    let status = status_line(address, path).map_err(|error| Unhealthy::Unreachable {
        address,
        path,
        error,
    })?;
    if status.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(Unhealthy::Refused {
            address,
            path,
            status,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the admin port of this host, not an upstream"
)]
fn status_line(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).or_else(|error| {
        // `[::]` fell back to IPv4 where the host has no IPv6.
        if address.ip() == IpAddr::from(Ipv6Addr::LOCALHOST) {
            let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
            TcpStream::connect_timeout(&v4, PATIENCE)
        } else {
            Err(error)
        }
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let line = answer
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// An address to reach a listener at: loopback for one that listens on every address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => listen.ip(),
    };
    SocketAddr::new(ip, listen.port())
}
