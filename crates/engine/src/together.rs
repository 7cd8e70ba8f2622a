//! Waiting for several futures at once on one task.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

/// Waits for whichever comes first.
pub(crate) async fn either(first: impl Future<Output = ()>, second: impl Future<Output = ()>) {
    second_came(first, second).await;
}

/// As [`either`]; `true` when it was the second.
pub(crate) async fn second_came(
    first: impl Future<Output = ()>,
    second: impl Future<Output = ()>,
) -> bool {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if first.as_mut().poll(context).is_ready() {
            return Poll::Ready(false);
        }
        second.as_mut().poll(context).map(|()| true)
    })
    .await
}

/// A future that goes on while its owner waits for others.
pub(crate) struct Beside<'a, T>(State<'a, T>);

enum State<'a, T> {
    Running(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
    Done(T),
}

impl<'a, T> Beside<'a, T> {
    /// Begins with the first wait.
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self(State::Running(Box::pin(future)))
    }

    /// Waits for another future and lets this one get on meanwhile.
    pub(crate) async fn while_waiting_for<F: Future>(&mut self, other: F) -> F::Output {
        let mut other = pin!(other);
        poll_fn(|context| {
            if let State::Running(future) = &mut self.0
                && let Poll::Ready(outcome) = future.as_mut().poll(context)
            {
                self.0 = State::Done(outcome);
            }
            other.as_mut().poll(context)
        })
        .await
    }

    /// Waits for it.
    pub(crate) async fn finish(self) -> T {
        match self.0 {
            State::Running(future) => future.await,
            State::Done(outcome) => outcome,
        }
    }
}

/// Waits for all; their outcomes in the same order. Every wake-up polls all that are not done: for
/// a few dozen futures that do I/O.
pub(crate) async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<Option<Pin<Box<F>>>> =
        futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut outcomes: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (slot, outcome) in pending.iter_mut().zip(&mut outcomes) {
            if let Some(future) = slot
                && let Poll::Ready(done) = future.as_mut().poll(context)
            {
                *outcome = Some(done);
                *slot = None;
            }
        }
        if pending.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcomes.into_iter().map(|outcome| outcome.expect("every future is done")).collect()
}
