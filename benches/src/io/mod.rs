//! `io`: our I/O layer without an engine, beside `fio` and the other ways to read the same file.
//!
//! One file, written once so that its blocks exist, is read in every round by every contender; who
//! begins moves on by one each round. Ratios pair the samples of a round. Contenders run one at a
//! time. CPU time is that of the whole process (for `fio`, of its worker), kernel included.
//!
//! Below each table stand the targets and whether they were reached. No figure fails anything.

mod cached;
mod fio;
mod hand_off;
mod job;
mod others;
mod ours;
mod raw_ring;

use clap::Args;
use nephrite_io::BackendChoice;

pub(crate) use self::job::{Access, Job, Measured};

use self::{
    hand_off::{Callers, HandOff},
    job::{Contender, Goal},
    ours::{Caller, Memory, Ours},
    raw_ring::RawRing,
};
use crate::{Outcome, device, place::Place, report::Figure, table::Table};

#[derive(Debug, Args)]
pub(crate) struct IoArguments {
    /// Size of the file, MiB
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Seconds per measurement: short ones in many rounds, so that pauses of the machine meet all
    #[arg(long, default_value_t = 0.2)]
    seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Operations in flight of the random reads
    #[arg(long, value_delimiter = ',', default_value = "1,32,128")]
    depths: Vec<usize>,
    /// Blocking reads of cached pages per round
    #[arg(long, default_value_t = 4_000)]
    cached_reads: u64,
    /// Only contenders whose name contains one of these (fio always runs, as the yardstick)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// What a run found out: all samples, and the tables made of them.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) figures: Vec<Figure>,
    pub(crate) tables: Vec<Table>,
}

pub(crate) fn run(place: &Place, arguments: &IoArguments) -> Outcome<Results> {
    let path = place.join("blocks");
    device::sequential_write(&place.disk, &path, arguments.size << 20)?;
    let contenders = contenders(arguments);
    let random = arguments.depths.iter().map(|depth| (Access::RandomRead, 4096, *depth));
    let sequential = [Access::SequentialRead, Access::SequentialWrite].map(|it| (it, 1 << 20, 8));
    let mut results = Results { figures: Vec::new(), tables: Vec::new() };
    for (access, block_bytes, depth) in random.chain(sequential) {
        let job = Job {
            path: path.clone(),
            file_bytes: arguments.size << 20,
            block_bytes,
            depth,
            access,
            seconds: arguments.seconds,
            seed: 0,
        };
        let series = measure(&contenders, &job, arguments.rounds)?;
        results.tables.push(table(&job, &series));
        results.figures.extend(series.into_iter().flat_map(Series::into_figures));
    }
    let (figures, table) = cached::run(&path, arguments.rounds, arguments.cached_reads)?;
    results.figures.extend(figures);
    results.tables.push(table);
    Ok(results)
}

/// What a bare ring gives, without an engine or a layer.
pub(crate) fn bare_ring(job: &Job) -> Outcome<Measured> {
    RawRing { call_each: job.access == Access::RandomRead }.run(job)
}

/// The yardstick comes first: `fio`, or the bare loop where there is none.
fn contenders(arguments: &IoArguments) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = vec![Box::new(RawRing { call_each: false })];
    all.push(Box::new(RawRing { call_each: true }));
    let bare = [
        ("bare hand-off, one caller", Callers::Threads(1)),
        ("bare hand-off, two callers", Callers::Threads(2)),
        ("bare hand-off, tasks on two threads", Callers::TasksOnTwoThreads),
    ];
    all.extend(
        bare.map(|(name, callers)| Box::new(HandOff { name, callers }) as Box<dyn Contender>),
    );
    all.extend(ours().map(|ours| Box::new(ours) as Box<dyn Contender>));
    all.push(Box::new(others::TokioUring));
    all.push(Box::new(others::TokioFs));
    all.push(Box::new(others::MemoryMap));
    let only = &arguments.only;
    all.retain(|it| only.is_empty() || only.iter().any(|part| it.name().contains(part.as_str())));
    match fio::version() {
        Ok(version) => {
            eprintln!("targets: the yardstick is {version}");
            all.insert(0, Box::new(fio::Fio { batched: true }));
            all.insert(0, Box::new(fio::Fio { batched: false }));
        }
        Err(error) => {
            eprintln!("targets: FIO IS MISSING ({error}): the ratios are to the bare ring loop");
            let bare = RawRing { call_each: false };
            if all.first().is_none_or(|first| first.name() != bare.name()) {
                all.insert(0, Box::new(bare));
            }
        }
    }
    all
}

fn ours() -> impl Iterator<Item = Ours> {
    use {BackendChoice::Positional, BackendChoice::Uring, Caller::*, Memory::*};
    [
        ("ours: ring thread, one task", Uring, OneTask, Pages),
        ("ours: ring thread, many tasks", Uring, ManyTasks, Pages),
        ("ours: ring thread, many tasks on two threads", Uring, ManyOnTwoThreads, Pages),
        ("ours: caller-driven, one task", Uring, OneDriven, Pages),
        ("ours: caller-driven, many tasks", Uring, ManyDriven, Pages),
        ("ours: ring thread, from completions", Uring, Completions, Pages),
        ("ours: ring thread, one task, huge pages", Uring, OneTask, HugePages),
        ("ours: ring thread, many tasks, huge pages", Uring, ManyTasks, HugePages),
        ("ours: positional pool, many tasks", Positional, ManyOnTwoThreads, Pages),
        ("ours: positional pool, huge pages", Positional, ManyOnTwoThreads, HugePages),
    ]
    .into_iter()
    .map(|(name, backend, caller, memory)| Ours { name, backend, caller, memory })
}

/// One contender's samples of one job.
struct Series {
    name: String,
    rate: Figure,
    cpu: Figure,
    p50: Figure,
    p99: Figure,
    goal: Option<Goal>,
}

impl Series {
    fn new(contender: &dyn Contender, job: &Job) -> Self {
        let name = contender.name();
        let title = format!("{}, {name}", title(job));
        Self {
            name: name.to_owned(),
            goal: contender.goal(job),
            rate: Figure::new(&title, "operations/s"),
            cpu: Figure::new(format!("{title}, CPU per operation"), "us"),
            p50: Figure::new(format!("{title}, p50"), "us"),
            p99: Figure::new(format!("{title}, p99"), "us"),
        }
    }

    fn push(&mut self, measured: &Measured) {
        self.rate.push(measured.rate);
        self.cpu.push(measured.cpu_microseconds);
        self.p50.push(measured.p50_microseconds);
        self.p99.push(measured.p99_microseconds);
    }

    /// Whether the goal was reached, in words.
    fn verdict(&self, yardstick: &Self) -> String {
        let Some(goal) = self.goal else { return String::new() };
        let judged = |reached: bool| if reached { "reached" } else { "MISSED" };
        let rate = self.rate.ratio_to(&yardstick.rate, "").median();
        let mut words = format!(">= {}: {}", goal.rate_min, judged(goal.rate_min <= rate));
        if let Some(cpu_max) = goal.cpu_max {
            let cpu = self.cpu.ratio_to(&yardstick.cpu, "").median();
            words += &format!("; CPU <= {cpu_max}: {}", judged(cpu <= cpu_max));
        }
        words
    }

    fn into_figures(self) -> [Figure; 4] {
        [self.rate, self.cpu, self.p50, self.p99]
    }
}

fn title(job: &Job) -> String {
    let what = match job.access {
        Access::RandomRead => "random reads",
        Access::SequentialRead => "sequential reads",
        Access::SequentialWrite => "sequential writes",
    };
    format!("{what} of {} KiB, depth {}", job.block_bytes >> 10, job.depth)
}

fn measure(contenders: &[Box<dyn Contender>], job: &Job, rounds: usize) -> Outcome<Vec<Series>> {
    let mut taking: Vec<_> = contenders
        .iter()
        .filter(|contender| contender.takes(job))
        .map(|contender| (contender, Series::new(&**contender, job)))
        .collect();
    let count = taking.len();
    for round in 0..rounds {
        for turn in 0..count {
            let (contender, series) = &mut taking[(round + turn) % count];
            let job = Job { seed: round as u64, ..job.clone() };
            let measured = contender.run(&job);
            let measured = measured.map_err(|error| format!("{}: {error}", contender.name()))?;
            series.push(&measured);
        }
    }
    Ok(taking.into_iter().map(|(_, series)| series).collect())
}

/// All series of a job; the first is the yardstick.
fn table(job: &Job, series: &[Series]) -> Table {
    let yardstick = &series[0];
    let ratio = format!("/ {}", yardstick.name);
    let columns = ["", "operations/s", &ratio, "CPU us", "CPU ratio", "p50 us", "p99 us", "goal"];
    let mut table = Table::new(title(job), &columns);
    for of_one in series {
        table.push(vec![
            of_one.name.clone(),
            of_one.rate.cell(),
            of_one.rate.ratio_to(&yardstick.rate, "").cell(),
            of_one.cpu.cell(),
            of_one.cpu.ratio_to(&yardstick.cpu, "").cell(),
            of_one.p50.cell(),
            of_one.p99.cell(),
            of_one.verdict(yardstick),
        ]);
    }
    table
}
