//! `tidy`: checks of text that no compiler makes. Each rule is a function from text to findings.

mod code;
mod documents;
mod words;

use anyhow::Result;

use crate::workspace::Workspace;

/// Applies every rule to every file of the tree.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let files = workspace.text_files()?;
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut findings = Vec::new();
    for file in &files {
        let (path, text) = (file.path.as_str(), file.text.as_str());
        words::check(path, text, &mut findings);
        words::check_places(path, text, workspace.root(), &mut findings);
        if has_ending(path, "rs") {
            code::check(path, text, &mut findings);
        }
        if has_ending(path, "md") {
            documents::check(path, text, &paths, &mut findings);
        }
    }
    documents::check_map(&files, &mut findings);
    code::check_exceptions(&files, &mut findings);
    Ok(findings)
}

fn has_ending(path: &str, ending: &str) -> bool {
    path.rsplit_once('.')
        .is_some_and(|(_, found)| found == ending)
}
