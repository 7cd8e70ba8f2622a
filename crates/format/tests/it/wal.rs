//! Log records: what goes in comes out, cut and changed payloads are refused without a panic.

use nephrite_format::vector::{decode_f32, decode_f32_vec, encode_f32};
use nephrite_format::wal::{
    BulkEncoder, BulkHeader, IdColumn, IdColumnForm, Operation, OperationsEncoder, WalRecord,
    WalRecords, bulk_len, delete_len, id_len, operations_len, put_len,
};
use nephrite_format::{
    DatabaseId, ElementType, FileId, FormatError, Id, IdKind, IdRef, Row, VectorLayout,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support::{
    FILE, KINDS, ROUNDS, bits, mutate, random_bytes, random_database, random_id, random_vector,
    refuses_every_truncation, with_seeds,
};

/// What a record is meant to hold, apart from the crate's own types.
#[derive(Debug, PartialEq)]
enum Model {
    Operations { database: DatabaseId, dimension: u32, operations: Vec<(Id, Option<Vec<u32>>)> },
    Bulk { header: BulkHeader, ids: Vec<Id>, consecutive: bool },
}

fn random_record(rng: &mut ChaCha8Rng) -> Model {
    let kind = KINDS[rng.random_range(0..2)];
    if rng.random_ratio(1, 3) {
        return random_bulk(rng, kind);
    }
    let dimension = rng.random_range(1..40);
    let operations = (0..rng.random_range(1..10)).map(|_| {
        let vector = rng.random_ratio(2, 3).then(|| bits(&random_vector(rng, dimension)));
        (random_id(rng, kind), vector)
    });
    let operations = operations.collect();
    Model::Operations { database: random_database(rng), dimension, operations }
}

fn random_bulk(rng: &mut ChaCha8Rng, kind: IdKind) -> Model {
    let row_count = rng.random_range(1..60);
    let header = BulkHeader {
        database: random_database(rng),
        segment: FileId::new(rng.random()),
        first_row: Row::new(rng.random_range(0..=u32::MAX - row_count)),
        row_count,
        rows_checksum: rng.random(),
    };
    let consecutive = kind == IdKind::U64 && rng.random();
    let first = rng.random_range(0..=u64::MAX - u64::from(row_count));
    let ids = (0..row_count).map(|row| {
        if consecutive { Id::from(first + u64::from(row)) } else { random_id(rng, kind) }
    });
    Model::Bulk { header, ids: ids.collect(), consecutive }
}

fn encode(model: &Model, payload: &mut Vec<u8>) {
    let start = payload.len();
    match model {
        Model::Operations { database, dimension, operations } => {
            let layout =
                VectorLayout::for_dimension(*dimension, ElementType::F32).expect("in range");
            let body = operations.iter().map(|(id, vector)| match vector {
                Some(_) => put_len(id.into(), &layout),
                None => delete_len(id.into()),
            });
            let len = operations_len(body.sum());
            payload.resize(start + len, 0xcc);
            let (kind, count) =
                (operations[0].0.kind(), u32::try_from(operations.len()).expect("a few"));
            let mut encoder =
                OperationsEncoder::new(&mut payload[start..], *database, kind, &layout, count);
            for (index, (id, vector)) in operations.iter().enumerate() {
                let Some(vector) = vector else {
                    encoder.delete(id.into());
                    continue;
                };
                let vector: Vec<f32> = vector.iter().map(|bits| f32::from_bits(*bits)).collect();
                if index % 2 == 0 {
                    encoder.put(id.into(), &vector);
                } else {
                    let mut encoded = vec![0; vector.len() * 4];
                    encode_f32(&vector, &mut encoded);
                    encoder.put_encoded(id.into(), &encoded);
                }
            }
            assert_eq!(encoder.finish(), len);
        }
        Model::Bulk { header, ids, consecutive } => {
            let id_bytes = ids.iter().map(|id| id_len(id.into())).sum();
            let (form, id_bytes) = match (&ids[0], consecutive) {
                (Id::U64(first), true) => (IdColumnForm::Consecutive { first: *first }, 8),
                (Id::U64(_), false) => (IdColumnForm::U64, id_bytes),
                (Id::Bytes(_), _) => (IdColumnForm::Bytes, id_bytes),
            };
            payload.resize(start + bulk_len(id_bytes), 0xcc);
            let mut encoder = BulkEncoder::new(&mut payload[start..], header, form);
            if !consecutive {
                ids.iter().for_each(|id| encoder.id(id.into()));
            }
            assert_eq!(encoder.finish(), bulk_len(id_bytes));
        }
    }
}

fn decode(payload: &[u8], count: u32) -> Result<Vec<Model>, FormatError> {
    let records = WalRecords::new(payload, count, FILE, 4160);
    records.map(|record| record.map(|record| to_model(&record))).collect()
}

fn to_model(record: &WalRecord<'_>) -> Model {
    match record {
        WalRecord::Operations(record) => {
            assert_eq!(record.operations().len(), record.count() as usize);
            let operations = record.operations().map(|operation| match operation {
                Operation::Put { id, vector } => {
                    assert_eq!(id.kind(), record.id_kind);
                    let mut values = vec![0.0; record.dimension as usize];
                    decode_f32(vector, &mut values);
                    assert_eq!(bits(&values), bits(&decode_f32_vec(vector)));
                    (id.to_id(), Some(bits(&values)))
                }
                Operation::Delete { id } => (id.to_id(), None),
            });
            Model::Operations {
                database: record.database,
                dimension: record.dimension,
                operations: operations.collect(),
            }
        }
        WalRecord::Bulk(record) => {
            assert_eq!(record.ids.iter().len(), record.row_count as usize);
            let header = BulkHeader {
                database: record.database,
                segment: record.segment,
                first_row: record.first_row,
                row_count: record.row_count,
                rows_checksum: record.rows_checksum,
            };
            let consecutive = matches!(record.ids, IdColumn::Consecutive { .. });
            Model::Bulk { header, ids: record.ids.iter().map(IdRef::to_id).collect(), consecutive }
        }
    }
}

fn random_payload(rng: &mut ChaCha8Rng) -> (Vec<Model>, Vec<u8>, u32) {
    let models: Vec<Model> = (0..rng.random_range(1..6)).map(|_| random_record(rng)).collect();
    let mut payload = Vec::new();
    models.iter().for_each(|model| encode(model, &mut payload));
    let count = u32::try_from(models.len()).expect("a few");
    (models, payload, count)
}

#[test]
fn records_round_trip() {
    with_seeds(ROUNDS, |rng| {
        let (models, payload, count) = random_payload(rng);
        assert_eq!(decode(&payload, count), Ok(models));
    });
}

#[test]
fn every_truncation_is_refused() {
    with_seeds(5, |rng| {
        let (_, payload, count) = random_payload(rng);
        refuses_every_truncation(&payload, |bytes| decode(bytes, count).is_ok());
    });
}

#[test]
fn another_count_of_records_is_refused() {
    with_seeds(ROUNDS, |rng| {
        let (_, payload, count) = random_payload(rng);
        assert!(decode(&payload, count - 1).is_err());
        assert!(decode(&payload, count + 1).is_err());
    });
}

#[test]
fn errors_name_the_offset_in_the_file() {
    let mut payload = Vec::new();
    let delete = |id: u64| Model::Operations {
        database: DatabaseId::new(1),
        dimension: 3,
        operations: vec![(Id::from(id), None)],
    };
    encode(&delete(1), &mut payload);
    let second = payload.len();
    encode(&delete(2), &mut payload);
    payload[second] = 99;
    let error = decode(&payload, 2).unwrap_err();
    let offset = 4160 + second as u64;
    assert!(matches!(&error, FormatError::Corrupt { offset: at, .. } if *at == offset), "{error}");
}

#[test]
fn no_records_follow_an_error() {
    let mut records = WalRecords::new(&[0xff; 64], 3, FILE, 0);
    assert!(records.next().unwrap().is_err());
    assert!(records.next().is_none());
}

/// Ranges that would overflow when rows or ids are counted up.
#[test]
fn rows_and_consecutive_ids_must_stay_in_range() {
    let header = BulkHeader {
        database: DatabaseId::new(1),
        segment: FileId::new(2),
        first_row: Row::new(u32::MAX - 3),
        row_count: 3,
        rows_checksum: 0,
    };
    let mut record = vec![0; bulk_len(8)];
    let form = IdColumnForm::Consecutive { first: u64::MAX - 2 };
    assert_eq!(BulkEncoder::new(&mut record, &header, form).finish(), record.len());
    assert!(decode(&record, 1).is_ok());
    let mut rows = record.clone();
    rows[32] += 1;
    assert!(decode(&rows, 1).is_err(), "row number {} would be a tombstone", u32::MAX);
    let mut ids = record.clone();
    ids[40] += 1;
    assert!(decode(&ids, 1).is_err(), "id 2^64");
}

#[test]
#[should_panic(expected = "operations of the record")]
fn a_record_with_missing_operations_cannot_be_finished() {
    let layout = VectorLayout::for_dimension(1, ElementType::F32).unwrap();
    let mut record = [0; 100];
    let encoder = OperationsEncoder::new(&mut record, DatabaseId::new(1), IdKind::U64, &layout, 1);
    let _ = encoder.finish();
}

#[test]
#[should_panic(expected = "elements of a vector")]
fn a_vector_of_another_dimension_cannot_be_written() {
    let layout = VectorLayout::for_dimension(2, ElementType::F32).unwrap();
    let mut record = [0; 100];
    let mut encoder =
        OperationsEncoder::new(&mut record, DatabaseId::new(1), IdKind::U64, &layout, 1);
    encoder.put(IdRef::from(1), &[1.0]);
}

#[test]
fn arbitrary_bytes_never_panic() {
    with_seeds(ROUNDS * 10, |rng| {
        let (_, payload, count) = random_payload(rng);
        drop(decode(&mutate(rng, &payload), count));
        let mut fuzzed = vec![u8::try_from(count).unwrap(), 0];
        fuzzed.extend_from_slice(&mutate(rng, &payload));
        nephrite_format::fuzzing::decode_wal_records(&fuzzed);
        let len = rng.random_range(0..300);
        nephrite_format::fuzzing::decode_wal_records(&random_bytes(rng, len));
    });
}
