//! Errors of the cache: why it cannot be opened, and why a page could not be loaded.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use nephrite_io::memory::MemoryError;

/// Why a cache or a file of it could not be opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PagerError {
    /// The cache could not hold a single page of the largest size.
    TooSmall {
        /// What was asked for, in bytes.
        cache_bytes: usize,
        /// The least that works, in bytes.
        minimum_bytes: usize,
    },
    /// The cache is larger than its frame numbers reach.
    TooLarge {
        /// What was asked for, in bytes.
        cache_bytes: usize,
        /// The most that works, in bytes.
        maximum_bytes: usize,
    },
    /// A page size that is no multiple of 4096, is zero, or is above the cache's largest.
    PageBytes {
        /// What was asked for, in bytes.
        page_bytes: u32,
        /// The largest page this cache takes, in bytes.
        largest_bytes: u32,
    },
    /// The system has no memory for the frames or for what describes them.
    Memory(MemoryError),
    /// The system has no memory for a table of this many bytes.
    TableMemory {
        /// The size of the table.
        bytes: usize,
    },
    /// More than 2^32 - 1 files are open in one cache.
    TooManyFiles,
}

impl fmt::Display for PagerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { cache_bytes, minimum_bytes } => write!(
                formatter,
                "a page cache of {cache_bytes} bytes holds no page; give it at least \
                 {minimum_bytes} bytes"
            ),
            Self::TooLarge { cache_bytes, maximum_bytes } => write!(
                formatter,
                "a page cache of {cache_bytes} bytes is too large; the most is {maximum_bytes}"
            ),
            Self::PageBytes { page_bytes, largest_bytes } => write!(
                formatter,
                "pages of {page_bytes} bytes do not fit this cache; use a multiple of 4096 up to \
                 {largest_bytes}"
            ),
            Self::Memory(error) => write!(formatter, "no memory for the page cache: {error}"),
            Self::TableMemory { bytes } => write!(
                formatter,
                "no memory for a table of {bytes} bytes; free memory on this machine"
            ),
            Self::TooManyFiles => {
                write!(formatter, "2^32 - 1 files are open in this cache; close some")
            }
        }
    }
}

impl Error for PagerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Memory(error) => Some(error),
            _ => None,
        }
    }
}

impl From<MemoryError> for PagerError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

/// Why a page was not loaded. Cheap to clone: all who waited for the page get the same one.
///
/// [`Error::source`] is what the loader reported; its concrete type can be had with
/// `downcast_ref`. A failed load is not remembered: the next look-up loads again.
#[derive(Debug, Clone)]
pub struct LoadError {
    cause: Cause,
}

#[derive(Debug, Clone)]
enum Cause {
    Failed(Arc<dyn Error + Send + Sync>),
    Abandoned,
    ForeignBuffer,
}

impl LoadError {
    /// A load that failed because of `cause`.
    pub fn new(cause: impl Error + Send + Sync + 'static) -> Self {
        Self { cause: Cause::Failed(Arc::new(cause)) }
    }

    /// The error of a load whose `Load` was dropped.
    pub fn abandoned() -> Self {
        Self { cause: Cause::Abandoned }
    }

    pub(crate) fn foreign_buffer() -> Self {
        Self { cause: Cause::ForeignBuffer }
    }

    /// Whether the loader gave up without a result: nothing is known about the page; look it up
    /// again to load it yourself.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.cause, Cause::Abandoned)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Failed(error) => write!(formatter, "the page could not be loaded: {error}"),
            Cause::Abandoned => {
                write!(formatter, "the load of the page was abandoned; look the page up again")
            }
            Cause::ForeignBuffer => write!(
                formatter,
                "the load was completed with the buffer of another load; its frame is set aside"
            ),
        }
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Failed(error) => Some(&**error),
            Cause::Abandoned | Cause::ForeignBuffer => None,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_cause_survives_cloning() {
        let error = LoadError::new(std::io::Error::other("device gone"));

        let copy = error.clone();

        let cause = copy.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        assert_eq!(cause.unwrap().to_string(), "device gone");
        assert!(!copy.is_abandoned() && LoadError::abandoned().is_abandoned());
        assert!(copy.to_string().contains("device gone"));
    }

    #[test]
    fn messages_name_the_bound_and_the_way_out() {
        let (page_bytes, largest_bytes) = (5000, 65_536);
        let cases = [
            (
                PagerError::TooSmall { cache_bytes: 100, minimum_bytes: 65_536 },
                &["100 bytes", "at least 65536 bytes"][..],
            ),
            (
                PagerError::TooLarge { cache_bytes: 900, maximum_bytes: 800 },
                &["900 bytes", "the most is 800"],
            ),
            (
                PagerError::PageBytes { page_bytes, largest_bytes },
                &["5000 bytes", "a multiple of 4096 up to 65536"],
            ),
            (PagerError::TableMemory { bytes: 77 }, &["77 bytes", "free memory"]),
            (PagerError::TooManyFiles, &["close some"]),
        ];
        for (error, parts) in cases {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in: {text}");
            }
            assert!(error.source().is_none(), "{text}");
        }
    }

    #[test]
    fn a_load_that_nobody_finished_says_what_to_do_and_has_no_cause() {
        let (abandoned, foreign) = (LoadError::abandoned(), LoadError::foreign_buffer());

        assert!(abandoned.to_string().contains("look the page up again"), "{abandoned}");
        assert!(foreign.to_string().contains("the buffer of another load"), "{foreign}");
        assert!(abandoned.source().is_none() && foreign.source().is_none());
        assert!(!foreign.is_abandoned());
    }
}
