//! Writes the seeds of the decoders' fuzz targets to `fuzz/corpus`, after a change of the format
//! that is meant. `tests/it/corpus.rs` holds that they are what the crate writes.

#[path = "../tests/it/corpus/seeds.rs"]
mod seeds;

use std::{fs, io};

fn main() -> io::Result<()> {
    for (target, seeds) in seeds::seeds() {
        let folder = seeds::fuzz_folder().join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
