//! An origin that keeps every byte, to tell whether any of what was refused got there.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{TestProxy, any_port};

/// A server on loopback that answers whatever comes, whole or not, and keeps it as it came.
pub(crate) struct Watched {
    port: u16,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Watched {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = kept.lock().unwrap().len();
                kept.lock().unwrap().push(Vec::new());
                tokio::spawn(keep(stream, number, Arc::clone(&kept)));
            }
        });
        Self { port, connections }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Asserts that a gateway let nothing through so far: not a byte, and no connection either.
    ///
    /// A request is sent after it. Its connection is the first and the only one, and its bytes are the first on that.
    pub(crate) async fn is_untouched_by(&self, proxy: &TestProxy, vector: &str) {
        let port = self.port;
        let marker = format!("GET http://origin.test:{port}/marker HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = proxy.ask(&marker).await;
        assert!(answer.ends_with("\r\n\r\nok"), "{vector}: {answer}");
        let connections = self.connections.lock().unwrap();
        let came: Vec<_> = connections
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes))
            .collect();
        assert_eq!(came.len(), 1, "{vector}: {came:?}");
        let is_marker = came[0].starts_with("GET /marker HTTP/1.1\r\n")
            && came[0].find("\r\n\r\n") == Some(came[0].len() - 4);
        assert!(is_marker, "{vector}: {came:?}");
    }
}

async fn keep(mut stream: TcpStream, number: usize, connections: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        let answers = {
            let kept = &mut connections.lock().unwrap()[number];
            kept.extend_from_slice(&bytes[..read]);
            kept.ends_with(b"\r\n\r\n")
        };
        if answers {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        }
    }
}
