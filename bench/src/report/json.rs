//! The results as JSON, in `target/bench/results.json` and, for whoever compares runs, beside it
//! under the time of the run. `bench/README.md` describes the fields.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Results;

/// Where results are kept, and what is built once: `target/bench`, found from the program's own
/// place in `target/release`.
pub(crate) fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("which program is this?")?;
    let target = program
        .ancestors()
        .nth(2)
        .context("no folder for results")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Writes both files; returns the first.
pub(super) fn save(results: &Results) -> Result<PathBuf> {
    let folder = folder()?;
    let text = serde_json::to_string_pretty(results).context("the results have no JSON")?;
    let file = folder.join("results.json");
    let dated = folder.join(format!("results-{}.json", results.machine.time));
    for path in [&dated, &file] {
        fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(file)
}
