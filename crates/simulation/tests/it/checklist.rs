//! The faults of the checklist in `docs/testing.md`: each names tests that exist.

use std::path::{Path, PathBuf};

const MANIFEST_DIR: &str = env!("CARGO_MANIFEST_DIR");
/// Lines of the table without its header.
const FAULTS: usize = 61;

fn rows() -> Vec<String> {
    let document = Path::new(MANIFEST_DIR).join("../../docs/testing.md");
    let text = std::fs::read_to_string(document).unwrap();
    let section = text.split("## Fault checklist").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|'));
    lines.skip(2).map(str::to_owned).collect()
}

fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_fault_of_the_checklist_names_a_test_that_exists() {
    let rows = rows();
    assert_eq!(rows.len(), FAULTS, "faults in the table");
    let mut source = String::new();
    for directory in ["../../crates", "../../tests"] {
        sources(&Path::new(MANIFEST_DIR).join(directory), &mut source);
    }
    for row in rows {
        let quoted = row.split('`').skip(1).step_by(2);
        let names: Vec<&str> = quoted.filter_map(|name| name.rsplit("::").next()).collect();
        assert!(!names.is_empty(), "no test is named in: {row}");
        for name in names {
            assert!(source.contains(&format!("fn {name}(")), "no test is named {name}");
        }
    }
}
