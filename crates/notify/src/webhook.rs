//! Webhooks: one POST by HTTP/1.1, on a connection of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Message, SEND_TIMEOUT, TrustError, authorities};

/// How much of an answer is read: enough for the reason of a refusal.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How much of it is told.
const WORDS_MAX: usize = 200;

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its address: `http://...` or `https://...`.
    pub url: String,
    /// Headers that are sent along, such as an authorization.
    pub headers: Vec<(String, String)>,
    /// File with authorities that are trusted besides the system's; read for each message.
    pub authorities: Option<PathBuf>,
    /// The body, where it is not the message's JSON.
    pub body: Option<String>,
}

/// Why a webhook did not take a message.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address is none.
    #[error("`{0}` is no address of a webhook: write it as http://HOST/PATH or https://HOST/PATH")]
    Address(String),
    /// A header is none.
    #[error("`{0}` is no header: write it as `Name: value`")]
    Header(String),
    /// The host has no name that a certificate could have.
    #[error("`{host}` cannot be in a certificate")]
    Name {
        /// The host.
        host: String,
        /// Why not.
        #[source]
        source: InvalidDnsNameError,
    },
    /// There is no connection.
    #[error("{host} cannot be reached")]
    Connect {
        /// The host.
        host: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The exchange broke.
    #[error("{host} does not speak HTTP well")]
    Exchange {
        /// The host.
        host: String,
        /// What is wrong.
        #[source]
        source: hyper::Error,
    },
    /// It refused.
    #[error("{host} answers {status}: {words}")]
    Refused {
        /// The host.
        host: String,
        /// Its answer.
        status: StatusCode,
        /// The begin of its words.
        words: String,
    },
    /// It took too long.
    #[error("{0} did not answer within 30 s")]
    Slow(String),
    /// The authorities to trust cannot be had.
    #[error("nobody can be trusted besides the system's authorities")]
    Trust(#[from] TrustError),
    /// TLS cannot be had here.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

struct Target {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Webhook {
    /// Checks address and headers, and that the authorities can be read.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn check(&self) -> Result<(), WebhookError> {
        if let Some(path) = &self.authorities {
            authorities(path)?;
        }
        let target = target(&self.url)?;
        self.request(&target, &Message::default()).map(drop)
    }

    /// Sends a message, and comes back when the other side said that it has it (2xx).
    ///
    /// # Errors
    /// When it cannot be reached, refuses, or takes more than [`SEND_TIMEOUT`].
    pub async fn send(&self, message: &Message) -> Result<(), WebhookError> {
        let target = target(&self.url)?;
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.exchange(&target, message));
        sent.await
            .map_err(|_| WebhookError::Slow(target.host.clone()))?
    }

    async fn exchange(&self, target: &Target, message: &Message) -> Result<(), WebhookError> {
        let request = self.request(target, message)?;
        let connect = |source| WebhookError::Connect {
            host: target.host.clone(),
            source,
        };
        let bare = target.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, target.port))
            .await
            .map_err(connect)?;
        if !target.tls {
            return ask(stream, request, &target.host).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|source| WebhookError::Name {
            host: target.host.clone(),
            source,
        })?;
        let configuration = match &self.authorities {
            Some(path) => trusting(path)?,
            None => configuration()?,
        };
        let stream = TlsConnector::from(configuration)
            .connect(name, stream)
            .await
            .map_err(connect)?;
        ask(stream, request, &target.host).await
    }

    fn request(
        &self,
        target: &Target,
        message: &Message,
    ) -> Result<Request<Full<Bytes>>, WebhookError> {
        let body = match &self.body {
            Some(body) => body.clone(),
            None => message.json.to_string(),
        };
        let path = target
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let authority = target.uri.authority().map_or("", |a| a.as_str());
        // User and password in an address are not for the wire's `Host`.
        let host = authority.rsplit('@').next().unwrap_or_default();
        let mut builder = Request::post(path)
            .header(header::HOST, host)
            .header(
                header::USER_AGENT,
                concat!("vessel/", env!("CARGO_PKG_VERSION")),
            )
            .header("Idempotency-Key", &message.id);
        let own_type = |name: &str| name.eq_ignore_ascii_case("content-type");
        if !self.headers.iter().any(|(name, _)| own_type(name)) {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in &self.headers {
            let checked = Request::post("/").header(name, value).body(());
            if checked.is_err() {
                return Err(WebhookError::Header(name.clone()));
            }
            builder = builder.header(name, value);
        }
        builder
            .body(Full::new(body.into()))
            .map_err(|_| WebhookError::Address(self.url.clone()))
    }
}

fn target(url: &str) -> Result<Target, WebhookError> {
    let refused = || WebhookError::Address(url.chars().take(200).collect());
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(refused()),
    };
    let host = uri.host().filter(|host| !host.is_empty());
    let host = host.ok_or_else(refused)?.to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Target {
        uri,
        host,
        port,
        tls,
    })
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>, host: &str) -> Result<(), WebhookError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |source| WebhookError::Exchange {
        host: host.to_owned(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // It ends with the sender.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
    let words = match body.await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    Err(WebhookError::Refused {
        host: host.to_owned(),
        status,
        words: words.trim().chars().take(WORDS_MAX).collect(),
    })
}

/// With the system's authorities, read once.
fn configuration() -> Result<Arc<ClientConfig>, WebhookError> {
    static CONFIGURATION: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(configuration) = CONFIGURATION.get() {
        return Ok(Arc::clone(configuration));
    }
    let configuration = with(system())?;
    Ok(Arc::clone(
        CONFIGURATION.get_or_init(|| Arc::new(configuration)),
    ))
}

/// With those of a file, too.
fn trusting(path: &Path) -> Result<Arc<ClientConfig>, WebhookError> {
    let mut roots = system();
    roots.add_parsable_certificates(authorities(path)?);
    Ok(Arc::new(with(roots)?))
}

fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Those that cannot be read are none; with none at all every server is refused by name.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn with(roots: RootCertStore) -> Result<ClientConfig, WebhookError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let configuration = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(WebhookError::Tls)?;
    Ok(configuration
        .with_root_certificates(roots)
        .with_no_client_auth())
}
