//! Every way out of a request counts it, before whoever waits can see it end.

use std::sync::Arc;

use loom::thread;

use super::{check, request};
use crate::completion::{Receiver, block_on, note_orphaned, oneshot};
use crate::request::{Completed, Request};
use crate::stats::Counters;
use crate::ticket::Ticket;

/// A request as `read` and its like make it.
fn awaited() -> (Request, Receiver<Completed>) {
    let (sender, receiver) = oneshot();
    let told = request(move |completed| {
        if sender.send(completed).is_err() {
            note_orphaned();
        }
    });
    (told, receiver)
}

fn perform(request: Request, counters: &Arc<Counters>) {
    let accepted = Ticket::accept(request, counters).expect("a sync is never empty");
    accepted.ticket.finish(counters, accepted.transfer.action(), Ok(()), None);
}

#[test]
fn who_awaits_finds_it_counted() {
    check(|| {
        let counters = Arc::new(Counters::default());
        let (request, receiver) = awaited();
        counters.submitted.add(1);

        let shared = Arc::clone(&counters);
        let thread = thread::spawn(move || perform(request, &shared));
        let completed = block_on(receiver).expect("it was performed");
        let stats = counters.picture();

        assert!(completed.result.is_ok());
        assert_eq!((stats.submitted, stats.delivered, stats.syncs), (1, 1, 1), "not counted yet");
        thread.join().unwrap();
    });
}

#[test]
fn delivered_and_orphaned_make_up_submitted() {
    check(|| {
        let counters = Arc::new(Counters::default());
        let (kept, receiver) = awaited();
        let (dropped, forgotten) = awaited();
        counters.submitted.add(2);

        let threads = [kept, dropped].map(|request| {
            let counters = Arc::clone(&counters);
            thread::spawn(move || perform(request, &counters))
        });
        drop(forgotten);
        block_on(receiver).expect("it was performed");
        for thread in threads {
            thread.join().unwrap();
        }

        let stats = counters.picture();
        assert_eq!(stats.submitted, stats.delivered + stats.orphaned, "out of balance");
        assert!(1 <= stats.delivered, "one of them was awaited");
    });
}

/// An orphan that ends inside the completion of another is not mistaken for it.
#[test]
fn an_orphan_inside_a_completion_counts_for_itself() {
    check(|| {
        let counters = Arc::new(Counters::default());
        let (inner, forgotten) = awaited();
        drop(forgotten);
        let shared = Arc::clone(&counters);
        let outer = request(move |_| perform(inner, &shared));

        perform(outer, &counters);

        let stats = counters.picture();
        assert_eq!((stats.delivered, stats.orphaned), (1, 1));
    });
}
