//! The wish to end: Ctrl-C, SIGTERM, or a guest that hangs up.
//! Knows signals. Does not know what is ended.

use std::future::{poll_fn, ready};
use std::io;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;

use crate::exit::{Failure, Result};

/// Tells a command that it should end. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// The other side of [`Stop`]. Dropping it asks for the end, too.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

pub(crate) fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits until the end is asked for.
    pub(crate) async fn asked(&self) {
        let mut receiver = self.0.clone();
        let mut told = pin!(receiver.wait_for(|asked| *asked));
        // Who waits already is told a moment after the value changes, and in that moment somebody else may look at it: so it is looked
        // at each time. That the stopper is gone asks as well.
        poll_fn(
            |context| match *self.0.borrow() || self.0.has_changed().is_err() {
                true => Poll::Ready(()),
                false => told.as_mut().poll(context).map(drop),
            },
        )
        .await;
    }

    /// Does `work` unless the end is asked for first. Work that ends by itself then has its own result.
    pub(crate) async fn or_interrupted<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = self.asked() => {}
        }
        // It may have been asked after the work was looked at.
        tokio::select! {
            biased;
            result = work => result,
            () = ready(()) => Err(Failure::interrupted()),
        }
    }
}

/// Asks for the end at Ctrl-C and SIGTERM. A second signal ends the process on the spot.
pub(crate) fn on_signals() -> io::Result<Stop> {
    let (stopper, stop) = pair();
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        signals.next().await;
        stopper.stop();
        signals.next().await;
        std::process::exit(i32::from(crate::exit::Kind::Interrupted.code()));
    });
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        tokio::signal::ctrl_c().await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Kind;

    #[tokio::test]
    async fn work_is_interrupted_when_the_end_is_asked_for() {
        let (stopper, stop) = pair();
        assert_eq!(stop.or_interrupted(async { Ok(1) }).await, Ok(1));
        stopper.stop();
        let endless = stop.or_interrupted(std::future::pending::<Result<()>>());
        assert_eq!(endless.await.unwrap_err().kind, Kind::Interrupted);
        assert_eq!(
            stop.or_interrupted(async { Ok(2) }).await,
            Ok(2),
            "done work stays done"
        );
    }

    /// Goal: whatever moment the end is asked for, work that waits for just that ends by itself.
    #[tokio::test]
    async fn work_that_waits_for_the_end_sees_it_no_later_than_others() {
        for _ in 0..20_000 {
            let (stopper, stop) = pair();
            let asking = std::thread::spawn(move || stopper.stop());
            let work = async {
                stop.asked().await;
                Ok(())
            };
            assert_eq!(stop.or_interrupted(work).await, Ok(()));
            asking.join().unwrap();
        }
    }

    /// Goal: work that ends well when asked does so, also if it is asked just after it was looked at.
    #[tokio::test]
    async fn work_that_ends_by_itself_is_not_interrupted() {
        let (stopper, stop) = pair();
        let mut is_asked = false;
        let work = poll_fn(|_| {
            if std::mem::replace(&mut is_asked, true) {
                return Poll::Ready(Ok(3));
            }
            stopper.stop();
            Poll::Pending
        });
        assert_eq!(stop.or_interrupted(work).await, Ok(3));
    }

    #[tokio::test]
    async fn a_stopper_that_is_gone_asks_for_the_end() {
        let (stopper, stop) = pair();
        drop(stopper);
        stop.asked().await;
    }
}
