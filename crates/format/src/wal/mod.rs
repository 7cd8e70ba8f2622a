//! Records inside a write-ahead log frame.
//!
//! The payload of a `WalRecords` frame is a sequence of records, one after another without
//! padding. Record number `i` of a frame has log sequence number `first_lsn + i`. A record is one
//! atomic change of one database:
//!
//! - **Operations**: puts and deletes of one call or batch, vectors included. They apply in
//!   order, so that the last one wins where an id comes twice.
//! - **Bulk**: rows whose vectors were written straight into a segment file. The record holds
//!   their ids and the checksum of the rows; it counts only when the rows verify.
//!
//! Writers compute the length first ([`operations_len`], [`put_len`], [`bulk_len`]) and encode
//! into a slice of that length: no allocation, vectors are copied once. Readers get views that
//! borrow the payload; a record is checked as a whole before it is handed out.
//!
//! Duplicates of ids, unknown databases and wrong dimensions are for the engine to judge.

mod decode;
mod encode;

pub(crate) use decode::decode_id;
pub use decode::{
    BulkRecord, IdColumn, IdColumnIter, Operation, Operations, OperationsRecord, WalRecord,
    WalRecords,
};
pub use encode::{
    BulkEncoder, BulkHeader, IdColumnForm, OperationsEncoder, bulk_len, delete_len, id_len,
    operations_len, put_len,
};

/// Bytes of an operations record before its first operation.
pub const OPERATIONS_HEADER_BYTES: usize = RECORD_HEADER_BYTES + 8;

/// Bytes of a bulk record before its ids.
pub const BULK_HEADER_BYTES: usize = RECORD_HEADER_BYTES + 24;

const RECORD_HEADER_BYTES: usize = 16;

const KIND_OPERATIONS: u8 = 1;
const KIND_BULK: u8 = 2;

const TAG_PUT: u8 = 1;
const TAG_DELETE: u8 = 2;

const FORM_CONSECUTIVE: u8 = 1;
const FORM_U64: u8 = 2;
const FORM_BYTES: u8 = 3;
