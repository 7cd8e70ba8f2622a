//! `cache-replay`, and the recording of what it replays.

use crate::run::Place;

/// A store of 64 vectors and a trace of five reads of two pages.
fn traced() -> Place {
    let place = Place::new();
    place.ok("create s db --dim 128");
    let vector = vec!["1"; 128].join(",");
    let lines: String =
        (0..64).map(|id| format!("{{\"id\":{id},\"vector\":[{vector}]}}\n")).collect();
    place.run_with_input("put s db", &lines);
    place.ok("get s db 0 1 63 0 0 --set record_trace=reads.trace");
    place
}

#[test]
fn a_recorded_trace_is_replayed_at_every_size_and_policy() {
    let place = traced();

    let report = place.json("cache-replay reads.trace --size 1MiB --size 2MiB");

    assert_eq!((&report["reads"], &report["pages"]), (&5.into(), &2.into()));
    assert_eq!((&report["dropped"], &report["cut_off"]), (&0.into(), &false.into()));
    let memory = report["memory"].as_array().unwrap();
    assert_eq!((memory.len(), &memory[1]["bytes"]), (2, &(2 << 20).into()));
    let policies = memory[0]["policies"].as_array().unwrap();
    assert_eq!(
        (&policies[0]["policy"], &policies[1]["policy"]),
        (&"clock".into(), &"s3-fifo".into())
    );
    for ratios in policies {
        assert!((ratios["hit_ratio"].as_f64().unwrap() - 0.6).abs() < 1e-9, "{ratios}");
    }
    let text = place.ok("cache-replay reads.trace --policy clock --memory 4MiB");
    assert!(text.contains("60.00%") && !text.contains("s3-fifo"), "{text}");
}

#[test]
fn what_is_no_trace_is_damage_and_what_is_not_there_an_error() {
    let place = traced();
    place.write("text", "no trace at all");

    place.fails(2, "cache-replay text", &["text"]);
    place.fails(1, "cache-replay nowhere", &["nowhere"]);
    let unknown = place.run("cache-replay reads.trace --policy lru");
    assert!(unknown.code == 64 && unknown.stderr.contains("s3-fifo"), "{}", unknown.stderr);
    place.fails(1, "cache-replay reads.trace --size 1KiB", &["page cache"]);
}
