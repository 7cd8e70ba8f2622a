//! The programs of this package, run as children.

mod hosts;
mod programs;
