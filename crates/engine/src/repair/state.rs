//! The manifest: as it is when it is whole, otherwise what its readable frames say.
//!
//! Frames behind a hole are read as well, since each is checked by itself; an edit that does not
//! fit what is known is applied as far as it does. Which segments exist is then not taken from
//! here: `plan` looks at the files.

use std::collections::{BTreeMap, BTreeSet};

use nephrite_format::{
    BLOCK_BYTES, DatabaseId, FileDetail, FileHeader, FileId, Generation, IdKind, Lsn, StoreId,
    VectorLayout,
    frame::{FrameKind, decode_frame},
    manifest::{DatabaseMeta, FlushEdit, ManifestEdit, decode_edits},
    mend::mend_header,
};

use super::{
    listing::{Found, Listing},
    log::Log,
    raw::{Raw, header_of},
    report::RepairReport,
    work::Reader,
};
use crate::{
    error::Error,
    manifest::{self, DatabaseRecord, ManifestState},
    opening::next_database,
};

/// What is known of the store as a whole.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) store: StoreId,
    pub(super) state: ManifestState,
    /// Whether the manifest is whole, so that what it does not name does not count.
    pub(super) is_whole: bool,
    /// Databases and segments that are gone by what could be read.
    pub(super) dropped: BTreeSet<DatabaseId>,
    pub(super) removed: BTreeSet<FileId>,
}

/// Reads the manifest in force and finds out whose store this is.
pub(super) async fn read(
    reader: &Reader,
    listing: &Listing,
    report: &mut RepairReport,
) -> Result<Known, Error> {
    let store = store_of(reader, listing).await?;
    let mut known = Known {
        store,
        state: ManifestState::default(),
        is_whole: false,
        dropped: BTreeSet::new(),
        removed: BTreeSet::new(),
    };
    let Some((id, found)) = listing.manifests.last_key_value() else {
        report.note("manifest", 0, None, "there is no manifest".to_owned());
        return Ok(known);
    };
    let Some(raw) = Raw::open(&reader.disk, &found.path).await? else { return Ok(known) };
    let content = raw.content().await?;
    let strict = if raw.bytes == content.len() as u64 {
        manifest::read_state(&content, *id)
    } else {
        Err(Error::corrupt(&*found.name, raw.bytes, "the file does not end with a whole block"))
    };
    match strict {
        Ok((of, state)) if of == store => {
            known.state = state;
            known.is_whole = true;
            return Ok(known);
        }
        Ok((of, _)) => {
            let what = format!("it belongs to store {of} and this is store {store}");
            report.note(&found.name, 0, None, what);
        }
        Err(Error::Corrupt { offset, what, .. }) => report.note(&found.name, offset, None, what),
        Err(error @ Error::VersionUnsupported { .. }) => {
            let (header, problem) = header_of(content.get(..BLOCK_BYTES), &found.name)?;
            if header.is_none() {
                return Err(error);
            }
            report.note(&found.name, 8, None, problem.unwrap_or_default());
        }
        Err(error) => return Err(error),
    }
    report.aside(&found.name, "it is damaged");
    let is_whole_length = raw.bytes == content.len() as u64;
    let mended = with_mended_header(content, *id, store).filter(|_| is_whole_length);
    if let Some(state) = mended {
        known.state = state;
        known.is_whole = true;
        return Ok(known);
    }
    for (id, found) in &listing.manifests {
        known.read_frames(reader, *id, found).await?;
    }
    Ok(known)
}

impl Known {
    /// A database is in the manifest before it is in the log. Records of one that was never made
    /// show that frames of the manifest are lost, though it looks like one that ends there.
    pub(super) fn check_against(
        &mut self,
        log: &Log,
        listing: &Listing,
        report: &mut RepairReport,
    ) {
        let next = next_database(&self.state);
        let Some(unknown) = log.last_database.filter(|last| next <= u64::from(last.get())) else {
            return;
        };
        if let (true, Some((_, found))) = (self.is_whole, listing.manifests.last_key_value()) {
            let what = format!("the log has records of database {unknown}, which it does not know");
            report.note(&found.name, 0, None, what);
            report.aside(&found.name, "its last frames are missing");
            self.is_whole = false;
        }
    }

    /// Applies every readable frame of a manifest file. Several files are read oldest first; each
    /// begins with the whole state.
    async fn read_frames(
        &mut self,
        reader: &Reader,
        file: FileId,
        found: &Found,
    ) -> Result<(), Error> {
        let Some(raw) = Raw::open(&reader.disk, &found.path).await? else { return Ok(()) };
        let content = raw.content().await?;
        let detail = FileDetail::Manifest { capacity_bytes: raw.bytes };
        let header = FileHeader { store: self.store, file, generation: Generation::new(0), detail };
        let mut at = BLOCK_BYTES;
        while at < content.len() {
            let Ok(frame) = decode_frame(&content[at..], header.identity(at as u64)) else {
                at += BLOCK_BYTES;
                continue;
            };
            let header = frame.header;
            let edits = decode_edits(frame.payload, header.record_count, &found.name, at as u64);
            let is_first = header.sequence.get() == 1 && header.kind != FrameKind::ManifestEdits;
            if is_first {
                self.state = ManifestState::default();
            }
            edits.unwrap_or_default().iter().for_each(|edit| self.apply(edit));
            at += frame.total_bytes;
        }
        Ok(())
    }

    fn apply(&mut self, edit: &ManifestEdit) {
        match edit {
            ManifestEdit::CreateDatabase(meta) => {
                let record = DatabaseRecord {
                    meta: meta.clone(),
                    flushed_lsn: Lsn::new(0),
                    live_records: 0,
                    segments: Vec::new(),
                };
                self.state.databases.entry(meta.database).or_insert(record);
            }
            ManifestEdit::DropDatabase { database } => {
                self.state.databases.remove(database);
                self.dropped.insert(*database);
            }
            ManifestEdit::Flush(flush) => self.apply_flush(flush),
            ManifestEdit::Counters(counters) => {
                self.state.counters = Some(*counters);
                self.state.log = self.state.log.split_off(&counters.wal_position);
            }
            ManifestEdit::LogSegment { position, file } => {
                self.state.log.insert(*position, *file);
            }
        }
    }

    fn apply_flush(&mut self, flush: &FlushEdit) {
        self.removed.extend(&flush.removed);
        for added in &flush.added {
            self.removed.remove(&added.file); // the counts of a segment that stays were changed
        }
        let Some(record) = self.state.databases.get_mut(&flush.database) else { return };
        record.segments.retain(|known| {
            let again = flush.added.iter().any(|it| it.file == known.file);
            !again && !flush.removed.contains(&known.file)
        });
        record.segments.extend(flush.added.iter().cloned());
        record.segments.sort_unstable_by_key(|segment| (segment.order, segment.file));
        record.flushed_lsn = record.flushed_lsn.max(flush.flushed_lsn);
        record.live_records = flush.live_records;
    }

    /// Makes a database that only its files know.
    pub(super) fn adopt(&mut self, database: DatabaseId, id_kind: IdKind, layout: VectorLayout) {
        if self.state.databases.contains_key(&database) {
            return;
        }
        let name = format!("recovered-{database}");
        let meta = DatabaseMeta { database, name, id_kind, layout };
        let flushed_lsn = Lsn::new(0);
        let record = DatabaseRecord { meta, flushed_lsn, live_records: 0, segments: Vec::new() };
        self.state.databases.insert(database, record);
    }
}

/// The state, when one flipped bit of the header page is all that is wrong.
fn with_mended_header(mut content: Vec<u8>, id: FileId, store: StoreId) -> Option<ManifestState> {
    let page = content.get_mut(..BLOCK_BYTES)?;
    page.copy_from_slice(&mend_header(page)?);
    let (of, state) = manifest::read_state(&content, id).ok()?;
    (of == store).then_some(state)
}

/// The store that most files belong to; of as many, the newest manifest's.
async fn store_of(reader: &Reader, listing: &Listing) -> Result<StoreId, Error> {
    let mut votes: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    let mut last = None;
    let files = listing.segments.values().chain(listing.logs.values());
    for found in files.chain(listing.manifests.values()) {
        let Some(raw) = Raw::open(&reader.disk, &found.path).await? else { continue };
        let page = raw.block(0).await?;
        if page.as_deref().is_none_or(|page| page.iter().all(|byte| *byte == 0)) {
            continue; // not sealed yet
        }
        let Ok((Some(header), _)) = header_of(page.as_deref(), &found.name) else { continue };
        *votes.entry(header.store.get()).or_default() += 1;
        last = Some(header.store.get());
    }
    let most = votes.values().max().copied();
    let winner = last.filter(|last| votes.get(last).copied() == most);
    let winner = winner.or_else(|| votes.iter().find(|(_, n)| Some(**n) == most).map(|it| *it.0));
    winner.map(StoreId::new).ok_or_else(|| Error::NotAStore {
        path: reader.paths.root().to_owned(),
        reason: "no file in it has a readable header page, so nothing in it can be checked; \
                 restore it from a copy"
            .to_owned(),
    })
}
