//! Integration tests of the format, in one binary.

mod corpus;
mod frame;
mod header;
mod id_run;
mod manifest;
mod second_reader;
mod segment;
mod support;
mod wal;
