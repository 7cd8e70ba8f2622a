//! Rows that lookups remember: what was found once is found without its id page, and nothing that
//! changes afterwards is missed.

use nephrite::{
    DatabaseOptions, IdKind, IdRef,
    blocking::{Database, Store},
};

use crate::support::{new_store, small, vector};

const DIMENSION: usize = 16;
const COUNT: u64 = 600;

/// Ids of one kind, spread so that no run of them is dense.
#[derive(Clone, Copy, Debug)]
enum Form {
    Numbers,
    Short,
    Long,
}

const FORMS: [Form; 3] = [Form::Numbers, Form::Short, Form::Long];

impl Form {
    fn with_id<T>(self, number: u64, call: impl FnOnce(IdRef<'_>) -> T) -> T {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match self {
            Self::Numbers => call(IdRef::U64(spread)),
            Self::Short => call(IdRef::from(&*format!("id-{spread:016x}"))),
            Self::Long => call(IdRef::from(&*format!("{spread:016x}-{spread:030}"))),
        }
    }

    fn create(self, store: &Store, name: &str) -> Database {
        let kind = match self {
            Self::Numbers => IdKind::U64,
            Self::Short | Self::Long => IdKind::Bytes,
        };
        let options = DatabaseOptions::new(u32::try_from(DIMENSION).unwrap()).id_kind(kind);
        store.create_database(name, options).unwrap()
    }

    fn put(self, database: &Database, number: u64, seed: u64) {
        self.with_id(number, |id| database.put(id, &vector(seed, DIMENSION)).unwrap());
    }

    /// The same through every way to read.
    fn expect(self, database: &Database, number: u64, seed: Option<u64>) {
        let expected = seed.map(|seed| vector(seed, DIMENSION));
        for _ in 0..2 {
            let found = self.with_id(number, |id| database.get(id).unwrap());
            assert_eq!(found.as_deref(), expected.as_deref(), "{self:?} {number}");
            let found = self.with_id(number, |id| database.get_many(&[id]).unwrap());
            assert_eq!(found[0].as_deref(), expected.as_deref(), "{self:?} {number}");
        }
    }
}

/// A database whose ids are in one segment.
fn filled(form: Form, store: &Store, name: &str, seed: u64) -> Database {
    let database = form.create(store, name);
    (0..COUNT).for_each(|number| form.put(&database, number, number + seed));
    store.flush().unwrap();
    database
}

#[test]
fn a_second_lookup_reads_no_id_page() {
    for form in FORMS {
        let (_directory, store) = new_store(small());
        let database = filled(form, &store, "a", 0);
        let touched = |number| {
            let before = store.stats();
            form.with_id(number, |id| database.get(id).unwrap().unwrap());
            let after = store.stats();
            (after.cache_hits + after.cache_misses) - (before.cache_hits + before.cache_misses)
        };

        assert!(1 < touched(8), "{form:?}");
        assert_eq!(touched(8), 1, "{form:?}");
        assert!(0 < store.stats().row_table_bytes);
    }
}

#[test]
fn what_flushes_and_compactions_change_is_seen() {
    for form in FORMS {
        let (_directory, store) = new_store(small());
        let database = filled(form, &store, "a", 0);
        let snapshot = database.snapshot().unwrap();
        (0..4).for_each(|number| form.expect(&database, number, Some(number)));

        form.put(&database, 1, 1001);
        form.with_id(2, |id| database.delete(id).unwrap());
        let now = [Some(0), Some(1001), None, Some(3)];
        let expect_now =
            || (0..).zip(now).for_each(|(number, seed)| form.expect(&database, number, seed));
        expect_now();
        store.flush().unwrap();
        expect_now();
        form.with_id(1, |id| {
            let before = snapshot.get(id).unwrap();
            assert_eq!(before.as_deref(), Some(&*vector(1, DIMENSION)), "{form:?}");
        });
        database.compact().unwrap();
        expect_now();
        form.put(&database, 2, 1002);
        store.flush().unwrap();
        form.expect(&database, 2, Some(1002));
    }
}

#[test]
fn databases_with_the_same_ids_do_not_see_each_others_rows() {
    for form in FORMS {
        let (_directory, store) = new_store(small());
        let databases = [0, 1000, 2000, 3000, 4000].map(|seed| {
            let database = filled(form, &store, &format!("d{seed}"), seed);
            (database, seed)
        });
        for number in 0..COUNT {
            for (database, seed) in &databases {
                form.expect(database, number, Some(number + seed));
            }
        }
        store.drop_database("d0").unwrap();
        let anew = filled(form, &store, "d0", 9000);
        form.expect(&anew, 5, Some(9005));
    }
}
