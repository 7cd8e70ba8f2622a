//! SIGINT and SIGTERM in the middle of a command: what it says, its exit code, what is stored.
//! Unix only: Windows has no signal that one process can send to another.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};

use crate::run::{Place, command};

const ROWS: u64 = 300_000;

fn start(place: &Place, line: &str) -> Child {
    command(&place.path("."))
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    let command = format!("kill -{name} {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
}

fn end(child: Child) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// Until the store is there: its manifest comes last.
fn wait_for_store(place: &Place, store: &str) {
    let has_manifest = || {
        let names = std::fs::read_dir(place.path(store)).into_iter().flatten().flatten();
        let is_manifest = |name: &str| name.starts_with("manifest-") && !name.ends_with(".tmp");
        names.map(|entry| entry.file_name()).any(|name| name.to_str().is_some_and(is_manifest))
    };
    while !has_manifest() {
        std::thread::yield_now();
    }
}

fn write_vectors(place: &Place) {
    let mut file = Vec::new();
    for row in 0..ROWS {
        file.extend_from_slice(&2_u32.to_le_bytes());
        #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
        let value = row as f32;
        file.extend_from_slice(&value.to_le_bytes());
        file.extend_from_slice(&(-value).to_le_bytes());
    }
    place.write("rows.fvecs", file);
}

#[test]
fn an_interrupted_import_keeps_what_it_says() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let place = Place::new();
        write_vectors(&place);
        let child = start(&place, "import s d rows.fvecs --durability synced --batch 1");
        wait_for_store(&place, "s");
        signal(&child, name);
        let (ended, stderr) = end(child);
        assert_eq!(ended, Some(code), "{stderr}");
        assert!(stderr.contains(&format!("stopped by SIG{name}")), "{stderr}");
        let said: u64 = stderr
            .split_once("the ")
            .and_then(|(_, rest)| rest.split_once(" rows before it"))
            .map_or(0, |(rows, _)| rows.parse().unwrap());
        let listed = place.json("list s");
        let there = listed["databases"].as_array().or(listed.as_array()).unwrap().len();
        if there == 0 {
            assert_eq!(said, 0, "the signal came before the database was made: {stderr}");
            continue;
        }
        let stats = place.json("stats s d");
        let found = stats["vectors"].as_u64().unwrap();
        assert!(said <= found && found <= said + 1, "{found} rows are there, {said} were promised");
        assert!(found < ROWS, "the import was stopped before its end");
        assert_eq!(stats["memtable_bytes"], 0, "the store was closed, not recovered");
    }
}

#[test]
fn a_command_that_waits_for_input_ends_too() {
    let place = Place::new();
    place.ok("create s d --dim 2");
    let mut child = start(&place, "put s d");
    let mut input = child.stdin.take().unwrap();
    // More than a pipe holds, so that the command has certainly read some of it.
    let mut lines = String::new();
    for id in 0..20_000 {
        lines.push_str(&format!("{{\"id\":{id},\"vector\":[1.5,-2.0]}}\n"));
    }
    input.write_all(lines.as_bytes()).unwrap();
    signal(&child, "INT");
    let (code, stderr) = end(child);
    drop(input);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("stopped by SIGINT"), "{stderr}");
    assert!(0 < place.json("stats s d")["vectors"].as_u64().unwrap());
}

#[test]
fn a_second_signal_does_not_wait() {
    let place = Place::new();
    write_vectors(&place);
    let child = start(&place, "import s d rows.fvecs --durability synced --batch 1");
    wait_for_store(&place, "s");
    signal(&child, "INT");
    signal(&child, "TERM");
    let (code, stderr) = end(child);
    assert!(matches!(code, Some(130 | 143)), "{code:?}: {stderr}");
    assert_eq!(place.run("verify s").code, 0, "whatever was cut off, the store is whole");
}

#[test]
fn an_interrupted_benchmark_closes_its_store() {
    let place = Place::new();
    let child = start(&place, "bench fillsync --num 100000000000 --dim 16 --dir d --threads 2");
    wait_for_store(&place, "d/nephrite-bench");
    signal(&child, "INT");
    let (code, stderr) = end(child);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("stopped by SIGINT"), "{stderr}");
    assert_eq!(place.run("verify d/nephrite-bench").code, 0);
}

#[test]
fn an_interrupted_measurement_of_a_drive_leaves_no_file() {
    let place = Place::new();
    let mut child = start(&place, "bench device . --size 16MiB --duration 100000 --direct 0");
    // The line about the machine comes when the file is there.
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("nephrite "), "{line}");
    signal(&child, "TERM");
    let (code, stderr) = end(child);
    assert_eq!(code, Some(143), "{stderr}");
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), 0, "{stderr}");
}

/// The threads of the command tell when it recovers; only Linux lets others see them.
#[cfg(target_os = "linux")]
mod in_recovery {
    use nephrite::blocking::Store;
    use nephrite::{Config, DatabaseOptions, Durability, Ids};

    use super::{Child, Place, end, signal, start};

    /// Vectors in the log that a crash leaves, none of them in a segment.
    const LOGGED: u64 = 60_000;

    /// What is on disk while a store with a long log is open: what a crash would leave.
    fn leave_long_log(place: &Place, name: &str) {
        let config = Config::new().memory_limit(1 << 30).memtable_bytes(256 << 20);
        let store = Store::create(place.path("live"), config).unwrap();
        let database = store.create_database("d", DatabaseOptions::new(64)).unwrap();
        let rows = vec![0.25; 64 * 200];
        for first in (0..LOGGED).step_by(200) {
            let last = LOGGED <= first + 200;
            let durability = if last { Durability::Synced } else { Durability::Buffered };
            database.put_many(Ids::Consecutive(first), &rows, durability).unwrap();
        }
        copy(&place.path("live"), &place.path(name));
        store.close().unwrap();
    }

    fn copy(from: &std::path::Path, to: &std::path::Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            if path.is_dir() {
                copy(&path, &target);
            } else {
                std::fs::copy(path, target).unwrap();
            }
        }
    }

    /// Until the engine replays the log: its first task is there, and the last is not yet.
    fn wait_for_recovery(child: &mut Child) {
        let tasks = format!("/proc/{}/task", child.id());
        let has_begun = || {
            let tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
            let names =
                tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            names.into_iter().any(|name| name.trim_end() == "nephrite-wal")
        };
        while !has_begun() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_signal_in_a_long_recovery_ends_the_command_and_loses_nothing() {
        let place = Place::new();
        leave_long_log(&place, "s");
        // It would wait for its input for ever once the store is open.
        let mut child = start(&place, "put s d");
        let input = child.stdin.take().unwrap();
        wait_for_recovery(&mut child);
        signal(&child, "TERM");
        let (code, stderr) = end(child);
        drop(input);
        assert_eq!(code, Some(143), "{stderr}");
        assert!(stderr.contains("stopped by SIGTERM"), "{stderr}");
        assert_eq!(place.json("stats s d")["vectors"].as_u64(), Some(LOGGED));
        assert_eq!(place.run("verify s").code, 0);
    }
}
