//! The frame books alone, with frames that are loaded and pinned by hand.

use super::*;
use crate::frame::Owner;

const ONE_UNIT: Demand = Demand { units: 1, page: Owner::new(7, 7), part: 0, purpose: Use::Point };

struct Cache {
    frames: Vec<Frame>,
    books: Extents,
    evicted: Evicted,
}

impl Cache {
    fn new(units: u32, largest_units: u8) -> Self {
        Self {
            frames: (0..units).map(|_| Frame::new()).collect(),
            books: Extents::new(units, largest_units, CachePolicy::Clock),
            evicted: Evicted::default(),
        }
    }

    /// Allocates a frame and makes it resident, without pins.
    fn load(&mut self, units: u8) -> Option<FrameNo> {
        self.load_for(units, Use::Point)
    }

    fn load_for(&mut self, units: u8, purpose: Use) -> Option<FrameNo> {
        let demand = Demand { units, page: Owner::new(7, 7), part: 0, purpose };
        let number = self.books.allocate(&self.frames, demand, &mut self.evicted)?;
        let frame = &self.frames[number.index()];
        frame.state.begin_load(units);
        frame.assign(Owner::new(0, number.0));
        frame.state.finish_load(0);
        frame.state.unpin().unwrap();
        Some(number)
    }

    fn pin(&self, frame: FrameNo) {
        assert!(self.frames[frame.index()].state.pin().is_readable());
    }
}

fn hit(frame: &Frame) {
    let before = frame.state.pin();
    frame.state.count_use(before, 0);
    frame.state.unpin().unwrap();
}

#[test]
fn extents_shrink_with_the_arena() {
    let units = |units, largest| extent_units(units, largest);

    assert_eq!((units(1, 1), units(2, 1), units(40, 1), units(100, 1)), (1, 1, 2, 4));
    assert_eq!((units(16, 16), units(17, 16), units(300, 16)), (16, 16, 16));
    assert_eq!((units(1024, 16), units(1 << 20, 16)), (64, 64));
}

#[test]
fn frames_of_a_class_do_not_overlap() {
    for frame_units in 1..=UNITS_MAX {
        let mut cache = Cache::new(1050, 16);
        let mut used = [false; 1050];

        while let Some(frame) = cache.load(frame_units) {
            cache.pin(frame);
            for unit in &mut used[frame.index()..][..usize::from(frame_units)] {
                assert!(!std::mem::replace(unit, true), "{frame:?} of {frame_units} units");
            }
        }

        let waste = used.iter().filter(|used| !**used).count();
        assert!(waste * 5 <= used.len(), "{waste} units lost with frames of {frame_units}");
    }
}

#[test]
fn a_free_frame_is_used_before_a_page_is_evicted() {
    let mut cache = Cache::new(4, 1);
    let frames: Vec<_> = (0..4).map(|_| cache.load(1).unwrap()).collect();
    cache.frames[frames[2].index()].state.claim().unwrap();
    cache.books.free(&cache.frames, frames[2]);

    assert_eq!(cache.load(1), Some(frames[2]));

    assert_eq!(cache.evicted.pages, 0);
}

#[test]
fn a_frame_put_back_is_free_again() {
    let mut cache = Cache::new(1, 1);
    for resident in [false, true] {
        let frame = cache.books.allocate(&cache.frames, ONE_UNIT, &mut cache.evicted).unwrap();
        assert_eq!(cache.books.counts(1).free, 0, "{resident}");

        cache.books.put_back(&cache.frames, frame);

        assert_eq!(cache.books.counts(1).free, 1);
        cache.load(1).unwrap();
    }
}

#[test]
fn eviction_tells_what_was_charged() {
    let mut cache = Cache::new(6, 3);
    cache.load(3).unwrap();
    cache.load(3).unwrap();

    cache.load(3).unwrap();

    assert_eq!((cache.evicted.pages, cache.evicted.charged_units), (1, 3));
}

#[test]
fn an_extent_changes_its_class_only_without_pins() {
    let mut cache = Cache::new(16, 16);
    let frames: Vec<_> = (0..16).map(|_| cache.load(1).unwrap()).collect();
    cache.pin(frames[9]);
    assert_eq!(cache.load(16), None);
    assert_eq!(cache.evicted.pages, 0, "nothing is evicted in vain");

    cache.frames[frames[9].index()].state.unpin().unwrap();

    assert_eq!(cache.load(16), Some(FrameNo(0)));
    assert_eq!((cache.evicted.pages, cache.evicted.charged_units), (16, 16));
    assert_eq!((cache.books.counts(1).extents, cache.books.counts(16).frames), (0, 1));
}

#[test]
fn the_short_last_extent_goes_to_frames_that_fit() {
    let mut cache = Cache::new(19, 16);
    assert_eq!(cache.load(16), Some(FrameNo(0)));
    cache.pin(FrameNo(0));

    assert_eq!(cache.load(16), None);

    assert_eq!(cache.load(3), Some(FrameNo(16)));
}

#[test]
fn a_hot_class_keeps_its_extents_from_a_busy_one() {
    let mut cache = Cache::new(64, 1);
    let hot: Vec<_> = (0..32).map(|_| cache.load(1).unwrap()).collect();
    (0..16).for_each(|_| assert!(cache.load(2).is_some()));

    for _ in 0..1000 {
        for frame in &hot {
            (0..3).for_each(|_| hit(&cache.frames[frame.index()]));
        }
        cache.load(2).unwrap();
    }

    assert_eq!(cache.books.counts(1).frames, 32);
}

#[test]
fn books_count_their_memory() {
    let books = Extents::new(1 << 18, 16, CachePolicy::Clock);

    assert!(4096 * size_of::<Extent>() <= books.bytes());
    assert_eq!((books.unassigned(), books.extent_bytes()), (4096, 256 << 10));
}

#[test]
fn one_search_frees_several_frames_ahead_of_demand() {
    let mut cache = Cache::new(1024, 1);
    while cache.books.counts(1).frames < 1024 || cache.books.counts(1).free != 0 {
        cache.load(1).unwrap();
    }

    cache.load(1).unwrap();

    assert_eq!(cache.evicted.pages, 16);
    (0..15).for_each(|_| assert!(cache.load(1).is_some()));
    assert_eq!((cache.evicted.pages, cache.books.counts(1).free), (16, 0));
}

#[test]
fn scans_go_round_in_their_share_of_a_class() {
    let mut cache = Cache::new(64, 1);
    (0..64).for_each(|_| assert!(cache.load(1).is_some()));

    let mut scanned: Vec<_> =
        (0..200).map(|_| cache.load_for(1, Use::Scan).unwrap().index()).collect();

    scanned.sort_unstable();
    scanned.dedup();
    assert_eq!(scanned.len(), 4, "a sixteenth of 64");
}

#[test]
fn a_scanned_page_that_is_used_stays() {
    let mut cache = Cache::new(64, 1);
    (0..64).for_each(|_| assert!(cache.load(1).is_some()));
    let used = cache.load_for(1, Use::Scan).unwrap();
    hit(&cache.frames[used.index()]);
    let pinned = cache.load_for(1, Use::Scan).unwrap();
    cache.pin(pinned);

    for _ in 0..40 {
        let taken = cache.load_for(1, Use::Scan).unwrap();
        assert!(taken != used && taken != pinned);
    }
}
