//! Integration tests of the format, in one binary.
//!
//! On a big-endian machine, emulated:
//! `cargo +nightly miri test -p nephrite-format --target s390x-unknown-linux-gnu --test it --
//! round_trip agree`.

mod corpus;
mod frame;
mod header;
mod id_run;
mod manifest;
mod second_reader;
mod segment;
mod support;
mod wal;
