//! Random damage in random places: the result is the model minus what the report names.

use nephrite_tests::{
    Scale,
    damage::Damaged,
    directories::{Kind, store_files},
    seed,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{super::damage::Patient, assert_repaired, blank_log};

/// One to four changes: flipped bits, overwritten stretches, cut and removed files.
fn harm(patient: &Patient, random: &mut ChaCha8Rng) -> Vec<String> {
    let count = random.random_range(1..=4);
    // Nobody misses a file that only a lost part of the manifest named.
    let spares_manifest = random.random_bool(0.5);
    let mut done = Vec::new();
    for _ in 0..count {
        let files = store_files(&patient.path()).unwrap();
        let file = files.choose(random).unwrap();
        if file.bytes == 0 || (spares_manifest && file.kind == Kind::Manifest) {
            continue;
        }
        let at = random.random_range(0..file.bytes);
        // Most of a manifest and a log is room that is not used yet.
        let at = if random.random_bool(0.7) { at % 60_000.min(file.bytes) } else { at };
        let start = usize::try_from(at).unwrap();
        let mut kind = random.random_range(0..10);
        if file.kind == Kind::Wal && (kind == 2 || kind == 3) {
            // Zeros to the end of a log are an end of a log: nobody can tell.
            kind = 4;
        }
        if !spares_manifest && kind == 0 && file.kind != Kind::Manifest {
            kind = 5;
        }
        let len = random.random_range(1..9000_usize);
        match kind {
            0 => drop(Damaged::remove(&file.path)),
            1 => drop(Damaged::truncate(&file.path, at)),
            // Never the version alone, which would make it a file of a newer build.
            2 | 3 => drop(Damaged::change(&file.path, |content| {
                let end = content.len().min(start + len);
                content[start..end].fill(0);
            })),
            _ => drop(Damaged::flip(&file.path, at, random.random_range(0..8))),
        }
        done.push(format!("{} at {at}, kind {kind}, {len} bytes", file.name));
    }
    done
}

#[test]
fn after_random_damage_everything_is_there_that_is_not_named() {
    let rounds = Scale::from_environment().pick(60, 120);
    let first = seed("after_random_damage_everything_is_there_that_is_not_named", 0);
    for (kind, patient) in [Patient::closed(), Patient::crashed()].iter().enumerate() {
        for seed in first..first + rounds {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            if kind == 0 && random.random_bool(0.5) {
                blank_log(&patient.path());
            }
            let done = harm(patient, &mut random);
            assert_repaired(patient, &format!("store {kind}, seed {seed}: {done:?}"));
            patient.restore();
        }
    }
}
