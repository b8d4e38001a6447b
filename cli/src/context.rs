//! What a command works with: its options, its streams, the store, the peers it was given.
//! Knows how long to wait for the network. Does not know commands.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferrocore::swarm::SearchState;
use ferrocore::{Core, Dialing, Listening, Node, PeerEvent, PeerEvents, PeerInfo};
use tokio::sync::Mutex;

use crate::args::Globals;
use crate::events;
use crate::exit::{Failure, Kind, Result};
use crate::input::Input;
use crate::output::Output;
use crate::passphrase::Passphrase;
use crate::stop::Stop;
use crate::store::Store;

/// Of long blocks, the bytes that come in a second for `--timeout` to be put off.
const LEAST_A_SECOND: u64 = 4096;

/// ... and the most that put it off without any other progress: two of the longest blocks. More may be anything.
const ON_ITS_WAY_MAX: u64 = 32 << 20;

/// One run of a command, in this process or for a guest.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) streams: Streams,
    pub(crate) store: Arc<Store>,
    /// What has happened with peers and is not reported yet.
    peers: Mutex<PeerEvents>,
    listening: Mutex<Option<Listening>>,
    _dialing: Vec<Dialing>,
}

/// Where a command was typed, and how it talks with whoever did.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) output: Output,
    pub(crate) input: Mutex<Input>,
    pub(crate) stop: Stop,
    /// What the user gave to encrypt or decrypt with, if the command needs it.
    pub(crate) passphrase: Option<Passphrase>,
    /// The working directory.
    pub(crate) directory: PathBuf,
}

impl Context {
    /// Reaches out to the peers that the options name.
    pub(crate) async fn new(globals: Globals, streams: Streams, store: Arc<Store>) -> Result<Self> {
        // Before the first of them can come.
        let peers = Mutex::new(store.node.peers());
        let listening = match &globals.listen {
            Some(address) => Some(store.node.listen(address).await?),
            None => None,
        };
        let dialing = globals
            .peer
            .iter()
            .map(|address| store.node.dial(address))
            .collect();
        Ok(Self {
            globals,
            streams,
            store,
            peers,
            listening: Mutex::new(listening),
            _dialing: dialing,
        })
    }

    pub(crate) fn output(&self) -> &Output {
        &self.streams.output
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.streams.stop
    }

    /// A path as it was typed, from the directory where it was typed.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        self.streams.directory.join(path)
    }

    /// Where peers are accepted, if anywhere.
    pub(crate) async fn listen_address(&self) -> Option<SocketAddr> {
        self.listening.lock().await.as_ref().map(Listening::address)
    }

    /// Accepts peers, at `default` if the options do not say where.
    pub(crate) async fn listen_anyway(&self, default: &str) -> Result<SocketAddr> {
        let mut listening = self.listening.lock().await;
        if listening.is_none() {
            *listening = Some(self.store.node.listen(default).await?);
        }
        let address = listening.as_ref().map(Listening::address);
        Ok(address.expect("it was set above"))
    }

    /// Looks for peers as the options allow, from now on.
    pub(crate) async fn discover(&self) -> Result<()> {
        match self.store.node.discover(&self.globals.discovery()) {
            Ok(()) => Ok(()),
            Err(error) if self.globals.lan_only => Err(error.into()),
            // Others may have been told to look there.
            Err(error) if self.globals.port.is_some() || self.globals.host.is_some() => {
                let failure = Failure::usage(error.to_string());
                Err(failure.hint("choose another --host or --port"))
            }
            Err(error) => {
                self.output().say(&error.to_string()).await;
                Ok(())
            }
        }
    }

    /// Whether there is, or may come, anybody to ask.
    pub(crate) fn has_network(&self) -> bool {
        let node = &self.store.node;
        self.globals.has_network() || node.swarm().is_some() || !node.connected().is_empty()
    }

    /// Makes sure that nobody has more of a core that we are to write: asks peers if it was restored, or
    /// takes the user's word.
    pub(crate) async fn ready_to_write(&self, core: &Core) -> Result<()> {
        if !core.is_writable() {
            return Ok(()); // which is said better by whoever tries
        }
        if core.is_guarded() && self.globals.offline {
            return Ok(core.lift_guard()?);
        }
        if self.has_network() {
            let waited = tokio::time::timeout(self.globals.timeout, core.confirmed());
            // That nobody came is said by the write that is refused.
            waited.await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Waits for one step of something that may need peers, at most `--timeout` while nothing long is on its way.
    pub(crate) async fn step<T, E: Into<Failure>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        let work = async { work.await.map_err(Into::into) };
        self.while_progress(|| 0, work).await
    }

    /// Waits for something that may need peers as long as `progress` changes within `--timeout`, or a long block is on its way.
    pub(crate) async fn while_progress<T>(
        &self,
        progress: impl Fn() -> u64,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            failure = self.stalled(progress) => Err(failure),
        }
    }

    /// Waits until `progress` has not changed for `--timeout`. A long block that is on its way puts that off: what comes of one, if it
    /// is [enough](LEAST_A_SECOND), up to [`ON_ITS_WAY_MAX`] bytes.
    pub(crate) async fn stalled(&self, progress: impl Fn() -> u64) -> Failure {
        let timeout = self.globals.timeout;
        // Asked often enough that the wait is hardly longer than the timeout.
        let pause = (timeout / 20).clamp(Duration::from_millis(5), Duration::from_secs(1));
        let on_its_way = || self.store.node.stats().long_bytes_received;
        let enough = (LEAST_A_SECOND as f64 * timeout.as_secs_f64()) as u64;
        let (mut last, mut since) = (progress(), tokio::time::Instant::now());
        let mut bytes = on_its_way();
        let (mut seen, mut until) = (bytes, bytes.saturating_add(ON_ITS_WAY_MAX));
        while since.elapsed() < timeout {
            tokio::time::sleep(pause).await;
            let now = progress();
            bytes = on_its_way();
            if now != last {
                (last, until) = (now, bytes.saturating_add(ON_ITS_WAY_MAX));
            } else if bytes < seen.saturating_add(enough) || bytes > until {
                continue;
            }
            (seen, since) = (bytes, tokio::time::Instant::now());
        }
        self.timed_out()
    }

    /// Why nothing came.
    pub(crate) fn timed_out(&self) -> Failure {
        let node = &self.store.node;
        let seconds = self.globals.timeout.as_secs_f64();
        if node.stats().proofs_refused > 0 {
            return does_not_verify();
        }
        if node.connected().is_empty() {
            let message = format!("no peer was reached within {seconds} s{}", obstacles(node));
            let hint = match self.globals.peer.is_empty() {
                true => "see that the other side still shares it, or name it with --peer",
                false => "check the addresses given with --peer",
            };
            return Failure::new(Kind::NoPeer, message).hint(hint);
        }
        let message = format!("nothing came from the peers within {seconds} s");
        Failure::new(Kind::Timeout, message)
            .hint("check that a peer has what you asked for, or raise --timeout")
    }

    /// Where the DHT reaches us on this machine.
    pub(crate) fn udp_address(&self) -> Option<SocketAddr> {
        let dht = self.store.node.dht()?;
        dht.local_address().map(SocketAddr::V4)
    }

    /// Reports where cores are served.
    pub(crate) async fn report_ready(&self) -> Result<()> {
        let ready = events::Listens {
            listen: self.listen_address().await,
            udp: self.udp_address(),
        };
        self.output().report(&ready).await
    }

    /// Whether others find us by key alone, as far as we know, and no address was given for them to use instead.
    pub(crate) fn is_found(&self) -> bool {
        self.globals.listen.is_none() && self.store.node.swarm().is_some()
    }

    /// Reports what has happened with peers since they were reached out to, and what happens, for ever.
    pub(crate) async fn report_peers(&self) -> Result<()> {
        let mut events = self.peers.lock().await;
        while let Some(event) = events.next().await {
            match event {
                PeerEvent::Connected(peer) => {
                    self.output()
                        .report(&peer_event(&peer, "connected"))
                        .await?
                }
                PeerEvent::Disconnected(peer) => {
                    self.output()
                        .report(&peer_event(&peer, "disconnected"))
                        .await?;
                }
                PeerEvent::Misbehaved { peer, misbehaved } => {
                    let event = events::Misbehaviour::of(&peer.remote_key, &misbehaved);
                    self.output().report(&event).await?;
                }
                PeerEvent::Banned { remote_key, time } => {
                    let event = events::Banned {
                        remote_key: z32(remote_key.as_bytes()),
                        state: "banned",
                        seconds: time.as_secs_f64(),
                    };
                    self.output().report(&event).await?;
                }
                PeerEvent::Unreachable { address, reason } => {
                    let event = events::Peer {
                        remote_key: None,
                        address,
                        via: TCP,
                        state: "unreachable",
                        reason: Some(reason),
                    };
                    self.output().report(&event).await?;
                }
                _ => {}
            }
        }
        std::future::pending().await
    }
}

/// Why what came is not taken.
pub(crate) fn does_not_verify() -> Failure {
    let message = "what the peers sent does not verify";
    Failure::new(Kind::Verification, message).hint("fetch it from other peers")
}

/// What stood in the way of finding and reaching peers, as far as that is known.
pub(crate) fn obstacles(node: &Node) -> String {
    let Some(swarm) = node.swarm() else {
        return String::new();
    };
    let is_alone = node.dht().is_some_and(|dht| dht.status().nodes == 0);
    let silence = is_alone.then(|| "no node of the DHT answers".to_owned());
    let status = swarm.status();
    let searches = status.topics.iter().flat_map(|topic| &topic.searches);
    let failed = searches.filter_map(|(name, state)| match state {
        SearchState::Failed(reason) => Some(format!("{name}: {reason}")),
        _ => None,
    });
    let dials = status.peers.iter();
    let refused = dials.filter_map(|peer| {
        let failure = peer.last_failure.as_ref()?;
        Some(format!("{} does not answer: {failure}", peer.peer))
    });
    let obstacles: BTreeSet<String> = silence
        .into_iter()
        .chain(failed)
        .chain(refused)
        .take(OBSTACLES_MAX)
        .collect();
    obstacles
        .into_iter()
        .map(|each| format!("; {each}"))
        .collect()
}

/// How many reasons a failure names.
const OBSTACLES_MAX: usize = 3;

const TCP: &str = "tcp";

fn peer_event(peer: &PeerInfo, state: &'static str) -> events::Peer {
    events::Peer {
        remote_key: Some(z32(peer.remote_key.as_bytes())),
        address: peer
            .address
            .map_or_else(String::new, |address| address.to_string()),
        via: peer.via.name(),
        state,
        reason: None,
    }
}

pub(crate) fn z32(bytes: &[u8]) -> String {
    ferrocore::primitives::id::encode_z32(bytes)
}
