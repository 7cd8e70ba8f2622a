//! One rival through all workloads, once.

use super::{
    limit::Limit,
    rival::{Kind, Open, Rival, Shape, Wait},
};
use crate::{
    Outcome,
    clock::{Stopwatch, cpu_seconds},
    place::{Place, disk_bytes, evict},
    rows::{Random, shuffle},
    zipf::Zipf,
};

/// Names and units; a sample names its workload by its place here.
pub(super) const WORKLOADS: [(&str, &str); 16] = [
    ("load ascending", "vectors/s"),
    ("load shuffled", "vectors/s"),
    ("load, a sync per batch", "vectors/s"),
    ("space", "x vectors"),
    ("open to first get", "ms"),
    ("scan", "vectors/s"),
    ("hot get, 1 thread", "vectors/s"),
    ("hot get, 2 threads", "vectors/s"),
    ("cold get, uniform", "vectors/s"),
    ("cold get, uniform: p99", "us"),
    ("cold get, uniform: CPU per read", "us"),
    ("cold get, zipf 0.99", "vectors/s"),
    ("cold get_many(100)", "vectors/s"),
    ("1 writer", "updates/s"),
    ("16 writers", "updates/s"),
    ("64 writers", "updates/s"),
];
pub(super) const LOAD: usize = 0;
pub(super) const SHUFFLED: usize = 1;
pub(super) const LOAD_SYNCED: usize = 2;
pub(super) const SPACE: usize = 3;
pub(super) const OPEN: usize = 4;
pub(super) const SCAN: usize = 5;
pub(super) const HOT: usize = 6;
pub(super) const HOT_MANY: usize = 7;
pub(super) const COLD: usize = 8;
pub(super) const COLD_P99: usize = 9;
pub(super) const COLD_CPU: usize = 10;
pub(super) const ZIPF: usize = 11;
pub(super) const MANY: usize = 12;
pub(super) const UPDATES: [(usize, usize); 3] = [(13, 1), (14, 16), (15, 64)];

/// Vectors per batch of a load.
const BATCH: usize = 1000;
/// Times that popular ids are read before their reading is measured.
const WARM_ROUNDS: u64 = 4;
/// Ids per `get_many`.
pub(super) const MANY_IDS: usize = 100;

/// One rival, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cycle<'a> {
    pub(super) place: &'a Place,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) zipf: &'a Zipf,
    pub(super) reads: u64,
    pub(super) updates: u64,
    pub(super) depth: usize,
    pub(super) seed: u64,
}

/// Workloads and what they gave.
pub(super) type Samples = Vec<(usize, f64)>;

impl Cycle<'_> {
    pub(super) fn run(&self, open: Open) -> Outcome<Samples> {
        let mut samples = vec![(SHUFFLED, self.load(open, "shuffled", true, Wait::Accepted)?.1)];
        self.place.remove("shuffled")?;
        if self.kind.persists {
            let rate = self.load(open, "synced", false, Wait::Durable)?.1;
            samples.push((LOAD_SYNCED, rate));
            self.place.remove("synced")?;
        }
        let (rival, rate) = self.load(open, "store", false, Wait::Accepted)?;
        samples.push((LOAD, rate));
        self.hot(&*rival, &mut samples)?;
        drop(rival);
        if self.kind.persists {
            self.reopened(open, &mut samples)?;
        }
        self.place.remove("store")?;
        Ok(samples)
    }

    /// A store with all vectors, opened with room for them; vectors per second until all are
    /// durable. Each batch waits as it is told to. Making the vectors is not counted.
    fn load(
        &self,
        open: Open,
        name: &str,
        shuffled: bool,
        wait: Wait,
    ) -> Outcome<(Box<dyn Rival>, f64)> {
        let mut ids: Vec<u64> = (0..self.shape.vectors).collect();
        if shuffled {
            shuffle(&mut ids, &mut Random::new(2));
        }
        self.place.remove(name)?;
        // A cache that is half of three quarters of it holds all vectors.
        let roomy = Shape { memory_bytes: self.shape.bytes() * 3 + (256 << 20), ..self.shape };
        let rival = open(&self.place.join(name), &roomy)?;
        let mut vectors = Vec::with_capacity(BATCH * self.shape.dimension);
        let mut seconds = 0.0;
        for batch in ids.chunks(BATCH) {
            vectors.clear();
            batch.iter().for_each(|id| self.shape.make(*id, &mut vectors));
            let watch = Stopwatch::start();
            rival.put(batch, &vectors, wait)?;
            seconds += watch.seconds();
        }
        let watch = Stopwatch::start();
        rival.sync()?;
        seconds += watch.seconds();
        Ok((rival, self.shape.vectors as f64 / seconds))
    }

    /// Everything fits in memory; a first scan brings it there.
    fn hot(&self, rival: &dyn Rival, samples: &mut Samples) -> Outcome<()> {
        self.scan(rival)?;
        for (workload, threads) in [(HOT, 1), (HOT_MANY, 2)] {
            let plans = self.plans(threads, None, 0);
            rival.get_by_workers(&plans)?; // what a scan left out of the cache
            let watch = Stopwatch::start();
            rival.get_by_workers(&plans)?;
            samples.push((workload, count(&plans) / watch.seconds()));
        }
        Ok(())
    }

    /// What is measured of a store that was closed: its files, opening, and then little memory.
    fn reopened(&self, open: Open, samples: &mut Samples) -> Outcome<()> {
        let path = self.place.join("store");
        samples.push((SPACE, disk_bytes(&path)? as f64 / self.shape.bytes() as f64));
        evict(&path)?;
        let limit = Limit::enter(self.shape.memory_bytes);
        if let Err(error) = &limit {
            eprintln!("rivals: MEMORY IS NOT LIMITED ({error}): cold figures are not cold");
        }
        let watch = Stopwatch::start();
        let rival = open(&path, &self.shape)?;
        rival.get(Random::new(self.seed).next() % self.shape.vectors)?;
        samples.push((OPEN, watch.seconds() * 1e3));
        for (workload, zipf) in [(COLD, None), (ZIPF, Some(self.zipf))] {
            if zipf.is_some() {
                // What is popular has to have been read before a cache can know it.
                (0..WARM_ROUNDS).try_for_each(|round| {
                    rival.get_by_workers(&self.plans(self.depth, zipf, round + 1)).map(drop)
                })?;
            }
            let plans = self.plans(self.depth, zipf, 0);
            let (watch, cpu) = (Stopwatch::start(), cpu_seconds());
            let latencies = rival.get_by_workers(&plans)?;
            samples.push((workload, count(&plans) / watch.seconds()));
            if workload == COLD {
                samples.push((COLD_P99, latencies.value_at_quantile(0.99) as f64 / 1e3));
                samples.push((COLD_CPU, (cpu_seconds() - cpu) * 1e6 / count(&plans)));
            }
        }
        samples.push((MANY, self.many(&*rival)?));
        samples.push((SCAN, self.scan(&*rival)?));
        for (workload, writers) in UPDATES {
            let plans = self.disjoint_plans(writers);
            let watch = Stopwatch::start();
            rival.put_by_workers(&plans, &self.shape)?;
            samples.push((workload, count(&plans) / watch.seconds()));
        }
        drop((rival, limit));
        Ok(())
    }

    fn many(&self, rival: &dyn Rival) -> Outcome<f64> {
        let plans = self.plans(1, None, 0);
        let watch = Stopwatch::start();
        plans[0].chunks(MANY_IDS).try_for_each(|ids| rival.get_many(ids))?;
        Ok(count(&plans) / watch.seconds())
    }

    fn scan(&self, rival: &dyn Rival) -> Outcome<f64> {
        let watch = Stopwatch::start();
        let found = rival.scan()?;
        if found != self.shape.vectors {
            return Err(format!("a scan found {found} of {} vectors", self.shape.vectors).into());
        }
        Ok(found as f64 / watch.seconds())
    }

    /// Ids to read for each worker; others in each round.
    fn plans(&self, workers: usize, zipf: Option<&Zipf>, round: u64) -> Vec<Vec<u64>> {
        let each = self.reads / workers as u64;
        let plan = |worker: usize| {
            let mut random = Random::new(self.seed << 32 | round << 16 | worker as u64);
            let draw = |_| match zipf {
                Some(zipf) => zipf.draw(&mut random),
                None => random.next() % self.shape.vectors,
            };
            (0..each).map(draw).collect()
        };
        (0..workers).map(plan).collect()
    }

    /// Ids to store for each writer; no two store the same.
    fn disjoint_plans(&self, writers: usize) -> Vec<Vec<u64>> {
        let writers = writers as u64;
        let each = self.shape.vectors / writers;
        let plan = |writer: u64| {
            let mut random = Random::new(!(self.seed << 32 | writer));
            (0..self.updates).map(|_| random.next() % each * writers + writer).collect()
        };
        (0..writers).map(plan).collect()
    }
}

fn count(plans: &[Vec<u64>]) -> f64 {
    plans.iter().map(Vec::len).sum::<usize>() as f64
}
