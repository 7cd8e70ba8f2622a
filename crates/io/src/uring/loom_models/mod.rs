//! Models of the ring threads: see `crate::loom_models`.

mod driver;
mod intake;
mod latch;
mod notify;
