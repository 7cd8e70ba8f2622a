//! `verify`, and what other commands say about a damaged store.

use std::fs;
use std::path::PathBuf;

use crate::run::Place;

/// A store with one database `db` in one segment, and another one, `other`.
fn with_segments() -> Place {
    let place = Place::new();
    let lines: String =
        (0..3000).map(|id| format!("{{\"id\":{id},\"vector\":[{id}.5,1.0,2.0,3.0]}}\n")).collect();
    for database in ["db", "other"] {
        place.ok(&format!("create s {database} --dim 4"));
        assert_eq!(place.run_with_input(&format!("put s {database}"), &lines).code, 0);
        place.ok("flush s");
    }
    place
}

fn segments(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.path("s/segments")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

fn flip(path: &PathBuf, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_clean_store_verifies_with_code_0() {
    let place = with_segments();
    let report = place.json("verify s");
    assert_eq!(report["clean"], true);
    assert_eq!(report["damage"].as_array().unwrap().len(), 0);
    assert!(0 < report["pages"].as_u64().unwrap() && 0 < report["bytes"].as_u64().unwrap());
    assert!(place.ok("verify s").starts_with("clean: "));
}

#[test]
fn a_flipped_bit_is_reported_with_code_2_and_its_page() {
    let place = with_segments();
    let path = segments(&place).remove(0);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    // Within the first vector page: pages begin after the header of 4096 bytes.
    flip(&path, 4096 + 100);

    let run = place.run("verify s");
    assert_eq!((run.code, run.stderr.as_str()), (2, ""), "{}", run.stdout);
    let line = run.stdout.lines().next().unwrap();
    assert!(line.contains(&name) && line.contains("page 0"), "{line}");
    let json = place.run("verify s --json");
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &report["clean"]), (2, &false.into()));
    let damage = report["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 1, "{report}");
    assert!(damage[0]["file"].as_str().unwrap().contains(&name));
    assert_eq!(damage[0]["page"], 0);
}

#[test]
fn a_damaged_vector_is_never_printed_and_others_are() {
    let place = with_segments();
    flip(&segments(&place)[0], 4096);
    let (one, other) = (place.run("get s db 0"), place.run("get s other 0"));
    let damaged = if one.code == 0 { other } else { one };
    damaged.failed(2, &["segments/", "byte 4096"]);
    assert_eq!(damaged.stdout, "");
    let read = [place.run("get s db 2999").code, place.run("get s other 2999").code];
    assert_eq!(read, [0, 0], "pages that are whole are served");
}

#[test]
fn a_truncated_segment_is_reported() {
    let place = with_segments();
    let path = segments(&place).remove(0);
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 4096).unwrap();
    let run = place.run("verify s");
    assert_eq!(run.code, 2, "{} {}", run.stdout, run.stderr);
}

#[test]
fn a_damaged_manifest_is_damage_and_not_a_crash() {
    let place = with_segments();
    let manifests: Vec<PathBuf> = fs::read_dir(place.path("s"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("manifest-"))
        .collect();
    for manifest in manifests {
        flip(&manifest, 40);
    }
    for line in ["verify s", "list s"] {
        let run = place.run(line);
        run.failed(2, &["manifest-"]);
    }
}

/// What the log still holds of flushed records is overwritten.
fn blank_log(place: &Place) {
    for entry in fs::read_dir(place.path("s/wal")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096..].fill(0);
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn repair_names_what_is_lost_with_code_2_and_the_store_verifies_again() {
    let place = with_segments();
    assert_eq!(place.run("repair s").code, 0, "nothing is damaged yet");
    blank_log(&place);
    let path = segments(&place).remove(0);
    flip(&path, 4096 + 100);

    let planned = place.run("repair s --dry-run --json");
    let planned: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!((&planned["dry_run"], &planned["lossless"]), (&true.into(), &false.into()));
    assert_eq!(place.run("verify s").code, 2, "the dry run repairs nothing");

    let run = place.run("repair s --json");
    assert_eq!((run.code, run.stderr.as_str()), (2, ""), "{}", run.stdout);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["losses"], planned["losses"]);
    let loss = &report["losses"][0];
    assert_eq!((&loss["kind"], &loss["database"]), (&"ids".into(), &"db".into()));
    let lost = loss["ids"].as_array().unwrap();
    assert!(!lost.is_empty() && lost.len() < 3000);
    let directory = report["directory"].as_str().unwrap();
    let text = String::from_utf8(place.read(&format!("s/{directory}/report.txt"))).unwrap();
    assert!(text.contains("lost: "), "{text}");

    assert!(place.ok("verify s --rate 1GiB").starts_with("clean: "));
    let missing = format!("get s db {}", lost[0].as_str().unwrap());
    assert_eq!(place.run(&missing).code, 3);
    assert_eq!(place.run("repair s").code, 0);
}

#[test]
fn inspect_shows_every_file_and_names_damage_with_code_2() {
    let place = with_segments();
    // The lock file is empty; the reserve for full disks holds zeros and is nobody's format.
    let mut files = vec![place.path("s/LOCK")];
    for directory in ["s", "s/wal", "s/segments"] {
        let entries = fs::read_dir(place.path(directory)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let ours = |path: &PathBuf| path.is_file() && 4096 < path.metadata().unwrap().len();
        files.extend(paths.filter(ours).filter(|path| !path.ends_with("RESERVE")));
    }
    assert!(4 < files.len());
    for file in &files {
        for options in ["", " --pages", " --json"] {
            let run = place.run(&format!("inspect {}{options}", file.display()));
            assert_eq!(run.code, 0, "{}: {}{}", file.display(), run.stdout, run.stderr);
        }
    }
    let path = segments(&place).remove(0);
    flip(&path, 4096 + 100);
    let run = place.run(&format!("inspect {}", path.display()));
    assert_eq!(run.code, 2);
    let line = run.stdout.lines().find(|line| line.contains("DAMAGED")).unwrap();
    assert!(line.trim_start().starts_with("4096 "), "{line}");
}

#[test]
fn inspect_refuses_foreign_and_missing_files_by_name() {
    let place = Place::new();
    place.write("foreign.txt", "this is not ours");
    let run = place.run("inspect foreign.txt");
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("foreign.txt is not a file of Nephrite"), "{}", run.stderr);
    assert_eq!(place.run("inspect absent").code, 3);
}
