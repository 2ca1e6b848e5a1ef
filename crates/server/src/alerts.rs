//! What a node must be able to do about alerts, for the door to serve it.

use api::latest::{
    Alert, AlertChannel, AlertChannelStatus, AlertMetric, AlertRule, AlertSilence,
    AlertSilenceRequest,
};

use crate::node::Reply;

/// The part of a [`crate::Node`] that tells people.
pub trait Alerts: Send + Sync + 'static {
    /// `GET /v1/alerts`: what is pending, fires or is over for less than a day, the worst first.
    fn alerts(&self) -> Reply<'_, Vec<Alert>>;
    /// `GET /v1/alerts/metrics`: what rules can name.
    fn alert_metrics(&self) -> Reply<'_, Vec<AlertMetric>>;
    /// `GET /v1/alerts/rules`: by name.
    fn alert_rules(&self) -> Reply<'_, Vec<AlertRule>>;
    /// `PUT /v1/alerts/rules/NAME`: makes a rule, or takes the place of one.
    fn put_alert_rule(&self, rule: AlertRule) -> Reply<'_, AlertRule>;
    /// `DELETE /v1/alerts/rules/NAME`: what it fires is over.
    fn delete_alert_rule(&self, name: String) -> Reply<'_, ()>;
    /// `GET /v1/alerts/channels`: by name.
    fn alert_channels(&self) -> Reply<'_, Vec<AlertChannelStatus>>;
    /// `PUT /v1/alerts/channels/NAME`: makes a channel, or takes the place of one.
    fn put_alert_channel(&self, channel: AlertChannel) -> Reply<'_, AlertChannel>;
    /// `DELETE /v1/alerts/channels/NAME`: what waits for it is dropped. `conflict` while a rule names it.
    fn delete_alert_channel(&self, name: String) -> Reply<'_, ()>;
    /// `POST /v1/alerts/channels/NAME/test`: sends a message now; the answer comes when it was taken.
    fn test_alert_channel(&self, name: String) -> Reply<'_, ()>;
    /// `GET /v1/alerts/silences`: those that still last.
    fn alert_silences(&self) -> Reply<'_, Vec<AlertSilence>>;
    /// `POST /v1/alerts/silences`.
    fn silence_alerts(&self, request: AlertSilenceRequest) -> Reply<'_, AlertSilence>;
    /// `DELETE /v1/alerts/silences/ID`.
    fn end_alert_silence(&self, id: u64) -> Reply<'_, ()>;
}
