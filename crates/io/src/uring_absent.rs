//! Rings where the platform has none: a type without values, so that the disk needs no conditional
//! code. See `uring` for the real one.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::file::FileHandle;
use crate::memory::Arena;
use crate::options::DiskOptions;
use crate::positional::Positional;
use crate::request::IoBuffer;
use crate::stats::Counters;

pub(crate) struct Rings {
    never: Infallible,
}

impl Rings {
    /// Always refuses, with the reason.
    pub(crate) fn start(
        _options: &DiskOptions,
        _directory: &Path,
        _counters: &Arc<Counters>,
        _positional: &Arc<Positional>,
    ) -> Result<Self, String> {
        Err("io_uring exists on Linux only".to_owned())
    }

    pub(crate) fn submit(&self, _batch: Batch) {
        match self.never {}
    }

    pub(crate) fn register(&self, _arena: &Arc<Arena>) {
        match self.never {}
    }

    pub(crate) fn registered_bytes(&self) -> u64 {
        match self.never {}
    }

    pub(crate) fn registration_refusal(&self) -> Option<String> {
        match self.never {}
    }

    pub(crate) fn close(&self) -> impl Future<Output = usize> + Send + 'static {
        match self.never {}
        #[expect(unreachable_code, reason = "names the future's type")]
        std::future::ready(0)
    }

    pub(crate) fn end_within(&self, _timeout: Duration) {
        match self.never {}
    }

    pub(crate) fn degraded(&self) -> Option<String> {
        match self.never {}
    }

    pub(crate) fn read_at_once(
        &self,
        _file: &FileHandle,
        _offset: u64,
        _buffer: &mut IoBuffer,
    ) -> bool {
        match self.never {}
    }

    pub(crate) fn caller_access(&self) -> Option<CallerAccess> {
        match self.never {}
    }

    pub(crate) fn caller_refusal(&self) -> Option<String> {
        match self.never {}
    }

    pub(crate) fn flags(&self) -> Vec<String> {
        match self.never {}
    }

    pub(crate) fn polls_completions(&self) -> bool {
        match self.never {}
    }

    pub(crate) fn completion_refusal(&self) -> Option<String> {
        match self.never {}
    }

    pub(crate) fn polling_refusal(&self) -> Option<String> {
        match self.never {}
    }

    pub(crate) fn entries(&self) -> u32 {
        match self.never {}
    }

    pub(crate) fn threads(&self) -> u32 {
        match self.never {}
    }
}

/// Nobody has one.
#[derive(Clone)]
pub(crate) struct CallerAccess {
    never: Infallible,
}

impl CallerAccess {
    pub(crate) fn run<T>(&self, _future: impl Future<Output = T>) -> T {
        match self.never {}
    }

    pub(crate) fn host(&self) -> Result<Hosted, String> {
        match self.never {}
    }
}

/// Nobody has one.
pub(crate) struct Hosted {
    never: Infallible,
}

impl Hosted {
    pub(crate) fn run<T>(&self, _future: impl Future<Output = T>) -> T {
        match self.never {}
    }

    pub(crate) fn during<T>(&self, _work: impl FnOnce() -> T) -> T {
        match self.never {}
    }

    pub(crate) fn turn(&self, _limit: Option<Duration>, _may_sleep: bool) -> usize {
        match self.never {}
    }

    pub(crate) fn load(&self) -> usize {
        match self.never {}
    }
}
