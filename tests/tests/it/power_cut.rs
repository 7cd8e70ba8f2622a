//! Rounds of power cuts at random changes of the disk, under the real engine.
//!
//! A child works by the plan of the kill loop on a disk that forgets what was not synced
//! (`nephrite_tests::power_cut`). The cut comes before a change or a sync that was chosen by
//! chance, for all threads at once; the child is killed without having seen anything of it.
//! What is left is checked as after a kill (`kill_loop`), with the one difference that the disk
//! really lost what no sync had covered. The next child recovers from the same image, or, every
//! other round, from the store as the check closed it; at times the power is cut while a child
//! recovers.
//!
//! Needs `/dev/fuse` and the right to mount; without them each test says SKIPPED. Disks are mounted
//! for the test's thread and its children only, so that none stays behind when it is killed.
//! `NEPHRITE_TEST_ROUNDS` says how many rounds. `NEPHRITE_TEST_CRASH_WRITER` names another child,
//! such as one with a planted bug.

use std::path::{Path, PathBuf};

use nephrite::BackendChoice;
use nephrite_tests::{
    crash::{Line, Victim},
    history::{Plan, Shape},
    power_cut::{Image, Losses, PowerCutDisk},
    process, rounds, seed,
};
use rand::Rng;

use super::kill_loop::{Checked, Loop, Observed};

#[test]
fn power_cuts_lose_nothing_acknowledged_with_the_automatic_backend() {
    let seed = seed("power cuts, auto", 0x6375_7473);
    PowerCuts::new(Plan::new(seed, Shape::Tight), BackendChoice::Auto).run(rounds(4, 10));
}

#[test]
fn power_cuts_lose_nothing_acknowledged_with_the_positional_backend() {
    let seed = seed("power cuts, positional", 0x6375_7470);
    PowerCuts::new(Plan::new(seed, Shape::Wide), BackendChoice::Positional).run(rounds(4, 10));
}

#[test]
fn a_disk_without_power_forgets_what_was_not_synced() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = mounted(&Image::default(), directory.path(), None) else { return };
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("kept"), [1; 9000]).unwrap();
    std::fs::File::open(at("kept")).unwrap().sync_all().unwrap();
    std::fs::File::open(directory.path()).unwrap().sync_all().unwrap();
    std::fs::write(at("unsynced"), [2; 9000]).unwrap();
    assert_eq!(std::fs::read(at("unsynced")).unwrap(), [2; 9000]);

    disk.cut_now();
    disk.release();
    std::fs::write(at("late"), [3; 10]).unwrap_err();
    let (image, losses) = disk.into_image(&mut LoseEverything).unwrap();
    assert!(0 < losses.waiting && losses.lost == losses.waiting, "{losses:?}");

    let Some(disk) = mounted(&image, directory.path(), None) else { return };
    assert_eq!(std::fs::read(at("kept")).unwrap(), [1; 9000]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    drop(disk);
}

/// The chance by which a cut loses all that it may.
struct LoseEverything;

impl rand::RngCore for LoseEverything {
    fn next_u32(&mut self) -> u32 {
        0
    }

    fn next_u64(&mut self) -> u64 {
        0
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// A disk, or none where nothing may be mounted.
fn mounted(image: &Image, directory: &Path, changes: Option<u64>) -> Option<PowerCutDisk> {
    let disk = process::own_mounts().and_then(|()| PowerCutDisk::mount(image, directory, changes));
    match disk {
        Ok(disk) => Some(disk),
        Err(error) => {
            process::skipped("power cuts", &format!("no disk can be mounted here: {error}"));
            None
        }
    }
}

/// Cuts the power when it goes out of scope, so that a panic leaves nobody waiting for the cut.
struct CutAtLast<'a>(&'a PowerCutDisk);

impl Drop for CutAtLast<'_> {
    fn drop(&mut self) {
        self.0.cut_now();
    }
}

struct PowerCuts {
    inner: Loop,
    image: Image,
    /// Where disks are mounted.
    mounts: tempfile::TempDir,
    writer: PathBuf,
    losses: Losses,
    in_recovery: u64,
}

impl PowerCuts {
    fn new(plan: Plan, backend: BackendChoice) -> Self {
        let inner = Loop::new(plan, backend);
        let image = Image::read_from(inner.directory.path()).unwrap();
        let writer = std::env::var_os("NEPHRITE_TEST_CRASH_WRITER");
        let writer = writer.unwrap_or_else(|| env!("CARGO_BIN_EXE_crash_writer").into());
        Self {
            inner,
            image,
            mounts: tempfile::tempdir().unwrap(),
            writer: writer.into(),
            losses: Losses::default(),
            in_recovery: 0,
        }
    }

    fn run(mut self, rounds: u64) {
        for round in 1..=rounds {
            if self.inner.random.random_range(0..3) == 0 {
                let changes = self.inner.random.random_range(0..60);
                let Some(_) = self.cut(changes, "idle") else { return };
                self.in_recovery += 1;
            }
            let changes = match self.inner.random.random_range(0..4) {
                0 => self.inner.random.random_range(0..60),
                1 => self.inner.random.random_range(0..3000),
                _ => self.inner.random.random_range(0..600),
            };
            let Some(lines) = self.cut(changes, &round.to_string()) else { return };
            let mut observed = Observed::new();
            for line in lines {
                observed.note(&self.inner.plan, round, line);
            }
            self.inner.totals.steps += observed.acknowledged_count();
            self.check(round, &observed);
        }
        self.report(rounds);
    }

    /// Lets a child work until the power is cut before the change after so many. Gives what the
    /// child told; nothing where no disk can be mounted.
    fn cut(&mut self, changes: u64, round: &str) -> Option<Vec<Line>> {
        let disk = mounted(&self.image, self.mounts.path(), Some(changes))?;
        let store = self.mounts.path().join("store");
        let mut child = self.inner.start_on(&store, &self.writer, round);
        let process = child.process();
        let lines = std::thread::scope(|scope| {
            // One that ended by itself has told why.
            let _cut = CutAtLast(&disk);
            scope.spawn(|| {
                disk.wait_for_cut();
                // Threads that wait for the disk end without seeing what is answered now.
                process::kill(process).expect("it is a child, and nobody has waited for it");
                disk.release();
            });
            told(&mut child, || {
                if round == "idle" {
                    disk.cut_now();
                }
            })
        });
        let rest = child.kill().unwrap();
        assert!(rest.is_empty(), "it had ended");
        let (image, losses) = disk.into_image(&mut self.inner.random).unwrap();
        self.image = image;
        self.losses += losses;
        Some(lines)
    }

    /// On another file system, so that nothing of the disk's is in a cache.
    fn check(&mut self, round: u64, observed: &Observed) {
        let directory = tempfile::tempdir().unwrap();
        self.image.write_to(directory.path()).unwrap();
        let what = if round.is_multiple_of(2) { Checked::Copy } else { Checked::Original };
        self.inner.check(round, observed, &directory.path().join("store"), what);
        if what == Checked::Original {
            self.image = Image::read_from(directory.path()).unwrap();
        }
    }

    fn report(&self, rounds: u64) {
        let Losses { waiting, lost, torn, .. } = self.losses;
        println!(
            "{rounds} rounds of power cuts and {} more in recovery: {} steps acknowledged, {} \
             buffered ones lost; of {waiting} changes that no sync covered {lost} were lost and \
             {torn} torn",
            self.in_recovery, self.inner.totals.steps, self.inner.totals.lost,
        );
        assert!(rounds < 10 || 0 < lost, "a disk that loses nothing proves nothing");
        // Fewer rounds may by chance tear nothing.
        assert!(rounds < 60 || 0 < torn, "a disk that tears nothing proves nothing");
    }
}

/// All that a child tells until its end. `on_ready` is called once its store is open.
fn told(child: &mut Victim, on_ready: impl Fn()) -> Vec<Line> {
    let mut lines = Vec::new();
    while let Some(text) = child.next_line().unwrap() {
        let line = Line::parse(&text).unwrap();
        if line == Line::Ready {
            on_ready();
        }
        lines.push(line);
    }
    lines
}
