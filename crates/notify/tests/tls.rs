//! Messages arrive by TLS at real servers whose certificates an authority of the tests' own made, and at no others.
#![cfg(test)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use notify::{Mail, Message, Security, Webhook, authorities};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// What `openssl` needs to know of certificates: RFC 5280's extensions, which clients look at.
const CONFIGURATION: &str = "
[req]
prompt = no
distinguished_name = nobody
[nobody]
CN = nobody
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
[other]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:elsewhere.example
";

/// An authority, and the certificates that it made: `server` for this machine's loopback, `other` for another name.
struct Authority(TempDir);

impl Authority {
    fn new() -> Self {
        let own = Self(tempfile::tempdir().unwrap());
        fs::write(own.path("configuration"), CONFIGURATION).unwrap();
        own.make("authority", &[]);
        for name in ["server", "other"] {
            let (by, key) = (own.path("authority.pem"), own.path("authority.key"));
            own.make(name, &[Path::new("-CA"), &by, Path::new("-CAkey"), &key]);
        }
        own
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn make(&self, name: &str, more: &[&Path]) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj"]);
        openssl.args([&format!("/CN={name}"), "-extensions", name, "-config"]);
        openssl.arg(self.path("configuration")).args(more);
        openssl
            .arg("-keyout")
            .arg(self.path(&format!("{name}.key")));
        openssl.arg("-out").arg(self.path(&format!("{name}.pem")));
        let made = openssl.output().expect("`openssl` runs");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{openssl:?}: {said}");
    }

    /// The file that whoever is to trust it needs.
    fn file(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// What a server with one of the certificates needs.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let configuration = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let configuration = configuration
            .with_no_client_auth()
            .with_single_cert(vec![chain], key);
        Arc::new(configuration.unwrap())
    }
}

type Secured = StreamOwned<ServerConnection, TcpStream>;

fn secured(stream: TcpStream, configuration: Arc<ServerConfig>) -> Secured {
    StreamOwned::new(ServerConnection::new(configuration).unwrap(), stream)
}

/// Takes one connection on a port of its own and gives what `serve` made of it.
fn receiver<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> std::io::Result<T> + Send + 'static,
) -> (u16, JoinHandle<std::io::Result<T>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || serve(listener.accept()?.0));
    (port, thread)
}

fn message() -> Message {
    Message {
        id: "node-7".to_owned(),
        subject: "web: memory is short".to_owned(),
        text: "memory_used_ratio is 0.95".to_owned(),
        json: serde_json::json!({ "id": "node-7", "ve": "web" }),
        ..Message::default()
    }
}

/// SMTP (RFC 5321) until the mail is taken, a password is asked for, or TLS is. Gives what was said and the mail.
fn smtp<S: Read + Write>(lines: &mut BufReader<S>, offer: &str) -> std::io::Result<String> {
    let mut said = String::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(said);
        }
        said.push_str(&line);
        let answer = match line.trim_end() {
            "STARTTLS" => {
                lines.get_mut().write_all(b"220 go on\r\n")?;
                return Ok(said);
            }
            "DATA" => {
                lines.get_mut().write_all(b"354 go on\r\n")?;
                while !said.ends_with("\r\n.\r\n") && lines.read_line(&mut said)? > 0 {}
                "250 taken".to_owned()
            }
            "QUIT" => {
                lines.get_mut().write_all(b"221 bye\r\n")?;
                return Ok(said);
            }
            greeting if greeting.starts_with("EHLO") => format!("250-test\r\n250 {offer}"),
            _ => "250 ok".to_owned(),
        };
        lines
            .get_mut()
            .write_all(format!("{answer}\r\n").as_bytes())?;
    }
}

/// A mail server of one mail; gives what came in the clear, and what by TLS.
fn mail_server(
    stream: TcpStream,
    security: Security,
    configuration: Arc<ServerConfig>,
) -> std::io::Result<(String, String)> {
    let mut clear = String::new();
    let mut stream = stream;
    if security == Security::StartTls {
        stream.write_all(b"220 test\r\n")?;
        clear = smtp(&mut BufReader::new(stream.try_clone()?), "STARTTLS")?;
    }
    let mut lines = BufReader::new(secured(stream, configuration));
    if security == Security::Tls {
        lines.get_mut().write_all(b"220 test\r\n")?;
    }
    let by_tls = smtp(&mut lines, "8BITMIME")?;
    Ok((clear, by_tls))
}

fn mail(port: u16, security: Security, authorities: Option<PathBuf>) -> Mail {
    Mail {
        host: "localhost".to_owned(),
        port,
        security,
        credentials: None,
        authorities,
        from: "vessel@node.example".to_owned(),
        to: vec!["ops@example.org".to_owned()],
    }
}

#[test]
fn a_mail_arrives_by_both_kinds_of_tls() {
    let authority = Authority::new();
    for security in [Security::StartTls, Security::Tls] {
        let configuration = authority.server("server");
        let (port, server) = receiver(move |stream| mail_server(stream, security, configuration));
        let mail = mail(port, security, Some(authority.file()));
        mail.check().unwrap();
        mail.send(&message()).unwrap();
        drop(mail);
        let (clear, by_tls) = server.join().unwrap().unwrap();
        assert!(!clear.contains("MAIL"), "{security:?}: {clear}");
        for words in ["RCPT TO:<ops@example.org>", "memory_used_ratio is 0.95"] {
            assert!(by_tls.contains(words), "{security:?}: {by_tls}");
        }
    }
}

#[test]
fn a_mail_goes_to_nobody_else() {
    let authority = Authority::new();
    // Nobody known vouches for the first; the second is somebody else.
    for (certificate, trusted) in [("server", None), ("other", Some(authority.file()))] {
        for security in [Security::StartTls, Security::Tls] {
            let configuration = authority.server(certificate);
            let (port, server) =
                receiver(move |stream| mail_server(stream, security, configuration));
            let error = mail(port, security, trusted.clone())
                .send(&message())
                .unwrap_err();
            let reason = format!("{error:?}");
            assert!(reason.contains("ertificate"), "{certificate}: {reason}");
            assert!(
                server.join().unwrap().is_err(),
                "{certificate}: {security:?}"
            );
        }
    }
}

/// Takes one request and answers that it is taken.
fn web_server(stream: TcpStream, configuration: Arc<ServerConfig>) -> std::io::Result<String> {
    let mut lines = BufReader::new(secured(stream, configuration));
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let begin = head.len();
        if lines.read_line(&mut head)? == 0 {
            return Ok(head);
        }
        if let Some(value) = head[begin..].to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    lines.get_mut().write_all(answer)?;
    Ok(head + &String::from_utf8(body).unwrap())
}

fn send(webhook: &Webhook) -> Result<(), notify::WebhookError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(webhook.send(&message()))
}

#[test]
fn a_webhook_by_tls_arrives_at_whom_the_authority_vouches_for() {
    let authority = Authority::new();
    for (certificate, trusted, arrives) in [
        ("server", Some(authority.file()), true),
        ("server", None, false),
        ("other", Some(authority.file()), false),
    ] {
        let configuration = authority.server(certificate);
        let (port, server) = receiver(move |stream| web_server(stream, configuration));
        let webhook = Webhook {
            url: format!("https://localhost:{port}/hook"),
            headers: Vec::new(),
            authorities: trusted,
            body: None,
        };
        webhook.check().unwrap();
        let sent = send(&webhook);
        let taken = server.join().unwrap();
        assert_eq!(sent.is_ok(), arrives, "{certificate}: {sent:?}");
        if arrives {
            let taken = taken.unwrap();
            assert!(
                taken.starts_with("POST /hook ") && taken.contains("node-7"),
                "{taken}"
            );
        } else {
            assert!(taken.is_err(), "{certificate}: {taken:?}");
            let reason = format!("{:?}", sent.unwrap_err());
            assert!(reason.contains("ertificate"), "{reason}");
        }
    }
}

#[test]
fn a_file_without_authorities_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for text in [
        "",
        "certificate",
        "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n",
    ] {
        fs::write(&path, text).unwrap();
        let error = authorities(&path).unwrap_err().to_string();
        assert!(error.contains("BEGIN CERTIFICATE"), "{text}: {error}");
    }
    assert!(authorities(Path::new("file")).is_err());
    assert_eq!(authorities(&Authority::new().file()).unwrap().len(), 1);
}
