//! `bench`: every workload at a tiny size with every read checked, its JSON, its report, what it
//! refuses; and the drive itself, beside `fio` where that is installed.

use std::process::Command;

use serde_json::Value;

use crate::run::Place;

/// All workloads, in an order in which each finds what it needs.
const ALL: [&str; 11] = [
    "fillsync",
    "fillrandom",
    "fillseq",
    "overwrite",
    "updaterandom",
    "readrandom",
    "multireadrandom",
    "readseq",
    "readwhilewriting",
    "mixgraph",
    "deleterandom",
];

/// The objects of a run, one a line.
fn objects(place: &Place, line: &str) -> Vec<Value> {
    let output = place.ok(&format!("{line} --json --memory 64MiB"));
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_workload_finds_what_was_stored() {
    for options in ["", "--threads 2 --iodepth 4 --distribution zipf:0.99"] {
        let place = Place::new();
        let workloads = ALL.join(" ");
        let line = format!("bench {workloads} --num 2000 --dim 16 --verify --dir d {options}");
        let outcomes = objects(&place, &line);
        assert_eq!(outcomes.len(), ALL.len());
        for (outcome, name) in outcomes.iter().zip(ALL) {
            let operations = outcome["operations"].as_u64().unwrap();
            let scans = if name == "readseq" { outcome["threads"].as_u64().unwrap() } else { 1 };
            let expected = if name == "fillsync" { 20 } else { 2000 * scans };
            assert_eq!(outcome["workload"], name);
            // A mixed workload reads ten ids at a time now and then.
            assert!(expected <= operations, "{name}: {operations}");
            assert!(name == "mixgraph" || operations == expected, "{name}: {operations}");
        }
        let missing = |name: &str| {
            let at = ALL.iter().position(|listed| *listed == name).unwrap();
            outcomes[at]["missing"].as_u64().unwrap()
        };
        assert_eq!((missing("readrandom"), missing("mixgraph")), (0, 0));
        assert!(0 < missing("deleterandom"), "some ids are drawn twice");
        assert_eq!(place.run("verify d/nephrite-bench").code, 0);
    }
}

#[test]
fn the_object_of_a_workload_has_the_promised_fields() {
    let place = Place::new();
    let line = "bench fillseq readrandom --num 3000 --dim 32 --with-device-limit --cold \
                --duration 0.05";
    let outcomes = objects(&place, line);
    for outcome in &outcomes {
        for field in ["operations_per_second", "bytes_per_second", "device_limit_ratio"] {
            assert!(0.0 < outcome[field].as_f64().unwrap(), "{field} of {outcome}");
        }
        let latency = &outcome["latency_ns"];
        let [p50, p99, p999, max] =
            ["p50", "p99", "p999", "max"].map(|name| latency[name].as_u64().unwrap());
        assert!(0 < p50 && p50 <= p99 && p99 <= p999 && p999 <= max, "{latency}");
        assert!(["uring", "positional", "mmap"].contains(&outcome["backend"].as_str().unwrap()));
        if cfg!(target_os = "linux") {
            assert!(0.0 < outcome["cpu_seconds"].as_f64().unwrap());
            assert!(1 << 20 < outcome["resident_bytes_peak"].as_u64().unwrap());
        }
        let of_intervals = outcome["timeline"].as_array().unwrap().iter();
        let sum: u64 = of_intervals.map(|operations| operations.as_u64().unwrap()).sum();
        assert_eq!(sum, outcome["operations"].as_u64().unwrap());
    }
    let [fill, read] = &outcomes[..] else { panic!("two workloads: {outcomes:?}") };
    assert!(1.0 <= fill["write_amplification"].as_f64().unwrap());
    assert_eq!((&read["caches"], &fill["caches"]), (&"cold".into(), &"as left".into()));
    assert!(0 < read["cold_latency_ns"]["count"].as_u64().unwrap(), "the cache was empty: {read}");
    assert!(0.0 < read["read_amplification"].as_f64().unwrap());
    assert_eq!(read["device_limit"]["access"], "randread");
}

#[test]
fn hot_reads_come_from_memory() {
    let place = Place::new();
    let outcomes =
        objects(&place, "bench fillrandom readrandom --num 2000 --dim 64 --hot --verify");
    let read = &outcomes[1];
    assert_eq!((&read["caches"], &read["cold_latency_ns"]), (&"hot".into(), &Value::Null));
    assert_eq!(read["warm_latency_ns"]["count"], 2000);
    place.fails(
        1,
        "bench fillseq readrandom --num 40000 --dim 256 --hot --cache-size 16MiB",
        &["--hot", "--cache-size"],
    );
}

#[test]
fn an_open_loop_keeps_its_schedule() {
    let place = Place::new();
    let outcomes =
        objects(&place, "bench fillseq readrandom --num 400 --dim 16 --rate 1000 --threads 2");
    // 400 calls at 1000 a second: the last is due after 0.399 s, however fast the store is.
    let read = &outcomes[1];
    assert_eq!((&read["operations"], &read["rate"]), (&400.into(), &1000.into()));
    assert!(0.399 <= read["seconds"].as_f64().unwrap(), "{read}");
}

#[test]
fn calls_that_wait_for_a_slow_one_are_slow_themselves() {
    let place = Place::new();
    // Durable writes at a rate that no drive reaches: they queue up behind the only writer, so all
    // their latencies together are many times the run. Counted from its own beginning, each would
    // leave the others out, and all together would fit into the run.
    let outcomes = objects(&place, "bench fillsync --num 20000 --dim 16 --rate 1000000000");
    let latency = &outcomes[0]["latency_ns"];
    let [mean, count] = ["mean", "count"].map(|name| latency[name].as_f64().unwrap());
    let seconds = outcomes[0]["seconds"].as_f64().unwrap();
    assert!(seconds < mean * count / 1e9, "{latency} in {seconds} s");
}

#[test]
fn a_later_run_works_on_what_an_earlier_one_left() {
    let place = Place::new();
    objects(&place, "bench fillrandom deleterandom --num 1000 --dim 24 --dir d");
    let outcomes =
        objects(&place, "bench readrandom readseq --dir d --use-existing --verify --threads 2");
    assert_eq!((&outcomes[0]["dimension"], &outcomes[0]["operations"]), (&24.into(), &1000.into()));
    assert!(0 < outcomes[0]["missing"].as_u64().unwrap());
    let stored = place.json("stats d/nephrite-bench bench")["vectors"].as_u64().unwrap();
    assert_eq!(outcomes[1]["operations"], 2 * stored, "two threads scan everything");
    place.fails(64, "bench readrandom --dir d --use-existing --dim 25", &["--dim"]);
    place.fails(3, "bench readrandom --dir other --use-existing", &["--use-existing", "other"]);
}

#[test]
fn damage_is_found_by_a_read() {
    let place = Place::new();
    objects(&place, "bench fillseq --num 500 --dim 16 --dir d");
    let vector = ["7"; 16].join(",");
    let run = place.run_with_input(
        "put d/nephrite-bench bench",
        format!("{{\"id\":3,\"vector\":[{vector}]}}\n"),
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    place.fails(2, "bench readseq --dir d --use-existing", &["vector 3", "another id"]);
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let place = Place::new();
    for (line, option) in [
        ("bench readrandom", "WORKLOAD"),
        ("bench fillseq --hot", "--hot"),
        ("bench fillseq --distribution zipf:0.9", "--distribution"),
        ("bench fillseq readrandom --cache-size 32MiB --memory 64MiB", "--cache-size"),
        ("bench fillseq --cache-size 1KiB", "--cache-size"),
        ("bench fillseq --direct --backend mmap", "--direct"),
        ("bench readrandom --use-existing", "--use-existing"),
        ("bench device . --fixedbufs --rw read", "--fixedbufs"),
        ("bench device . --size 1KiB", "--size"),
    ] {
        place.fails(64, line, &[option]);
    }
    for line in ["bench", "bench fillslow", "bench device . --bs 1000", "bench fillseq --iodepth 0"]
    {
        assert_eq!(place.run(line).code, 64, "{line}");
    }
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), 0, "nothing was written");
}

/// Names of the elements of a well-formed text; panics where one is not closed.
fn elements(text: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for part in text.split('<').skip(1) {
        let (tag, after) = part.split_once('>').expect("a tag ends");
        assert!(!after.contains('>'), "a bare > after <{tag}");
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
        if tag.starts_with('!') {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in order");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        all.push(name.to_owned());
        if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert_eq!(open, Vec::<String>::new(), "all are closed");
    all
}

#[test]
fn the_report_is_one_well_formed_file_with_plots() {
    let place = Place::new();
    place.ok("bench fillseq readrandom mixgraph --num 2000 --dim 16 --html report.html -q");
    let text = String::from_utf8(place.read("report.html")).unwrap();
    let elements = elements(&text);
    let count = |name: &str| elements.iter().filter(|listed| *listed == name).count();
    assert_eq!((count("svg"), count("polyline")), (2, 6));
    assert!(4 <= count("tr"), "a head and three workloads");
    let addresses = text.replace("http://www.w3.org/2000/svg", "");
    assert!(!addresses.contains("http") && !addresses.contains("src="), "no network is needed");
    assert!(!text.contains("NaN") && !text.contains("inf"), "every figure is a number");
    place.fails(1, "bench fillseq --num 10 --html none/there.html", &["--html", "none/there.html"]);
}

/// The measurements of `bench device`, one a line.
fn device(place: &Place, options: &str) -> Vec<Value> {
    let line = format!("bench device . --size 32MiB --json {options}");
    place.ok(&line).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_drive_is_measured_at_every_size_and_depth() {
    let place = Place::new();
    let rows =
        device(&place, "--direct 0 --duration 0.02 --ramp-time 0.01 --bs 4KiB,16KiB --iodepth 1,8");
    let of = |access: &str| rows.iter().filter(|row| row["access"] == access).count();
    assert_eq!((of("randread"), of("randwrite"), of("fdatasync")), (4, 4, 2));
    assert_eq!((of("read"), of("write")), (1, 1));
    for row in &rows {
        assert!(0.0 < row["operations_per_second"].as_f64().unwrap(), "{row}");
        assert_eq!(row["latency_ns"]["count"], row["operations"]);
    }
    let rows = device(
        &place,
        "--direct 0 --duration 0.02 --ramp-time 0.01 --rw randread --iodepth 4 --fixedbufs",
    );
    assert_eq!(rows.len(), 3, "by the caller, by the disk, and with registered buffers");
    let left = std::fs::read_dir(place.path(".")).unwrap().count();
    assert_eq!(left, 0, "the file is removed");
}

/// Reads per second of `fio` at the same block size and depth on a file of its own.
fn fio(place: &Place, depth: u32, seconds: &str) -> Option<f64> {
    let output = Command::new("fio")
        .current_dir(place.path("."))
        .args(["--name=yardstick", "--filename=fio-file", "--size=32M", "--rw=randread"])
        .args(["--bs=4k", "--ioengine=io_uring", "--direct=1", "--thread", "--time_based"])
        .args(["--norandommap", "--output-format=json", "--ramp_time=500ms"])
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--runtime={seconds}"))
        .output()
        .ok()?;
    let report: Value = serde_json::from_slice(&output.stdout).ok()?;
    output.status.success().then(|| report["jobs"][0]["read"]["iops"].as_f64())?
}

/// Prints how near the two are. That they are within 5 % is asserted only where
/// `NEPHRITE_COMPARE_FIO` says that the machine does nothing else.
#[test]
fn the_drive_is_measured_as_fio_measures_it() {
    let quiet = std::env::var_os("NEPHRITE_COMPARE_FIO").is_some();
    let (rounds, seconds) = if quiet { (9, "2") } else { (1, "1") };
    let place = Place::new();
    if let Err(why) = direct_ring(&place) {
        println!("SKIPPED: {why}");
        return;
    }
    for depth in [1, 32] {
        let mut ratios = Vec::new();
        for round in 0..rounds {
            let options =
                format!("--rw randread --iodepth {depth} --duration {seconds} --backend uring");
            let ours = || device(&place, &options)[0]["operations_per_second"].as_f64();
            let before = if round % 2 == 0 { ours() } else { None };
            let Some(theirs) = fio(&place, depth, seconds) else {
                println!("SKIPPED: fio is not installed, or has no io_uring");
                return;
            };
            ratios.push(before.or_else(ours).unwrap() / theirs);
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("depth {depth}: {median:.3} of fio ({ratios:.3?})");
        assert!(0.0 < median);
        assert!(!quiet || (median - 1.0).abs() <= 0.05, "depth {depth}: {median} of fio");
    }
}

/// Whether files here can be read past the system's cache by a ring.
fn direct_ring(place: &Place) -> Result<(), String> {
    let info = place.json("io-info .");
    match (&info["chosen"], &info["direct"]) {
        (Value::String(chosen), Value::Bool(true)) if chosen == "uring" => Ok(()),
        (chosen, direct) => Err(format!("the backend is {chosen}, direct {direct}")),
    }
}
