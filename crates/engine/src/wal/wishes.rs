//! Wishes: what those who make room on a full disk ask of the log's space.
//!
//! Guarantees: one wish at a time, answered by the committer between two frames; an answer to
//! somebody who is gone is not taken for that of the next. While somebody keeps the log from
//! growing no file is made for it, only free ones are used.
//! Lock rule: the mutex is a leaf.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use async_lock::Mutex as AsyncMutex;
use event_listener::Event;

use super::Wal;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpaceWish {
    /// Remove free files but for one that deletes may need. Answer: whether there were any.
    GiveBack,
    /// Have a segment ready, whatever it takes. Answer: whether there is one.
    Ready,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct SpaceWishes {
    /// Held by who waits for an answer.
    alone: AsyncMutex<()>,
    state: Mutex<State>,
    answered: Event,
    keepers: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// Of the last wish.
    number: u64,
    asked: Option<SpaceWish>,
    answer: Option<bool>,
}

impl SpaceWishes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.state().asked.is_some()
    }

    pub(super) fn take(&self) -> Option<(u64, SpaceWish)> {
        let mut state = self.state();
        let wish = state.asked.take()?;
        Some((state.number, wish))
    }

    pub(super) fn answer(&self, number: u64, answer: bool) {
        let mut state = self.state();
        if state.number == number {
            state.answer = Some(answer);
        }
        drop(state);
        self.answered.notify(usize::MAX);
    }

    /// Nobody answers any more.
    pub(super) fn end(&self) {
        self.answered.notify(usize::MAX);
    }

    /// Whether new files may be made.
    pub(super) fn let_grow(&self) -> bool {
        self.keepers.load(Ordering::Acquire) == 0 // pairs with `keep_from_growing`
    }
}

impl Wal {
    /// Asks for something of the log's space; `false` also when the log has ended. Cancel safe.
    pub(crate) async fn ask_space(&self, wish: SpaceWish) -> bool {
        let _alone = self.wishes.alone.lock().await;
        {
            let mut state = self.wishes.state();
            *state = State { number: state.number + 1, asked: Some(wish), answer: None };
        }
        self.work.notify(1);
        loop {
            let listener = self.wishes.answered.listen();
            if let Some(answer) = self.wishes.state().answer {
                return answer;
            }
            if self.ended.get().is_some() {
                return false;
            }
            listener.await;
        }
    }

    /// No file is made for the log until [`Self::let_grow`] was called as often.
    pub(crate) fn keep_from_growing(&self) {
        self.wishes.keepers.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn let_grow(&self) {
        self.wishes.keepers.fetch_sub(1, Ordering::AcqRel);
        self.work.notify(1);
    }
}
