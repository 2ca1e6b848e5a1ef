//! `vessel completion` and `vessel man`.
//!
//! Words and options are generated from the arguments; what only a node knows (names of its VEs,
//! templates and operations) is asked from it while somebody types, by a few lines added for each shell.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Context;
use crate::arguments::Arguments;
use crate::output::{Outcome, failed};

/// Values in the generated zsh script, by the help of their arguments, and what completes them instead of files.
const ZSH_VALUES: [(&str, &str); 6] = [
    ("Names or numbers of VEs", "_vessel_ves"),
    ("Name or number of the VE", "_vessel_ves"),
    ("Only these VEs, by name or number", "_vessel_ves"),
    ("Name of the template", "_vessel_templates"),
    ("Names of templates", "_vessel_templates"),
    ("[Template to make it from]:TEMPLATE", "_vessel_templates"),
];

pub(crate) fn completion(context: &Context, shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "vessel", &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        Shell::Bash => format!("{script}{}", include_str!("completion/names.bash")),
        Shell::Fish => format!("{script}{}", include_str!("completion/names.fish")),
        Shell::Zsh => zsh(&script),
        _ => script.into_owned(),
    };
    context.out.raw(script.as_bytes())
}

/// Puts the functions that ask before the first one, and names them where a value is one of theirs.
fn zsh(script: &str) -> String {
    let named = ZSH_VALUES
        .iter()
        .fold(script.to_owned(), |script, (help, function)| {
            script.replace(&format!("{help}:_default"), &format!("{help}:{function}"))
        });
    let asking = include_str!("completion/names.zsh");
    named.replacen("_vessel() {", &format!("{asking}\n_vessel() {{"), 1)
}

pub(crate) fn manual(folder: &Path) -> Outcome {
    clap_mangen::generate_to(Arguments::command(), folder).map_err(|error| {
        failed(format!(
            "manual pages cannot be written into `{}`: {error}",
            folder.display()
        ))
    })?;
    Ok(())
}
