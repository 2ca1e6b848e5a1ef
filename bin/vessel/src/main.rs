//! Entry point of `vessel`: the command line.
//!
//! It turns words into requests of the API and answers into tables, JSON and exit codes. It decides
//! nothing about VEs: what may be done is the daemon's to say.
#![forbid(unsafe_code)]

mod arguments;
mod bulk;
mod commands;
mod follow;
mod human;
mod output;
mod plot;
mod table;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use client::Client;

use crate::arguments::{Arguments, Verb};
use crate::output::{Outcome, Output, Stop, failed};

/// What every verb needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) root: PathBuf,
    pub(crate) out: Output,
}

fn main() -> ExitCode {
    let words = without_noun(std::env::args_os().collect());
    let read = arguments::read_quickly(&words).map_or_else(|| Arguments::try_parse_from(words), Ok);
    let arguments = match read {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to standard output, mistakes to standard error; either may be closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let out = Output::new(arguments.global.json, arguments.global.quiet);
    match run(arguments, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Said(code)) => ExitCode::from(code),
        Err(Stop::Failed(error)) => {
            out.error(&error);
            ExitCode::from(error.code.exit_code())
        }
    }
}

fn run(arguments: Arguments, out: Output) -> Outcome {
    let root = std::path::absolute(&arguments.global.root).map_err(|error| {
        failed(format!(
            "root folder `{}`: {error}",
            arguments.global.root.display()
        ))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("the command line cannot be run: {error}")))?;
    let context = Context {
        client: Client::of_root(&root),
        root,
        out,
    };
    let outcome = runtime.block_on(dispatch(&context, arguments.verb));
    // A thread may still wait for input that nobody will type.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(context: &Context, verb: Verb) -> Outcome {
    use commands as c;
    match verb {
        Verb::Init(a) => c::init::run(context, a).await,
        Verb::Template(verb) => c::template::run(context, verb).await,
        Verb::Create(a) => c::create::run(context, a).await,
        Verb::Start(a) => c::life::start(context, a).await,
        Verb::Stop(a) => c::life::stop(context, a).await,
        Verb::Restart(a) => c::life::restart(context, a).await,
        Verb::Sample(verb) => c::sample::run(context, verb).await,
        Verb::Application(verb) => c::life::application(context, verb).await,
        Verb::Pause(a) => c::life::pause(context, a).await,
        Verb::Suspend(a) => c::life::suspend(context, a).await,
        Verb::Resume(a) => c::life::resume(context, a).await,
        Verb::Delete(a) => c::delete::run(context, a).await,
        Verb::Exec(a) => c::session::exec(context, a).await,
        Verb::Enter(a) => c::session::enter(context, a).await,
        Verb::Console(a) => c::session::console(context, a).await,
        Verb::Logs(a) => c::logs::run(context, a).await,
        Verb::Cp(a) => c::copy::run(context, a).await,
        Verb::Set(a) => c::set::run(context, a).await,
        Verb::Show(a) => c::show::run(context, a).await,
        Verb::List(a) => c::list::run(context, a).await,
        Verb::Top(a) => c::top::run(context, a).await,
        Verb::Stats(a) => c::stats::run(context, a).await,
        Verb::Inventory(a) => c::inventory::run(context, a).await,
        Verb::Diff(a) => c::contents::difference(context, a).await,
        Verb::Compact(a) => c::contents::compact(context, a).await,
        Verb::Update(a) => c::update::run(context, a).await,
        Verb::Isolation(a) => c::isolation::run(context, a).await,
        Verb::Alert(verb) => c::alert::run(context, verb).await,
        Verb::Operation(verb) => c::operation::run(context, verb).await,
        Verb::Events(a) => c::events::run(context, a).await,
        Verb::Pool(verb) => c::node::pool(context, &verb).await,
        Verb::Node(verb) => c::node::run(context, verb).await,
        Verb::Doctor(_) => c::doctor::run(context).await,
        Verb::Completion { shell } => c::generate::completion(context, shell),
        Verb::Man { folder } => c::generate::manual(&folder),
    }
}

/// Leaves away the noun of `vessel ct list` and `vessel ve list`, which some are used to.
fn without_noun(mut words: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut index = 1;
    while let Some(word) = words.get(index).and_then(|word| word.to_str()) {
        match word {
            "--root" => index += 2,
            "ct" | "ve" if words.len() > index + 1 => {
                words.remove(index);
                break;
            }
            word if word.starts_with('-') && word != "--" => index += 1,
            _ => break,
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_contradict_nothing() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example() {
        fn check(command: &clap::Command) {
            for verb in command.get_subcommands() {
                let help = verb
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let is_group = verb.get_subcommands().next().is_some();
                assert!(is_group || help.contains("Example"), "{}", verb.get_name());
                assert!(verb.get_about().is_some(), "{}", verb.get_name());
                check(verb);
            }
        }
        check(&Arguments::command());
    }

    #[test]
    fn a_noun_before_the_verb_is_ignored() {
        let words = |text: &str| text.split(' ').map(Into::into).collect::<Vec<_>>();
        assert_eq!(without_noun(words("vessel ct list")), words("vessel list"));
        assert_eq!(
            without_noun(words("vessel --root r ve show ve")),
            words("vessel --root r show ve")
        );
        assert_eq!(
            without_noun(words("vessel show ct")),
            words("vessel show ct")
        );
    }
}
