//! Help, exit codes of misuse, and a reader that goes away.

use crate::run::{Place, Run, command};

#[test]
fn help_documents_the_exit_codes_and_goes_to_standard_output() {
    let place = Place::new();
    let help = place.ok("--help");
    for text in
        ["Exit codes:", "\n  2 ", "damage", "\n  3 ", "\n  64 ", "import", "io-info", "--memory"]
    {
        assert!(help.contains(text), "{text:?} is not in the help");
    }
    assert!(!help.contains("demo-child"));
    assert!(place.ok("--version").starts_with("nephrite "));
    assert!(place.ok("get --help").contains("\"Infinity\""));
}

#[test]
fn command_lines_that_are_not_understood_end_with_64() {
    let place = Place::new();
    for line in [
        "",
        "nonsense",
        "create s db",
        "create s db --dim x",
        "create s db --dim 3 --ids uuid",
        "import s db f.npy --batch 0",
        "import s db f.npy --durability maybe",
        "list s --memory 12parsecs",
        "list s --backend carrier-pigeon",
        "get s db",
        "demo --vectors 0",
        "demo --dim 0",
    ] {
        let run = place.run(line);
        assert_eq!(run.code, 64, "{line}: {}", run.stderr);
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{line}");
    }
}

#[test]
fn a_store_that_is_not_there_is_not_found_by_every_command() {
    let place = Place::new();
    for line in [
        "list s",
        "stats s",
        "verify s",
        "flush s",
        "compact s",
        "drop s db",
        "get s db 1",
        "delete s db 1",
        "put s db",
        "export s db x.npy",
    ] {
        place.fails(3, line, &["there is no store at s", "nephrite create"]);
    }
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_directory_without_a_store_is_an_error() {
    let place = Place::new();
    std::fs::create_dir(place.path("d")).unwrap();
    place.write("d/notes.txt", "not a store");
    place.fails(1, "list d", &["d"]);
}

#[test]
fn a_closed_standard_output_ends_quietly() {
    let place = Place::new();
    place.ok("create s db --dim 2");
    place.run_with_input("put s db", "{\"id\":1,\"vector\":[1,2]}\n");
    for words in
        [&["get", "s", "db", "1"][..], &["list", "s"], &["stats", "s", "--json"], &["--help"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(&place.path(""))
            .args(words)
            .stdout(writer)
            .stdin(std::process::Stdio::null())
            .output();
        let run = Run::from(output.unwrap());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{words:?}");
    }
}

#[test]
fn io_info_says_which_backend_and_why() {
    let place = Place::new();
    let info = place.json("io-info . --backend positional");
    assert_eq!(info["chosen"], "positional");
    assert_eq!(info["requested"], "positional");
    assert!(!info["reason"].as_str().unwrap().is_empty());
    assert!(info["alignment"].as_u64().is_some() && info["direct"].is_boolean());
    assert!(info["caller_rings"].is_u64() && info.get("caller_refusal").is_some());
    assert!(place.ok("io-info").contains("positional") || place.ok("io-info").contains("uring"));
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0, "nothing is left behind");
    place.fails(1, "io-info nowhere", &["nowhere is not a directory"]);
}
