//! One file a verb.

pub(crate) mod alert;
pub(crate) mod contents;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod generate;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod inventory;
pub(crate) mod isolation;
pub(crate) mod life;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod node;
pub(crate) mod operation;
mod pack;
pub(crate) mod sample;
pub(crate) mod session;
pub(crate) mod set;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod template;
pub(crate) mod top;
mod unpack;
pub(crate) mod update;
mod versions;

use std::collections::BTreeMap;

use api::latest::ApiError;

use crate::output::usage;

/// Reads `KEY=VALUE` labels.
fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, ApiError> {
    let mut labels = BTreeMap::new();
    for text in texts {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(usage(format!("label `{text}` is not KEY=VALUE"))
                .with_hint("write it as --label team=shop"));
        };
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(usage(format!("label `{key}` is given twice")));
        }
    }
    Ok(labels)
}
