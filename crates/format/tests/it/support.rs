//! What the tests share: seeds that are printed on failure, generators of valid values, and the
//! three kinds of damage (flipped bits, cut ends, random changes).

use nephrite_format::frame::{FrameHeader, FrameKind};
use nephrite_format::id_run::{IdRun, IdRunBuilder};
use nephrite_format::{
    DatabaseId, ElementType, FileId, FrameSequence, Generation, Id, IdKind, Lsn, PageIdentity, Row,
    StoreId, VectorLayout,
};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) const FILE: &str = "some.file";
pub(crate) const KINDS: [IdKind; 2] = [IdKind::U64, IdKind::Bytes];

/// Rounds of a random test.
pub(crate) const ROUNDS: u64 = 200;

/// Runs `test` with `rounds` seeds and names the seed of the round that fails.
/// `NEPHRITE_SEED=n` runs that seed alone. Under Miri, some hundred times slower, there is one.
pub(crate) fn with_seeds(rounds: u64, mut test: impl FnMut(&mut ChaCha8Rng)) {
    let chosen = std::env::var("NEPHRITE_SEED").ok();
    let chosen = chosen.map(|seed| seed.parse().expect("NEPHRITE_SEED is a number"));
    let rounds = if cfg!(miri) { 1 } else { rounds };
    let seeds = chosen.map_or(0..rounds, |seed| seed..seed + 1);
    for seed in seeds {
        let _named = NameSeed(seed);
        test(&mut ChaCha8Rng::seed_from_u64(seed));
    }
}

struct NameSeed(u64);

impl Drop for NameSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with NEPHRITE_SEED={}", self.0);
        }
    }
}

pub(crate) fn identity(offset: u64) -> PageIdentity {
    PageIdentity::new(StoreId::new([0x5a; 16]), FileId::new(77), Generation::new(3), offset)
}

/// The same place as seen by a reader who is wrong about one part of it.
pub(crate) fn wrong_identities(own: PageIdentity) -> Vec<PageIdentity> {
    vec![
        PageIdentity { store: StoreId::new([0x5b; 16]), ..own },
        PageIdentity { file: FileId::new(own.file.get() + 1), ..own },
        PageIdentity { generation: Generation::new(own.generation.get() + 1), ..own },
        own.at(own.offset + 4096),
    ]
}

pub(crate) fn random_identity(rng: &mut ChaCha8Rng) -> PageIdentity {
    PageIdentity::new(
        StoreId::new(rng.random()),
        FileId::new(rng.random()),
        Generation::new(rng.random()),
        u64::from(rng.random::<u32>()) * 4096,
    )
}

pub(crate) fn random_layout(rng: &mut ChaCha8Rng) -> VectorLayout {
    let dimension = match rng.random_range(0..4) {
        0 => rng.random_range(1..=16),
        1 => rng.random_range(1..=16_384),
        _ => rng.random_range(1..=2048),
    };
    let layout = VectorLayout::for_dimension(dimension, ElementType::F32).expect("in range");
    let pages = [layout.page_bytes(), 65_536];
    let page_bytes = pages[usize::from(rng.random_ratio(1, 4))];
    VectorLayout::with_page_bytes(dimension, ElementType::F32, page_bytes).expect("in range")
}

/// Bits of any float: NaNs with payloads, infinities and denormals included.
pub(crate) fn random_vector(rng: &mut ChaCha8Rng, dimension: u32) -> Vec<f32> {
    (0..dimension).map(|_| f32::from_bits(rng.random())).collect()
}

pub(crate) fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|value| value.to_bits()).collect()
}

pub(crate) fn random_bytes(rng: &mut ChaCha8Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Ids that are near each other often enough to be told apart only by their ends.
pub(crate) fn random_id(rng: &mut ChaCha8Rng, kind: IdKind) -> Id {
    match kind {
        IdKind::U64 if rng.random_ratio(1, 3) => Id::from(rng.random::<u64>()),
        IdKind::U64 => Id::from(rng.random_range(0..5000_u64)),
        IdKind::Bytes => {
            let len = if rng.random_ratio(1, 8) { 255 } else { rng.random_range(1..40) };
            let mut bytes = random_bytes(rng, len);
            bytes[..len / 2].fill(b'p');
            Id::from(bytes)
        }
    }
}

/// Strictly ascending entries; about one in eight is a tombstone.
pub(crate) fn random_entries(rng: &mut ChaCha8Rng, kind: IdKind, count: usize) -> Vec<(Id, Row)> {
    let mut ids: Vec<Id> = (0..count).map(|_| random_id(rng, kind)).collect();
    ids.sort();
    ids.dedup();
    let mut row = 0;
    let entries = ids.into_iter().map(|id| {
        if rng.random_ratio(1, 8) {
            return (id, Row::TOMBSTONE);
        }
        row += 1;
        (id, Row::new(row - 1))
    });
    entries.collect()
}

pub(crate) fn build_run(kind: IdKind, entries: &[(Id, Row)]) -> IdRun {
    let mut builder = IdRunBuilder::new(kind);
    entries.iter().for_each(|(id, row)| builder.push(id.as_id_ref(), *row));
    builder.finish()
}

pub(crate) fn random_frame_header(rng: &mut ChaCha8Rng, kind: FrameKind) -> FrameHeader {
    FrameHeader {
        kind,
        payload_bytes: 0,
        record_count: rng.random(),
        sequence: FrameSequence::new(rng.random()),
        first_lsn: Lsn::new(rng.random()),
        durable_through: FrameSequence::new(rng.random()),
    }
}

pub(crate) fn random_database(rng: &mut ChaCha8Rng) -> DatabaseId {
    DatabaseId::new(rng.random())
}

/// Every single flipped bit of `bytes` must make `accepts` say no.
pub(crate) fn refuses_every_bit_flip(bytes: &[u8], accepts: impl Fn(&[u8]) -> bool) {
    assert!(accepts(bytes), "the undamaged bytes");
    let mut damaged = bytes.to_vec();
    let step = if cfg!(miri) { 997 } else { 1 };
    for bit in (0..bytes.len() * 8).step_by(step) {
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepts(&damaged), "bit {} of byte {} was flipped", bit % 8, bit / 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Every proper prefix of `bytes` must make `accepts` say no.
pub(crate) fn refuses_every_truncation(bytes: &[u8], accepts: impl Fn(&[u8]) -> bool) {
    assert!(accepts(bytes), "the whole bytes");
    let step = if cfg!(miri) { 97 } else { 1 };
    for len in (0..bytes.len()).step_by(step) {
        assert!(!accepts(&bytes[..len]), "cut to {len} of {} bytes", bytes.len());
    }
}

/// Random changes of `bytes`: flips, overwritten fields with extreme values, cuts, repeats.
pub(crate) fn mutate(rng: &mut ChaCha8Rng, bytes: &[u8]) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    for _ in 0..rng.random_range(1..6) {
        if mutated.is_empty() {
            break;
        }
        let at = rng.random_range(0..mutated.len());
        match rng.random_range(0..6) {
            0 => mutated[at] ^= 1 << rng.random_range(0..8),
            1 => mutated[at] = rng.random(),
            2 => {
                let value = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)];
                let end = mutated.len().min(at + 4);
                mutated[at..end].fill(value);
            }
            3 => mutated.truncate(at),
            4 => mutated.extend_from_within(at..),
            _ => {
                mutated.remove(at);
            }
        }
    }
    mutated
}
