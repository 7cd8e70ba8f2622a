//! Where the configuration comes from: file, environment and command line, and what is refused.

use std::process::Output;

use crate::run::{Place, command};

fn run(place: &Place, words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(&place.path("."));
    command.args(words).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn config_shows_values_and_who_set_them() {
    let place = Place::new();
    place.write("ours.toml", "profile = \"development\"\nmemory_limit = \"96MiB\"\n");
    let words = ["config", "--json", "--config", "ours.toml", "--set", "max_open_files=9"];
    let output = run(&place, &words, &[("NEPHRITE_FLUSH_INTERVAL", "2m")]);
    assert!(output.status.success(), "{output:?}");
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = [
        ("memory_limit", "96MiB", "ours.toml, line 2"),
        ("flush_interval", "2m", "variable NEPHRITE_FLUSH_INTERVAL"),
        ("max_open_files", "9", "--set"),
        ("wal_segment_bytes", "1MiB", "profile development"),
    ];
    for (name, value, from) in expected {
        assert_eq!(shown[name]["value"], value, "{name}");
        assert_eq!(shown[name]["from"], from, "{name}");
    }
}

#[test]
fn wrong_options_end_with_64_and_name_the_place() {
    let place = Place::new();
    place.write("typo.toml", "memory_limit = \"64MiB\"\nmax_files = 7\n");
    let refused = |line: &str, variables: &[(&str, &str)], hint: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = run(&place, &words, variables);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{line}: {stderr}");
        assert!(stderr.contains(hint), "{line}: {stderr}");
    };
    refused("list s --config typo.toml", &[], "typo.toml, line 2");
    refused("list s --config absent.toml", &[], "absent.toml");
    let small = [("NEPHRITE_MEMORY_LIMIT", "1KiB")];
    refused("list s", &small, "variable NEPHRITE_MEMORY_LIMIT");
    refused("list s --set backend=tape", &[], "--set: backend");
    refused("list s --memory 8MiB --set memtable_bytes=4MiB", &[], "memtable_bytes");
}

#[test]
fn a_store_runs_with_what_the_file_says() {
    let place = Place::new();
    place.write("ours.toml", "memory_limit = \"48MiB\"\n");
    place.ok("create s words --dim 4");
    let stats = place.json("stats s --config ours.toml");
    assert_eq!(stats["memory_limit_bytes"], 48 << 20);
}
