//! Requests under way: their numbers, when they are sent again, and when they are given up.
//! Knows datagrams as bytes. Does not know what was asked or why.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_primitives::time::Time;

use super::{Purpose, Socket, Transmit};
use crate::limits::REQUESTS_MAX;
use crate::window::Window;

/// A request that waits for its reply.
#[derive(Debug)]
pub(super) struct Flight {
    /// Names it; given by [`Flights::insert`].
    pub(super) number: u64,
    pub(super) tid: u16,
    pub(super) to: SocketAddrV4,
    pub(super) socket: Socket,
    pub(super) ttl: Option<u32>,
    pub(super) datagram: Vec<u8>,
    pub(super) purpose: Purpose,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    /// Sent even if the window is full.
    pub(super) is_forced: bool,
    pub(super) sends: u32,
    pub(super) first_sent: Time,
    pub(super) deadline: Option<Time>,
}

/// What a deadline brought.
#[derive(Debug)]
pub(super) enum Overdue {
    /// It is to be sent again; true the first time.
    Again(u64, bool),
    /// It was sent often enough.
    GivenUp(Flight),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Flights {
    flights: BTreeMap<u64, Flight>,
    by_tid: BTreeMap<u16, u64>,
    deadlines: BTreeSet<(Time, u64)>,
    /// Until there is room in the window.
    waiting: VecDeque<u64>,
    window: Window,
    next_tid: u16,
    next_number: u64,
}

impl Flights {
    pub(super) fn new(window: Window, first_tid: u16) -> Self {
        Self {
            flights: BTreeMap::new(),
            by_tid: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting: VecDeque::new(),
            window,
            next_tid: first_tid,
            next_number: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    /// A number for the next request that no other has; none if there are too many.
    pub(super) fn tid(&mut self) -> Option<u16> {
        if self.flights.len() >= REQUESTS_MAX {
            return None;
        }
        while self.by_tid.contains_key(&self.next_tid) {
            self.next_tid = self.next_tid.wrapping_add(1);
        }
        let tid = self.next_tid;
        self.next_tid = tid.wrapping_add(1);
        Some(tid)
    }

    pub(super) fn insert(&mut self, mut flight: Flight) -> u64 {
        self.next_number += 1;
        flight.number = self.next_number;
        self.by_tid.insert(flight.tid, self.next_number);
        self.flights.insert(self.next_number, flight);
        self.next_number
    }

    /// Sends a request, or has it wait for room in the window.
    pub(super) fn send(&mut self, now: Time, number: u64) -> Option<Transmit> {
        let is_full = self.window.is_full(now);
        let flight = self.flights.get(&number)?;
        if is_full && !flight.is_forced {
            self.waiting.push_back(number);
            return None;
        }
        self.send_now(now, number)
    }

    /// A request for which there is room now.
    pub(super) fn send_waiting(&mut self, now: Time) -> Option<Transmit> {
        while !self.window.is_full(now) {
            let number = self.waiting.pop_front()?;
            if let Some(transmit) = self.send_now(now, number) {
                return Some(transmit);
            }
        }
        None
    }

    /// The request that a reply from there with this number belongs to.
    pub(super) fn take_answered(
        &mut self,
        now: Time,
        tid: u16,
        from: SocketAddrV4,
    ) -> Option<Flight> {
        let number = *self.by_tid.get(&tid)?;
        let flight = self.flights.get(&number)?;
        if flight.to != from || flight.sends == 0 {
            return None;
        }
        self.take(now, number)
    }

    /// Ends a request.
    pub(super) fn take(&mut self, now: Time, number: u64) -> Option<Flight> {
        let flight = self.flights.remove(&number)?;
        self.by_tid.remove(&flight.tid);
        if let Some(deadline) = flight.deadline {
            self.deadlines.remove(&(deadline, number));
        }
        self.window.ended(now);
        Some(flight)
    }

    /// A request whose deadline has passed.
    pub(super) fn take_overdue(&mut self, now: Time) -> Option<Overdue> {
        let &(deadline, number) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.remove(&(deadline, number));
        let flight = self.flights.get_mut(&number)?;
        flight.deadline = None;
        if flight.sends > flight.retries {
            return self.take(now, number).map(Overdue::GivenUp);
        }
        Some(Overdue::Again(number, flight.sends == 1))
    }

    /// The numbers of the requests for which `is` holds.
    pub(super) fn numbers(&self, is: impl Fn(&Flight) -> bool) -> Vec<u64> {
        let flights = self.flights.iter().filter(|(_, flight)| is(flight));
        flights.map(|(number, _)| *number).collect()
    }

    pub(super) fn purpose(&self, number: u64) -> Option<(&Purpose, SocketAddrV4)> {
        let flight = self.flights.get(&number)?;
        Some((&flight.purpose, flight.to))
    }

    /// When [`take_overdue`](Self::take_overdue) or [`send_waiting`](Self::send_waiting) may have something.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        let room = (!self.waiting.is_empty()).then(|| self.window.turns_at());
        let due = self.deadlines.first().map(|(deadline, _)| *deadline);
        room.into_iter().chain(due).min()
    }

    fn send_now(&mut self, now: Time, number: u64) -> Option<Transmit> {
        let flight = self.flights.get_mut(&number)?;
        if flight.sends == 0 {
            flight.first_sent = now;
        }
        flight.sends += 1;
        let deadline = now + flight.timeout;
        flight.deadline = Some(deadline);
        self.deadlines.insert((deadline, number));
        self.window.sent(now);
        Some(Transmit {
            socket: flight.socket,
            to: flight.to,
            ttl: flight.ttl,
            datagram: flight.datagram.clone(),
        })
    }
}
