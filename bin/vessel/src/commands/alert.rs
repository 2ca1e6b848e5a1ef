//! `vessel alert`.

use api::latest::{
    Alert, AlertRule, AlertSecurity, AlertSeverity, AlertSilence, AlertSilenceRequest, AlertState,
    ApiError,
};
use api::latest::{AlertChannel, AlertChannelKind, AlertChannelStatus};

use crate::Context;
use crate::arguments::{
    AlertVerb, ChannelArguments, ChannelVerb, MailArguments, RuleArguments, RuleVerb, SilenceVerb,
};
use crate::human;
use crate::output::{Outcome, failed, usage};
use crate::table::{Align, Table};

pub(crate) async fn run(context: &Context, verb: AlertVerb) -> Outcome {
    match verb {
        AlertVerb::List { all } => list(context, all).await,
        AlertVerb::Rule(verb) => rule(context, verb).await,
        AlertVerb::Channel(verb) => channel(context, verb).await,
        AlertVerb::Silence(verb) => silence(context, verb).await,
        AlertVerb::Metrics => metrics(context).await,
    }
}

/// Writes rows under a header: all cells with `--json` elsewhere, the first ones with `--quiet`.
fn write(context: &Context, columns: &[&str], rows: Vec<Vec<String>>) -> Outcome {
    if context.out.quiet {
        return rows
            .iter()
            .filter_map(|row| row.first())
            .try_for_each(|name| context.out.line(name));
    }
    let mut table = Table::new(columns.iter().map(|name| (*name, Align::Left)));
    rows.into_iter().for_each(|row| table.row(row));
    let lines = table.lines(true);
    lines.iter().try_for_each(|line| context.out.line(line))
}

async fn list(context: &Context, all: bool) -> Outcome {
    let mut alerts = context.client.alerts().await?;
    alerts.retain(|alert| all || alert.state != AlertState::Resolved);
    if context.out.json {
        return context.out.json(&alerts);
    }
    let row = |alert: &Alert| {
        let state = match alert.silenced {
            true => format!("{}, silenced", alert.state),
            false => alert.state.to_string(),
        };
        vec![
            alert.rule.clone(),
            alert.severity.to_string(),
            state,
            alert.name.clone().unwrap_or_else(|| "(node)".to_owned()),
            value(alert.value, &alert.unit),
            alert.condition.clone(),
            human::time(alert.since),
            alert.told.map(human::time).unwrap_or_default(),
        ]
    };
    let columns = [
        "RULE",
        "SEVERITY",
        "STATE",
        "VE",
        "VALUE",
        "CONDITION",
        "SINCE",
        "TOLD",
    ];
    if alerts.is_empty() {
        context.out.note("nothing fires");
        return Ok(());
    }
    write(context, &columns, alerts.iter().map(row).collect())
}

/// A value as people read it.
fn value(value: f64, unit: &str) -> String {
    match unit {
        "ratio" => format!("{:.1}%", value * 100.0),
        "bytes" | "bytes_per_second" if value >= 0.0 => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "not negative here; `as` saturates above, and nobody reads the fraction of a byte"
            )]
            let whole = value as u64;
            let per = if unit == "bytes" { "" } else { "/s" };
            format!("{}{per}", human::bytes(whole))
        }
        _ => human::cores(value),
    }
}

async fn rule(context: &Context, verb: RuleVerb) -> Outcome {
    match verb {
        RuleVerb::List => {
            let rules = context.client.alert_rules().await?;
            if context.out.json {
                return context.out.json(&rules);
            }
            let columns = [
                "NAME",
                "CONDITION",
                "FOR",
                "SEVERITY",
                "VES",
                "CHANNELS",
                "ENABLED",
            ];
            write(context, &columns, rules.iter().map(rule_row).collect())
        }
        RuleVerb::Set(arguments) => {
            let rules = context.client.alert_rules().await?;
            let former = rules.into_iter().find(|rule| rule.name == arguments.name);
            let rule = changed(former, arguments)?;
            put_rule(context, &rule).await
        }
        RuleVerb::Delete { names } => {
            for name in &names {
                context.client.delete_alert_rule(name).await?;
                context.out.note(&format!("rule {name} is deleted"));
            }
            Ok(())
        }
        RuleVerb::Enable { names } => enable(context, &names, true).await,
        RuleVerb::Disable { names } => enable(context, &names, false).await,
    }
}

fn rule_row(rule: &AlertRule) -> Vec<String> {
    let scope: Vec<&str> = rule
        .ves
        .iter()
        .chain(&rule.labels)
        .map(String::as_str)
        .collect();
    let or_all = |words: String| match words.is_empty() {
        true => "all".to_owned(),
        false => words,
    };
    vec![
        rule.name.clone(),
        rule.condition.clone(),
        ve::units::Seconds::new(rule.for_seconds).to_string(),
        rule.severity.to_string(),
        or_all(scope.join(",")),
        or_all(rule.channels.join(",")),
        if rule.enabled { "yes" } else { "no" }.to_owned(),
    ]
}

/// A rule with what was given; what was not given stays.
fn changed(former: Option<AlertRule>, given: RuleArguments) -> Result<AlertRule, ApiError> {
    let mut rule = match (former, &given.condition) {
        (Some(former), _) => former,
        (None, Some(condition)) => AlertRule::new(given.name.clone(), condition.clone()),
        (None, None) => {
            let message = format!(
                "rule `{}`: there is none, and a new one needs --if",
                given.name
            );
            return Err(usage(message).with_hint("--if 'memory_used_ratio > 90%'"));
        }
    };
    let list = |own: &mut Vec<String>, given: Vec<String>| {
        if !given.is_empty() {
            *own = given.into_iter().filter(|one| !one.is_empty()).collect();
        }
    };
    list(&mut rule.ves, given.ve);
    list(&mut rule.labels, given.label);
    list(&mut rule.channels, given.channel);
    if let Some(condition) = given.condition {
        rule.condition = condition;
    }
    if let Some(word) = given.severity {
        rule.severity = severity(&word)?;
    }
    if let Some(message) = given.message {
        rule.message = Some(message).filter(|text| !text.is_empty());
    }
    rule.for_seconds = given.for_time.map_or(rule.for_seconds, |time| time.get());
    rule.resolve_seconds = given
        .resolve
        .map(|time| time.get())
        .or(rule.resolve_seconds);
    rule.repeat_seconds = given.repeat.map(|time| time.get()).or(rule.repeat_seconds);
    Ok(rule)
}

fn severity(word: &str) -> Result<AlertSeverity, ApiError> {
    AlertSeverity::from_word(word).ok_or_else(|| {
        usage(format!(
            "severity `{word}`: it is info, warning or critical"
        ))
    })
}

async fn put_rule(context: &Context, rule: &AlertRule) -> Outcome {
    let rule = context.client.put_alert_rule(rule).await?;
    if context.out.json {
        return context.out.json(&rule);
    }
    context.out.note(&format!("rule {} is set", rule.name));
    Ok(())
}

async fn enable(context: &Context, names: &[String], enabled: bool) -> Outcome {
    let rules = context.client.alert_rules().await?;
    for name in names {
        let Some(rule) = rules.iter().find(|rule| rule.name == *name) else {
            let message = format!("rule `{name}`: there is none");
            return Err(ApiError::new(api::latest::ErrorCode::NotFound, message)
                .with_hint("`vessel alert rule list` shows all")
                .into());
        };
        let rule = AlertRule {
            enabled,
            ..rule.clone()
        };
        put_rule(context, &rule).await?;
    }
    Ok(())
}

async fn channel(context: &Context, verb: ChannelVerb) -> Outcome {
    match verb {
        ChannelVerb::List => {
            let channels = context.client.alert_channels().await?;
            if context.out.json {
                return context.out.json(&channels);
            }
            let columns = ["NAME", "KIND", "SEVERITY", "TO", "WAITING", "LAST FAILURE"];
            write(
                context,
                &columns,
                channels.iter().map(channel_row).collect(),
            )
        }
        ChannelVerb::Log(channel) => {
            put_channel(context, of(channel, AlertChannelKind::Log)?).await
        }
        ChannelVerb::Command {
            channel,
            program,
            arguments,
        } => {
            let mut channel = of(channel, AlertChannelKind::Command)?;
            channel.program = Some(program);
            channel.arguments = arguments;
            put_channel(context, channel).await
        }
        ChannelVerb::Webhook {
            channel,
            url,
            header,
            body,
            authorities,
        } => {
            let mut channel = of(channel, AlertChannelKind::Webhook)?;
            channel.url = Some(url);
            channel.headers = header;
            channel.body = body;
            channel.authorities = authorities;
            put_channel(context, channel).await
        }
        ChannelVerb::Mail(arguments) => put_channel(context, mail(arguments)?).await,
        ChannelVerb::Test { names } => {
            for name in &names {
                context.client.test_alert_channel(name).await?;
                context.out.note(&format!("channel {name} took a message"));
            }
            Ok(())
        }
        ChannelVerb::Delete { names } => {
            for name in &names {
                context.client.delete_alert_channel(name).await?;
                context.out.note(&format!("channel {name} is deleted"));
            }
            Ok(())
        }
    }
}

fn channel_row(status: &AlertChannelStatus) -> Vec<String> {
    let channel = &status.channel;
    let to = match channel.kind {
        AlertChannelKind::Command => {
            let words = channel.program.iter().chain(&channel.arguments);
            words.cloned().collect::<Vec<_>>().join(" ")
        }
        AlertChannelKind::Webhook => channel.url.clone().unwrap_or_default(),
        AlertChannelKind::Mail => channel.to.join(","),
        AlertChannelKind::Log | AlertChannelKind::Unknown => String::new(),
    };
    vec![
        channel.name.clone(),
        channel.kind.to_string(),
        channel.severity.to_string(),
        to,
        status.waiting.to_string(),
        status.failure.clone().unwrap_or_default(),
    ]
}

fn of(arguments: ChannelArguments, kind: AlertChannelKind) -> Result<AlertChannel, ApiError> {
    let mut channel = AlertChannel::new(arguments.name, kind);
    channel.severity = severity(&arguments.severity)?;
    Ok(channel)
}

fn mail(arguments: MailArguments) -> Result<AlertChannel, ApiError> {
    let mut channel = of(arguments.channel, AlertChannelKind::Mail)?;
    let security = arguments.security.as_deref().map(|word| {
        AlertSecurity::from_word(word)
            .ok_or_else(|| usage(format!("security `{word}`: it is none, starttls or tls")))
    });
    let password = arguments.password_file.map(|path| {
        std::fs::read_to_string(&path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| failed(format!("password file `{}`: {error}", path.display())))
    });
    channel.server = Some(arguments.server);
    channel.security = security.transpose()?;
    channel.authorities = arguments.authorities;
    channel.user = arguments.user;
    channel.password = password.transpose()?;
    channel.from = Some(arguments.from);
    channel.to = arguments.to;
    channel.subject = arguments.subject;
    channel.text = arguments.text;
    Ok(channel)
}

async fn put_channel(context: &Context, channel: AlertChannel) -> Outcome {
    let channel = context.client.put_alert_channel(&channel).await?;
    if context.out.json {
        return context.out.json(&channel);
    }
    context
        .out
        .note(&format!("channel {} is set", channel.name));
    Ok(())
}

async fn silence(context: &Context, verb: SilenceVerb) -> Outcome {
    match verb {
        SilenceVerb::List => {
            let silences = context.client.alert_silences().await?;
            if context.out.json {
                return context.out.json(&silences);
            }
            let row = |silence: &AlertSilence| {
                let or_all = |name: &Option<String>| name.clone().unwrap_or("all".to_owned());
                vec![
                    silence.id.to_string(),
                    or_all(&silence.rule),
                    or_all(&silence.ve),
                    human::time(silence.until),
                    silence.comment.clone(),
                ]
            };
            let columns = ["ID", "RULE", "VE", "UNTIL", "COMMENT"];
            write(context, &columns, silences.iter().map(row).collect())
        }
        SilenceVerb::Add {
            rule,
            ve,
            for_time,
            comment,
        } => {
            let request = AlertSilenceRequest {
                rule,
                ve,
                for_seconds: for_time.get(),
                comment,
            };
            let silence = context.client.silence_alerts(&request).await?;
            if context.out.json {
                return context.out.json(&silence);
            }
            let (id, until) = (silence.id, human::time(silence.until));
            context
                .out
                .note(&format!("silence {id} lasts until {until}"));
            Ok(())
        }
        SilenceVerb::Delete { ids } => {
            for id in ids {
                context.client.end_alert_silence(id).await?;
                context.out.note(&format!("silence {id} is over"));
            }
            Ok(())
        }
    }
}

async fn metrics(context: &Context) -> Outcome {
    let metrics = context.client.alert_metrics().await?;
    if context.out.json {
        return context.out.json(&metrics);
    }
    let rows = metrics.into_iter().map(|metric| {
        let of = if metric.of_node { "node" } else { "ve" };
        vec![metric.name, of.to_owned(), metric.unit, metric.help]
    });
    write(context, &["NAME", "OF", "UNIT", "TELLS"], rows.collect())
}
