//! The demo's caller: one HTTPS request per connection, as the Azure SDK v1 does.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::lifecycle;
use crate::tls::{ClientAlpn, ClientTlsSource, client_config};

/// A caller that trusts the demo's authority.
pub(super) struct Client {
    tls: Arc<rustls::ClientConfig>,
    gateway: SocketAddr,
}

/// One call of the demo.
pub(super) struct Call<'a> {
    /// Host in the URL.
    pub host: &'a str,
    /// Path in the URL.
    pub path: &'a str,
    /// Credential, if any.
    pub bearer: Option<&'a str>,
    /// JSON to score.
    pub body: &'a str,
}

/// What came back.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new(ca: &Path, gateway: SocketAddr) -> anyhow::Result<Self> {
        let source = ClientTlsSource { ca: Some(ca.to_owned()), certificate: None, alpn: ClientAlpn::Http1 };
        Ok(Self { tls: client_config(&source)?.config, gateway })
    }

    /// Sends `call` on a connection of its own.
    pub async fn send(&self, call: &Call<'_>) -> anyhow::Result<Answer> {
        let tcp = TcpStream::connect(self.gateway).await?;
        let name = ServerName::try_from(call.host.to_owned())?;
        let tls =
            TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.context("TLS handshake")?;
        let (mut requests, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let driver = lifecycle::spawn("demo client", async move {
            // Its errors reach the request.
            let _ = connection.await;
        });
        let mut request = Request::post(call.path)
            .header(header::HOST, format!("{}:{}", call.host, self.gateway.port()))
            .header(header::USER_AGENT, concat!("scoregate-demo/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(bearer) = call.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let response =
            requests.send_request(request.body(Full::new(Bytes::from(call.body.to_owned())))?).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}
