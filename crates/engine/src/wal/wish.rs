//! Wish: what the flush task asks of the log's space while it makes room on a full disk.
//!
//! Guarantees: the committer answers between two frames, also when it ends. Only the flush task
//! asks, and waits for the answer before it asks again, so there is one wish at a time.
//! Lock rule: the mutex is a leaf.

use std::sync::{Arc, Mutex, PoisonError};

use super::Wal;
use crate::{error::Error, jobs::Reply};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpaceWish {
    /// Remove free files, all but one that deletes may need. Fails when there is none.
    GiveBack,
    /// Have room for deletes. Fails when no segment can be made for them.
    Ready,
}

/// A wish on its way to the committer.
#[derive(Debug, Default)]
pub(super) struct WishSlot(Mutex<Option<Asked>>);

pub(super) type Asked = (SpaceWish, Arc<Reply<()>>);

impl WishSlot {
    pub(super) fn is_asked(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn take(&self) -> Option<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, asked: Asked) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(asked);
        assert!(before.is_none(), "the flush task asks one thing at a time");
    }

    /// Nobody carries out wishes any more.
    pub(super) fn end(&self) {
        if let Some((_, reply)) = self.take() {
            reply.set(Err(Error::Closed));
        }
    }
}

impl Wal {
    /// Asks for something of the log's space. For the flush task only.
    pub(crate) async fn ask_space(&self, wish: SpaceWish) -> Result<(), Error> {
        let reply = Reply::new();
        self.wish.put((wish, Arc::clone(&reply)));
        // Acquire pairs with the end of the committer, which looks for a wish after it has ended.
        if self.ended.get().is_some() {
            self.wish.end();
        }
        self.work.notify(1);
        reply.wait().await
    }

    /// Log space is for deletes only, and no file is made for the log by itself: the disk is full.
    pub(crate) fn keep_for_deletes(&self, error: Error) {
        self.staging().deletes_only = Some(error);
        self.room.notify(usize::MAX);
    }

    /// Everybody may have log space again; what was said of a full disk is forgotten.
    pub(crate) fn open_to_all(&self) {
        let mut staging = self.staging();
        if staging.deletes_only.take().is_none() {
            return;
        }
        staging.no_space = None;
        drop(staging);
        self.work.notify(1);
        self.room.notify(usize::MAX);
    }

    /// Whether vectors are refused so that deletes find room.
    pub(crate) fn is_kept_for_deletes(&self) -> bool {
        self.staging().deletes_only.is_some()
    }
}
