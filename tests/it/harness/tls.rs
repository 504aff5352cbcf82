//! A real TLS origin and a client that trusts it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{any_port, within};

/// A TLS server for one name that says what it was sent.
pub(crate) struct TlsEcho {
    pub(crate) port: u16,
    client: Arc<ClientConfig>,
}

impl TlsEcho {
    pub(crate) async fn start(name: &str) -> Self {
        let issued = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = issued.cert.der().clone();
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.unwrap();
                    let mut request = Vec::new();
                    stream.read_to_end(&mut request).await.unwrap();
                    request.reverse();
                    stream.write_all(&request).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
        });
        Self {
            port,
            client: Arc::new(client),
        }
    }

    /// Sends a message through a stream that leads here and returns the answer.
    pub(crate) async fn ask(&self, stream: TcpStream, name: &str, message: &[u8]) -> Vec<u8> {
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = within(connector.connect(name, stream)).await.unwrap();
        stream.write_all(message).await.unwrap();
        // `close_notify`, which TLS sends as data: the half-close of the layer above.
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        answer
    }
}
