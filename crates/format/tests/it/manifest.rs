//! Manifest edits: round trip, cut ends, and values that cannot be.

use nephrite_format::manifest::{
    Counters, DatabaseMeta, FlushEdit, ManifestEdit, ManifestEdits, SegmentMeta, decode_edits,
};
use nephrite_format::{
    DatabaseId, FileId, FormatError, FrameSequence, Generation, Id, IdKind, Lsn,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support::{
    FILE, KINDS, ROUNDS, mutate, random_bytes, random_database, random_id, random_layout,
    refuses_every_truncation, with_seeds,
};

fn random_segment(rng: &mut ChaCha8Rng, kind: IdKind) -> SegmentMeta {
    let mut ids = [random_id(rng, kind), random_id(rng, kind)];
    ids.sort();
    let [min_id, max_id] = ids;
    let row_count = rng.random_range(1..u32::MAX);
    let puts = rng.random_range(1..=row_count);
    let tombstone_count = rng.random_range(0..=u32::MAX - puts);
    SegmentMeta {
        file: FileId::new(rng.random()),
        generation: Generation::new(rng.random()),
        file_bytes: u64::from(rng.random::<u32>()) * 4096,
        row_count,
        entry_count: puts + tombstone_count,
        tombstone_count,
        live_rows: rng.random_range(0..=row_count),
        level: rng.random(),
        order: rng.random(),
        max_lsn: Lsn::new(rng.random()),
        min_id,
        max_id,
    }
}

fn random_name(rng: &mut ChaCha8Rng) -> String {
    let longest = rng.random_range(1..=255);
    let mut name = String::new();
    loop {
        let next: char = rng.random();
        if longest < name.len() + next.len_utf8() {
            return if name.is_empty() { "n".to_owned() } else { name };
        }
        name.push(next);
    }
}

fn random_edit(rng: &mut ChaCha8Rng) -> ManifestEdit {
    let kind = KINDS[rng.random_range(0..2)];
    match rng.random_range(0..5) {
        0 => ManifestEdit::CreateDatabase(DatabaseMeta {
            database: random_database(rng),
            name: random_name(rng),
            id_kind: kind,
            layout: random_layout(rng),
        }),
        1 => ManifestEdit::DropDatabase { database: random_database(rng) },
        2 => ManifestEdit::Counters(Counters {
            next_file: FileId::new(rng.random()),
            next_database: DatabaseId::new(rng.random()),
            next_generation: Generation::new(rng.random()),
            next_lsn: Lsn::new(rng.random()),
            wal_position: rng.random(),
            wal_sequence: FrameSequence::new(rng.random()),
        }),
        3 => ManifestEdit::LogSegment { position: rng.random(), file: FileId::new(rng.random()) },
        _ => ManifestEdit::Flush(FlushEdit {
            database: random_database(rng),
            flushed_lsn: Lsn::new(rng.random()),
            live_records: rng.random(),
            added: (0..rng.random_range(0..4)).map(|_| random_segment(rng, kind)).collect(),
            removed: (0..rng.random_range(0..4)).map(|_| FileId::new(rng.random())).collect(),
        }),
    }
}

fn random_edits(rng: &mut ChaCha8Rng) -> Vec<ManifestEdit> {
    (0..rng.random_range(1..8)).map(|_| random_edit(rng)).collect()
}

fn decode(payload: &[u8], count: u32) -> Result<Vec<ManifestEdit>, FormatError> {
    decode_edits(payload, count, FILE, 4160)
}

#[test]
fn edits_round_trip() {
    with_seeds(ROUNDS, |rng| {
        let edits = random_edits(rng);
        let (payload, count) = ManifestEdit::encode_all(&edits);
        assert_eq!(decode(&payload, count), Ok(edits));
    });
}

#[test]
fn every_truncation_and_another_count_are_refused() {
    with_seeds(5, |rng| {
        let (payload, count) = ManifestEdit::encode_all(&random_edits(rng));
        refuses_every_truncation(&payload, |payload| decode(payload, count).is_ok());
        assert!(decode(&payload, count + 1).is_err());
        assert!(decode(&payload, count - 1).is_err());
    });
}

#[test]
fn no_edits_follow_an_error() {
    let mut edits = ManifestEdits::new(&[0xff; 64], 3, FILE, 0);
    assert!(edits.next().unwrap().is_err());
    assert!(edits.next().is_none());
}

#[test]
fn a_name_must_be_text_and_not_empty() {
    with_seeds(1, |rng| {
        let edit = ManifestEdit::CreateDatabase(DatabaseMeta {
            database: DatabaseId::new(1),
            name: "name".to_owned(),
            id_kind: IdKind::U64,
            layout: random_layout(rng),
        });
        let (payload, count) = ManifestEdit::encode_all(&[edit]);
        let name = payload.len() - 4;
        let mut not_text = payload.clone();
        not_text[name] = 0xff;
        assert!(decode(&not_text, count).unwrap_err().to_string().contains("UTF-8"));
        let mut empty = payload[..name].to_vec();
        empty[name - 1] = 0;
        empty[4..8].copy_from_slice(&u32::try_from(name - 8).unwrap().to_le_bytes());
        assert!(decode(&empty, count).unwrap_err().to_string().contains("empty name"));
    });
}

#[test]
fn segments_that_contradict_themselves_are_refused() {
    with_seeds(1, |rng| {
        let whole = random_segment(rng, IdKind::U64);
        let changes: [fn(&mut SegmentMeta); 6] = [
            |it| it.file_bytes += 1,
            |it| (it.entry_count, it.tombstone_count) = (0, 0),
            |it| (it.entry_count, it.tombstone_count) = (5, 6),
            |it| (it.row_count, it.live_rows, it.entry_count, it.tombstone_count) = (1, 0, 2, 0),
            |it| it.live_rows = it.row_count + 1,
            |it| (it.min_id, it.max_id) = (Id::from(2), Id::from(1)),
        ];
        let flush = |segment| {
            ManifestEdit::Flush(FlushEdit {
                database: DatabaseId::new(1),
                flushed_lsn: Lsn::new(1),
                live_records: 1,
                added: vec![segment],
                removed: Vec::new(),
            })
        };
        for (index, change) in changes.into_iter().enumerate() {
            let mut segment = whole.clone();
            change(&mut segment);
            let (payload, count) = ManifestEdit::encode_all(&[flush(segment)]);
            let error = decode(&payload, count).unwrap_err().to_string();
            assert!(error.contains(&whole.file.to_string()), "change {index}: {error}");
        }
        let mixed = SegmentMeta { max_id: Id::from("a"), ..whole };
        let (payload, count) = ManifestEdit::encode_all(&[flush(mixed)]);
        assert!(decode(&payload, count).is_err(), "ids of two kinds");
    });
}

#[test]
fn arbitrary_bytes_never_panic() {
    with_seeds(ROUNDS * 10, |rng| {
        let (payload, count) = ManifestEdit::encode_all(&random_edits(rng));
        let mut fuzzed = vec![u8::try_from(count).unwrap(), 0];
        fuzzed.extend_from_slice(&mutate(rng, &payload));
        nephrite_format::fuzzing::decode_manifest_edits(&fuzzed);
        let len = rng.random_range(0..300);
        nephrite_format::fuzzing::decode_manifest_edits(&random_bytes(rng, len));
    });
}
