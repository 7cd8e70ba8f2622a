//! Frames: round trip, damage, wrong places, and the cases that recovery must tell apart.

use nephrite_format::frame::{
    FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind, MAX_FRAME_PAYLOAD_BYTES, build_frame,
    decode_frame, frame_bytes, peek_frame_bytes, seal_frame,
};
use nephrite_format::{Generation, PageIdentity, page_checksum};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support::{
    ROUNDS, identity, mutate, random_bytes, random_frame_header, random_identity,
    refuses_every_bit_flip, refuses_every_truncation, with_seeds, wrong_identities,
};

const FRAME_KINDS: [FrameKind; 4] = [
    FrameKind::WalRecords,
    FrameKind::ManifestSnapshot,
    FrameKind::ManifestSnapshotEnd,
    FrameKind::ManifestEdits,
];

fn random_frame(rng: &mut ChaCha8Rng, place: PageIdentity) -> (FrameHeader, Vec<u8>, Vec<u8>) {
    let kind = FRAME_KINDS[rng.random_range(0..4)];
    let header = random_frame_header(rng, kind);
    // Lengths around the border of a block are as likely as all others together.
    let border = 4096 - FRAME_HEADER_BYTES;
    let len = match rng.random_range(0..4) {
        0 => rng.random_range(0..3),
        1 => rng.random_range(border - 2..border + 3),
        _ => rng.random_range(0..20_000),
    };
    let payload = random_bytes(rng, len);
    let frame = build_frame(place, &header, &payload);
    let payload_bytes = u32::try_from(len).expect("below 20 000");
    (FrameHeader { payload_bytes, ..header }, payload, frame)
}

#[test]
fn frames_round_trip_and_fill_whole_blocks() {
    with_seeds(ROUNDS, |rng| {
        let place = random_identity(rng);
        let (header, payload, mut bytes) = random_frame(rng, place);
        assert_eq!(bytes.len(), frame_bytes(payload.len()));
        assert_eq!(bytes.len() % 4096, 0);
        assert!(bytes.len() < FRAME_HEADER_BYTES + payload.len() + 4096, "no block too many");
        let total = bytes.len();
        bytes.extend_from_slice(&random_bytes(rng, 100));
        let view = decode_frame(&bytes, place).unwrap();
        assert_eq!((view.header, view.payload), (header, &payload[..]));
        assert_eq!(view.total_bytes, total);
        assert_eq!(peek_frame_bytes(&bytes), Some(total));
    });
}

#[test]
fn sealing_zeroes_the_padding_of_a_reused_buffer() {
    let header = FrameHeader {
        payload_bytes: 10,
        ..random_frame_header(&mut rand::SeedableRng::seed_from_u64(1), FrameKind::WalRecords)
    };
    let mut frame = vec![0xaa; 4096];
    frame[FRAME_HEADER_BYTES..][..10].copy_from_slice(b"0123456789");
    seal_frame(&mut frame, identity(4096), &header);
    assert_eq!(frame, build_frame(identity(4096), &header, b"0123456789"));
}

#[test]
fn every_bit_flip_is_refused() {
    with_seeds(1, |rng| {
        let header = random_frame_header(rng, FrameKind::WalRecords);
        let frame = build_frame(identity(4096), &header, &random_bytes(rng, 1000));
        refuses_every_bit_flip(&frame, |bytes| decode_frame(bytes, identity(4096)).is_ok());
    });
}

#[test]
fn every_truncation_is_refused_and_says_what_is_needed() {
    with_seeds(1, |rng| {
        let header = random_frame_header(rng, FrameKind::ManifestEdits);
        let frame = build_frame(identity(4096), &header, &random_bytes(rng, 5000));
        refuses_every_truncation(&frame, |bytes| match decode_frame(bytes, identity(4096)) {
            Ok(_) => true,
            Err(FrameError::Incomplete { needed }) => {
                let known = FRAME_HEADER_BYTES <= bytes.len();
                assert_eq!(needed, if known { 8192 } else { FRAME_HEADER_BYTES });
                false
            }
            Err(error) => panic!("cut to {} bytes: {error}", bytes.len()),
        });
    });
}

#[test]
fn a_frame_does_not_verify_anywhere_else() {
    with_seeds(ROUNDS, |rng| {
        let place = random_identity(rng);
        let (_, _, frame) = random_frame(rng, place);
        for other in wrong_identities(place) {
            let error = decode_frame(&frame, other).unwrap_err();
            let stale = matches!(error, FrameError::Stale { .. });
            assert_eq!(stale, other.generation != place.generation, "{error}");
        }
    });
}

#[test]
fn a_frame_of_an_earlier_life_names_its_generation() {
    let own = identity(4096);
    let header =
        random_frame_header(&mut rand::SeedableRng::seed_from_u64(1), FrameKind::WalRecords);
    let old = PageIdentity { generation: Generation::new(2), ..own };
    let frame = build_frame(old, &header, b"old");
    let generation = Generation::new(2);
    assert_eq!(decode_frame(&frame, own), Err(FrameError::Stale { generation }));
}

#[test]
fn zeros_are_blank_and_anything_else_is_not() {
    let place = identity(4096);
    assert_eq!(decode_frame(&[0; 4096], place), Err(FrameError::Blank));
    assert_eq!(peek_frame_bytes(&[0; 4096]), None);
    for at in [0, 8, 63] {
        let mut bytes = [0; 4096];
        bytes[at] = 1;
        let error = decode_frame(&bytes, place).unwrap_err();
        assert!(matches!(error, FrameError::Invalid { .. }), "byte {at}: {error}");
    }
}

/// The payload length is read before the checksum can protect it.
#[test]
fn a_length_over_the_limit_is_invalid_and_not_incomplete() {
    with_seeds(1, |rng| {
        let header = random_frame_header(rng, FrameKind::WalRecords);
        let mut frame = build_frame(identity(4096), &header, b"x");
        let limit = u32::try_from(MAX_FRAME_PAYLOAD_BYTES).unwrap();
        frame[16..20].copy_from_slice(&limit.to_le_bytes());
        let needed = frame_bytes(MAX_FRAME_PAYLOAD_BYTES);
        let decoded = decode_frame(&frame, identity(4096));
        assert_eq!(decoded, Err(FrameError::Incomplete { needed }));
        frame[16..20].copy_from_slice(&(limit + 1).to_le_bytes());
        let error = decode_frame(&frame, identity(4096)).unwrap_err();
        assert!(matches!(error, FrameError::Invalid { .. }), "{error}");
    });
}

#[test]
fn padding_must_be_zero_even_under_a_right_checksum() {
    with_seeds(1, |rng| {
        let header = random_frame_header(rng, FrameKind::WalRecords);
        let mut frame = build_frame(identity(4096), &header, b"abc");
        frame[100] = 1;
        let checksum = page_checksum(identity(4096), &frame[8..]);
        frame[..8].copy_from_slice(&checksum.to_le_bytes());
        let error = decode_frame(&frame, identity(4096)).unwrap_err();
        assert!(error.to_string().contains("padding"), "{error}");
    });
}

#[test]
fn frame_errors_become_damage_with_a_place() {
    let error = FrameError::Blank.into_corrupt("x.wal", 8192).to_string();
    assert!(error.contains("x.wal") && error.contains("8192"), "{error}");
}

#[test]
fn arbitrary_bytes_never_panic() {
    with_seeds(ROUNDS * 5, |rng| {
        let place = random_identity(rng);
        let (_, _, frame) = random_frame(rng, place);
        let mutated = mutate(rng, &frame);
        drop(decode_frame(&mutated, place));
        nephrite_format::fuzzing::decode_frames(&mutated);
        let len = rng.random_range(0..10_000);
        nephrite_format::fuzzing::decode_frames(&random_bytes(rng, len));
    });
}
