//! What a read of resident vectors does beside answering: nothing that can be counted.
//!
//! - Allocations are counted by a global allocator, which is why this is a binary of its own.
//! - System calls are counted by a seccomp filter that ends the process at the first one. It stays
//!   for the life of a thread, so each such test runs its body in a process of its own.
//!
//! On number ids, dense and sparse, and on string ids, through the async and the blocking API. The
//! memtables are empty: with rows in them a read also takes their lock, shared.
//! - Locks are counted by running reads one instruction at a time (`steps`, x86-64): every atomic
//!   read-modify-write must be one of those that pin and unpin a page or look at the version.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod kept;
#[cfg(target_arch = "x86_64")]
mod steps;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    os::unix::process::ExitStatusExt,
    pin::pin,
    process::{Command, ExitStatus},
    task::{Context, Poll, Waker},
};

use nephrite::{
    Config, DatabaseOptions, Durability, IdKind, IdRef, Ids, VectorRef,
    blocking::{Database, Store},
};

const DIMENSION: u32 = 128;
/// The same as a length.
const LEN: usize = DIMENSION as usize;
const ROWS: usize = 20_000;
/// Reads of which each is counted.
const READS: usize = 5_000;
/// Ids of one `get_many`.
const MANY: usize = 100;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static IN_ALLOCATOR: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: every call is handed to `System` unchanged, so that its guarantees are kept; the counter
// is a plain cell of the thread, and const-initialised, so that touching it does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        IN_ALLOCATOR.set(true);
        // SAFETY: the caller keeps the contract of `alloc`.
        let memory = unsafe { System.alloc(layout) };
        IN_ALLOCATOR.set(false);
        memory
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_ALLOCATOR.set(true);
        // SAFETY: the caller keeps the contract of `dealloc`; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
        IN_ALLOCATOR.set(false);
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_while(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Dense,
    Sparse,
    Strings,
}

const FORMS: [Form; 3] = [Form::Dense, Form::Sparse, Form::Strings];

/// Ids of the rows: numbers, or strings.
enum RowIds {
    U64(Vec<u64>),
    Bytes(Vec<String>),
}

impl RowIds {
    fn new(form: Form) -> Self {
        let spread = |row: u64| row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let rows = 0..ROWS as u64;
        match form {
            Form::Dense => Self::U64(rows.collect()),
            Form::Sparse => Self::U64(rows.map(spread).collect()),
            Form::Strings => {
                Self::Bytes(rows.map(|row| format!("document-{:016x}", spread(row))).collect())
            }
        }
    }

    fn get(&self, row: usize) -> IdRef<'_> {
        match self {
            Self::U64(ids) => IdRef::U64(ids[row]),
            Self::Bytes(ids) => IdRef::from(&ids[row]),
        }
    }
}

/// A database whose vectors are all in memory and in segments.
struct Resident {
    _directory: tempfile::TempDir,
    store: Store,
    database: Database,
    ids: RowIds,
}

impl Resident {
    fn new(form: Form) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new().memory_limit(128 << 20).memtable_bytes(4 << 20);
        let store = Store::create(directory.path().join("store"), config).unwrap();
        let ids = RowIds::new(form);
        let kind = ids.get(0).kind();
        let options = DatabaseOptions::new(DIMENSION).id_kind(kind);
        let database = store.create_database("resident", options).unwrap();
        fill(&database, &ids, kind);
        store.flush().unwrap();
        let resident = Self { _directory: directory, store, database, ids };
        resident.bring_into_memory();
        resident
    }

    /// Reads everything until nothing is read from disk: a compaction may still bring new pages.
    fn bring_into_memory(&self) {
        loop {
            let before = self.store.stats().io.reads;
            (0..ROWS).for_each(|row| check(row, self.database.get(self.ids.get(row)).unwrap()));
            let stats = self.store.stats();
            if stats.io.reads == before {
                return;
            }
        }
    }

    /// Rows that lie apart.
    fn rows() -> impl Iterator<Item = usize> {
        (0..READS).map(|read| read * 7919 % ROWS)
    }

    fn get_blocking(&self) {
        Self::rows().for_each(|row| check(row, self.database.get(self.ids.get(row)).unwrap()));
    }

    fn get_async(&self) {
        for row in Self::rows() {
            let found = at_once(self.database.as_async().get(self.ids.get(row)));
            check(row, found.unwrap());
        }
    }

    fn get_absent(&self) {
        for row in Self::rows() {
            let absent = match &self.ids {
                RowIds::U64(_) => IdRef::U64(u64::MAX / 2 + row as u64),
                RowIds::Bytes(_) => IdRef::from("document-7x"),
            };
            assert!(self.database.get(absent).unwrap().is_none());
        }
    }

    /// Calls of `get_many`, each for ids that were listed before.
    fn get_many(&self, lists: &[(Vec<usize>, Vec<IdRef<'_>>)], poll: bool) {
        for (rows, ids) in lists {
            let vectors = if poll {
                at_once(self.database.as_async().get_many(ids))
            } else {
                self.database.get_many(ids)
            };
            let found = rows.iter().zip(vectors.unwrap());
            found.for_each(|(row, vector)| check(*row, vector));
        }
    }

    fn lists(&self) -> Vec<(Vec<usize>, Vec<IdRef<'_>>)> {
        let rows: Vec<usize> = Self::rows().collect();
        let list =
            |rows: &[usize]| (rows.to_vec(), rows.iter().map(|row| self.ids.get(*row)).collect());
        rows.chunks(MANY).map(list).collect()
    }
}

fn fill(database: &Database, ids: &RowIds, kind: IdKind) {
    for start in (0..ROWS).step_by(1000) {
        let vectors: Vec<f32> = (start..start + 1000).flat_map(|row| [row as f32; LEN]).collect();
        match (ids, kind) {
            (RowIds::U64(ids), _) => {
                let ids = Ids::U64(&ids[start..start + 1000]);
                database.put_many(ids, &vectors, Durability::Buffered).unwrap();
            }
            (RowIds::Bytes(ids), _) => {
                let ids: Vec<&[u8]> =
                    ids[start..start + 1000].iter().map(String::as_bytes).collect();
                database.put_many(Ids::Bytes(&ids), &vectors, Durability::Buffered).unwrap();
            }
        }
    }
}

#[expect(clippy::float_cmp, reason = "small whole numbers are stored bit for bit")]
fn check(row: usize, vector: Option<VectorRef>) {
    let vector = vector.unwrap();
    assert!(vector.len() == LEN && vector[LEN - 1] == row as f32);
}

/// What a future is ready with when it is first polled.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a resident vector is told at the first poll"),
    }
}

#[test]
fn a_resident_get_allocates_nothing() {
    for form in FORMS {
        let resident = Resident::new(form);
        // The first read of a thread may register it.
        resident.get_blocking();
        let counts = [
            allocations_while(|| resident.get_blocking()),
            allocations_while(|| resident.get_async()),
            allocations_while(|| resident.get_absent()),
        ];
        assert_eq!(counts, [0; 3], "{form:?}");
    }
}

#[test]
fn a_resident_get_many_allocates_its_answer() {
    for form in FORMS {
        let resident = Resident::new(form);
        let lists = resident.lists();
        for poll in [false, true] {
            resident.get_many(&lists, poll);
            let count = allocations_while(|| resident.get_many(&lists, poll));
            assert_eq!(count, lists.len(), "{form:?}, polled: {poll}");
        }
    }
}

/// What a look at the version takes: noting it down, and crossing it out.
#[cfg(target_arch = "x86_64")]
const LOCKED_BY_VERSION: u64 = 2;
/// What a page takes: pinning and unpinning it.
#[cfg(target_arch = "x86_64")]
const LOCKED_BY_PAGE: u64 = 2;

#[test]
#[cfg(target_arch = "x86_64")]
fn a_resident_read_takes_no_lock() {
    for form in FORMS {
        let resident = Resident::new(form);
        let (lists, rows) = (resident.lists(), || Resident::rows().take(3));
        // Uses of a page are counted up to three.
        (0..4).for_each(|_| resident.get_many(&lists, true));
        (0..4).for_each(|_| resident.get_blocking());
        let stepped = |calls: u64, work: &dyn Fn()| {
            let before = resident.store.stats().cache_hits;
            let locked = steps::locked_while(work) as u64;
            let pages = resident.store.stats().cache_hits - before;
            assert_ne!(pages, 0);
            let expected = LOCKED_BY_VERSION * calls + LOCKED_BY_PAGE * pages;
            assert_eq!(locked, expected, "{form:?}: {calls} calls, {pages} pages");
        };
        stepped(3, &|| {
            rows()
                .for_each(|row| check(row, resident.database.get(resident.ids.get(row)).unwrap()));
        });
        stepped(3, &|| {
            for row in rows() {
                let found = at_once(resident.database.as_async().get(resident.ids.get(row)));
                check(row, found.unwrap());
            }
        });
        // An instruction takes microseconds this way.
        let few = [(lists[0].0[..4].to_vec(), lists[0].1[..4].to_vec())];
        stepped(1, &|| resident.get_many(&few, false));
        stepped(1, &|| resident.get_many(&few, true));
    }
}

#[test]
fn absent_ids_are_denied_by_filters() {
    for form in [Form::Sparse, Form::Strings] {
        let resident = Resident::new(form);
        let segments = resident.database.stats().unwrap().segments;
        let before = resident.store.stats().cache_hits;
        let absent: Vec<String> = (0..READS).map(|read| format!("document-{read:016x}")).collect();
        for (read, text) in absent.iter().enumerate() {
            let id = match &resident.ids {
                RowIds::U64(_) => IdRef::U64((read as u64).wrapping_mul(0x1234_5678_9abc_def1)),
                RowIds::Bytes(_) => IdRef::from(text),
            };
            if read != 0 {
                assert!(resident.database.get(id).unwrap().is_none(), "{id}");
            }
        }
        let pages = resident.store.stats().cache_hits - before;
        let most = if segments < 2 { READS as u64 } else { READS as u64 * segments / 30 };
        assert!(pages <= most, "{form:?}: {pages} pages of {segments} segments");
    }
}

/// Ends this process at the next system call of this thread, whichever it is, but for its end.
fn forbid_system_calls() {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let end = u32::try_from(libc::SYS_exit_group).unwrap();
    let filter = [
        // Loads the number of the system call, which is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, end) },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the call takes only numbers.
    let outcome = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(outcome, 0);
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the program and its filter live until the call returns; the kernel copies them.
    let outcome = unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

/// The environment variable that says which form the child reads.
const CHILD: &str = "NEPHRITE_TEST_RESIDENT_CHILD";

/// Runs a test of this binary in a process of its own.
fn run_alone(test: &str, value: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, value);
    command.status().unwrap()
}

/// Ends the process without a word to anybody.
fn end(code: i32) -> ! {
    // SAFETY: the call takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// The code with which a child says that all went well.
const WELL: i32 = 77;

#[test]
fn a_resident_read_makes_no_system_call() {
    if let Ok(form) = std::env::var(CHILD) {
        let form = FORMS.into_iter().find(|known| format!("{known:?}") == form).unwrap();
        let resident = Resident::new(form);
        let lists = resident.lists();
        resident.get_many(&lists, true);
        forbid_system_calls();
        resident.get_blocking();
        resident.get_async();
        resident.get_absent();
        resident.get_many(&lists, false);
        resident.get_many(&lists, true);
        end(WELL);
    }
    for form in FORMS {
        let status = run_alone("a_resident_read_makes_no_system_call", &format!("{form:?}"));
        assert_eq!(status.code(), Some(WELL), "{form:?}: {status}");
    }
}

#[test]
fn the_filter_ends_a_process_that_makes_a_system_call() {
    if std::env::var(CHILD).is_ok() {
        forbid_system_calls();
        // SAFETY: the call takes nothing and cannot fail.
        let parent = unsafe { libc::getppid() };
        end(parent % 2);
    }
    let status = run_alone("the_filter_ends_a_process_that_makes_a_system_call", "control");
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
}
