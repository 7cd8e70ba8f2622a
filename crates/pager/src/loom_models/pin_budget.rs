//! Three threads take from a budget for two.

use loom::sync::Arc;
use loom::thread;

use super::check;
use crate::budget::PinBudget;

#[test]
fn units_taken_never_exceed_the_limit() {
    check(|| {
        let budget = Arc::new(PinBudget::new(2));

        let takers: Vec<_> = (0..2)
            .map(|_| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || u64::from(budget.take(1)))
            })
            .collect();
        let mut taken = u64::from(budget.take(1));
        taken += takers.into_iter().map(|taker| taker.join().unwrap()).sum::<u64>();

        assert_eq!((taken, budget.available()), (2, 0));
    });
}

#[test]
fn units_given_back_can_be_taken() {
    check(|| {
        let budget = Arc::new(PinBudget::new(3));
        assert!(budget.take(3));
        let other = Arc::clone(&budget);

        let giver = thread::spawn(move || other.give(3));
        let early = budget.take(2);
        giver.join().unwrap();

        assert_eq!(budget.available(), if early { 1 } else { 3 });
    });
}
