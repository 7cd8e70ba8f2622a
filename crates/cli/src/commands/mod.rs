//! The commands, one file each: its arguments and what it does.

pub(crate) mod bench;
pub(crate) mod cache_replay;
pub(crate) mod compact;
pub(crate) mod config;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod drop;
pub(crate) mod export;
pub(crate) mod flush;
pub(crate) mod get;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod io_info;
pub(crate) mod list;
pub(crate) mod put;
pub(crate) mod repair;
pub(crate) mod simulate;
mod simulate_all;
pub(crate) mod stats;
pub(crate) mod verify;
