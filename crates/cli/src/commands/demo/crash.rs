//! Killing a writing child and checking what it left.
//!
//! A child's acknowledgements come over a pipe. After a number of them that follows from the seed,
//! the child is killed (SIGKILL on Unix) while its other writers are in mid-write. Then the
//! store is opened again: every acknowledged vector must be there bit for bit, and the one write
//! that each writer may have had in flight must be wholly there or wholly absent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};

use nephrite::blocking::{Database, Store};
use nephrite::{DatabaseOptions, IdRef};

use super::child::{DATABASES, Writer, database_name};
use super::{Demo, MAIN, SEED};
use crate::clock::Stopwatch;
use crate::embeddings::mix;
use crate::failure::Failure;
use crate::figures::{bytes, count};
use crate::progress::Progress;

/// How many children are killed.
const ROUNDS: u64 = 3;
/// The fewest acknowledgements before a kill, and how many more there may be.
const ACKNOWLEDGED_MIN: u64 = 150;
const ACKNOWLEDGED_SPREAD: u64 = 250;

/// The last write of each writer that is known to be there.
type LastWrites = BTreeMap<Writer, u64>;

impl Demo<'_> {
    pub(super) fn kill_and_check(&mut self, dimension: u32) -> Result<(), Failure> {
        let store = self.context.open(&self.place.store())?;
        for database in 0..DATABASES {
            store.create_database(&database_name(database), DatabaseOptions::new(dimension))?;
        }
        store.close()?;
        let mut last_writes = LastWrites::new();
        for round in 0..ROUNDS {
            let acknowledged = self.run_child_and_kill(round, dimension)?;
            let stopwatch = Stopwatch::start();
            let store = self.context.open(&self.place.store())?;
            let seconds = stopwatch.seconds();
            let figures = &mut self.report.kill;
            figures.rounds += 1;
            figures.acknowledged_writes += acknowledged.values().map(|last| last + 1).sum::<u64>();
            figures.reopen_seconds_max = figures.reopen_seconds_max.max(seconds);
            self.resolve_in_flight(&store, round, &acknowledged, &mut last_writes)?;
            self.check_writes(&store, &last_writes)?;
            store.close()?;
        }
        let figures = &self.report.kill;
        let text = format!(
            "{:>10}   children killed; {} acknowledged writes there, {} vectors checked; of {} in \
             flight {} whole, {} absent, none in part; reopened within {:.0} ms",
            figures.rounds,
            count(figures.acknowledged_writes),
            count(figures.vectors_checked),
            figures.in_flight_whole + figures.in_flight_absent,
            figures.in_flight_whole,
            figures.in_flight_absent,
            figures.reopen_seconds_max * 1e3
        );
        if self.checks.failed == 0 { self.say("kill -9", &text) } else { Ok(()) }
    }

    /// Returns the last acknowledged write of each writer.
    fn run_child_and_kill(&mut self, round: u64, dimension: u32) -> Result<LastWrites, Failure> {
        let mut child = self.start_child(round, dimension)?;
        let kill_after = ACKNOWLEDGED_MIN + mix(SEED ^ round) % ACKNOWLEDGED_SPREAD;
        let outcome = listen_and_kill(&mut child, round, kill_after);
        // Whatever happened above, no child is left behind.
        let killed = child.kill().and_then(|()| child.wait());
        let status =
            killed.map_err(|error| Failure::error(format_args!("killing the child: {error}")))?;
        self.checks.require(was_killed(status), || {
            format!("the child ended by itself ({status}) before it was killed")
        });
        outcome
    }

    fn start_child(&self, round: u64, dimension: u32) -> Result<Child, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::error(format_args!("finding this program: {error}")))?;
        let mut command = Command::new(program);
        command.arg("demo-child").arg(self.place.store());
        command.args(["--seed", &SEED.to_string(), "--dim", &dimension.to_string()]);
        command.args(["--round", &round.to_string()]);
        for assignment in self.context.configuration.assignments() {
            command.args(["--set", &assignment]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::error(format_args!("starting the child: {error}")))
    }

    /// Finds out whether the write that each writer had in flight took effect, and checks that it
    /// did so wholly or not at all.
    fn resolve_in_flight(
        &mut self,
        store: &Store,
        round: u64,
        acknowledged: &LastWrites,
        last_writes: &mut LastWrites,
    ) -> Result<(), Failure> {
        for writer in Writer::all(round) {
            let database = store.database(&database_name(writer.database))?;
            let next = acknowledged.get(&writer).map_or(0, |last| last + 1);
            // The last row of a write is never deleted by a later one.
            let whole = database.contains(writer.id(next, writer.rows() - 1))?;
            let last = if whole { Some(next) } else { next.checked_sub(1) };
            if let Some(last) = last {
                last_writes.insert(writer, last);
            }
            let figures = &mut self.report.kill;
            figures.in_flight_whole += u64::from(whole);
            figures.in_flight_absent += u64::from(!whole);
            // The write before is looked at as well, since the one in flight may delete from it.
            for write in next.saturating_sub(1)..next + 2 {
                self.check_write(&database, writer, write, last)?;
            }
        }
        Ok(())
    }

    /// Checks every write of every round so far.
    fn check_writes(&mut self, store: &Store, last_writes: &LastWrites) -> Result<(), Failure> {
        for (writer, last) in last_writes {
            let database = store.database(&database_name(writer.database))?;
            for write in 0..=*last {
                self.check_write(&database, *writer, write, Some(*last))?;
            }
        }
        Ok(())
    }

    fn check_write(
        &mut self,
        database: &Database,
        writer: Writer,
        write: u64,
        last: Option<u64>,
    ) -> Result<(), Failure> {
        let ids: Vec<u64> = (0..writer.rows()).map(|row| writer.id(write, row)).collect();
        let refs: Vec<IdRef<'_>> = ids.iter().map(|id| IdRef::U64(*id)).collect();
        for ((row, id), vector) in (0..).zip(&ids).zip(database.get_many(&refs)?) {
            let holds = match (writer.is_there(write, row, last), vector) {
                (true, Some(vector)) => {
                    self.report.kill.vectors_checked += 1;
                    let generated = writer.generated_row(*id);
                    self.embeddings.is_row(generated, &vector, &mut self.scratch)
                }
                (there, vector) => there == vector.is_some(),
            };
            self.checks.require(holds, || {
                format!(
                    "after a kill, vector {row} of write {write} of {writer} is not as expected"
                )
            });
        }
        Ok(())
    }

    /// The last look: every vector of the main database in a scan, then every byte on disk.
    pub(super) fn check_everything(&mut self) -> Result<(), Failure> {
        let store = self.context.open(&self.place.store())?;
        let database = store.database(MAIN)?;
        let quiet = self.context.output.quiet();
        let mut progress = Progress::bar("checking", self.expected.count(), quiet);
        let mut found = 0;
        let mut next_id = 0;
        for row in database.scan()? {
            let (id, vector) = row?;
            let IdRef::U64(id) = IdRef::from(&id) else {
                return Err(Failure::error("the scan gave an id of another kind"));
            };
            self.checks.require(next_id <= id, || format!("the scan gave {id} out of order"));
            next_id = id.saturating_add(1);
            self.check(id, Some(&vector));
            found += 1;
            progress.advance(1);
        }
        drop(progress);
        let wanted = self.expected.count();
        self.checks
            .require(found == wanted, || format!("the scan gave {found} of {wanted} vectors"));
        drop(database);
        self.verify(&store)?;
        store.close()?;
        self.report.bytes_on_disk = self.place.bytes_on_disk()?;
        let text = format!("{:>10}   on disk", bytes(self.report.bytes_on_disk));
        self.say("bytes", &text)
    }

    fn verify(&mut self, store: &Store) -> Result<(), Failure> {
        let mut progress = Progress::bytes("verifying", self.context.output.quiet());
        let verified = store.verify(|at| progress.reach(at.bytes, at.bytes_total))?;
        drop(progress);
        for damage in &verified.damage {
            self.checks.require(false, || format!("damage in {}: {}", damage.file, damage.what));
        }
        self.checks.require(verified.is_clean(), || "verify found damage".into());
        let figures = &mut self.report.verify;
        figures.clean = verified.is_clean();
        (figures.files, figures.pages, figures.bytes) =
            (verified.files, verified.pages, verified.bytes);
        let verdict = if verified.is_clean() { "clean" } else { "DAMAGED" };
        let text = format!(
            "{verdict:>10}   {} files, {} pages, {}",
            count(verified.files),
            count(verified.pages),
            bytes(verified.bytes)
        );
        self.say("verify", &text)
    }
}

#[cfg(unix)]
fn was_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    /// SIGKILL has this number on every Unix.
    const KILL: i32 = 9;
    status.signal() == Some(KILL)
}

#[cfg(not(unix))]
fn was_killed(status: ExitStatus) -> bool {
    !status.success()
}

/// Reads acknowledgements, kills the child after `kill_after` of them, and reads what is left in
/// the pipe: all of that was acknowledged too.
fn listen_and_kill(child: &mut Child, round: u64, kill_after: u64) -> Result<LastWrites, Failure> {
    let pipe = child.stdout.take().expect("standard output of the child is a pipe");
    let mut pipe = BufReader::new(pipe);
    let mut last = LastWrites::new();
    let mut line = Vec::new();
    for heard in 1_u64.. {
        line.clear();
        let trouble = |error| Failure::error(format_args!("listening to the child: {error}"));
        pipe.read_until(b'\n', &mut line).map_err(trouble)?;
        // A line without its end was cut off by the kill and acknowledges nothing.
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let (writer, write) = parse_acknowledgement(text, round)?;
        let expected = last.get(&writer).map_or(0, |last| last + 1);
        if write != expected {
            return Err(Failure::error(format_args!("the child skipped write {expected}")));
        }
        last.insert(writer, write);
        if heard == kill_after {
            child
                .kill()
                .map_err(|error| Failure::error(format_args!("killing the child: {error}")))?;
        }
    }
    Ok(last)
}

fn parse_acknowledgement(text: &[u8], round: u64) -> Result<(Writer, u64), Failure> {
    let numbers: Option<Vec<u64>> = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.split(' ').map(|word| word.parse().ok()).collect());
    match numbers.as_deref() {
        Some(&[database, number, write]) => Ok((Writer { round, database, number }, write)),
        _ => Err(Failure::error(format_args!(
            "the child said {:?}, which is no acknowledgement",
            String::from_utf8_lossy(text)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_read_and_anything_else_is_refused() {
        let (writer, write) = parse_acknowledgement(b"3 1 77", 2).unwrap();
        assert_eq!((writer, write), (Writer { round: 2, database: 3, number: 1 }, 77));
        for text in [&b""[..], b"1 2", b"1 2 3 4", b"1 2 x", b"\xff 1 2"] {
            assert!(parse_acknowledgement(text, 0).is_err());
        }
    }
}
