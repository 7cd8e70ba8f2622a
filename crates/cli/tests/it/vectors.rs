//! `put`, `get`, `delete`: JSON lines in and out, bit for bit.

use crate::run::Place;

fn with_u64_database(dimension: u32) -> Place {
    let place = Place::new();
    place.ok(&format!("create s db --dim {dimension}"));
    place
}

#[test]
fn what_is_put_comes_out_as_the_same_line() {
    let place = with_u64_database(4);
    let lines = concat!(
        "{\"id\":0,\"vector\":[0.1,-0.0,1e-45,3.4028235e+38]}\n",
        "{\"id\":18446744073709551615,",
        "\"vector\":[\"NaN\",\"Infinity\",\"-Infinity\",\"0x7fa00001\"]}\n",
    );
    let put = place.run_with_input("put s db --json", lines);
    assert_eq!((put.code, put.stdout.as_str()), (0, "{\"stored\":2}\n"), "{}", put.stderr);
    assert_eq!(place.ok("get s db 0 18446744073709551615"), lines);
    place.ok("flush s");
    assert_eq!(place.ok("get s db 0 18446744073709551615"), lines);
}

#[test]
fn byte_ids_may_be_any_bytes() {
    let place = Place::new();
    place.ok("create s db --dim 1 --ids bytes");
    let lines = concat!(
        "{\"id\":\"two words\",\"vector\":[1.0]}\n",
        "{\"id\":\"\u{e9}\\n\\\"\",\"vector\":[2.0]}\n",
        "{\"id\":{\"hex\":\"ff00\"},\"vector\":[3.0]}\n",
        "{\"id\":\"-5\",\"vector\":[4.0]}\n",
    );
    assert_eq!(place.run_with_input("put s db", lines).code, 0);
    let found = place.run_words(&["get", "s", "db", "--", "two words", "\u{e9}\n\"", "-5"], b"");
    let expected: Vec<&str> =
        lines.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| line).collect();
    assert_eq!(found.stdout.lines().collect::<Vec<_>>(), expected, "{}", found.stderr);
}

#[test]
fn a_later_line_and_a_later_put_win() {
    let place = with_u64_database(1);
    place.run_with_input("put s db", "{\"id\":1,\"vector\":[1]}\n\n{\"id\":1,\"vector\":[2]}\r\n");
    assert_eq!(place.ok("get s db 1"), "{\"id\":1,\"vector\":[2.0]}\n");
    place.run_with_input("put s db --durability buffered", "{\"id\":1,\"vector\":[3]}");
    assert_eq!(place.ok("get s db 1"), "{\"id\":1,\"vector\":[3.0]}\n");
}

#[test]
fn a_bad_line_is_named_and_the_lines_before_it_are_stored() {
    let place = with_u64_database(2);
    let good = "{\"id\":1,\"vector\":[1,2]}\n{\"id\":2,\"vector\":[1,2]}\n";
    for bad in [
        "{\"id\":3,\"vector\":[1]}",
        "{\"id\":3,\"vector\":[1,NaN]}",
        "{\"id\":\"3\",\"vector\":[1,2]}",
        "{\"id\":3,\"vector\":[1,2]",
        "not json",
        "\u{0}",
    ] {
        let run = place
            .run_with_input("put s db", format!("{good}{bad}\n{{\"id\":9,\"vector\":[1,2]}}\n"));
        run.failed(1, &["standard input line 3", "the 2 lines before it are stored"]);
        assert_eq!(place.run("get s db 1 2").code, 0);
        assert_eq!(place.run("get s db 9").code, 3);
        place.ok("delete s db 1 2");
    }
    let invalid_utf8 = place.run_with_input("put s db", b"\xff\xfe\n");
    invalid_utf8.failed(1, &["line 1"]);
}

#[test]
fn many_lines_are_stored_in_several_batches() {
    let place = with_u64_database(3);
    let lines: String =
        (0..2500).map(|id| format!("{{\"id\":{id},\"vector\":[{id}.0,0.5,-1.0]}}\n")).collect();
    let put = place.run_with_input("put s db --json", &lines);
    assert_eq!(put.stdout, "{\"stored\":2500}\n", "{}", put.stderr);
    let ids: Vec<String> = (0..2500).map(|id| id.to_string()).collect();
    assert_eq!(place.ok(&format!("get s db {}", ids.join(" "))), lines);
}

#[test]
fn a_missing_id_is_named_and_the_others_are_printed() {
    let place = with_u64_database(1);
    place.run_with_input("put s db", "{\"id\":1,\"vector\":[1]}\n{\"id\":3,\"vector\":[3]}\n");
    let run = place.run("get s db 1 2 3");
    run.failed(3, &["id 2", "db"]);
    assert_eq!(run.stdout.lines().count(), 2);
    place.fails(1, "get s db one", &["one", "u64"]);
}

#[test]
fn delete_says_what_was_there() {
    let place = with_u64_database(1);
    place.run_with_input("put s db", "{\"id\":1,\"vector\":[1]}\n");
    let run = place.run("delete s db 1 2 --json");
    run.failed(3, &["id 2"]);
    assert_eq!(run.stdout, "{\"id\":1,\"deleted\":true}\n{\"id\":2,\"deleted\":false}\n");
    place.fails(3, "get s db 1", &["id 1"]);
    place.fails(3, "delete s db 1", &["id 1"]);
}
