//! Models of the ring threads: see `crate::loom_models`.

mod driver;
mod gate;
mod intake;
mod latch;
mod notify;
