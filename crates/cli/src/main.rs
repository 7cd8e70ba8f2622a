//! `nephrite`: the command line of the vector store.
//!
//! One file per command under `commands`; `arguments` says what can be typed, `failure` what the
//! exit codes mean, `records` and `vectors` how data looks outside the store. The engine is used
//! through its blocking API. Every command closes the store it opened before it reports success.

#![forbid(unsafe_code)]

mod arguments;
mod clock;
mod commands;
mod configuration;
mod context;
mod embeddings;
mod failure;
mod figures;
mod output;
mod progress;
mod records;
mod shutdown;
mod size;
mod vectors;

use std::process::ExitCode;

fn main() -> ExitCode {
    arguments::run(std::env::args_os())
}
