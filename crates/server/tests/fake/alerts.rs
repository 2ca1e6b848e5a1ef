//! What the fake node tells of alerts: one fires; rules and channels are kept, and only one rule is there first.

use api::latest::{
    Alert, AlertChannel, AlertChannelKind, AlertChannelStatus, AlertMetric, AlertRule,
    AlertSeverity, AlertSilence, AlertSilenceRequest, AlertState, ErrorCode,
};
use server::{Alerts, Reply};

use super::node::refuse;
use super::{Fake, moment};

fn rule() -> AlertRule {
    AlertRule {
        for_seconds: 300,
        ..AlertRule::new("memory-high", "memory_used_ratio > 90%")
    }
}

impl Alerts for Fake {
    fn alerts(&self) -> Reply<'_, Vec<Alert>> {
        let alert = |state, name: Option<&str>| Alert {
            rule: "memory-high".to_owned(),
            severity: AlertSeverity::Warning,
            state,
            id: name.map(|_| 100),
            name: name.map(str::to_owned),
            condition: "memory_used_ratio > 0.9".to_owned(),
            value: 0.953,
            unit: "ratio".to_owned(),
            since: moment(),
            told: Some(moment()),
            silenced: name.is_none(),
        };
        let alerts = vec![
            alert(AlertState::Firing, Some("web")),
            alert(AlertState::Pending, None),
            alert(AlertState::Resolved, Some("db")),
        ];
        Box::pin(async { Ok(alerts) })
    }

    fn alert_metrics(&self) -> Reply<'_, Vec<AlertMetric>> {
        let metric = AlertMetric {
            name: "cpu_cores".to_owned(),
            unit: "cores".to_owned(),
            help: "processors in use".to_owned(),
            of_node: false,
        };
        Box::pin(async { Ok(vec![metric]) })
    }

    fn alert_rules(&self) -> Reply<'_, Vec<AlertRule>> {
        let mut rules = vec![rule()];
        rules.extend(self.lock().rules.iter().cloned());
        Box::pin(async { Ok(rules) })
    }

    fn put_alert_rule(&self, rule: AlertRule) -> Reply<'_, AlertRule> {
        Box::pin(async move {
            self.called(format!("{rule:?}"));
            if !rule.condition.contains(['<', '>']) {
                let message = format!("`{}` is no condition", rule.condition);
                return refuse(ErrorCode::Usage, message, "write it as METRIC > NUMBER");
            }
            self.lock().rules.push(rule.clone());
            Ok(rule)
        })
    }

    fn delete_alert_rule(&self, name: String) -> Reply<'_, ()> {
        Box::pin(async move {
            let mut inner = self.lock();
            let before = inner.rules.len();
            inner.rules.retain(|rule| rule.name != name);
            if inner.rules.len() == before {
                let message = format!("rule `{name}`: there is none");
                return refuse(
                    ErrorCode::NotFound,
                    message,
                    "`vessel alert rule list` shows all",
                );
            }
            Ok(())
        })
    }

    fn alert_channels(&self) -> Reply<'_, Vec<AlertChannelStatus>> {
        let mut mail = AlertChannel::new("ops", AlertChannelKind::Mail);
        mail.server = Some("mail.example.org".to_owned());
        mail.from = Some("vessel@example.org".to_owned());
        mail.to = vec!["ops@example.org".to_owned()];
        let statuses = vec![
            AlertChannelStatus {
                channel: AlertChannel::new("log", AlertChannelKind::Log),
                waiting: 0,
                next: None,
                failure: None,
            },
            AlertChannelStatus {
                channel: mail,
                waiting: 3,
                next: Some(moment()),
                failure: Some("mail.example.org cannot be reached".to_owned()),
            },
        ];
        Box::pin(async { Ok(statuses) })
    }

    fn put_alert_channel(&self, channel: AlertChannel) -> Reply<'_, AlertChannel> {
        self.called(format!("{channel:?}"));
        Box::pin(async { Ok(channel) })
    }

    fn delete_alert_channel(&self, name: String) -> Reply<'_, ()> {
        self.called(format!("delete channel {name}"));
        Box::pin(async { Ok(()) })
    }

    fn test_alert_channel(&self, name: String) -> Reply<'_, ()> {
        Box::pin(async move {
            let message = format!("channel `{name}` did not take the message: nobody is there");
            refuse(ErrorCode::Failed, message, "look at the receiver")
        })
    }

    fn alert_silences(&self) -> Reply<'_, Vec<AlertSilence>> {
        let silence = AlertSilence {
            id: 3,
            rule: Some("memory-high".to_owned()),
            ve: None,
            until: moment(),
            comment: "more is ordered".to_owned(),
        };
        Box::pin(async { Ok(vec![silence]) })
    }

    fn silence_alerts(&self, request: AlertSilenceRequest) -> Reply<'_, AlertSilence> {
        self.called(format!("{request:?}"));
        let silence = AlertSilence {
            id: 4,
            rule: request.rule,
            ve: request.ve,
            until: moment(),
            comment: request.comment,
        };
        Box::pin(async { Ok(silence) })
    }

    fn end_alert_silence(&self, id: u64) -> Reply<'_, ()> {
        self.called(format!("end silence {id}"));
        Box::pin(async { Ok(()) })
    }
}
