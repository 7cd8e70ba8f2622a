//! Compaction: segments become fewer and lose their garbage.
//!
//! | file | concept |
//! |---|---|
//! | `choice` | which segments are worth it |
//! | `due` | what the task does next |
//! | `room` | what it does on a full disk |
//! | `refused` | what failed and is not tried again at once |
//! | `merge` | the ids of several segments in one order |
//! | `hidden` | rows that only memtables hide, on a full disk |
//! | `rewrite` | the output: ids, tail |
//! | `rows` | the output's rows, read ahead and written behind |
//! | `pace` | the bandwidth budget |
//!
//! Rows are copied in the order in which they lie, so reads and writes are sequential. Ids that a
//! newer segment has are left out, so that one segment can be rewritten by itself: flushes note
//! which rows they hide (`segment/live_rows`); where that is not known the ids of newer segments
//! are merged with those of the inputs. Tombstones go when nothing older is left for them to hide.
//!
//! Safe under a kill at any point: the output is an orphan until the manifest swaps it in with one
//! edit, and the inputs are removed only after that, when their last reader is gone. Readers and
//! snapshots go on reading the inputs.
//! Memory: see `rewrite`; nothing grows with the number of ids but a bit per row.

mod choice;
mod due;
mod hidden;
mod merge;
mod pace;
mod refused;
mod rewrite;
mod room;
mod rows;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use event_listener::Event;
use nephrite_format::manifest::{FlushEdit, ManifestEdit};

pub(crate) use self::choice::garbage_bytes;
use self::{
    choice::{Choice, Reason},
    due::Cold,
    hidden::Hidden,
    pace::Pace,
    refused::Refused,
    rewrite::Plan,
};
use tracing::{Instrument, info_span};

use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    flush::Cause,
    jobs::Reply,
    planted::planted,
    segment::{Segment, row_set::RowSet},
    together::either,
    version::Version,
};

/// Share of the memory limit for pieces of id runs.
const MERGE_SHARE: u64 = 32;
/// Most bytes for them.
const MERGE_BYTES_MAX: u64 = 4 << 20;
/// Databases that callers want compacted and that wait, at the most.
const ASKED_MAX: usize = 256;

/// What the compaction task has done and is asked to do.
#[derive(Debug, Default)]
pub(crate) struct Compactions {
    asked: Mutex<Asked>,
    taken: Event,
    /// A compaction ended, or the task that does them.
    progress: Event,
    /// The task is at work.
    works: AtomicBool,
    /// Its last attempt failed: waiting for it makes no sense, whatever it tries next.
    fails: AtomicBool,
    /// It does what a caller has asked for, which may take long.
    serves: AtomicBool,
    pub(crate) refused: Refused,
    pub(crate) cold: Cold,
    /// Flushes that wait for it.
    stalled: AtomicUsize,
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
}

#[derive(Debug, Default)]
struct Asked {
    waiting: VecDeque<Wish>,
    closed: bool,
}

/// What a caller wants of the task.
#[derive(Debug)]
struct Wish {
    database: Arc<DatabaseCore>,
    goal: Goal,
    reply: Arc<Reply<()>>,
}

/// See [`Wish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Everything in one segment without garbage.
    Merge,
    /// Room on a full disk.
    Room,
}

impl Compactions {
    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request; one that waits for the same database is shared. None: no room.
    fn ask(
        &self,
        database: &Arc<DatabaseCore>,
        goal: Goal,
    ) -> Result<Option<Arc<Reply<()>>>, Error> {
        let mut asked = self.asked();
        if asked.closed {
            return Err(Error::Closed);
        }
        let is_same = |wish: &&Wish| Arc::ptr_eq(&wish.database, database) && wish.goal == goal;
        if let Some(same) = asked.waiting.iter().find(is_same) {
            return Ok(Some(Arc::clone(&same.reply)));
        }
        if ASKED_MAX <= asked.waiting.len() {
            return Ok(None);
        }
        let reply = Reply::new();
        let wish = Wish { database: Arc::clone(database), goal, reply: Arc::clone(&reply) };
        asked.waiting.push_back(wish);
        Ok(Some(reply))
    }

    fn next_asked(&self) -> Option<Wish> {
        let next = self.asked().waiting.pop_front();
        self.taken.notify(1);
        next
    }

    /// The task looks for work.
    pub(crate) fn begin(&self) {
        self.works.store(true, Ordering::Release);
    }

    /// It found none, or none that it can do: nobody waits for it.
    pub(crate) fn rest(&self) {
        self.works.store(false, Ordering::Release);
        self.progress.notify(usize::MAX);
    }

    /// Whether the task is at work.
    pub(crate) fn works(&self) -> bool {
        self.works.load(Ordering::Acquire) // pairs with the stores of the task
    }

    /// What a caller has asked for begins, or ends.
    fn set_serves(&self, serves: bool) {
        self.serves.store(serves, Ordering::Release);
        self.progress.notify(usize::MAX);
    }

    fn note(&self, succeeded: bool) {
        let counter = if succeeded { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed); // a counter
        self.fails.store(!succeeded, Ordering::Release);
        self.progress.notify(usize::MAX);
    }

    /// Whether somebody who waits for the task will see it get on.
    fn gets_on(&self) -> bool {
        // Acquire pairs with the stores above, which come before their notice.
        self.works.load(Ordering::Acquire) && !self.fails.load(Ordering::Acquire)
    }

    /// Whether it is at what is due, so that garbage becomes less soon.
    fn cleans(&self) -> bool {
        !self.serves.load(Ordering::Acquire) // pairs with `set_serves`
    }

    /// Whether a caller or a flush waits for the task: no time for a budget.
    fn is_waited_for(&self) -> bool {
        // Acquire pairs with the Release in `Stalled`, which comes before its notice.
        self.stalled.load(Ordering::Acquire) != 0 || !self.asked().waiting.is_empty()
    }

    /// When something that failed may be tried again.
    pub(crate) fn next_try(&self, now: Duration) -> Option<Duration> {
        self.refused.next_end(now)
    }

    /// No more requests; those that wait are told that the store is closed.
    pub(crate) fn close(&self) {
        self.rest();
        let waiting = {
            let mut asked = self.asked();
            asked.closed = true;
            std::mem::take(&mut asked.waiting)
        };
        waiting.into_iter().for_each(|wish| wish.reply.set(Err(Error::Closed)));
        self.taken.notify(usize::MAX);
    }
}

/// What an output holds.
#[derive(Debug)]
struct Kept {
    /// Of the inputs, newest first.
    live: Vec<Arc<RowSet>>,
    rows: u32,
    /// Rows that were left out because memtables hide them.
    hidden: u32,
}

/// A flush that waits, counted.
struct Stalled<'a>(&'a AtomicUsize);

impl<'a> Stalled<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Release);
        Self(count)
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Core {
    /// Flushes a database and merges its segments into one without garbage. On a full disk the
    /// compaction or the reserve may have room for the flush: both are tried again after a relief.
    pub(crate) async fn ask_compact(&self, database: &Arc<DatabaseCore>) -> Result<(), Error> {
        let flushed = self.ask_flush(database).await;
        let merged = self.ask_merge(database).await;
        match flushed {
            Err(error) if error.is_disk_full() => {
                // A failure shows in what follows.
                let _ = self.ask_relief().await;
                let flushed = self.ask_flush(database).await;
                flushed.and(self.ask_merge(database).await)
            }
            flushed => flushed.and(merged),
        }
    }

    /// The work is done by the compaction task, as fast as it goes.
    async fn ask_merge(&self, database: &Arc<DatabaseCore>) -> Result<(), Error> {
        self.ask_task(database, Goal::Merge).await
    }

    /// Room on a full disk; fails when none came back. Not for a caller: see `relief`.
    pub(crate) async fn ask_room(&self, database: &Arc<DatabaseCore>) -> Result<(), Error> {
        self.ask_task(database, Goal::Room).await
    }

    async fn ask_task(&self, database: &Arc<DatabaseCore>, goal: Goal) -> Result<(), Error> {
        loop {
            let taken = self.compactions.taken.listen();
            if let Some(reply) = self.compactions.ask(database, goal)? {
                self.compaction_wanted.notify(usize::MAX);
                return reply.wait().await;
            }
            taken.await;
        }
    }

    /// Keeps a flush from adding to far more runs than lookups should visit, and one that memory
    /// asks for from adding to far more garbage than is allowed, until compactions have caught up.
    /// Not while they fail, and not in recovery, which comes before them. Garbage keeps nobody
    /// waiting while a job waits, or compactions are busy with what a caller has asked for.
    pub(crate) async fn wait_for_compactions(&self, database: &DatabaseCore, cause: Cause) {
        if cause == Cause::Relief {
            return; // a full disk is what keeps them from catching up
        }
        loop {
            let progress = self.compactions.progress.listen();
            let job = self.jobs.added.listen();
            let backlog = choice::backlog(&database.version.load(), self.config.garbage_percent);
            let garbage = || {
                cause == Cause::Pressing
                    && backlog.is_urgent
                    && self.compactions.cleans()
                    && self.jobs.len() == 0
            };
            let stalls = backlog.stalls || garbage();
            let fails = || self.compactions.refused.concerns(database.id, self.runtime.now());
            if !stalls || !self.compactions.gets_on() || fails() {
                return;
            }
            let _stalled = Stalled::new(&self.compactions.stalled);
            self.counters.flush_stalls.fetch_add(1, Ordering::Relaxed); // a counter
            self.compaction_wanted.notify(usize::MAX);
            either(progress, job).await;
        }
    }

    async fn compact(&self, database: &DatabaseCore, choice: &Choice) -> Result<(), Error> {
        let span = info_span!("compact", database = %database.name);
        self.rewrite(database, choice).instrument(span).await
    }

    async fn rewrite(&self, database: &DatabaseCore, choice: &Choice) -> Result<(), Error> {
        database.check()?;
        // What no manifest can name is not worth the writing.
        self.manifest.check().await?;
        let (plan, live_before) = {
            // Version and live rows of one moment.
            let _swap = self.swaps.lock().await;
            let version = database.version.load();
            let Some(mut plan) = self.plan(&version, choice) else { return Ok(()) };
            if choice.reason == Reason::Full {
                // No flush runs meanwhile: see there.
                plan.hidden = Some(Hidden::new(database, version));
            }
            let live = plan.inputs.iter().map(|input| u64::from(input.live_rows())).sum();
            (plan, live)
        };
        let limit = match choice.reason {
            Reason::Due => self.config.compaction_bytes_per_second,
            Reason::Urgent | Reason::Asked | Reason::Full => None,
        };
        let mut pace = Pace::new(self, database, limit);
        let _held = self.read.work.hold(plan.work_bytes());
        self.take_loan_back();
        let survey = rewrite::survey(self, database.id_kind, &plan, &mut pace).await?;
        if let Some(hidden) = &plan.hidden {
            self.keep_in_log(hidden).await?;
        }
        let lost_before = self.read.files.names_lost();
        let output = match survey.is_empty() {
            true => None,
            false => Some(rewrite::write_output(self, database, &plan, &survey, &mut pace).await?),
        };
        let read: u64 = plan.inputs.iter().map(|input| input.file_bytes()).sum();
        let written = output.as_ref().map_or(0, |output| output.file_bytes());
        if let Some(output) = &output
            && let Err(error) = self.name_output(lost_before).await
        {
            output.set_obsolete(&self.garbage); // nothing names it
            return Err(error);
        }
        let kept = Kept { live: survey.live, rows: survey.rows, hidden: survey.hidden };
        self.swap(database, &plan.inputs, output, live_before, kept).await?;
        drop(plan); // the last reader of the inputs, unless a caller reads them
        self.remove_garbage().await;
        if written < read {
            self.reserve.room_came_back();
            self.compactions.refused.room_came_back();
        }
        let _ = self.restore_reserve().await;
        self.compactions.bytes_read.fetch_add(read, Ordering::Relaxed); // a counter
        self.compactions.bytes_written.fetch_add(written, Ordering::Relaxed); // a counter
        Ok(())
    }

    /// The inputs with what lies above and below them; none when the choice is out of date.
    fn plan(&self, version: &Version, choice: &Choice) -> Option<Plan> {
        let segments = &version.segments;
        let newest = choice.inputs.first()?;
        let at = segments.iter().position(|segment| segment.file() == *newest)?;
        let end = at + choice.inputs.len();
        let inputs = segments.get(at..end)?;
        if !inputs.iter().map(|segment| segment.file()).eq(choice.inputs.iter().copied()) {
            return None;
        }
        let meets = |segment: &&Arc<Segment>| {
            let (min, max) = segment.id_range();
            inputs.iter().any(|input| input.overlaps(min, max))
        };
        let bytes = (self.config.memory_limit / MERGE_SHARE).min(MERGE_BYTES_MAX);
        let buried: Option<Vec<_>> = inputs.iter().map(|input| input.live().buried()).collect();
        let shadows = if buried.is_some() { &[] } else { &segments[..at] };
        Some(Plan {
            inputs: inputs.to_vec(),
            buried,
            shadows: shadows.iter().filter(meets).cloned().collect(),
            older: segments[end..].iter().filter(meets).cloned().collect(),
            hidden: None,
            merge_bytes: usize::try_from(bytes).expect("at most 4 MiB"),
        })
    }

    /// Makes the name of a new file durable, which no failed sync of names may have covered.
    async fn name_output(&self, lost_before: u64) -> Result<(), Error> {
        self.read.files.sync_names().await?;
        self.read.files.names_lost_since(lost_before).map_or(Ok(()), |error| Err(error.into()))
    }

    /// Puts the output in the place of the inputs, on disk and then for readers.
    async fn swap(
        &self,
        database: &DatabaseCore,
        inputs: &[Arc<Segment>],
        output: Option<Arc<Segment>>,
        live_before: u64,
        kept: Kept,
    ) -> Result<(), Error> {
        let swap = self.swaps.lock().await;
        // Rows that flushes buried in the inputs since they were merged. None is counted between
        // here and the end of the swap.
        let live_now: u64 = inputs.iter().map(|input| u64::from(input.live_rows())).sum();
        let missed = u32::try_from(live_before.saturating_sub(live_now)).unwrap_or(u32::MAX);
        if let Some(output) = &output {
            output.inherit_seen(inputs);
            output.live().set(kept.rows.saturating_sub(missed));
            for (input, live) in inputs.iter().zip(&kept.live) {
                output.live().inherit(input.live(), live);
            }
        }
        if planted("inputs_removed_early") {
            for input in inputs {
                let _ = self.read.disk.remove_file(&self.paths.segment(input.file())).await;
            }
        }
        let commit = self.manifest.commit(|state| {
            let Some(record) = state.databases.get(&database.id) else {
                return Err(Error::DatabaseNotFound { name: database.name.clone() });
            };
            let edit = FlushEdit {
                database: database.id,
                flushed_lsn: record.flushed_lsn,
                live_records: record.live_records.saturating_sub(u64::from(kept.hidden)),
                added: output.iter().map(|segment| segment.meta()).collect(),
                removed: inputs.iter().map(|segment| segment.file()).collect(),
            };
            Ok((vec![ManifestEdit::Flush(edit)], ()))
        });
        if let Err(error) = commit.await {
            // After any other failure the manifest on disk may name the output. One that found no
            // room for its next file is as it was before.
            let refused = matches!(error, Error::DatabaseNotFound { .. })
                || error.is_disk_full() && self.manifest.check().await.is_ok();
            if let Some(output) = output.filter(|_| refused) {
                output.set_obsolete(&self.garbage);
            }
            return Err(error);
        }
        let mut side = database.lock();
        if side.dropped {
            drop(side);
            output.iter().for_each(|output| output.set_obsolete(&self.garbage));
            return Ok(());
        }
        let version = database.version.load();
        let live_records = version.live_records.saturating_sub(u64::from(kept.hidden));
        let version = version.compacted(inputs, output.clone(), live_records);
        database.publish(&mut side, version);
        drop(side);
        if let Some(output) = &output {
            for (input, live) in inputs.iter().zip(kept.live) {
                input.live().forward_to(output.live(), live);
            }
            let replaced = inputs.iter().map(|input| Arc::downgrade(input.live()));
            database.lock().replaced.extend(replaced);
        }
        drop(swap);
        inputs.iter().for_each(|input| input.set_obsolete(&self.garbage));
        self.garbage.added.notify(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The task begins again at once after a failure: a flush that waited for it never saw the
    /// moment in between, and the flushes of all databases with it.
    #[test]
    fn nobody_waits_for_compactions_that_fail() {
        let compactions = Compactions::default();
        assert!(!compactions.gets_on(), "the task has not begun");
        compactions.begin();
        assert!(compactions.gets_on());
        compactions.note(false);
        compactions.begin();
        assert!(!compactions.gets_on());
        compactions.note(true);
        assert!(compactions.gets_on());
        compactions.rest();
        assert!(!compactions.gets_on());
    }
}
