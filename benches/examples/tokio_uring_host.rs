//! The engine inside a tokio-uring host: its futures are awaited beside the host's own I/O.
//!
//! ```text
//! cargo run -p nephrite-benches --example tokio_uring_host -- [DIR]
//! ```
//!
//! The host's runtime has one thread and a ring of its own for the host's files. The engine's
//! futures need neither: its ring threads wake the host's thread, and while they work the thread
//! serves other tasks, which the example shows by copying the host's file meanwhile. Runs where
//! io_uring is allowed; the host is what needs it, the engine would do without.

mod steps;

use std::path::Path;

use nephrite::{Config, Store};

use crate::steps::Failure;

fn main() -> Result<(), Failure> {
    let place = steps::place()?;
    tokio_uring::start(async {
        let store = Store::create(place.path().join("store"), Config::new()).await?;
        let host_file = place.path().join("host-file");
        let (stored, copied) = tokio::join!(steps::run(&store), write_and_read(&host_file));
        stored?;
        println!("host's own I/O through its ring: {} bytes", copied?);
        store.close().await?;
        println!("closed");
        Ok(())
    })
}

/// What the host does with its own ring in the meantime.
async fn write_and_read(path: &Path) -> Result<usize, Failure> {
    let file = tokio_uring::fs::File::create(path).await?;
    let (written, bytes) = file.write_all_at(vec![7; 4096], 0).await;
    written?;
    file.sync_data().await?;
    file.close().await?;
    let file = tokio_uring::fs::File::open(path).await?;
    let (read, back) = file.read_exact_at(vec![0; 4096], 0).await;
    read?;
    file.close().await?;
    if back != bytes {
        return Err("the host's file does not hold what was written".into());
    }
    Ok(back.len())
}
