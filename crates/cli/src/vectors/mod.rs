//! Vector files of other programs: NumPy `.npy`, `.fvecs`, `.fbin`, and the id files beside them.
//!
//! Readers and writers stream: memory is bounded by the block asked for, whatever the file size.
//! Bytes of a file are input: they lead to an error that names file and offset, never to a panic,
//! and never to an allocation that the size of the file does not justify.

mod error;
mod fbin;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod fvecs;
mod id_file;
mod layout;
mod npy;
mod reader;
mod replace;
mod writer;

pub(crate) use error::VectorFileError;
pub(crate) use id_file::{IdBlock, IdFileReader, IdFileWriter, parse_number};
pub(crate) use reader::VectorReader;
pub(crate) use writer::VectorWriter;
