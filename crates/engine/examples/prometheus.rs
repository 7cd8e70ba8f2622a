//! Figures of a store for Prometheus.
//!
//! `cargo run -p nephrite --features metrics --example prometheus -- DIR [ADDRESS]` opens (or
//! makes) the store in DIR and answers every HTTP request with its figures; ADDRESS is
//! 127.0.0.1:9464 unless given. A real service would put the few lines of `render` behind a route
//! of its own HTTP server.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use nephrite::{Config, blocking::Store, metric::Facade};

/// What Prometheus calls its text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Installs the recorder of this process; once.
pub(crate) fn install() -> Result<PrometheusHandle, Box<dyn std::error::Error>> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(handle)
}

/// The figures of a store, as of now.
fn render(store: &Store, handle: &PrometheusHandle) -> String {
    store.as_async().record_metrics(&Facade::new("example"));
    handle.render()
}

/// Answers `requests` requests, whatever they ask for.
pub(crate) fn serve(
    listener: &TcpListener,
    store: &Store,
    handle: &PrometheusHandle,
    requests: usize,
) -> io::Result<()> {
    for stream in listener.incoming().take(requests) {
        answer(stream?, &render(store, handle))?;
    }
    Ok(())
}

fn answer(mut stream: TcpStream, body: &str) -> io::Result<()> {
    let mut line = String::new();
    let mut request = BufReader::new(stream.try_clone()?);
    // An empty line ends the head of a request.
    while 0 < request.read_line(&mut line)? && !line.trim_end().is_empty() {
        line.clear();
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let directory = words.next().ok_or("usage: prometheus DIR [ADDRESS]")?;
    let address = words.next().unwrap_or_else(|| "127.0.0.1:9464".to_owned());
    let store = Store::open_or_create(directory, Config::new())?;
    let handle = install()?;
    let listener = TcpListener::bind(address)?;
    println!("figures at http://{}/metrics", listener.local_addr()?);
    serve(&listener, &store, &handle, usize::MAX)?;
    store.close()?;
    Ok(())
}
