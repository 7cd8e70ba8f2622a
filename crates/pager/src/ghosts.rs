//! Ghosts: what left the cache lately, without its bytes.
//!
//! A table of marks, four bytes each: a fingerprint of the thing that left, and when. Time is
//! counted in bytes that have left, so that "lately" means: a cache that were larger by the window
//! would still hold it. One thing in [`SAMPLE`] is watched, chosen by its hash.
//!
//! Does not: answer exactly. A newer mark may take the place of an older one, and two things may
//! have one fingerprint. What is decided by it must be good either way.

/// One thing in so many is watched.
const SAMPLE: u64 = 4;
/// Marks for each watched thing of a window.
const ROOM: usize = 2;
/// Steps of the time of a window; 256 windows pass before an old mark looks like a new one.
const WINDOW_TICKS: u16 = 256;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Ghosts {
    marks: Box<[u32]>,
    tick_bytes: u64,
    bytes_gone: u64,
}

impl Ghosts {
    /// For things of at least `thing_bytes`; a window is `window_bytes` of them.
    pub(crate) fn new(window_bytes: usize, thing_bytes: usize) -> Self {
        let watched = window_bytes / thing_bytes / 4;
        let marks = vec![0; (watched * ROOM).max(1)].into();
        let tick_bytes = (window_bytes as u64 / u64::from(WINDOW_TICKS)).max(1);
        Self { marks, tick_bytes, bytes_gone: 0 }
    }

    /// Something of so many bytes has left.
    pub(crate) fn note(&mut self, hash: u64, bytes: usize) {
        self.bytes_gone += bytes as u64;
        if let Some((place, fingerprint)) = self.place(hash) {
            self.marks[place] = fingerprint << 16 | u32::from(self.now());
        }
    }

    /// Whether it left within the last window, and was watched. It is not remembered any longer.
    pub(crate) fn takes_back(&mut self, hash: u64) -> bool {
        let Some((place, fingerprint)) = self.place(hash) else { return false };
        let mark = self.marks[place];
        let when = u16::try_from(mark & 0xffff).expect("sixteen bits");
        if mark >> 16 != fingerprint || WINDOW_TICKS <= self.now().wrapping_sub(when) {
            return false;
        }
        self.marks[place] = 0;
        true
    }

    /// The memory of the table.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.marks)
    }

    fn now(&self) -> u16 {
        u16::try_from((self.bytes_gone / self.tick_bytes) & 0xffff).expect("sixteen bits")
    }

    /// The place of a thing that is watched, and its fingerprint, which is never zero.
    fn place(&self, hash: u64) -> Option<(usize, u32)> {
        if !hash.is_multiple_of(SAMPLE) {
            return None;
        }
        let spread = u128::from(hash) * self.marks.len() as u128;
        let place = usize::try_from(spread >> 64).expect("below the length");
        Some((place, u32::try_from(hash >> 2 & 0xffff).expect("sixteen bits") | 1))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn hash(thing: u64) -> u64 {
        thing.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !(SAMPLE - 1)
    }

    #[test]
    fn what_left_within_the_window_is_remembered_once() {
        let mut ghosts = Ghosts::new(4096 * 4096, 4096);
        (0..200).for_each(|thing| ghosts.note(hash(thing), 4096));

        let remembered = (0..200).filter(|thing| ghosts.takes_back(hash(*thing))).count();
        let again = (0..200).filter(|thing| ghosts.takes_back(hash(*thing))).count();

        assert!(180 < remembered && again == 0, "{remembered}, then {again}");
    }

    #[test]
    fn what_left_a_window_ago_or_never_is_not() {
        let mut ghosts = Ghosts::new(4096 * 4096, 4096);
        (0..200).for_each(|thing| ghosts.note(hash(thing), 4096));
        assert_eq!((900..1900).filter(|thing| ghosts.takes_back(hash(*thing))).count(), 0);

        (0..4096).for_each(|_| ghosts.note(1, 4096)); // not watched

        assert_eq!((0..200).filter(|thing| ghosts.takes_back(hash(*thing))).count(), 0);
    }

    #[test]
    fn one_thing_in_four_is_watched() {
        let mut ghosts = Ghosts::new(1 << 24, 4096);
        let things = (0..1000_u64).map(|thing| thing.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        things.clone().for_each(|hash| ghosts.note(hash, 4096));

        let watched = things.filter(|hash| ghosts.takes_back(*hash)).count();

        assert!((200..300).contains(&watched), "{watched}");
    }
}
