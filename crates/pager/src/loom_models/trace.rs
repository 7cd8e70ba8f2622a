//! Two readers record while a third thread takes.

use loom::sync::Arc;
use loom::thread;

use super::check;
use crate::trace::{PageRead, TraceRecorder};

#[test]
fn every_read_is_taken_or_counted() {
    check(|| {
        let recorder = Arc::new(TraceRecorder::new(2));

        let readers: Vec<_> = (0..2)
            .map(|page| {
                let recorder = Arc::clone(&recorder);
                let read = PageRead { file: 0, page, start: 0, length: 1, page_units: 1 };
                thread::spawn(move || recorder.record(read))
            })
            .collect();
        let mut reads = Vec::new();
        let mut dropped = recorder.take(&mut reads);
        for reader in readers {
            reader.join().unwrap();
        }
        dropped += recorder.take(&mut reads);

        assert_eq!(reads.len() as u64 + dropped, 2, "a read was lost uncounted");
    });
}
