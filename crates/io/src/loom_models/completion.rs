//! The one-shot cell: one thread sends or goes away, the other waits or goes away.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::check;
use crate::completion::{Receiver, block_on, oneshot};

#[test]
fn a_value_wakes_its_waiter() {
    check(|| {
        let (sender, receiver) = oneshot();

        let thread = thread::spawn(move || sender.send(5));

        assert_eq!(block_on(receiver), Some(5));
        assert_eq!(thread.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_sender_that_goes_ends_the_wait() {
    check(|| {
        let (sender, receiver) = oneshot::<u8>();

        let thread = thread::spawn(move || drop(sender));

        assert_eq!(block_on(receiver), None);
        thread.join().unwrap();
    });
}

#[test]
fn a_value_is_dropped_once_whoever_is_faster() {
    check(|| {
        let value = Arc::new(());
        let (sender, receiver) = oneshot();
        let sent = Arc::clone(&value);

        let thread = thread::spawn(move || drop(sender.send(sent)));
        drop(receiver);
        thread.join().unwrap();

        assert_eq!(Arc::strong_count(&value), 1);
    });
}

/// A waiter that first polls with a waker that leads nowhere, as when a future changes its task.
#[test]
fn the_waker_of_the_last_poll_is_woken() {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    fn poll_for_nobody(receiver: Pin<&mut Receiver<u8>>) -> Poll<Option<u8>> {
        let waker = Waker::from(Arc::new(Nobody));
        receiver.poll(&mut Context::from_waker(&waker))
    }
    check(|| {
        let (sender, receiver) = oneshot();
        let mut receiver = pin!(receiver);

        let thread = thread::spawn(move || sender.send(5));
        let value = match poll_for_nobody(receiver.as_mut()) {
            Poll::Ready(value) => value,
            Poll::Pending => block_on(receiver),
        };
        thread.join().unwrap().unwrap();

        assert_eq!(value, Some(5));
    });
}
