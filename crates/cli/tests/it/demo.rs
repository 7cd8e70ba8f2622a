//! The demo at small sizes: it kills its child for real.

use crate::run::Place;

#[test]
fn the_demo_checks_itself_and_reports_json() {
    let place = Place::new();
    let report = place.json("demo --dir d --vectors 3000 --dim 96");
    assert_eq!(report["checks_failed"], 0);
    assert_eq!(report["vectors"], 3000);
    assert_eq!(report["verify"]["clean"], true);
    assert_eq!(report["kill"]["rounds"], 3);
    assert!(100 < report["kill"]["acknowledged_writes"].as_u64().unwrap());
    assert!(10_000 < report["checks"].as_u64().unwrap());
    for rate in ["hot_reads", "cold_reads", "get_many_100", "updates", "deletes"] {
        assert!(0.0 < report[rate]["per_second"].as_f64().unwrap(), "{rate}");
    }
    assert!(0 < report["bytes_on_disk"].as_u64().unwrap());
    assert!(place.path("d/store").exists(), "--dir keeps the store");
    assert_eq!(place.json("verify d/store")["clean"], true);
    // 3000 less the 150 that the demo deletes.
    let list = place.json("list d/store");
    let databases = list["databases"].as_array().unwrap();
    let main = databases.iter().find(|database| database["name"] == "embeddings").unwrap();
    assert_eq!(main["vectors"], 2850);
}

#[test]
fn the_table_names_every_step_and_a_directory_can_be_used_again() {
    let place = Place::new();
    for _ in 0..2 {
        let table = place.ok("demo --dir d --vectors 100 --dim 3");
        for step in [
            "backend",
            "load",
            "hot reads",
            "open to first vector",
            "cold reads",
            "get_many",
            "updates",
            "deletes",
            "synced writes",
            "kill -9",
            "verify",
            "bytes",
            "checks",
        ] {
            assert!(table.lines().any(|line| line.starts_with(step)), "{step}: {table}");
        }
    }
}

#[test]
fn a_directory_of_someone_else_is_refused() {
    let place = Place::new();
    std::fs::create_dir(place.path("d")).unwrap();
    place.write("d/precious.txt", "keep");
    place.fails(
        1,
        "demo --dir d --vectors 10 --dim 3",
        &["d is not empty", "nothing in it was touched"],
    );
    assert_eq!(place.read("d/precious.txt"), b"keep");
    assert_eq!(std::fs::read_dir(place.path("d")).unwrap().count(), 1);
}
