//! Submitters, the closer, and a thread that sleeps when it finds nothing: no batch is lost, and
//! the thread always ends.

use std::sync::Arc;

use loom::thread::{self, JoinHandle};

use crate::loom_models::{Ended, check};
use crate::request::{Class, Completed};
use crate::stats::Counters;
use crate::threads;
use crate::uring::intake::Intake;
use crate::uring::wake::Wake;

struct Model {
    intake: Intake,
    counters: Counters,
    ended: Ended,
}

impl Model {
    fn new() -> Arc<Self> {
        let intake = Intake::new(Wake::new().unwrap());
        Arc::new(Self { intake, counters: Counters::default(), ended: Ended::default() })
    }

    /// Whether the request was taken in.
    fn submit(&self) -> bool {
        let request = self.ended.request();
        self.intake.submit(request, &self.counters).is_none()
    }

    fn close(&self) {
        self.intake.close(&self.counters);
    }

    /// Ends everything that is there.
    fn take_all(&self) {
        let pop = || Class::ALL.into_iter().find_map(|class| self.intake.pop(class));
        let lanes = std::iter::from_fn(pop).flatten();
        for request in lanes.chain(self.intake.pop_side_door()) {
            (request.on_complete)(Completed { result: Ok(()), buffer: None });
        }
    }

    /// The thread: the order of steps is that of `Driver::serve`.
    fn serve(&self) {
        loop {
            self.take_all();
            if self.intake.is_over() {
                return;
            }
            self.intake.park();
        }
    }

    /// The thread that lost its ring: the order of steps is that of `Driver::empty_out`.
    fn serve_without_ring(&self) {
        while !self.intake.is_over() {
            self.take_all();
            self.intake.park();
        }
    }
}

fn spawn<T: 'static>(model: &Arc<Model>, run: impl FnOnce(&Model) -> T + 'static) -> JoinHandle<T> {
    let model = Arc::clone(model);
    thread::spawn(move || run(&model))
}

#[test]
fn what_was_taken_in_is_served() {
    check(|| {
        let model = Model::new();
        let server = spawn(&model, Model::serve);
        let other = spawn(&model, Model::submit);

        let mine = model.submit();
        let theirs = other.join().unwrap();
        model.close();
        server.join().unwrap();

        assert!(mine && theirs, "refused before the close");
        assert_eq!(model.ended.count(), 2, "a batch was lost");
    });
}

#[test]
fn a_submitter_that_races_with_the_close_is_served_or_refused() {
    check(|| {
        let model = Model::new();
        let server = spawn(&model, Model::serve);
        let other = spawn(&model, Model::submit);

        model.close();
        let taken = other.join().unwrap();
        server.join().unwrap();

        assert_eq!(model.ended.count(), usize::from(taken), "a batch was lost");
        assert!(!model.submit());
    });
}

/// A lane holds one batch here, so the second must wait.
#[test]
fn who_waits_for_room_gets_it() {
    check(|| {
        let model = Model::new();
        let server = spawn(&model, Model::serve);

        assert!(model.submit());
        assert!(model.submit());
        model.close();
        server.join().unwrap();

        assert_eq!(model.ended.count(), 2, "a batch was lost");
    });
}

#[test]
fn io_threads_use_the_side_door() {
    check(|| {
        let model = Model::new();
        let server = spawn(&model, Model::serve);
        let other = spawn(&model, |model| {
            threads::mark_io_thread();
            model.submit() && model.submit()
        });

        let taken = other.join().unwrap();
        model.close();
        server.join().unwrap();

        assert!(taken);
        assert_eq!(model.ended.count(), 2, "a batch was lost");
    });
}

#[test]
fn a_thread_without_a_ring_is_woken_too() {
    check(|| {
        let model = Model::new();
        let server = spawn(&model, Model::serve_without_ring);
        let other = spawn(&model, Model::submit);

        let mine = model.submit();
        model.close();
        let theirs = other.join().unwrap();
        server.join().unwrap();

        let taken = usize::from(mine) + usize::from(theirs);
        assert_eq!(model.ended.count(), taken, "a batch was lost");
    });
}
