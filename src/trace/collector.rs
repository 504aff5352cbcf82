//! The exporter to the collector: OTLP over gRPC or over HTTP, TLS by rustls.
//!
//! Neither client knows of `HTTP_PROXY` and its like, so the exporter cannot loop into the gateway.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::SpanExporter as _;
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tonic::metadata::MetadataMap;
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::config::{Protocol, Tracing};

/// The longest answer that is read: a collector says little, and who says more is none.
const LONGEST_ANSWER: usize = 64 * 1024;

/// How long what was sent over gRPC may go unacknowledged by the collector's host before the connection is given up,
/// as gRPC has it (its proposal A18). A host that vanishes without a reset would have it for a quarter of an hour,
/// for an export that times out leaves the connection as it is. Pings of HTTP/2 would tell too, but servers of gRPC
/// close on whoever pings more often than every five minutes.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// The exporter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file of `OTEL_EXPORTER_OTLP_CERTIFICATE` cannot be used.
    #[error(
        "OTEL_EXPORTER_OTLP_CERTIFICATE={path:?}: {reason}; expected a PEM file of certificates"
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// TLS cannot be set up: a defect.
    #[error("TLS to the collector cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// gRPC cannot be set up: a defect.
    #[error("gRPC to the collector cannot be set up: {0}")]
    Grpc(#[from] transport::Error),
    /// The exporter refused its settings.
    #[error("the exporter of traces cannot be set up: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// There is no thread for the exporter.
    #[error("the exporter of traces has no thread to run on: {0}")]
    Thread(#[from] std::io::Error),
}

/// An exporter as configured. It connects when there is something to export. Of spans that the collector says over
/// HTTP it took some of, those it did not are noted in `rejected`; the client of gRPC does not tell.
pub(super) fn exporter(
    settings: &Tracing,
    rejected: &Arc<AtomicU64>,
) -> Result<SpanExporter, TraceError> {
    let mut exporter = match settings.protocol {
        Protocol::Grpc => over_grpc(settings)?,
        Protocol::HttpProtobuf => over_http(settings, rejected)?,
    };
    let resource = settings.resource.iter().cloned();
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(resource.map(|(key, value)| KeyValue::new(key, value)))
        .build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

fn over_grpc(settings: &Tracing) -> Result<SpanExporter, TraceError> {
    let headers: HeaderMap = settings.headers.iter().cloned().collect();
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel(settings)?)
        .with_metadata(MetadataMap::from_headers(headers));
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

fn channel(settings: &Tracing) -> Result<Channel, TraceError> {
    let mut endpoint = Endpoint::from(settings.endpoint.clone()).timeout(settings.timeout);
    if settings.endpoint.scheme_str() == Some("https") {
        let tls = match &settings.certificate {
            // Checked here: tonic would pass over what is no certificate.
            Some(path) => {
                authorities(path)?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?))
            }
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(endpoint.connect_with_connector_lazy(connector()))
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    // The channel adds TLS.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    connector
}

fn over_http(settings: &Tracing, rejected: &Arc<AtomicU64>) -> Result<SpanExporter, TraceError> {
    let headers = settings.headers.iter();
    let headers = headers.map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_http_client(DirectClient::new(settings, Arc::clone(rejected))?)
        .with_endpoint(settings.endpoint.to_string())
        .with_timeout(settings.timeout)
        .with_headers(headers.collect());
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

/// An HTTP client that goes to the collector and nowhere else.
///
/// What the collector answers is read here as well: the exporter would take any 200 for a success.
#[derive(Debug)]
struct DirectClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    rejected: Arc<AtomicU64>,
}

impl DirectClient {
    fn new(settings: &Tracing, rejected: Arc<AtomicU64>) -> Result<Self, TraceError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = match &settings.certificate {
            Some(path) => tls.with_root_certificates(authorities(path)?),
            None => tls.with_webpki_roots(),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            rejected,
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for DirectClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.client.request(request.map(Full::new)).await?;
        let (head, content) = response.into_parts();
        let content = Limited::new(content, LONGEST_ANSWER).collect().await?;
        let content = content.to_bytes();
        if head.status.is_success() {
            let rejected = rejected_spans(&content)?;
            self.rejected.fetch_add(rejected, Ordering::Relaxed);
        }
        Ok(Response::from_parts(head, content))
    }
}

/// Spans that an export did not get in (OTLP 1.x, *Partial Success*). Whoever answers with something else is no
/// collector of traces.
fn rejected_spans(content: &[u8]) -> Result<u64, HttpError> {
    let answer = ExportTraceServiceResponse::decode(content)
        .map_err(|error| format!("the answer is none of a collector of traces: {error}"))?;
    let rejected = answer.partial_success.map_or(0, |part| part.rejected_spans);
    Ok(u64::try_from(rejected).unwrap_or(0))
}

fn authorities(path: &PathBuf) -> Result<RootCertStore, TraceError> {
    let unusable = |reason: String| TraceError::Certificate {
        path: path.clone(),
        reason,
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        store
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(store)
}

fn read(path: &PathBuf) -> Result<Vec<u8>, TraceError> {
    std::fs::read(path).map_err(|error| TraceError::Certificate {
        path: path.clone(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tonic::codegen::Service as _;

    use super::*;

    #[tokio::test]
    async fn a_collector_over_grpc_that_acknowledges_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("https://{address}").parse().unwrap();
        let connected = connector().call(url).await.unwrap();
        let within = rustix::net::sockopt::tcp_user_timeout(connected.inner()).unwrap();
        assert_eq!(u128::from(within), UNACKNOWLEDGED.as_millis());
    }
}
