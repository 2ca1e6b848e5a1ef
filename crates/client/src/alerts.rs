//! What a client asks about alerts.

use api::latest::{
    Alert, AlertChannel, AlertChannelStatus, AlertMetric, AlertRule, AlertSilence,
    AlertSilenceRequest,
};

use crate::transport::{Method, Request};
use crate::{Client, Result};

impl Client {
    /// What is pending, fires or was over lately.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn alerts(&self) -> Result<Vec<Alert>> {
        self.ask(Request::new(Method::GET, "/alerts")).await
    }

    /// What rules can name.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn alert_metrics(&self) -> Result<Vec<AlertMetric>> {
        self.ask(Request::new(Method::GET, "/alerts/metrics")).await
    }

    /// Rules, by name.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn alert_rules(&self) -> Result<Vec<AlertRule>> {
        self.ask(Request::new(Method::GET, "/alerts/rules")).await
    }

    /// Makes a rule, or takes the place of one.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn put_alert_rule(&self, rule: &AlertRule) -> Result<AlertRule> {
        let request = Request::new(Method::PUT, "/alerts/rules").below(&rule.name);
        self.ask(request.json(rule)).await
    }

    /// Deletes a rule.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn delete_alert_rule(&self, name: &str) -> Result<()> {
        self.tell(Request::new(Method::DELETE, "/alerts/rules").below(name))
            .await
    }

    /// Channels, by name, and how they fare.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn alert_channels(&self) -> Result<Vec<AlertChannelStatus>> {
        self.ask(Request::new(Method::GET, "/alerts/channels"))
            .await
    }

    /// Makes a channel, or takes the place of one.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn put_alert_channel(&self, channel: &AlertChannel) -> Result<AlertChannel> {
        let request = Request::new(Method::PUT, "/alerts/channels").below(&channel.name);
        self.ask(request.json(channel)).await
    }

    /// Deletes a channel.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn delete_alert_channel(&self, name: &str) -> Result<()> {
        self.tell(Request::new(Method::DELETE, "/alerts/channels").below(name))
            .await
    }

    /// Sends a message by a channel, and comes back when it was taken.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn test_alert_channel(&self, name: &str) -> Result<()> {
        let request = Request::new(Method::POST, "/alerts/channels").below(name);
        self.tell(request.below("test")).await
    }

    /// The silences that still last.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn alert_silences(&self) -> Result<Vec<AlertSilence>> {
        self.ask(Request::new(Method::GET, "/alerts/silences"))
            .await
    }

    /// Silences something for a while.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn silence_alerts(&self, request: &AlertSilenceRequest) -> Result<AlertSilence> {
        self.ask(Request::new(Method::POST, "/alerts/silences").json(request))
            .await
    }

    /// Ends a silence.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn end_alert_silence(&self, id: u64) -> Result<()> {
        self.tell(Request::new(Method::DELETE, "/alerts/silences").below(&id.to_string()))
            .await
    }
}
