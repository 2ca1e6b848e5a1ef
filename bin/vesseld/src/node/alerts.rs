//! Alerts, as the door asks for them.

use api::latest::{
    Alert, AlertChannel, AlertChannelStatus, AlertMetric, AlertRule, AlertSilence,
    AlertSilenceRequest, ApiError, ErrorCode,
};
use server::Alerts;
use server::node::Reply;

use super::NodeDoor;
use crate::alerts::observed;

impl Alerts for NodeDoor {
    fn alerts(&self) -> Reply<'_, Vec<Alert>> {
        Box::pin(self.with_up(|up| Ok(up.alerts.list())))
    }

    fn alert_metrics(&self) -> Reply<'_, Vec<AlertMetric>> {
        Box::pin(async { Ok(observed::list()) })
    }

    fn alert_rules(&self) -> Reply<'_, Vec<AlertRule>> {
        Box::pin(self.with_up(|up| Ok(up.alerts.rules())))
    }

    fn put_alert_rule(&self, rule: AlertRule) -> Reply<'_, AlertRule> {
        Box::pin(self.with_up(move |up| up.alerts.put_rule(up, rule)))
    }

    fn delete_alert_rule(&self, name: String) -> Reply<'_, ()> {
        Box::pin(self.with_up(move |up| up.alerts.delete_rule(up, &name)))
    }

    fn alert_channels(&self) -> Reply<'_, Vec<AlertChannelStatus>> {
        Box::pin(self.with_up(|up| up.alerts.channels(up)))
    }

    fn put_alert_channel(&self, channel: AlertChannel) -> Reply<'_, AlertChannel> {
        Box::pin(self.with_up(move |up| up.alerts.put_channel(up, channel)))
    }

    fn delete_alert_channel(&self, name: String) -> Reply<'_, ()> {
        Box::pin(self.with_up(move |up| up.alerts.delete_channel(up, &name)))
    }

    fn test_alert_channel(&self, name: String) -> Reply<'_, ()> {
        Box::pin(async move {
            // The node itself is not held while a receiver thinks.
            let (way, message) = {
                let up = self.0.up()?;
                (up.alerts.way(&name)?, up.alerts.test_message())
            };
            way.send(message).await.map_err(|reason| {
                let message = format!("channel `{name}` did not take the message: {reason}");
                ApiError::new(ErrorCode::Failed, message)
            })
        })
    }

    fn alert_silences(&self) -> Reply<'_, Vec<AlertSilence>> {
        Box::pin(self.with_up(|up| Ok(up.alerts.silences())))
    }

    fn silence_alerts(&self, request: AlertSilenceRequest) -> Reply<'_, AlertSilence> {
        Box::pin(self.with_up(move |up| up.alerts.silence(up, request)))
    }

    fn end_alert_silence(&self, id: u64) -> Reply<'_, ()> {
        Box::pin(self.with_up(move |up| up.alerts.end_silence(up, id)))
    }
}
