//! Origins that tests script byte by byte.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{any_port, field, read_head, read_to_end, send, within};

/// A server on loopback that records what it received.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Origin {
    /// Answers every request on every connection with the same bytes.
    pub(crate) async fn answering(response: &'static str) -> Self {
        Self::scripted(move |mut stream, seen| async move {
            while let Some(request) = read_request(&mut stream).await {
                let _ = seen.send(request);
                send(&mut stream, response.as_bytes()).await;
            }
        })
        .await
    }

    /// Says nothing, and takes what comes to its end for one request.
    pub(crate) async fn reading_to_the_end() -> Self {
        Self::scripted(|mut stream, seen| async move {
            let _ = seen.send(read_to_end(&mut stream).await);
        })
        .await
    }

    /// Sends back what comes, until its end.
    pub(crate) async fn echoing() -> Self {
        Self::scripted(|mut stream, _| async move {
            let (mut reading, mut writing) = stream.split();
            // Whoever breaks a connection off has what was sent back before.
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
        })
        .await
    }

    /// Runs a script on each connection; what it sends into the channel is what was received.
    pub(crate) async fn scripted<S, F>(script: S) -> Self
    where
        S: Fn(TcpStream, mpsc::UnboundedSender<String>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script(stream, seen.clone()));
            }
        });
        Self { address, requests }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next request as it was received.
    pub(crate) async fn received(&mut self) -> String {
        within(self.requests.recv())
            .await
            .expect("the origin is gone")
    }

    /// Whether no further request has been received whole so far; [`Watched`](super::watched::Watched) tells of parts.
    pub(crate) fn is_untouched(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

/// A request with its content; none when the connection has ended.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    let mut request = read_head(stream).await;
    let lower = request.to_ascii_lowercase();
    if let Some(length) = field(&lower, "content-length") {
        let mut content = vec![0; length.parse().unwrap()];
        within(stream.read_exact(&mut content)).await.ok()?;
        request.push_str(&String::from_utf8_lossy(&content));
    } else if field(&lower, "transfer-encoding").is_some() {
        // The last chunk, then trailers, then an empty line.
        let head = request.len();
        while !(request[head..].contains("0\r\n") && request.ends_with("\r\n\r\n")) {
            request.push(within(stream.read_u8()).await.ok()?.into());
        }
    }
    Some(request)
}
