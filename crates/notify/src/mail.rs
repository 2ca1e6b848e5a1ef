//! Mail by SMTP.

use std::path::PathBuf;

use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters, TlsParametersBuilder};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport};

use crate::{Message, SEND_TIMEOUT, TrustError, authorities};

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all: for a server on this machine.
    None,
    /// By STARTTLS; a server without it is refused.
    StartTls,
    /// By TLS from the first byte.
    Tls,
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub security: Security,
    /// User and password, where the server wants them.
    pub credentials: Option<(String, String)>,
    /// File with authorities that are trusted besides the system's; read for each mail.
    pub authorities: Option<PathBuf>,
    /// Who it is from.
    pub from: String,
    /// Whom it goes to.
    pub to: Vec<String>,
}

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// An address is none.
    #[error("`{address}` is no mail address")]
    Address {
        /// What was written.
        address: String,
        /// What is wrong with it.
        #[source]
        source: lettre::address::AddressError,
    },
    /// The message cannot be made.
    #[error("the mail cannot be made")]
    Make(#[source] lettre::error::Error),
    /// The authorities to trust cannot be had.
    #[error("nobody can be trusted besides the system's authorities")]
    Trust(#[from] TrustError),
    /// The server cannot be reached, or refuses.
    #[error("the mail server {host} did not take it")]
    Refused {
        /// Which server.
        host: String,
        /// Its words.
        #[source]
        source: lettre::transport::smtp::Error,
    },
}

impl Mail {
    /// Checks the addresses, and that the authorities can be read.
    ///
    /// # Errors
    /// Names the one that is none.
    pub fn check(&self) -> Result<(), MailError> {
        if let Some(path) = &self.authorities {
            authorities(path)?;
        }
        std::iter::once(&self.from)
            .chain(&self.to)
            .try_for_each(|address| mailbox(address).map(drop))
    }

    /// Sends a message, and comes back when the server has taken it. Blocks for up to
    /// [`SEND_TIMEOUT`] for each step of the exchange.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses.
    pub fn send(&self, message: &Message) -> Result<(), MailError> {
        let from = mailbox(&self.from)?;
        let domain = from.email.domain().to_owned();
        let mut builder = lettre::Message::builder()
            .from(from)
            .subject(&message.subject)
            .message_id(Some(format!("<{}@{domain}>", message.id)))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            builder = builder.to(mailbox(to)?);
        }
        let mail = builder
            .body(message.text.clone())
            .map_err(MailError::Make)?;
        let refused = |source| MailError::Refused {
            host: self.host.clone(),
            source,
        };
        let trusted = self.authorities.as_deref().map(authorities).transpose()?;
        let trusted = trusted.unwrap_or_default();
        let trusted = trusted
            .into_iter()
            .map(|one| Certificate::from_der(one.to_vec()));
        let trusted = trusted.collect::<Result<_, _>>().map_err(refused)?;
        let transport = self.transport(trusted).map_err(refused)?;
        transport.send(&mail).map(drop).map_err(refused)
    }

    fn transport(
        &self,
        trusted: Vec<Certificate>,
    ) -> Result<SmtpTransport, lettre::transport::smtp::Error> {
        let parameters = || {
            let builder = TlsParameters::builder(self.host.clone());
            let trust = |builder: TlsParametersBuilder, one| builder.add_root_certificate(one);
            trusted.into_iter().fold(builder, trust).build_rustls()
        };
        let tls = match self.security {
            Security::None => Tls::None,
            Security::StartTls => Tls::Required(parameters()?),
            Security::Tls => Tls::Wrapper(parameters()?),
        };
        let name = rustix::system::uname();
        let name = name.nodename().to_string_lossy().into_owned();
        let mut builder = SmtpTransport::builder_dangerous(&self.host)
            .port(self.port)
            .hello_name(ClientId::Domain(name))
            .timeout(Some(SEND_TIMEOUT))
            .tls(tls);
        if let Some((user, password)) = &self.credentials {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(builder.build())
    }
}

fn mailbox(address: &str) -> Result<Mailbox, MailError> {
    address.parse().map_err(|source| MailError::Address {
        address: address.to_owned(),
        source,
    })
}
