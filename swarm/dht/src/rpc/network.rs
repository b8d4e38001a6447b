//! Finding out our own address, whether others can reach us there, and so whether the node can stay.
//! Knows `dht-rpc/index.js` 6.27. Does not know how NATs are crossed.
//!
//! | state | id of the table | id in messages | becomes |
//! |---|---|---|---|
//! | ephemeral, firewalled | random | none | not firewalled, if nodes reach the server socket |
//! | ephemeral | of the address, or random | none | persistent, after 20 minutes or when told to |
//! | persistent | of the address | from the server socket | ephemeral, after sleep or a change of network; if told to stay, of the new address |

use std::net::{Ipv4Addr, SocketAddrV4};

use ferrocore_primitives::time::Time;

use super::outgoing::Purpose;
use super::searches::Owner;
use super::{Event, Outgoing, Response, Rpc, Socket};
use crate::id::Id;
use crate::message::Command;
use crate::nat::NatSampler;

/// Nodes asked whether they can reach us.
const TESTERS: usize = 5;

/// Answers needed of so many, and of fewer.
const PONGS_MIN: usize = 3;
const PONGS_FEW_MIN: usize = 1;

/// How a node starts.
#[derive(Debug)]
pub(super) enum Bootstrap {
    Waiting,
    /// Looking for neighbours.
    Searching {
        round: u8,
        /// Whether the first node to answer is still to be asked to try our firewall.
        is_quick_due: bool,
        /// Whether such a node has reached us.
        is_reached: bool,
    },
    /// Finding out whether others can reach us.
    Testing {
        round: u8,
    },
    Done,
}

/// A test of our firewall under way.
#[derive(Debug)]
pub(super) struct NatTest {
    /// Whether the node is only to learn about the firewall, and not to stay.
    only_firewall: bool,
    /// What others saw of us when it began.
    seen: SocketAddrV4,
    asked: usize,
    pending: usize,
    pongs: usize,
    nat: NatSampler,
}

/// What came of a look at our address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Looked {
    /// We are where others reach us.
    Good,
    Bad,
    /// Others were asked.
    Later,
}

impl Bootstrap {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    pub(super) fn quick_nat_ended(&mut self, reached: bool) {
        if let Self::Searching { is_reached, .. } = self {
            *is_reached |= reached;
        }
    }
}

impl Rpc {
    pub(super) fn begin_bootstrap(&mut self, now: Time) {
        self.bootstrap_round(now, 0);
    }

    fn bootstrap_round(&mut self, now: Time, round: u8) {
        let is_quick = self.is_firewalled && self.config.quick_firewall;
        self.bootstrap = Bootstrap::Searching {
            round,
            is_quick_due: round == 0 && is_quick && !self.is_forced(),
            is_reached: false,
        };
        let own = self.table.own();
        // Without anybody to ask the search ends within this call.
        self.search_own(now, own, Owner::Bootstrap);
    }

    /// The first node that answers is asked at once to try our firewall: an open one is so known early.
    pub(super) fn bootstrap_heard(&mut self, now: Time, from: SocketAddrV4) {
        if let Bootstrap::Searching { is_quick_due, .. } = &mut self.bootstrap
            && std::mem::take(is_quick_due)
        {
            let outgoing = self.nat_ping(from);
            // Only a guess is lost if it cannot be sent.
            let _ = self.launch(now, outgoing, Purpose::QuickNat);
        }
    }

    pub(super) fn bootstrap_searched(&mut self, now: Time) {
        let Bootstrap::Searching {
            round, is_reached, ..
        } = self.bootstrap
        else {
            return;
        };
        if !is_reached && !self.is_forced() {
            return self.bootstrapped();
        }
        self.bootstrap = Bootstrap::Testing { round };
        let looked = self.update_network_state(now, !self.is_forced());
        self.bootstrap_looked(now, looked);
    }

    /// With the id of our own address the neighbours are others: they are looked for again.
    fn bootstrap_looked(&mut self, now: Time, looked: Looked) {
        let Bootstrap::Testing { round } = self.bootstrap else {
            return;
        };
        match looked {
            Looked::Later => {}
            Looked::Good if round == 0 => self.bootstrap_round(now, 1),
            Looked::Good | Looked::Bad => self.bootstrapped(),
        }
    }

    fn bootstrapped(&mut self) {
        self.bootstrap = Bootstrap::Done;
        self.table.set_bootstrapped();
        self.push(Event::Bootstrapped);
    }

    /// Somebody who does not stay sees us at `to`: worth as many samples as there are bootstrap nodes. What others'
    /// requests say counts only while there is nobody to ask.
    pub(super) fn heard_stranger(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        to: Option<SocketAddrV4>,
        is_reply: bool,
    ) {
        let is_full = self.strangers.len() >= self.config.bootstrap.len().max(1);
        let is_first = self.is_forced() && self.table.is_empty() && self.nat.is_empty();
        if let Some(to) = to.filter(|_| !is_full && (is_reply || is_first))
            && self.strangers.insert(from)
        {
            self.sampled(now, to);
        }
    }

    /// Somebody sees us at `to`.
    pub(super) fn sampled(&mut self, now: Time, to: SocketAddrV4) {
        let before = self.nat.seen();
        self.nat.add(to);
        if self.nat.seen() != before {
            self.push(Event::Address(self.nat.seen()));
        }
        let is_first = self.bootstrap.is_done() && self.is_forced() && self.is_ephemeral;
        if is_first && !self.is_firewalled {
            self.update_network_state(now, false);
        }
    }

    /// Stays if our address is known and others reach us there; with `only_firewall` finds out no more than that.
    pub(super) fn update_network_state(&mut self, now: Time, only_firewall: bool) -> Looked {
        let is_moot = !self.is_ephemeral || (only_firewall && !self.is_firewalled);
        if is_moot || self.nat_test.is_some() {
            return Looked::Bad;
        }
        if !only_firewall {
            self.clock.postpone_persistence();
            self.checked_host(self.nat.seen().host());
        }
        let Some(seen) = self.nat.seen().address() else {
            return Looked::Bad;
        };
        if self.is_firewalled {
            return self.begin_nat_test(now, seen, only_firewall);
        }
        self.settle(now, seen, self.nat.clone(), only_firewall)
    }

    /// A node that was told to stay, and that others see elsewhere by now, goes on under the id of that address: the old one is taken for
    /// forged there. JavaScript's keep theirs.
    pub(super) fn follow_address(&mut self, now: Time) {
        let is_told = self.config.address.is_some();
        if !self.is_forced() || is_told || self.is_ephemeral || self.is_firewalled {
            return;
        }
        if let Some(seen) = self.nat.seen().address()
            && Id::of_node(&seen) != self.table.own()
        {
            self.settle(now, seen, self.nat.clone(), false);
        }
    }

    fn begin_nat_test(&mut self, now: Time, seen: SocketAddrV4, only_firewall: bool) -> Looked {
        let latest = self.table.latest().take(TESTERS);
        let mut nodes: Vec<_> = latest.map(|node| node.address()).collect();
        if nodes.len() < TESTERS {
            nodes.extend(&self.config.bootstrap);
        }
        nodes.sort_unstable();
        nodes.dedup();
        let mut asked = 0;
        self.nat_test = Some(NatTest {
            only_firewall,
            seen,
            asked: nodes.len(),
            pending: 0,
            pongs: 0,
            nat: NatSampler::default(),
        });
        for node in nodes {
            let outgoing = self.nat_ping(node);
            asked += usize::from(self.launch(now, outgoing, Purpose::NatTest).is_ok());
        }
        match &mut self.nat_test {
            Some(test) if asked > 0 => {
                test.pending = asked;
                Looked::Later
            }
            _ => {
                self.nat_test = None;
                Looked::Bad
            }
        }
    }

    /// A node that was asked to reach us did, or gave up.
    pub(super) fn nat_test_landed(&mut self, now: Time, pong: Option<Response>) {
        let Some(test) = &mut self.nat_test else {
            return;
        };
        test.pending = test.pending.saturating_sub(1);
        if let Some(pong) = pong.filter(|pong| pong.socket == Socket::Server) {
            test.pongs += 1;
            test.nat.add(pong.to);
        }
        if test.pending > 0 {
            return;
        }
        if let Some(test) = self.nat_test.take() {
            let looked = self.conclude(now, test);
            self.bootstrap_looked(now, looked);
        }
    }

    fn conclude(&mut self, now: Time, test: NatTest) -> Looked {
        let needed = if test.asked >= TESTERS {
            PONGS_MIN
        } else {
            PONGS_FEW_MIN
        };
        let address = test.nat.seen().address();
        // The server socket must be seen at the client socket's host, and at its own port: no NAT changes it.
        let is_ours = |address: &SocketAddrV4| {
            Some(*address.ip()) == self.nat.seen().host() && address.port() == self.server_port
        };
        let Some(address) = address.filter(|a| test.pongs >= needed && is_ours(a)) else {
            return Looked::Bad;
        };
        self.is_firewalled = false;
        self.push(Event::Firewalled(false));
        let has_moved = self.nat.seen().address() != Some(test.seen);
        if !self.is_ephemeral || has_moved || address.ip() != test.seen.ip() {
            return Looked::Bad;
        }
        self.settle(now, address, test.nat, test.only_firewall)
    }

    /// Takes the id of `address`, and stays unless `only_firewall`.
    fn settle(
        &mut self,
        now: Time,
        address: SocketAddrV4,
        nat: NatSampler,
        only_firewall: bool,
    ) -> Looked {
        self.is_ephemeral = only_firewall;
        if self.nat.seen() != nat.seen() {
            self.strangers.clear();
            self.push(Event::Address(nat.seen()));
        }
        self.nat = nat;
        let id = Id::of_node(&address);
        if self.table.own() != id {
            self.table.set_own(id);
            if self.bootstrap.is_done() {
                self.refresh(now);
            }
        }
        if !self.is_ephemeral {
            self.push(Event::Persistent);
        }
        Looked::Good
    }

    fn nat_ping(&self, to: SocketAddrV4) -> Outgoing {
        Outgoing {
            value: Some(self.server_port.to_le_bytes().to_vec()),
            ..Outgoing::new(to, Command::PING_NAT)
        }
    }

    /// Told to stay.
    fn is_forced(&self) -> bool {
        self.config.ephemeral == Some(false)
    }

    /// Remembers the host that was looked at last.
    pub(super) fn checked_host(&mut self, host: Option<Ipv4Addr>) {
        self.checked_host = host;
    }

    /// Whether we are where we were when our address was last looked at.
    pub(super) fn is_host_checked(&self) -> bool {
        self.checked_host == self.nat.seen().host()
    }
}
