//! The Prometheus example, scraped over HTTP. A binary of its own: the recorder is the process's.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "../examples/prometheus.rs"]
#[expect(dead_code, reason = "the test has a main function of its own")]
pub(crate) mod example;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use nephrite::{Config, DatabaseOptions, blocking::Store};

fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: example\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The value of a sample line such as `nephrite_flushes{store="example"} 3`.
fn value(text: &str, name: &str) -> u64 {
    let start = format!("nephrite_{name}{{store=\"example\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{name} is missing in:\n{text}")).parse().unwrap()
}

#[test]
fn figures_are_scraped_and_move() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path(), Config::new()).unwrap();
    let words = store.create_database("words", DatabaseOptions::new(4)).unwrap();
    let handle = example::install().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let serving = std::thread::Builder::new()
            .spawn_scoped(scope, || example::serve(&listener, &store, &handle, 2))
            .unwrap();
        let before = scrape(address);
        assert!(before.starts_with("HTTP/1.1 200 OK\r\n"), "{before}");
        assert_eq!((value(&before, "databases"), value(&before, "flushes")), (1, 0));
        words.put(1, &[0.5; 4]).unwrap();
        store.flush().unwrap();
        let after = scrape(address);
        assert_eq!((value(&after, "flushes"), value(&after, "rows_flushed")), (1, 1));
        assert!(value(&before, "io_writes") < value(&after, "io_writes"));
        assert!(after.contains("# TYPE nephrite_flushes counter"), "{after}");
        assert!(after.contains("# TYPE nephrite_databases gauge"), "{after}");
        serving.join().unwrap().unwrap();
    });
    let names: Vec<&str> = store.stats().metrics().iter().map(|metric| metric.name).collect();
    let unique: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "names are unique: {names:?}");
    store.close().unwrap();
}
