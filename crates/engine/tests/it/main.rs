//! Integration tests of the engine through its public API; one binary, a module per subject.

mod basics;
mod recovery;
mod support;
