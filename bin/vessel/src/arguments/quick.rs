//! Reading the words of a common verb without setting up all others.
//!
//! All verbs with their options take clap 0.7 ms and 400 kB to set up, a third of the time until a command asks the
//! daemon. So of the verbs that scripts call again and again only the one that was written is set up. What that
//! cannot read (a mistake, a call for help, another verb) is read again with all of them, and it is they who tell.

use std::ffi::OsString;

use clap::{Args, Command, FromArgMatches};

use super::{
    Arguments, CreateArguments, DeleteArguments, ExecArguments, Global, ListArguments,
    PauseArguments, SetArguments, ShowArguments, StartArguments, StatsArguments, StopArguments,
    SuspendArguments,
};

/// Adds the options of a verb to its command.
type Add = fn(Command) -> Command;

/// Verbs by the name that they have in [`super::Verb`], and what they take.
const VERBS: [(&str, Add); 13] = [
    ("create", CreateArguments::augment_args),
    ("start", StartArguments::augment_args),
    ("stop", StopArguments::augment_args),
    ("restart", StopArguments::augment_args),
    ("pause", PauseArguments::augment_args),
    ("suspend", SuspendArguments::augment_args),
    ("resume", PauseArguments::augment_args),
    ("delete", DeleteArguments::augment_args),
    ("exec", ExecArguments::augment_args),
    ("set", SetArguments::augment_args),
    ("show", ShowArguments::augment_args),
    ("list", ListArguments::augment_args),
    ("stats", StatsArguments::augment_args),
];

/// Reads the words, the program's name first, if they are those of a common verb and make sense.
pub(crate) fn read(words: &[OsString]) -> Option<Arguments> {
    let written = words.get(verb_index(words)?)?.to_str()?;
    let (name, add) = VERBS.into_iter().find(|(name, _)| *name == written)?;
    let matches = command(name, add).try_get_matches_from(words).ok()?;
    Arguments::from_arg_matches(&matches).ok()
}

fn command(name: &'static str, add: Add) -> Command {
    let verb = add(Command::new(name));
    Global::augment_args(Command::new("vessel")).subcommand(verb)
}

/// Where the verb is: the first word that is no option, nor the value of one.
pub(crate) fn verb_index(words: &[OsString]) -> Option<usize> {
    let mut index = 1;
    loop {
        match words.get(index)?.to_str()? {
            "--root" => index += 2,
            "--" => return None,
            word if word.starts_with('-') => index += 1,
            _ => return Some(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(Into::into).collect()
    }

    #[test]
    fn a_verb_takes_the_same_here_and_there() {
        let mut all = Arguments::command();
        all.build();
        for (name, add) in VERBS {
            let mut one = command(name, add);
            one.build();
            let arguments = |of: &Command| {
                let verb = of.find_subcommand(name).unwrap();
                let arguments = verb.get_arguments().map(|argument| format!("{argument:?}"));
                let mut arguments: Vec<String> = arguments.collect();
                arguments.sort();
                arguments
            };
            // What stands in a help's list is none of its own business.
            assert_eq!(arguments(&one), arguments(&all), "{name}");
        }
    }

    #[test]
    fn what_is_read_quickly_is_what_is_read_slowly() {
        for text in [
            "vessel start web",
            "vessel --root /r -q start --all --timeout 5m --no-wait",
            "vessel --root=/r stop web db --kill --json",
            "vessel restart --label a=b",
            "vessel create web --template t --count 3 --set memory.limit=1G --start",
            "vessel exec web --user u -- sh -c --help",
            "vessel set web memory.limit=1G cpu.limit=",
            "vessel show web --json",
            "vessel list --state running",
            "vessel delete web --force --yes",
            "vessel stats --all",
        ] {
            let slow = Arguments::try_parse_from(words(text)).unwrap();
            let quick = read(&words(text)).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(format!("{quick:?}"), format!("{slow:?}"), "{text}");
        }
    }

    #[test]
    fn what_is_no_common_verb_or_a_mistake_is_left() {
        for text in [
            "vessel",
            "vessel --version",
            "vessel start",
            "vessel start --help",
            "vessel start web --al",
            "vessel ls",
            "vessel template list",
            "vessel -- start web",
            "vessel --root",
        ] {
            assert!(read(&words(text)).is_none(), "{text}");
        }
    }
}
