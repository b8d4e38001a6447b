//! A TCP forwarder between two peers that can hold or cut the transfer at an exact byte, so that
//! "in the middle" is an event a test waits for, not a matter of timing.
//! Knows bytes. Does not know what they carry.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::PATIENCE;

/// A forwarder on a port of its own. Dropping it cuts its connections.
pub struct Tap {
    port: u16,
    gate: Arc<Gate>,
}

/// Lets through what may pass from the side that is counted, which is the served one unless said otherwise; the other
/// way is free.
struct Gate {
    /// Whether it is the dialling side.
    is_dialled: bool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Bytes that may pass in all; none for no limit.
    limit: Option<u64>,
    passed: u64,
    /// Somebody waits at the limit with bytes in hand.
    holding: bool,
    closed: bool,
    sockets: Vec<TcpStream>,
}

impl Tap {
    /// Forwards to the peer listening on `upstream`, without limit.
    pub fn to(upstream: u16) -> Self {
        Self::with_limit(upstream, false, None)
    }

    /// Forwards to the peer listening on `upstream`, and holds when it has sent `bytes` in all.
    pub fn holding_after(upstream: u16, bytes: u64) -> Self {
        Self::with_limit(upstream, false, Some(bytes))
    }

    /// The same for what the side that dials sends.
    pub fn holding_dialled_after(upstream: u16, bytes: u64) -> Self {
        Self::with_limit(upstream, true, Some(bytes))
    }

    /// The port to dial instead of the peer's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the limit is reached and more bytes wait behind it.
    #[track_caller]
    pub fn wait_holding(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.gate.state();
        while !state.holding {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "only {} bytes have passed within {PATIENCE:?}",
                state.passed
            );
            state = self
                .gate
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Lets everything pass from now on.
    pub fn release(&self) {
        self.gate.state().limit = None;
        self.gate.changed.notify_all();
    }

    /// Closes all connections where they are, and refuses new ones.
    pub fn cut(&self) {
        self.gate.close();
    }

    /// Bytes that have passed from the side that is counted.
    pub fn passed(&self) -> u64 {
        self.gate.state().passed
    }

    fn with_limit(upstream: u16, is_dialled: bool, limit: Option<u64>) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = listener
            .local_addr()
            .expect("a bound listener has an address")
            .port();
        let state = State {
            limit,
            passed: 0,
            holding: false,
            closed: false,
            sockets: Vec::new(),
        };
        let gate = Arc::new(Gate {
            is_dialled,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&gate);
        thread::spawn(move || {
            for dialled in listener.incoming().flatten() {
                if !accepting.is_open() {
                    return;
                }
                join(dialled, upstream, &accepting);
            }
        });
        Self { port, gate }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.gate.close();
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)); // wakes the accepting thread, which then ends
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        !self.state().closed
    }

    /// Waits until some of `wanted` bytes may pass and says how many; 0 when the tap is closed.
    fn take(&self, wanted: usize) -> usize {
        let mut state = self.state();
        loop {
            let left = state
                .limit
                .map_or(u64::MAX, |limit| limit.saturating_sub(state.passed));
            let granted = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
            if state.closed {
                return 0;
            }
            if granted > 0 {
                state.passed += granted as u64;
                state.holding = false;
                return granted;
            }
            state.holding = true;
            self.changed.notify_all();
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both); // it may be closed already
        }
        self.changed.notify_all();
    }
}

/// Connects one dialling peer to the upstream and forwards both ways until either ends.
fn join(dialled: TcpStream, upstream: u16, gate: &Arc<Gate>) {
    let Ok(served) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)) else {
        return; // dropping `dialled` tells the peer
    };
    let clone = |socket: &TcpStream| socket.try_clone().expect("a socket can be cloned");
    gate.state()
        .sockets
        .extend([clone(&dialled), clone(&served)]);
    let mut ways = [
        (clone(&dialled), clone(&served)),
        (clone(&served), clone(&dialled)),
    ];
    if gate.is_dialled {
        ways.swap(0, 1);
    }
    let [(free_from, free_to), (from, to)] = ways;
    thread::spawn(move || copy(free_from, free_to, |wanted| wanted));
    let gate = Arc::clone(gate);
    thread::spawn(move || copy(from, to, |wanted| gate.take(wanted)));
}

/// Forwards until an end or error, asking `allow` how much of each read may pass.
fn copy(mut from: TcpStream, mut to: TcpStream, allow: impl Fn(usize) -> usize) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut sent = 0;
        while sent < read {
            let granted = allow(read - sent);
            if granted == 0 || to.write_all(&buffer[sent..sent + granted]).is_err() {
                break;
            }
            sent += granted;
        }
        if sent < read {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
