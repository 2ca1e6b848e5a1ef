//! Where alerts are told: from the wire's channels to ways out of the node.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::latest::{AlertChannel, AlertChannelKind, AlertSecurity, AlertSeverity, ApiError};
use notify::{Command, Mail, Message, Security, Webhook};

use super::message::FIELDS;
use super::rules::{check_name, usage};

/// What is shown in place of a secret, and keeps it when it is given back.
pub(crate) const SECRET: &str = "...";
/// Size of each of the two files of the log.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// Longest time for one message, whatever the other side does: mail has a limit for each of some ten steps only.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);

/// A way out of the node.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// The daemon's log, and this file.
    Log(PathBuf),
    /// A program.
    Command(Command),
    /// A webhook, and the template of its body.
    Webhook(Webhook, Option<String>),
    /// Mail, and the templates of its subject and text.
    Mail(Mail, Option<String>, Option<String>),
}

/// The file of the log below a node's root.
pub(crate) fn log_file(root: &Path) -> PathBuf {
    root.join("log/alerts.log")
}

/// A channel as it may be shown: without its secrets.
pub(crate) fn shown(channel: &AlertChannel) -> AlertChannel {
    let mut shown = channel.clone();
    shown.password = shown.password.map(|_| SECRET.to_owned());
    for header in &mut shown.headers {
        if let Some((name, _)) = header.split_once(':') {
            *header = format!("{name}: {SECRET}");
        }
    }
    shown
}

/// Puts the secrets of `before` where a channel that was shown is given back.
pub(crate) fn keep_secrets(channel: &mut AlertChannel, before: &AlertChannel) {
    if channel.password.as_deref() == Some(SECRET) {
        channel.password.clone_from(&before.password);
    }
    for header in &mut channel.headers {
        let Some((name, value)) = header.split_once(':') else {
            continue;
        };
        let own = |other: &&String| other.split_once(':').is_some_and(|(own, _)| own == name);
        if value.trim() == SECRET
            && let Some(kept) = before.headers.iter().find(own)
        {
            *header = kept.clone();
        }
    }
}

/// Reads a channel.
///
/// # Errors
/// Names what makes no sense in it. Nothing is connected to.
pub(crate) fn parse(channel: &AlertChannel, root: &Path) -> Result<Way, ApiError> {
    check_name("channel", &channel.name)?;
    let refused = |message: String| usage(format!("channel `{}`: {message}", channel.name));
    if channel.severity == AlertSeverity::Unknown {
        return Err(refused(
            "its severity is info, warning or critical".to_owned(),
        ));
    }
    foreign(channel).map_err(refused)?;
    let templates = [&channel.body, &channel.subject, &channel.text];
    for template in templates.into_iter().flatten() {
        notify::check(template, &FIELDS).map_err(|error| refused(error.to_string()))?;
    }
    match channel.kind {
        AlertChannelKind::Log => Ok(Way::Log(log_file(root))),
        AlertChannelKind::Command => {
            let command = Command {
                program: PathBuf::from(channel.program.clone().unwrap_or_default()),
                arguments: channel.arguments.clone(),
            };
            let checked = command.check();
            checked.map_err(|error| refused(error.to_string()))?;
            Ok(Way::Command(command))
        }
        AlertChannelKind::Webhook => {
            let webhook = Webhook {
                url: channel.url.clone().unwrap_or_default(),
                headers: headers(&channel.headers).map_err(refused)?,
                authorities: channel.authorities.as_ref().map(PathBuf::from),
                body: None,
            };
            let checked = webhook.check();
            checked.map_err(|error| refused(chain(&error)))?;
            Ok(Way::Webhook(webhook, channel.body.clone()))
        }
        AlertChannelKind::Mail => {
            let mail = mail(channel).map_err(refused)?;
            Ok(Way::Mail(
                mail,
                channel.subject.clone(),
                channel.text.clone(),
            ))
        }
        AlertChannelKind::Unknown => Err(refused(
            "its kind is log, command, webhook or mail".to_owned(),
        )),
    }
}

/// Refuses what belongs to another kind, so that nothing that was meant is left out in silence.
fn foreign(channel: &AlertChannel) -> Result<(), String> {
    use AlertChannelKind::{Command, Mail, Webhook};
    let given = [
        ("program", channel.program.is_some(), Command),
        ("arguments", !channel.arguments.is_empty(), Command),
        ("url", channel.url.is_some(), Webhook),
        ("headers", !channel.headers.is_empty(), Webhook),
        ("body", channel.body.is_some(), Webhook),
        ("server", channel.server.is_some(), Mail),
        ("security", channel.security.is_some(), Mail),
        ("user", channel.user.is_some(), Mail),
        ("password", channel.password.is_some(), Mail),
        ("from", channel.from.is_some(), Mail),
        ("to", !channel.to.is_empty(), Mail),
        ("subject", channel.subject.is_some(), Mail),
        ("text", channel.text.is_some(), Mail),
    ];
    if channel.authorities.is_some() && !matches!(channel.kind, Webhook | Mail) {
        return Err(format!("`authorities` is for kinds {Webhook} and {Mail}"));
    }
    let wrong = given
        .iter()
        .find(|(_, given, kind)| *given && *kind != channel.kind);
    match wrong {
        Some((field, _, kind)) => Err(format!("`{field}` is for kind {kind}")),
        None => Ok(()),
    }
}

fn headers(texts: &[String]) -> Result<Vec<(String, String)>, String> {
    let split = |text: &String| {
        text.split_once(':')
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .ok_or_else(|| format!("header `{text}` is not `Name: value`"))
    };
    texts.iter().map(split).collect()
}

fn mail(channel: &AlertChannel) -> Result<Mail, String> {
    let server = channel.server.as_deref().unwrap_or_default();
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => {
            let port = port.parse::<u16>();
            let port = port.map_err(|_| format!("server `{server}` is not HOST:PORT"))?;
            (host, Some(port))
        }
        _ => (server, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("`server` is missing: HOST or HOST:PORT".to_owned());
    }
    if channel.to.is_empty() {
        return Err("`to` is missing: whom it goes to".to_owned());
    }
    let address = host.parse::<std::net::IpAddr>();
    let own = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let (security, usual) = match channel.security {
        Some(AlertSecurity::None) => (Security::None, 25),
        Some(AlertSecurity::Tls) => (Security::Tls, 465),
        Some(AlertSecurity::StartTls) => (Security::StartTls, 587),
        None if own => (Security::None, 25),
        None => (Security::StartTls, 587),
        Some(AlertSecurity::Unknown) => {
            return Err("its security is none, starttls or tls".to_owned());
        }
    };
    let credentials = match (&channel.user, &channel.password) {
        (Some(user), Some(password)) => Some((user.clone(), password.clone())),
        (None, None) => None,
        _ => return Err("`user` and `password` belong together".to_owned()),
    };
    let mail = Mail {
        host: host.to_owned(),
        port: port.unwrap_or(usual),
        security,
        credentials,
        authorities: channel.authorities.as_ref().map(PathBuf::from),
        from: channel
            .from
            .clone()
            .ok_or("`from` is missing: who it is from")?,
        to: channel.to.clone(),
    };
    mail.check().map_err(|error| chain(&error))?;
    Ok(mail)
}

impl Way {
    /// Whether messages of one rule go as one: somebody reads them, or a program that takes its time. Lines of a log
    /// are no burden.
    pub(crate) fn gathers(&self) -> bool {
        !matches!(self, Self::Log(_))
    }

    /// Sends a message, and comes back when the other side has taken it.
    ///
    /// # Errors
    /// Says in one line why it was not.
    pub(crate) async fn send(&self, message: Message) -> Result<(), String> {
        tokio::time::timeout(SEND_TIMEOUT, self.send_patiently(message))
            .await
            .unwrap_or_else(|_| Err("it took more than two minutes".to_owned()))
    }

    async fn send_patiently(&self, mut message: Message) -> Result<(), String> {
        let fields = message.fields.clone();
        let filled = |template: &Option<String>| {
            let filled = template.as_ref().map(|text| notify::render(text, &fields));
            filled.transpose().map_err(|error| chain(&error))
        };
        match self {
            Self::Log(path) => {
                let path = path.clone();
                blocking(move || log(&path, &message)).await
            }
            Self::Command(command) => command.send(&message).await.map_err(|e| chain(&e)),
            Self::Webhook(webhook, body) => {
                let mut webhook = webhook.clone();
                webhook.body = filled(body)?;
                webhook.send(&message).await.map_err(|e| chain(&e))
            }
            Self::Mail(mail, subject, text) => {
                let mail = mail.clone();
                if let Some(subject) = filled(subject)? {
                    message.subject = subject;
                }
                if let Some(text) = filled(text)? {
                    message.text = text;
                }
                blocking(move || mail.send(&message).map_err(|e| chain(&e))).await
            }
        }
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err("the daemon failed inside".to_owned()))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Writes a line of JSON, in files of bounded size.
fn log(path: &Path, message: &Message) -> Result<(), String> {
    tracing::warn!("alert: {}", message.subject);
    let refused = |error: std::io::Error| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_or(0, |meta| meta.len());
    if length >= LOG_BYTES_MAX {
        std::fs::rename(path, path.with_extension("log.1")).map_err(refused)?;
    }
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(refused)?;
    file.write_all(format!("{}\n", message.json).as_bytes())
        .map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: AlertChannelKind) -> AlertChannel {
        AlertChannel::new("ops", kind)
    }

    fn refusal(channel: &AlertChannel) -> String {
        parse(channel, Path::new("/node")).unwrap_err().message
    }

    #[test]
    fn mail_is_secured_unless_it_stays_here() {
        let mut channel = AlertChannel {
            from: Some("vessel@node.example".to_owned()),
            to: vec!["ops@example.org".to_owned()],
            ..of(AlertChannelKind::Mail)
        };
        for (server, host, port, security) in [
            (
                "mail.example.org",
                "mail.example.org",
                587,
                Security::StartTls,
            ),
            (
                "mail.example.org:25",
                "mail.example.org",
                25,
                Security::StartTls,
            ),
            ("localhost", "localhost", 25, Security::None),
            ("127.0.0.1:2525", "127.0.0.1", 2525, Security::None),
            ("[::1]:2525", "::1", 2525, Security::None),
        ] {
            channel.server = Some(server.to_owned());
            let Ok(Way::Mail(mail, ..)) = parse(&channel, Path::new("/node")) else {
                panic!("{server} is refused");
            };
            assert_eq!(
                (mail.host.as_str(), mail.port, mail.security),
                (host, port, security)
            );
        }
        channel.user = Some("me".to_owned());
        assert!(refusal(&channel).contains("belong together"));
        channel.server = None;
        assert!(refusal(&channel).contains("`server`"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let mut channel = of(AlertChannelKind::Webhook);
        assert!(refusal(&channel).contains("address of a webhook"));
        channel.url = Some("http://127.0.0.1/".to_owned());
        channel.to = vec!["a@b.c".to_owned()];
        assert!(refusal(&channel).contains("`to` is for kind mail"));
        channel.to.clear();
        channel.authorities = Some("/none".to_owned());
        let refused = refusal(&channel);
        assert!(refused.contains("/none cannot be read: "), "{refused}");
        channel.authorities = Some("none".to_owned());
        assert!(refusal(&channel).contains("no absolute path"));
        channel.authorities = None;
        channel.body = Some("{nothing}".to_owned());
        assert!(refusal(&channel).contains("`nothing`"));
        let mut command = of(AlertChannelKind::Command);
        assert!(refusal(&command).contains("absolute"));
        command.authorities = Some("/none".to_owned());
        assert!(refusal(&command).contains("`authorities` is for kinds webhook and mail"));
    }

    #[test]
    fn secrets_are_not_shown_and_are_kept() {
        let channel = AlertChannel {
            password: Some("secret".to_owned()),
            headers: vec!["Authorization: Bearer x".to_owned()],
            ..of(AlertChannelKind::Webhook)
        };
        let mut again = shown(&channel);
        assert_eq!(again.password.as_deref(), Some(SECRET));
        assert_eq!(again.headers, ["Authorization: ..."]);
        keep_secrets(&mut again, &channel);
        assert_eq!(again, channel);
    }

    #[test]
    fn the_log_has_a_line_each_and_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alerts.log");
        let message = super::super::message::tests::told().message("one-7".to_owned());
        log(&path, &message).unwrap();
        log(&path, &message).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (text.lines().count(), &line["rule"]),
            (2, &"memory-high".into())
        );
        let full = "x".repeat(usize::try_from(LOG_BYTES_MAX).unwrap());
        std::fs::write(&path, full).unwrap();
        log(&path, &message).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert!(folder.path().join("alerts.log.1").exists());
    }
}
