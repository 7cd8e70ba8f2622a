//! `config`: the values in force, and where each comes from.

use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::configuration::OPTIONS;
use crate::context::Context;
use crate::failure::Failure;

/// What `--help` says after the options.
const HELP: &str = r#"Later ones win: the profile, a TOML file (--config FILE or
NEPHRITE_CONFIG), variables (NEPHRITE_ and the name in capitals, such as NEPHRITE_MEMORY_LIMIT),
the command line (--memory, --backend, --set NAME=VALUE). A file has one option a line, such as:
memory_limit = "1GiB"

JSON: one member an option: {"memory_limit": {"value", "from", "help"}, ...}"#;

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ConfigArguments {}

#[derive(Serialize)]
struct Value {
    value: String,
    from: String,
    help: &'static str,
}

pub(crate) fn run(_: &ConfigArguments, context: &mut Context) -> Result<(), Failure> {
    let settings = context.config().settings();
    let values: BTreeMap<&str, Value> = OPTIONS
        .iter()
        .zip(&context.configuration.sources)
        .map(|(option, (_, source))| {
            let (value, from) = (option.show(&settings), source.to_string());
            (option.name, Value { value, from, help: option.help })
        })
        .collect();
    if context.output.json() {
        return context.output.document(&values);
    }
    for option in OPTIONS {
        let Value { value, from, help } = &values[option.name];
        context.output.line(format_args!("{:<20} {value:<12} # {from}: {help}", option.name))?;
    }
    Ok(())
}
