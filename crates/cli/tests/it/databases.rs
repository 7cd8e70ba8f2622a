//! `create`, `list`, `stats`, `flush`, `drop`.

use crate::run::Place;

#[test]
fn databases_of_both_kinds_are_created_listed_and_dropped() {
    let place = Place::new();
    let created = place.json("create deep/store books --dim 3 --ids bytes");
    assert_eq!(created["database"], "books");
    assert_eq!(created["dimension"], 3);
    assert_eq!(created["id_kind"], "bytes");
    place.ok("create deep/store articles --dim 1000");
    place.run_with_input("put deep/store books", "{\"id\":\"a\",\"vector\":[1,2,3]}\n");

    let list = place.json("list deep/store");
    let databases = list["databases"].as_array().unwrap();
    assert_eq!(databases.len(), 2);
    assert_eq!(databases[0]["name"], "articles");
    assert_eq!(databases[0]["id_kind"], "u64");
    assert_eq!(databases[0]["vectors"], 0);
    assert_eq!(databases[1]["name"], "books");
    assert_eq!(databases[1]["element_type"], "f32");
    assert_eq!(databases[1]["vectors"], 1);
    assert!(place.ok("list deep/store").contains("articles"));

    assert_eq!(place.json("drop deep/store articles")["dropped"], "articles");
    assert_eq!(place.json("list deep/store")["databases"].as_array().unwrap().len(), 1);
    place.fails(3, "drop deep/store articles", &["articles"]);
}

#[test]
fn an_existing_database_is_refused_and_keeps_its_vectors() {
    let place = Place::new();
    place.ok("create s db --dim 2");
    place.run_with_input("put s db", "{\"id\":1,\"vector\":[1,2]}\n");
    place.fails(1, "create s db --dim 5", &["db"]);
    assert_eq!(place.ok("get s db 1"), "{\"id\":1,\"vector\":[1.0,2.0]}\n");
}

#[test]
fn impossible_dimensions_are_refused() {
    let place = Place::new();
    place.fails(1, "create s db --dim 0", &["dimension"]);
    place.fails(1, "create s db --dim 4000000000", &["dimension"]);
}

#[test]
fn an_empty_store_lists_nothing() {
    let place = Place::new();
    place.ok("create s db --dim 2");
    place.ok("drop s db");
    assert_eq!(place.ok("list s"), "no databases\n");
    assert_eq!(place.ok("list s --quiet"), "");
}

#[test]
fn unknown_databases_are_not_found_by_every_command() {
    let place = Place::new();
    place.ok("create s db --dim 2");
    for line in [
        "get s other 1",
        "delete s other 1",
        "put s other",
        "stats s other",
        "export s other x.npy",
    ] {
        place.fails(3, line, &["other"]);
    }
}

#[test]
fn compact_gives_the_space_of_deleted_vectors_back() {
    let place = Place::new();
    place.ok("create s a --dim 2");
    let line = |id: u32| format!("{{\"id\":{id},\"vector\":[1,{id}]}}\n");
    place.run_with_input("put s a", (0..20).map(line).collect::<String>());
    place.ok("flush s");
    (0..19).for_each(|id| drop(place.ok(&format!("delete s a {id}"))));
    let compacted = place.json("compact s a");
    assert!(compacted["compactions"].as_u64() > Some(0), "{compacted}");
    assert!(compacted["bytes_read"].as_u64() > Some(0), "{compacted}");
    assert_eq!(place.json("stats s a")["vectors"], 1);
    assert!(place.ok("compact s").contains("compactions"));
    assert!(place.ok("get s a 19").contains("[1.0,19.0]"));
}

#[test]
fn flush_makes_segments_and_loses_nothing() {
    let place = Place::new();
    place.ok("create s db --dim 2");
    place.run_with_input("put s db", "{\"id\":1,\"vector\":[1,2]}\n");
    assert!(place.json("flush s")["flush_seconds"].as_f64().is_some());
    assert!(place.ok("flush s").contains("flushed"));
    assert_eq!(place.ok("get s db 1"), "{\"id\":1,\"vector\":[1.0,2.0]}\n");
}

#[test]
fn stats_describe_a_store_and_a_database() {
    let place = Place::new();
    place.ok("create s db --dim 2");
    place.run_with_input("put s db", "{\"id\":1,\"vector\":[1,2]}\n{\"id\":2,\"vector\":[1,2]}\n");
    place.ok("flush s");
    let store = place.json("stats s");
    assert_eq!(store["databases"], 1);
    assert!(store["backend"]["chosen"].is_string(), "{store}");
    let database = place.json("stats s db");
    assert_eq!(database["vectors"], 2);
    assert_eq!(database["dimension"], 2);
    assert!(place.ok("stats s").contains("databases"));
    assert!(place.ok("stats s db").contains("vectors"));
}

#[test]
fn quiet_leaves_only_data() {
    let place = Place::new();
    assert_eq!(place.ok("create s db --dim 2 --quiet"), "");
    let stored = place.run_with_input("put s db -q", "{\"id\":1,\"vector\":[1,2]}\n");
    assert_eq!((stored.code, stored.stdout.as_str()), (0, ""));
    assert_eq!(place.ok("flush s -q"), "");
    assert!(place.ok("get s db 1 -q").contains("vector"));
}
