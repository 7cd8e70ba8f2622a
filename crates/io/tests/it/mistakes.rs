//! The mistakes that others made with rings and disks. `docs/testing.md` lists them all, each with
//! the tests that would find it here; these are the ones that needed a test of their own.
//!
//! Most of the others are unit tests of the ring's thread over a scripted kernel. Those of the list
//! that can be planted as a bug are, by `planted.sh` and `loom.sh`.

mod drops;
#[cfg(target_os = "linux")]
mod environment;
mod polls;
#[cfg(target_os = "linux")]
mod signals;

/// The names in backquotes that look like tests, from one section of `docs/testing.md`.
#[cfg(target_os = "linux")]
fn names_in_the_list() -> Vec<String> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/testing.md");
    let text = std::fs::read_to_string(document).unwrap();
    let section = text.split("## Mistakes of others").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 2 + 29, "a header and 29 mistakes");
    let quoted = rows.into_iter().flat_map(|row| row.split('`').skip(1).step_by(2));
    let last = quoted.filter_map(|name| name.rsplit("::").next());
    last.filter(|name| 3 < name.split('_').count()).map(str::to_owned).collect()
}

/// All Rust source of this crate.
#[cfg(target_os = "linux")]
fn sources(directory: &std::path::Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn every_test_that_the_list_of_mistakes_names_exists() {
    let (names, mut source) = (names_in_the_list(), String::new());
    for directory in ["src", "tests"] {
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut source);
    }

    assert!(30 <= names.len(), "{names:?}");
    for name in names {
        assert!(source.contains(&format!("fn {name}() {{")), "no test is named {name}");
    }
}
