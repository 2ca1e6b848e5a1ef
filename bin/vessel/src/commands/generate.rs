//! `vessel completion` and `vessel man`.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Context;
use crate::arguments::Arguments;
use crate::output::{Outcome, failed};

pub(crate) fn completion(context: &Context, shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "vessel", &mut script);
    context.out.raw(&script)
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
