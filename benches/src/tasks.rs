//! Runs many async tasks until all are done: on a few threads, each with a share of them, or as one
//! future on whatever thread polls it.

use std::{future::Future, pin::Pin};

use async_executor::Executor;
use futures_util::stream::{FuturesUnordered, StreamExt};
use nephrite_io::block_on;

use crate::Outcome;

/// Threads that poll: benchmarks are not to be limited by one.
pub(crate) const THREADS: usize = 2;

/// What the tasks returned, in no particular order, or the first failure of a thread.
pub(crate) fn run<T: Send>(tasks: Vec<impl Future<Output = Outcome<T>> + Send>) -> Outcome<Vec<T>> {
    run_with(tasks, |share| block_on(share))
}

/// As [`run`]; how a thread carries out its share is up to `drive`.
pub(crate) fn run_with<T, F>(
    tasks: Vec<F>,
    drive: impl Fn(Share<'_, T>) -> Outcome<Vec<T>> + Sync,
) -> Outcome<Vec<T>>
where
    T: Send,
    F: Future<Output = Outcome<T>> + Send,
{
    let mut shares: [Vec<F>; THREADS] = Default::default();
    for (number, task) in tasks.into_iter().enumerate() {
        shares[number % THREADS].push(task);
    }
    let results = std::thread::scope(|scope| {
        let threads = shares.map(|share| scope.spawn(|| drive(Box::pin(run_share(share)))));
        threads.map(|thread| thread.join().map_err(|_| "a benchmark thread panicked"))
    });
    let mut outputs = Vec::new();
    for result in results {
        outputs.extend(result??);
    }
    Ok(outputs)
}

/// What one thread has to do.
type Share<'a, T> = Pin<Box<dyn Future<Output = Outcome<Vec<T>>> + 'a>>;

async fn run_share<T: Send>(
    tasks: Vec<impl Future<Output = Outcome<T>> + Send>,
) -> Outcome<Vec<T>> {
    let executor = Executor::new();
    let running: Vec<_> = tasks.into_iter().map(|task| executor.spawn(task)).collect();
    let all = async {
        let mut outputs = Vec::with_capacity(running.len());
        for task in running {
            outputs.push(task.await?);
        }
        Ok(outputs)
    };
    executor.run(all).await
}

/// All tasks as one future, for who polls on one thread.
pub(crate) async fn together<T>(tasks: Vec<impl Future<Output = Outcome<T>>>) -> Outcome<Vec<T>> {
    let mut outputs = Vec::with_capacity(tasks.len());
    let mut running: FuturesUnordered<_> = tasks.into_iter().collect();
    while let Some(output) = running.next().await {
        outputs.push(output?);
    }
    Ok(outputs)
}
