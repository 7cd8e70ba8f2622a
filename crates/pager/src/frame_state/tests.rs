//! Each transition of the state word, alone; those of several threads are in the loom models.

use super::*;

fn resident() -> FrameState {
    let state = FrameState::free();
    state.begin_load(1);
    state.finish_load(0);
    state.unpin().unwrap();
    state
}

#[test]
fn a_load_makes_a_pin_for_each_waiter() {
    let state = FrameState::free();
    state.begin_load(1);
    assert!(state.peek().is_loading() && state.peek().is_charged());

    state.finish_load(2);

    assert!(state.peek().is_plain_hit());
    assert_eq!(state.peek().pins(), 3);
}

#[test]
fn only_an_unpinned_resident_frame_can_be_claimed() {
    let state = resident();
    state.pin();
    assert_eq!(state.claim(), None);
    state.unpin().unwrap();

    assert!(state.claim().is_some_and(Word::is_charged));

    assert_eq!(state.claim(), None);
    assert!(!state.peek().is_charged());
}

#[test]
fn a_passing_pin_survives_every_exclusive_phase() {
    let state = resident();
    state.claim().unwrap();
    assert!(!state.pin().is_readable());
    state.begin_load(1);
    assert_eq!(state.peek().pins(), 2);
    state.fail_load();
    state.release();
    assert!(state.peek().is_free());
    state.begin_load(1);
    state.finish_load(0);
    state.unpin().unwrap();

    assert_eq!(state.peek().pins(), 1);
    state.unpin().unwrap();

    assert!(state.peek().is_evictable());
}

#[test]
fn a_word_of_an_earlier_load_matches_no_later_one() {
    let state = resident();
    let seen = state.peek();
    state.claim().unwrap();
    state.begin_load(1);
    state.finish_load(0);
    state.unpin().unwrap();

    assert!(!state.uncharge(seen) && !state.settle(seen));
    assert!(state.uncharge(state.peek()));
}

#[test]
fn the_version_wraps_within_its_bits() {
    let state = FrameState(AtomicU64::new(FREE | VERSION));

    state.begin_load(1);

    assert_eq!(state.0.into_inner(), LOADING | CHARGED | 1);
}

#[test]
fn uses_are_counted_to_three_and_end_with_the_load() {
    let state = resident();
    for expected in [0, 1, 2, 3, 3] {
        assert_eq!(state.peek().uses(), expected);
        let before = state.pin();
        state.count_use(before, 0);
        state.unpin().unwrap();
    }

    assert_eq!((state.age(), state.age(), state.age(), state.age()), (3, 2, 1, 0));

    let before = state.pin();
    state.count_use(before, 0);
    state.unpin().unwrap();
    state.claim().unwrap();
    state.begin_load(16);
    assert_eq!((state.peek().uses(), state.peek().units()), (0, 16));
}

#[test]
fn a_use_is_not_counted_over_a_change() {
    let state = resident();
    let before = state.pin();
    state.pin_again();

    state.count_use(before, 0);

    assert_eq!((state.peek().uses(), state.peek().pins()), (0, 2));
}

#[test]
fn flagged_frames_are_unpinned_the_long_way() {
    let state = resident();
    state.pin();
    assert_eq!(state.want().pins(), 1);
    assert!(state.unpin().is_err());

    let before = state.unpin_flagged();

    assert!(before.is_wanted() && before.pins() == 1);
    assert!(state.settle(state.peek()) && !state.peek().is_wanted());
}

#[test]
fn an_orphan_is_claimed_once_and_by_nobody_else() {
    let state = resident();
    state.pin();
    state.orphan();
    assert_eq!(state.claim_orphan(), None);
    state.unpin_flagged();
    assert_eq!(state.claim(), None);

    assert!(state.claim_orphan().is_some());

    assert_eq!(state.claim_orphan(), None);
    assert!(!state.peek().is_orphan());
}

#[test]
#[should_panic(expected = "load into a frame in use")]
fn a_resident_frame_cannot_be_loaded_into() {
    resident().begin_load(1);
}
