//! Which spans a store opens, and that reads and writes open none. A binary of its own: the
//! subscriber is the process's.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use nephrite::{Config, DatabaseOptions, blocking::Store};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Counts spans by name, and everything else that is told to it.
#[derive(Clone, Default)]
struct Counting {
    spans: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    calls: Arc<AtomicU64>,
}

impl Counting {
    fn count(&self, name: &str) -> u64 {
        self.spans.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Subscriber for Counting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("nephrite")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        *self.spans.lock().unwrap().entry(span.metadata().name()).or_default() += 1;
        Id::from_u64(1 + self.calls.fetch_add(1, Ordering::Relaxed))
    }
    fn record(&self, _: &Id, _: &Record<'_>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
    fn event(&self, _: &Event<'_>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &Id) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
    fn exit(&self, _: &Id) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn long_things_have_spans_and_reads_and_writes_none() {
    let counting = Counting::default();
    tracing::subscriber::set_global_default(counting.clone()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = || Config::new().flush_interval(std::time::Duration::ZERO);

    let store = Store::create(directory.path(), config()).unwrap();
    let words = store.create_database("words", DatabaseOptions::new(4)).unwrap();
    words.put(0, &[0.5; 4]).unwrap();
    store.flush().unwrap();
    assert_eq!((counting.count("open"), counting.count("flush")), (1, 1));

    let before = counting.calls();
    for id in 0..1000 {
        words.put(id, &[0.5; 4]).unwrap();
        assert!(words.get(id).unwrap().is_some());
    }
    words.get_many(&[1.into(), 2.into()]).unwrap();
    assert_eq!(counting.calls(), before, "reads and writes told a subscriber something");

    store.flush().unwrap();
    store.compact().unwrap();
    assert!(0 < counting.count("compact"));
    drop(words);
    store.close().unwrap();
    assert_eq!((counting.count("flush"), counting.count("close")), (2, 1));
    assert_eq!(counting.count("recover"), 0, "a store that was closed has nothing to recover");
}
