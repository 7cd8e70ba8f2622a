//! Measures one read at a time from one thread: plain calls, a caller's own ring, a ring thread.
//!
//! ```text
//! cargo run --release -p nephrite-io --example callerbench -- FILE [key=value ...]
//!   direct=no|yes  block=4096  count=20000  rounds=7  pages=N (only the first N blocks)
//!   only=WAY (one of the names below, for a profiler)
//! ```
//!
//! With `direct=no` the file is read through once first, so every read finds its page in the
//! system's cache. The ways alternate within each round; printed are medians over the rounds, in
//! nanoseconds per read, and the ratio to plain `pread`.

#[cfg(target_os = "linux")]
fn main() -> Result<(), bench::Failure> {
    bench::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("io_uring exists on Linux only");
}

#[cfg(target_os = "linux")]
mod bench {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::path::PathBuf;
    use std::time::Instant;

    use nephrite_io::memory::AlignedBuf;
    use nephrite_io::{
        BackendChoice, CallerRing, Disk, DiskOptions, FileHandle, IoBuffer, OpenOptions, block_on,
        drive, open_disk, read,
    };

    pub(super) type Failure = Box<dyn std::error::Error>;

    /// `O_DIRECT` on the machines that have rings.
    const O_DIRECT: i32 = libc::O_DIRECT;

    type Way = fn(&Reads) -> Result<(), Failure>;

    struct Reads {
        disk: std::sync::Arc<dyn Disk>,
        file: FileHandle,
        plain: File,
        ring: CallerRing,
        block: usize,
        blocks: u64,
        count: u64,
    }

    pub(super) fn run() -> Result<(), Failure> {
        let mut words = std::env::args().skip(1);
        let path = words.next().ok_or("usage: callerbench FILE [key=value ...]")?;
        let path: PathBuf = std::path::absolute(path)?;
        let (mut direct, mut block, mut count, mut rounds) = (false, 4096usize, 20_000u64, 7usize);
        let (mut pages, mut only) = (u64::MAX, String::new());
        for word in words {
            let (key, value) = word.split_once('=').ok_or("arguments are key=value")?;
            match key {
                "direct" => direct = value == "yes",
                "block" => block = value.parse()?,
                "count" => count = value.parse()?,
                "rounds" => rounds = value.parse()?,
                "pages" => pages = value.parse()?,
                "only" => only = value.to_owned(),
                _ => return Err(format!("`{key}` is no argument").into()),
            }
        }
        let directory = path.parent().ok_or("the file has no directory")?;
        let disk = open_disk(DiskOptions::new().backend(BackendChoice::Uring), directory)?;
        let file = block_on(disk.open(&path, OpenOptions::read_only().direct(direct)))?;
        let blocks = block_on(disk.file_len(&file))? / block as u64;
        let blocks = blocks.min(pages);
        let mut options = File::options();
        options.read(true);
        if direct {
            options.custom_flags(O_DIRECT);
        }
        let ring = CallerRing::new(&disk)?;
        let reads = Reads { disk, file, plain: options.open(&path)?, ring, block, blocks, count };
        let ways: [(&str, Way); 4] = [
            ("pread", Reads::plain),
            ("drive", Reads::driven),
            ("caller ring", Reads::on_ring),
            ("ring thread", Reads::handed_over),
        ];
        reads.plain()?;
        let mut times = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for (way, times) in ways.iter().zip(&mut times) {
                if !only.is_empty() && only != way.0 {
                    continue;
                }
                #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
                let start = Instant::now();
                way.1(&reads)?;
                times.push(start.elapsed().as_secs_f64() * 1e9 / count as f64);
            }
        }
        println!("{}", reads.disk.report());
        println!("direct: {}, block: {block}", reads.file.is_direct());
        let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
        for ((name, _), median) in ways.iter().zip(&medians) {
            println!("{name:12} {median:9.0} ns  {:5.2} of pread", median / medians[0]);
        }
        Ok(())
    }

    fn median(times: &mut [f64]) -> f64 {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    }

    impl Reads {
        fn offset(&self, index: u64) -> u64 {
            let mut mixed = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (mixed ^ mixed >> 31) % self.blocks * self.block as u64
        }

        fn plain(&self) -> Result<(), Failure> {
            let mut buffer = AlignedBuf::zeroed(self.block)?;
            for index in 0..self.count {
                self.plain.read_exact_at(&mut buffer, self.offset(index))?;
            }
            Ok(())
        }

        async fn one(&self, index: u64, buffer: IoBuffer) -> Result<IoBuffer, Failure> {
            Ok(read(&*self.disk, &self.file, self.offset(index), buffer).await?)
        }

        fn driven(&self) -> Result<(), Failure> {
            let mut buffer = IoBuffer::Owned(AlignedBuf::zeroed(self.block)?);
            for index in 0..self.count {
                buffer = drive(&*self.disk, self.one(index, buffer))?;
            }
            Ok(())
        }

        fn on_ring(&self) -> Result<(), Failure> {
            let mut buffer = IoBuffer::Owned(AlignedBuf::zeroed(self.block)?);
            for index in 0..self.count {
                buffer = self.ring.run(self.one(index, buffer))?;
            }
            Ok(())
        }

        fn handed_over(&self) -> Result<(), Failure> {
            let mut buffer = IoBuffer::Owned(AlignedBuf::zeroed(self.block)?);
            for index in 0..self.count {
                buffer = block_on(self.one(index, buffer))?;
            }
            Ok(())
        }
    }
}
