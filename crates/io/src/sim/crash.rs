//! What a crash may leave: the durable bytes, and any part of what was not synced.
//!
//! Each pending change (a write that no sync covers, a write in flight, a length, a name) is kept
//! or lost for itself, so any order of writing back is covered. A write may also be torn: at any
//! 512-byte sector, by whole 4 KiB pages, with garbage in a sector that was being written, or with
//! its length in place and its bytes not.
//! Does not: damage bytes that were synced and not written to since. That is what faults and
//! [`Image::flip_bit`] are for.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::image::{Change, Image, NodeId};
use super::random::SimRandom;

/// The unit that a disk writes at once.
const SECTOR: u64 = 512;
const SECTORS_PER_PAGE: usize = 8;

/// A change that no sync has covered.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) sequence: u64,
    pub(super) node: NodeId,
    pub(super) change: Change,
}

/// What becomes of a pending change in a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It is on disk.
    Kept,
    /// It is not.
    Lost,
    /// Of a write only these sectors are on disk, counted from its first.
    Torn(Range<usize>),
    /// As `Torn`, and the sector behind the range (before it, for one that reaches the end) holds
    /// garbage made from the seed.
    Garbled(Range<usize>, u64),
    /// By this seed each 4 KiB page is kept, lost, or damaged sector by sector.
    Pages(u64),
    /// The file is as long as after the write, which itself is lost.
    LengthOnly,
}

/// How far [`CrashState::for_each_image`] goes.
#[derive(Debug, Clone)]
pub struct Scope {
    subsets_max: usize,
    random: u32,
    torn_writes: usize,
    cuts_max: usize,
    cut_sectors: usize,
}

impl Default for Scope {
    fn default() -> Self {
        Self { subsets_max: 10, random: 256, torn_writes: 1, cuts_max: 64, cut_sectors: 1 }
    }
}

impl Scope {
    /// Up to this many pending changes every subset is tried; from there on every single loss,
    /// prefix and suffix, and random ones. Default: 10.
    #[must_use]
    pub fn subsets_max(mut self, changes: usize) -> Self {
        self.subsets_max = changes;
        self
    }

    /// How many random images where there are too many subsets. Default: 256.
    #[must_use]
    pub fn random(mut self, images: u32) -> Self {
        self.random = images;
        self
    }

    /// For how many of the last writes every sector cut is tried. Default: 1.
    #[must_use]
    pub fn torn_writes(mut self, writes: usize) -> Self {
        self.torn_writes = writes;
        self
    }

    /// Into how many parts a long write is cut at the most. Default: 64.
    #[must_use]
    pub fn cuts_max(mut self, cuts: usize) -> Self {
        self.cuts_max = cuts;
        self
    }

    /// A cut at every multiple of this many bytes, rounded up to whole sectors, however long the
    /// write. Default: 512, within [`Self::cuts_max`].
    #[must_use]
    pub fn cut_bytes(mut self, bytes: usize) -> Self {
        self.cut_sectors = bytes.div_ceil(512).max(1);
        self.cuts_max = usize::MAX;
        self
    }
}

/// The moment of a crash; see the module documentation.
#[derive(Debug, Clone)]
pub struct CrashState {
    pub(super) durable: Image,
    pub(super) pending: Vec<Pending>,
}

impl CrashState {
    /// How many changes are pending.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The image in which each pending change has its fate; those without one are lost.
    #[must_use]
    pub fn image(&self, fates: &[Fate]) -> Image {
        let mut image = self.durable.clone();
        for (pending, fate) in self.pending.iter().zip(fates) {
            settle(&mut image, pending, fate);
        }
        let reachable = image.reachable();
        image.retain(&reachable);
        image
    }

    /// An image by chance: all kept, all lost, a prefix, or a fate of its own for each change.
    #[must_use]
    pub fn random_image(&self, random: &mut SimRandom) -> Image {
        self.image(&self.random_fates(random))
    }

    fn random_fates(&self, random: &mut SimRandom) -> Vec<Fate> {
        let count = self.pending.len();
        match random.below(8) {
            0 => vec![Fate::Kept; count],
            1 => vec![Fate::Lost; count],
            2 => self.prefix(random.index(count + 1)),
            _ => self.pending.iter().map(|pending| random_fate(pending, random)).collect(),
        }
    }

    fn prefix(&self, kept: usize) -> Vec<Fate> {
        let fate = |at| if at < kept { Fate::Kept } else { Fate::Lost };
        (0..self.pending.len()).map(fate).collect()
    }

    /// Gives legal images to `visit`, with the fates that led to each, until it breaks. Returns
    /// how many. `random` decides which random ones.
    pub fn for_each_image(
        &self,
        scope: &Scope,
        random: &mut SimRandom,
        mut visit: impl FnMut(&[Fate], Image) -> ControlFlow<()>,
    ) -> u64 {
        let mut seen = BTreeSet::new();
        let mut images = 0;
        for fates in self.fates(scope, random) {
            if !seen.insert(format!("{fates:?}")) {
                continue;
            }
            images += 1;
            if visit(&fates, self.image(&fates)).is_break() {
                break;
            }
        }
        images
    }

    fn fates(&self, scope: &Scope, random: &mut SimRandom) -> Vec<Vec<Fate>> {
        let count = self.pending.len();
        let mut all = Vec::new();
        if count <= scope.subsets_max {
            let fate = |kept| if kept { Fate::Kept } else { Fate::Lost };
            let subset = |mask: u64| (0..count).map(|at| fate(mask >> at & 1 == 1)).collect();
            all.extend((0..1_u64 << count).map(subset));
        } else {
            for at in 0..count {
                let mut dropped = vec![Fate::Kept; count];
                dropped[at] = Fate::Lost;
                all.push(dropped);
                all.push(self.prefix(at));
                let mut suffix = vec![Fate::Kept; count];
                suffix[..at].fill(Fate::Lost);
                all.push(suffix);
            }
            all.extend((0..scope.random).map(|_| self.random_fates(random)));
        }
        self.add_tears(scope, random, &mut all);
        all
    }

    /// Every cut of the last writes, with everything else kept and with everything else lost.
    fn add_tears(&self, scope: &Scope, random: &mut SimRandom, all: &mut Vec<Vec<Fate>>) {
        let writes = (0..self.pending.len()).rev();
        let writes = writes.filter(|at| sectors(&self.pending[*at]) > 0).take(scope.torn_writes);
        for at in writes {
            let sectors = sectors(&self.pending[at]);
            let step = sectors.div_ceil(scope.cuts_max.max(1)).max(scope.cut_sectors);
            let mut fates = vec![Fate::LengthOnly, Fate::Garbled(0..0, random.next_u64())];
            for cut in (1..sectors).step_by(step) {
                fates.push(Fate::Torn(0..cut));
                fates.push(Fate::Torn(cut..sectors));
                fates.push(Fate::Garbled(0..cut, random.next_u64()));
            }
            for others in [Fate::Kept, Fate::Lost] {
                all.extend(fates.iter().map(|fate| {
                    let mut whole = vec![others.clone(); self.pending.len()];
                    whole[at] = fate.clone();
                    whole
                }));
            }
        }
    }
}

/// How many sectors a write touches; none for other changes.
fn sectors(pending: &Pending) -> usize {
    match &pending.change {
        Change::Write { offset, bytes } if !bytes.is_empty() => {
            let end = offset + bytes.len() as u64;
            let count = end.div_ceil(SECTOR) - offset / SECTOR;
            usize::try_from(count).expect("a write is in memory")
        }
        _ => 0,
    }
}

fn random_fate(pending: &Pending, random: &mut SimRandom) -> Fate {
    let sectors = sectors(pending);
    match random.below(6) {
        0 | 1 => Fate::Kept,
        2 | 3 => Fate::Lost,
        _ if sectors == 0 => Fate::Kept,
        4 => match random.below(4) {
            0 => Fate::LengthOnly,
            1 => Fate::Torn(0..random.index(sectors)),
            2 => Fate::Torn(random.index(sectors)..sectors),
            _ => Fate::Garbled(0..random.index(sectors), random.next_u64()),
        },
        _ => Fate::Pages(random.next_u64()),
    }
}

fn settle(image: &mut Image, pending: &Pending, fate: &Fate) {
    let Change::Write { offset, bytes } = &pending.change else {
        if *fate != Fate::Lost {
            image.apply(pending.node, &pending.change);
        }
        return;
    };
    let write = Write { image, node: pending.node, offset: *offset, bytes };
    match fate {
        Fate::Kept => write.image.apply(pending.node, &pending.change),
        Fate::Lost => {}
        Fate::Torn(kept) => write.keep(kept.clone()),
        Fate::Garbled(kept, seed) => write.keep_with_garbage(kept.clone(), *seed),
        Fate::Pages(seed) => write.keep_pages(&mut SimRandom::new(*seed)),
        Fate::LengthOnly => {
            let end = offset + bytes.len() as u64;
            let len = write.image.content(pending.node).map_or(0, |content| content.len());
            write.image.apply(pending.node, &Change::SetLen(len.max(end)));
        }
    }
}

/// A write on its way to the disk, sector by sector.
struct Write<'a> {
    image: &'a mut Image,
    node: NodeId,
    offset: u64,
    bytes: &'a [u8],
}

impl Write<'_> {
    fn count(&self) -> usize {
        let end = self.offset + self.bytes.len() as u64;
        usize::try_from(end.div_ceil(SECTOR) - self.offset / SECTOR).expect("it is in memory")
    }

    /// The part of the bytes that lies in these sectors.
    fn range(&self, sectors: Range<usize>) -> Range<usize> {
        let first = self.offset / SECTOR;
        let place = |sector: usize| {
            let at = ((first + sector as u64) * SECTOR).saturating_sub(self.offset);
            usize::try_from(at).expect("it is in memory").min(self.bytes.len())
        };
        place(sectors.start)..place(sectors.end)
    }

    fn put(&mut self, range: Range<usize>, bytes: &[u8]) {
        if !range.is_empty() {
            let offset = self.offset + range.start as u64;
            self.image.apply(self.node, &Change::Write { offset, bytes: Arc::from(bytes) });
        }
    }

    fn keep(mut self, sectors: Range<usize>) {
        let range = self.range(sectors);
        let bytes = self.bytes;
        self.put(range.clone(), &bytes[range]);
    }

    fn garble(&mut self, sector: usize, random: &mut SimRandom) {
        let range = self.range(sector..sector + 1);
        let garbage: Vec<u8> = range.clone().map(|_| random.next_u64().to_le_bytes()[0]).collect();
        self.put(range, &garbage);
    }

    fn keep_with_garbage(mut self, sectors: Range<usize>, seed: u64) {
        let count = self.count();
        let sector =
            if sectors.end < count { sectors.end } else { sectors.start.saturating_sub(1) };
        self.garble(sector, &mut SimRandom::new(seed));
        self.keep(sectors);
    }

    fn keep_pages(mut self, random: &mut SimRandom) {
        let (count, bytes) = (self.count(), self.bytes);
        for page in (0..count).step_by(SECTORS_PER_PAGE) {
            let end = count.min(page + SECTORS_PER_PAGE);
            match random.below(3) {
                0 => {}
                1 => {
                    let range = self.range(page..end);
                    self.put(range.clone(), &bytes[range]);
                }
                _ => (page..end).for_each(|sector| self.damage(sector, random)),
            }
        }
    }

    /// A sector in the middle of the power cut: whole, half, old, or nonsense.
    fn damage(&mut self, sector: usize, random: &mut SimRandom) {
        let (range, bytes) = (self.range(sector..sector + 1), self.bytes);
        let middle = range.start + random.index(range.len().max(1)).min(range.len());
        match random.below(8) {
            0 | 1 => self.put(range.clone(), &bytes[range]),
            2 => self.put(range.start..middle, &bytes[range.start..middle]),
            3 => self.put(middle..range.end, &bytes[middle..range.end]),
            4 | 5 => self.garble(sector, random),
            _ => {}
        }
    }
}
