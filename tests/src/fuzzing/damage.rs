//! Damage to the files of a store, then everything that one does with a damaged store.
//!
//! Where no checksum was forged, no vector may be returned that nobody wrote, and a repaired store
//! opens and verifies clean. Where one was, bytes lie about anything: then the engine must only
//! return.

use std::{path::Path, sync::OnceLock};

use nephrite::{
    Error, Store,
    repair::{RepairMode, repair},
};
use nephrite_io::sim::Image;

use super::{
    input::Input,
    machine::{Machine, STORE, blank},
    model,
    script::Script,
    seal::reseal,
};

/// Changes of one run.
const CHANGES_MAX: usize = 6;
/// Operations that make the stores: every kind of write on both databases, flushed or not.
const WRITES: [&[u8]; 3] = [
    &[5, 0, 3, 90, 0, 0, 5, 1, 9, 60, 1, 0, 0, 1, 2, 1, 3, 0, 4, 1, 7],
    &[5, 0, 3, 90, 0, 0, 6, 0, 5, 1, 9, 60, 1, 0, 0, 1, 2, 0, 4, 0, 3, 1, 1, 2, 0, 5, 1, 7, 0],
    &[0, 0, 1, 1, 3, 0, 5, 1, 5, 0, 200, 99, 0, 1, 4, 1, 2, 8, 1, 9, 2, 3, 1, 6, 2, 3, 0, 9, 1],
];

/// Damages a store, opens it, reads and verifies it, repairs it, and does all that again.
///
/// # Panics
/// When a promise to the owner of a damaged store is broken.
pub fn open_store(data: &[u8]) {
    let mut input = Input::new(data);
    let mut image = stores()[input.index(stores().len())].clone();
    let mut is_forged = false;
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        is_forged |= change(&mut image, &mut input);
    }
    use_store(&Machine::healthy(image.clone()), is_forged);
    let machine = Machine::healthy(image);
    let planned = repaired(&machine, RepairMode::DryRun);
    let done = repaired(&machine, RepairMode::Repair);
    assert_eq!(planned.is_some(), done.is_some(), "a dry run is as good as a repair");
    if let (Some(report), false) = (done, is_forged) {
        let verified = use_store(&machine, is_forged);
        assert_eq!(verified, Some(true), "a repaired store opens and verifies clean: {report}");
    }
}

/// Stores that were closed, killed after a flush, and killed after a compaction.
fn stores() -> &'static [Image] {
    static STORES: OnceLock<Vec<Image>> = OnceLock::new();
    STORES.get_or_init(|| {
        let made = WRITES.iter().enumerate().map(|(number, writes)| {
            let machine = Machine::healthy(blank());
            let mut script = Script::new();
            let went = script.play(&machine, &mut Input::new(writes));
            went.expect("no crash was asked for").expect("a disk that works");
            if number == 0 {
                script.end(&machine);
            }
            machine.disk.visible_image()
        });
        made.collect()
    })
}

/// One change. Says whether it forges a checksum.
fn change(image: &mut Image, input: &mut Input<'_>) -> bool {
    let paths: Vec<String> =
        image.paths().into_iter().filter(|path| !path.ends_with("/LOCK")).collect();
    if paths.is_empty() {
        return false;
    }
    let path = Path::new(&paths[input.index(paths.len())]).to_owned();
    let Some(before) = image.file(&path).filter(|content| !content.is_empty()) else {
        return false;
    };
    let kind = input.below(8);
    let at = place(input, before.len());
    let mut content = before.clone();
    match kind {
        0 => return !image.remove(&path),
        1 => return !image.set_len(&path, at as u64),
        2 => {
            let other = image.file(Path::new(&paths[input.index(paths.len())])).unwrap_or_default();
            let (start, len) = (at / 4096 * 4096, 4096 << input.below(4));
            let end =
                (start + len).min(content.len()).min(other.len()).max(start.min(content.len()));
            let (start, end) = (start.min(other.len()), end.min(other.len()));
            content[start..end].copy_from_slice(&other[start..end]);
        }
        3 => {
            let end = content.len().min(at + 1 + usize::from(input.byte()) * 64);
            content[at..end].fill(0);
        }
        4 => content[at] ^= 1 << input.below(8),
        _ => {
            let len = 1 + usize::from(input.below(16));
            let end = content.len().min(at + len);
            let bytes = input.bytes(end - at);
            content[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
    let is_forged = kind == 7;
    if is_forged {
        reseal(&before, &mut content, at);
    }
    image.overwrite(&path, 0, &content);
    is_forged
}

/// A place in a file: mostly where files differ in meaning, at their ends.
fn place(input: &mut Input<'_>, len: usize) -> usize {
    let from = input.below(4);
    let at = usize::try_from(input.place()).expect("it has 24 bits");
    match from {
        0 => at % len.min(192),
        1 => len - 1 - at % len.min(8192),
        2 => len.min(4096 + at % 16_384).saturating_sub(1),
        _ => at % len,
    }
}

/// Whether the store verifies clean; `None` when it does not open.
fn use_store(machine: &Machine, is_forged: bool) -> Option<bool> {
    let opened = machine.run_through(Store::open(STORE, machine.config()));
    let store = opened.ok()?;
    for info in store.list() {
        let read = machine.run_through(read(&store, &info.name, is_forged));
        assert!(is_forged || !matches!(read, Err(Error::Closed)), "{}: {read:?}", info.name);
    }
    let verified = machine.run_through(store.verify(|_| {}));
    let is_clean = verified.is_ok_and(|report| report.is_clean());
    machine.let_go(&store);
    Some(is_clean)
}

async fn read(store: &Store, name: &str, is_forged: bool) -> Result<(), Error> {
    let database = store.database(name).await?;
    let snapshot = database.snapshot().await?;
    if is_forged {
        let mut scan = snapshot.scan().await?;
        while let Some((id, _)) = scan.next().await? {
            database.get(&id).await?;
        }
        return Ok(());
    }
    let found = model::read(&snapshot, name).await?;
    let keys: Vec<u64> = found.keys().copied().chain([40_000]).collect();
    model::assert_lookups(&database, &keys, &found).await
}

/// The report as text; `None` when the store is refused as a whole.
fn repaired(machine: &Machine, mode: RepairMode) -> Option<String> {
    match machine.run_through(repair(STORE, machine.config(), mode)) {
        Ok(report) => Some(report.to_string()),
        Err(Error::NotAStore { .. } | Error::VersionUnsupported { .. }) => None,
        // A feature of a later build, by a checksum that holds, or a forged count.
        Err(Error::Corrupt { .. }) => None,
        Err(error) => panic!("repair: {error}"),
    }
}
