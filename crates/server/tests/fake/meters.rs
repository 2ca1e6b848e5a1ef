//! What the fake node tells of what its VEs used.

use api::latest::{Account, ErrorCode, History, Timestamp};
use server::{HistoryQuery, Meters, Reply, VeKey};

use super::Fake;
use super::node::refuse;

impl Meters for Fake {
    fn history(&self, ve: VeKey, query: HistoryQuery) -> Reply<'_, History> {
        Box::pin(async move {
            let ve = self.find(&ve)?;
            self.called(format!("{query:?}"));
            if let Some(metric) = query.metrics.iter().find(|metric| *metric != "cpu_cores") {
                let message = format!("there is no metric `{metric}`");
                return refuse(ErrorCode::Usage, message, "there is `cpu_cores`");
            }
            Ok(History {
                id: ve.id,
                name: ve.name,
                step_seconds: 10,
                since: Timestamp::from_milliseconds(0),
                until: Timestamp::from_milliseconds(query.since_seconds * 1_000),
                series: Vec::new(),
            })
        })
    }

    fn accounts(&self, month: Option<String>) -> Reply<'_, Vec<Account>> {
        let account = Account {
            month: month.unwrap_or_default(),
            ..Account::default()
        };
        Box::pin(async move { Ok(vec![account]) })
    }

    fn metrics(&self) -> Reply<'_, String> {
        Box::pin(async { Ok("fake 1\n".to_owned()) })
    }
}
