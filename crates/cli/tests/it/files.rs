//! `import` and `export`: files of all formats, ids of both kinds, bad files.

use crate::run::Place;

/// `fbin` first: some tests make the other files from it.
const FORMATS: [&str; 3] = ["fbin", "npy", "fvecs"];

/// Bit patterns from a seed, special ones among them.
fn bits(seed: u32) -> u32 {
    match seed % 7 {
        0 => 0x7fa0_0001 + seed,
        1 => 0x8000_0000,
        _ => seed.wrapping_mul(2_654_435_761),
    }
}

/// A `.fbin` file of `rows` rows.
fn fbin(rows: u32, dimension: u32) -> Vec<u8> {
    let values = (0..rows * dimension).map(bits);
    [rows, dimension].into_iter().chain(values).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn every_format_round_trips_byte_for_byte_with_row_numbers() {
    let place = Place::new();
    place.write("source.fbin", fbin(2345, 7));
    place.ok("import s source source.fbin");
    for format in FORMATS {
        place.ok(&format!("export s source first.{format}"));
        let imported = place.json(&format!("import s {format} first.{format} --batch 100"));
        assert_eq!(imported["vectors"], 2345);
        assert_eq!(imported["dimension"], 7);
        assert_eq!(imported["bytes"], 2345 * 7 * 4);
        assert!(imported["load_seconds"].is_f64() && imported["flush_seconds"].is_f64());
        place.ok(&format!("export s {format} second.{format}"));
        assert_eq!(place.read(&format!("first.{format}")), place.read(&format!("second.{format}")));
    }
    assert_eq!(place.read("first.fbin"), place.read("source.fbin"));
}

#[test]
fn every_format_round_trips_with_text_ids_in_id_order() {
    let place = Place::new();
    place.write("a.fbin", fbin(500, 3));
    let ids: String = (0..500).map(|row| format!("name-{row:05} \u{e9}\n")).collect();
    place.write("a.txt", &ids);
    for format in FORMATS {
        let source = format!("a.{format}");
        if format != "fbin" {
            place.ok(&format!("export s fbin {source}"));
        }
        place.ok(&format!("import s {format} {source} --ids a.txt --durability synced"));
        let exported = place.json(&format!("export s {format} b.{format} --ids b.txt"));
        assert_eq!(exported["vectors"], 500);
        if format == "npy" {
            assert_eq!(&place.read("b.npy")[..6], b"\x93NUMPY");
        }
        assert_eq!(place.read(&format!("b.{format}")), place.read(&source), "{format}");
        assert_eq!(place.read("b.txt"), ids.as_bytes());
    }
}

#[test]
fn rows_come_out_in_id_order_whatever_order_they_went_in() {
    let place = Place::new();
    place.write("a.fbin", fbin(4, 1));
    place.write("ids.txt", "30\r\n4\r\n18446744073709551615\r\n0");
    place.ok("create s db --dim 1");
    place.ok("import s db a.fbin --ids ids.txt");
    place.ok("export s db b.fbin --ids out.txt");
    assert_eq!(place.read("out.txt"), b"0\n4\n30\n18446744073709551615\n");
    let (source, sorted) = (place.read("a.fbin"), place.read("b.fbin"));
    let row = |bytes: &[u8], at: usize| bytes[8 + at * 4..][..4].to_vec();
    let order = [3, 1, 0, 2];
    assert!((0..4).all(|at| row(&sorted, at) == row(&source, order[at])));
}

#[test]
fn an_id_that_occurs_twice_keeps_the_later_row() {
    let place = Place::new();
    place.write("a.fbin", fbin(3, 2));
    place.write("ids.txt", "x\ny\nx\n");
    place.ok("import s db a.fbin --ids ids.txt --batch 2");
    place.ok("export s db b.fbin --ids out.txt");
    assert_eq!(place.read("out.txt"), b"x\ny\n");
    assert_eq!(place.read("b.fbin")[8..16], place.read("a.fbin")[24..32]);
}

#[test]
fn batches_shrink_to_what_the_memory_allows() {
    let place = Place::new();
    place.write("a.fbin", fbin(600, 1000));
    let imported = place.json("import s db a.fbin --memory 4MiB --batch 600");
    assert_eq!(imported["vectors"], 600);
    assert!(imported["batch"].as_u64().unwrap() < 600, "{imported}");
    place.ok("export s db b.fbin --memory 4MiB");
    assert_eq!(place.read("a.fbin"), place.read("b.fbin"));
}

#[test]
fn files_without_rows_are_imported_and_exported() {
    let place = Place::new();
    place.write("a.fbin", fbin(0, 5));
    assert_eq!(place.json("import s db a.fbin")["vectors"], 0);
    place.ok("export s db b.npy --ids b.txt");
    assert_eq!(place.json("import s again b.npy --ids b.txt")["dimension"], 5);
    place.ok("export s db c.fbin");
    assert_eq!(place.read("c.fbin"), place.read("a.fbin"));
}

#[test]
fn bad_vector_files_are_refused_before_a_store_is_made() {
    let place = Place::new();
    let whole = fbin(10, 4);
    place.write("cut.fbin", &whole[..whole.len() - 1]);
    place.write("long.fbin", [&whole[..], &[0]].concat());
    place.write("header.fbin", [1, 0]);
    place.write("empty.npy", "");
    place.write("empty.fvecs", "");
    place.write("text.npy", "hello, this is text");
    place.write("x.txt", "");
    for (file, part) in [
        ("cut.fbin", "cut off"),
        ("long.fbin", "1 bytes are left over"),
        ("header.fbin", "within its header"),
        ("empty.npy", "not a NumPy file"),
        ("empty.fvecs", "before the dimension"),
        ("text.npy", "not a NumPy file"),
        ("x.txt", ".npy, .fvecs or .fbin"),
        ("missing.npy", "missing.npy"),
    ] {
        place.fails(1, &format!("import s db {file}"), &[file, part]);
    }
    assert!(!place.path("s").exists());
}

#[test]
fn a_numpy_file_of_another_type_is_refused_by_name() {
    let place = Place::new();
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }\n";
    let start =
        [b"\x93NUMPY\x01\x00".as_slice(), &[u8::try_from(header.len()).unwrap(), 0]].concat();
    place.write("f8.npy", [&start[..], header.as_bytes(), &[0; 8]].concat());
    place.fails(1, "import s db f8.npy", &["f8.npy", "'<f8'", "float32"]);
}

#[test]
fn bad_id_files_are_refused_before_a_row_is_written() {
    let place = Place::new();
    place.write("a.fbin", fbin(3, 2));
    for (ids, part) in [
        ("x\ny\n", "2 ids where the vector file has 3 rows"),
        ("x\ny\nz\nw\n", "4 ids"),
        ("x\n\nz\n", "line 2"),
        ("", "0 ids"),
    ] {
        place.write("ids.txt", ids);
        place.fails(1, "import s db a.fbin --ids ids.txt", &["ids.txt", part]);
    }
    place.ok("create s numbers --dim 2");
    place.write("ids.txt", "1\n2\nthree\n");
    place.fails(1, "import s numbers a.fbin --ids ids.txt", &["ids.txt line 3", "three"]);
    let list = place.json("list s");
    let databases = list["databases"].as_array().unwrap();
    assert!(databases.iter().all(|database| database["vectors"] == 0), "{databases:?}");
}

#[test]
fn files_that_do_not_fit_the_database_are_refused() {
    let place = Place::new();
    place.write("a.fbin", fbin(3, 2));
    place.ok("create s wide --dim 3");
    place.fails(1, "import s wide a.fbin", &["dimension 2", "wide has 3"]);
    place.ok("create s texts --dim 2 --ids bytes");
    place.fails(1, "import s texts a.fbin", &["byte ids", "--ids FILE.txt"]);
}

#[test]
fn a_row_of_another_dimension_stops_the_import_at_its_place() {
    let place = Place::new();
    let row = |dimension: u32| [dimension, 1, 2].map(u32::to_le_bytes).concat();
    place.write("a.fvecs", [row(2), row(2), row(3)].concat());
    place.fails(1, "import s db a.fvecs", &["a.fvecs at byte 24", "row 2"]);
}

#[test]
fn a_failed_export_leaves_the_old_file_and_no_other() {
    let place = Place::new();
    place.ok("create s db --dim 1 --ids bytes");
    place.run_with_input("put s db", "{\"id\":\"two\\nlines\",\"vector\":[1]}\n");
    place.write("old.npy", "old");
    place.fails(1, "export s db old.npy --ids ids.txt", &["ids.txt", "line end"]);
    assert_eq!(place.read("old.npy"), b"old");
    place.fails(1, "export s db nowhere/x.npy", &["nowhere/x.npy"]);
    place.fails(1, "export s db x.csv", &["x.csv", ".fvecs"]);
    let mut names: Vec<_> = std::fs::read_dir(place.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["old.npy", "s"]);
}
