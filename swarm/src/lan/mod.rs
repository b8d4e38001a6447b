//! Discovery on the local network: DNS-SD over multicast DNS, by `mdns-sd`.
//! Knows when to announce and to browse, and whom of those who answer to believe. Does not know records: that is
//! [`announcement`].
//!
//! Nothing is sent before a topic is joined: no question unless somebody is to be found, no announcement unless somebody is to
//! find us.

pub mod announcement;
mod interfaces;
mod neighbours;

use std::collections::HashMap;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ferrocore_primitives::random;
use mdns_sd::{
    DaemonEvent, IfKind, IfPredicate, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
    ServiceInfo, TxtProperty,
};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Topic;
use crate::discovery::{Discovery, DiscoveryError, Finder, Interest};
use crate::limits::{
    ADDRESSES_MAX, LAN_ANSWERS_MAX, LAN_BROWSE_TIME, LAN_DAY_CHECK, LAN_FLOOD_PAUSE,
    LAN_FLOOD_TIME, LAN_GATHER, LAN_GOODBYE_TIME, LAN_RETRY_PAUSE,
};
use crate::target::Address;
use crate::transport::BoxFuture;
use crate::transport::tcp::Tcp;
use announcement::{SERVICE_TYPE, Shown};
pub use interfaces::{Include, Networks};
use neighbours::{Neighbour, Neighbours};

const FLOODED: &str = "somebody floods the local network with announcements";

/// Finds peers on the local network, and lets them find us.
pub struct Lan {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    /// Drawn at random, so that a node is not recognised when it comes again.
    instance: String,
    port: u16,
    networks: Networks,
    state: Mutex<State>,
    /// Topics have changed.
    changed: Notify,
}

struct State {
    topics: HashMap<Topic, (Interest, Finder)>,
    neighbours: Neighbours,
    /// Since when questions have been asked.
    browsing_since: Option<Instant>,
    failure: Option<String>,
    /// Whether an announcement stands.
    is_shown: bool,
}

impl Lan {
    /// Lets peers find the owner of this transport, as soon as a topic is joined.
    ///
    /// # Errors
    /// If the transport accepts nobody.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(transport: &Tcp, networks: Networks) -> Result<Self, DiscoveryError> {
        let address = transport.local_addr();
        let address =
            address.ok_or_else(|| DiscoveryError("the transport does not listen".into()))?;
        let instance: [u8; 16] = random::bytes();
        let shared = Arc::new(Shared {
            instance: instance.iter().map(|byte| format!("{byte:02x}")).collect(),
            port: address.port(),
            networks,
            state: Mutex::new(State {
                topics: HashMap::new(),
                neighbours: Neighbours::default(),
                browsing_since: None,
                failure: None,
                is_shown: false,
            }),
            changed: Notify::new(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, task })
    }

    /// The transport and the discovery of a node that takes part in the local network.
    ///
    /// # Errors
    /// If the system has no port left.
    pub fn open(include: Include) -> std::io::Result<(Tcp, Self)> {
        let networks = Networks::new(include);
        let filter = networks.clone();
        let transport = Tcp::lan(Arc::new(move |address| filter.contain(address)))?;
        let lan = Self::new(&transport, networks).map_err(std::io::Error::other)?;
        Ok((transport, lan))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovery for Lan {
    fn name(&self) -> &'static str {
        "lan"
    }

    fn refresh<'a>(
        &'a self,
        interest: Interest,
        finder: Finder,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        Box::pin(async move {
            if self.shared.networks.is_empty() {
                return Err(DiscoveryError("this machine is in no local network".into()));
            }
            let topic = finder.topic();
            let known = {
                let mut state = self.shared.lock();
                state.topics.insert(topic, (interest, finder.clone()));
                state.neighbours.under(&topic, today())
            };
            self.shared.changed.notify_one();
            if !interest.client {
                return Ok(());
            }
            for neighbour in known {
                finder.found(neighbour.target()).await;
            }
            self.shared.browsed_a_while().await
        })
    }

    fn leave<'a>(&'a self, topic: Topic) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.shared.lock().topics.remove(&topic);
            self.shared.changed.notify_one();
            // Whoever ends with its last topic ends soon after: the goodbye must be out by then.
            while self.shared.is_shown_in_vain() {
                sleep(LAN_GATHER).await;
            }
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until whoever is there has had time to answer.
    async fn browsed_a_while(&self) -> Result<(), DiscoveryError> {
        let asked = Instant::now();
        while asked.elapsed() < LAN_BROWSE_TIME * 2 {
            let (since, failure) = {
                let state = self.lock();
                (state.browsing_since, state.failure.clone())
            };
            match (since, failure) {
                (_, Some(failure)) => return Err(DiscoveryError(failure)),
                (Some(since), None) if since.elapsed() >= LAN_BROWSE_TIME => break,
                (Some(since), None) => sleep_until(since + LAN_BROWSE_TIME).await,
                (None, None) => sleep(LAN_GATHER).await,
            }
        }
        Ok(())
    }

    /// What others are to see now; none if nobody is to find us.
    fn shown(&self, day: u64) -> Option<Shown> {
        let state = self.lock();
        let mut served: Vec<&Topic> = state
            .topics
            .iter()
            .filter_map(|(topic, (interest, _))| interest.server.then_some(topic))
            .collect();
        served.sort();
        (!served.is_empty()).then(|| Shown::new(served.into_iter(), day, &self.instance))
    }

    fn is_shown_in_vain(&self) -> bool {
        let state = self.lock();
        state.is_shown && state.topics.is_empty()
    }

    fn is_looking(&self) -> bool {
        let state = self.lock();
        state.topics.values().any(|(interest, _)| interest.client)
    }

    /// Somebody has answered: tells those who look for one of their topics.
    fn resolved(&self, service: &ResolvedService) {
        let Some(neighbour) = self.read(service) else {
            return;
        };
        let today = today();
        let mut state = self.lock();
        for (topic, (interest, finder)) in &state.topics {
            if interest.client && neighbour.serves(topic, today) {
                // While the swarm is busy with others, this one waits for the next lookup.
                finder.try_found(neighbour.target());
            }
        }
        state.neighbours.enter(neighbour);
    }

    fn read(&self, service: &ResolvedService) -> Option<Neighbour> {
        let instance = service
            .get_fullname()
            .strip_suffix(SERVICE_TYPE)?
            .strip_suffix('.')?;
        let is_name = instance.len() == 32 && instance.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_name || instance.eq_ignore_ascii_case(&self.instance) {
            return None;
        }
        let shown = Shown::from_txt(|key| service.get_property_val(key).flatten())?;
        let mut addresses: Vec<SocketAddr> = service
            .get_addresses()
            .iter()
            .take(ADDRESSES_MAX * 4)
            .map(|address| socket_address(address, service.get_port()))
            .filter(|address| self.networks.contain(address))
            .collect();
        // IPv4 first: its addresses are fewer, and work without a scope.
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        addresses.truncate(ADDRESSES_MAX);
        (!addresses.is_empty()).then(|| Neighbour {
            instance: instance.to_ascii_lowercase(),
            addresses: addresses.into_iter().map(Address::Lan).collect(),
            shown,
        })
    }
}

/// What ends the work with one daemon.
enum End {
    /// Strangers have said so much that the daemon, which forgets nothing before its time, is best thrown away.
    Flooded,
    /// The same, little by little.
    Full,
    /// It fails.
    Failed(String),
}

/// Announces and browses, whenever there is a topic to do it for. Ends by being aborted.
async fn run(shared: Arc<Shared>) {
    loop {
        while shared.lock().topics.is_empty() {
            shared.changed.notified().await;
        }
        let ended = match Service::start(&shared) {
            Ok(mut service) => service.run(&shared).await,
            Err(error) => Err(End::failed(error)),
        };
        let (pause, failure) = match ended {
            Ok(()) | Err(End::Full) => continue,
            Err(End::Flooded) => (LAN_FLOOD_PAUSE, FLOODED.to_owned()),
            Err(End::Failed(reason)) => (LAN_RETRY_PAUSE, reason),
        };
        {
            let mut state = shared.lock();
            state.browsing_since = None;
            state.is_shown = false;
            state.failure = Some(failure);
            state.neighbours = Neighbours::default();
        }
        sleep(pause).await;
        shared.lock().failure = None;
    }
}

/// One run of the daemon of `mdns-sd`, which is a thread with sockets of its own. Dropped, it says goodbye and ends.
struct Service {
    daemon: ServiceDaemon,
    shown: Option<Shown>,
    day: u64,
    answers: Option<mdns_sd::Receiver<ServiceEvent>>,
    answered: Answered,
}

/// Answers so far: each may have left something in the daemon's cache.
struct Answered {
    count: usize,
    since: Instant,
}

impl Service {
    fn start(shared: &Shared) -> mdns_sd::Result<Self> {
        let daemon = ServiceDaemon::new()?;
        let include = shared.networks.include();
        let excluded = IfPredicate::new(move |interface| !include.admits(interface));
        daemon.disable_interface(IfKind::Predicate(excluded))?;
        Ok(Self {
            daemon,
            shown: None,
            day: today(),
            answers: None,
            answered: Answered::new(Instant::now()),
        })
    }

    /// Until no topic is left.
    async fn run(&mut self, shared: &Shared) -> Result<(), End> {
        let monitor = self.daemon.monitor().map_err(End::failed)?;
        loop {
            self.update(shared).await.map_err(End::failed)?;
            if shared.lock().topics.is_empty() {
                return Ok(());
            }
            let answers = self.answers.clone();
            let answer = async {
                match &answers {
                    Some(answers) => answers.recv_async().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.changed.notified() => sleep(LAN_GATHER).await,
                () = sleep(LAN_DAY_CHECK) => {}
                answer = answer => self.take(shared, answer.map_err(End::failed)?)?,
                // The daemon follows changes of the machine's addresses by itself.
                event = monitor.recv_async() => {
                    if let DaemonEvent::Error(error) = event.map_err(End::failed)? {
                        tracing::debug!(%error, "mdns");
                    }
                }
            }
        }
    }

    /// Lets the daemon announce and browse what is wanted now.
    async fn update(&mut self, shared: &Shared) -> mdns_sd::Result<()> {
        let day = today();
        let shown = shared.shown(day);
        if shown != self.shown || day != self.day {
            match &shown {
                Some(shown) => self.daemon.register(service_info(shared, shown)?)?,
                None => {
                    let goodbye = self.daemon.unregister(&fullname(shared))?;
                    timeout(LAN_GOODBYE_TIME, goodbye.recv_async()).await.ok();
                }
            }
            shared.lock().is_shown = shown.is_some();
            (self.shown, self.day) = (shown, day);
        }
        let is_looking = shared.is_looking();
        if is_looking && self.answers.is_none() {
            self.answers = Some(self.daemon.browse(SERVICE_TYPE)?);
            let mut state = shared.lock();
            state.browsing_since = Some(Instant::now());
            state.failure = None;
        } else if !is_looking && self.answers.take().is_some() {
            self.daemon.stop_browse(SERVICE_TYPE)?;
            shared.lock().browsing_since = None;
        }
        Ok(())
    }

    fn take(&mut self, shared: &Shared, event: ServiceEvent) -> Result<(), End> {
        let ended = self.answered.note(&event, Instant::now());
        match event {
            ServiceEvent::ServiceResolved(service) => shared.resolved(&service),
            ServiceEvent::ServiceRemoved(_, fullname) => {
                let instance = fullname.split('.').next().unwrap_or_default();
                shared.lock().neighbours.remove(instance);
            }
            _ => {}
        }
        ended
    }
}

impl Answered {
    fn new(now: Instant) -> Self {
        Self {
            count: 0,
            since: now,
        }
    }

    /// What the daemon tells of its own questions leaves nothing.
    fn note(&mut self, event: &ServiceEvent, now: Instant) -> Result<(), End> {
        let is_own = matches!(
            event,
            ServiceEvent::SearchStarted(_) | ServiceEvent::SearchStopped(_)
        );
        self.count += usize::from(!is_own);
        match self.count > LAN_ANSWERS_MAX {
            false => Ok(()),
            true if now - self.since > LAN_FLOOD_TIME => Err(End::Full),
            true => Err(End::Flooded),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The daemon says goodbye for what is registered.
        self.daemon.shutdown().ok();
    }
}

impl End {
    fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

fn service_info(shared: &Shared, shown: &Shown) -> mdns_sd::Result<ServiceInfo> {
    let host = format!("{}.local.", shared.instance);
    let properties: Vec<TxtProperty> = shown.to_txt().into_iter().map(TxtProperty::from).collect();
    let mut info = ServiceInfo::new(
        SERVICE_TYPE,
        &shared.instance,
        &host,
        "",
        shared.port,
        properties,
    )?
    .enable_addr_auto();
    // 128 random bits are nobody else's.
    info.set_requires_probe(false);
    Ok(info)
}

fn fullname(shared: &Shared) -> String {
    format!("{}.{SERVICE_TYPE}", shared.instance)
}

fn socket_address(address: &ScopedIp, port: u16) -> SocketAddr {
    match address {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into()
        }
        other => (other.to_ip_addr(), port).into(),
    }
}

/// Days since 1970, in UTC.
fn today() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / 86_400)
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lan")
            .field("port", &self.shared.port)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Goal: only a flood counts as one. Method: more events than a flood has, of the daemon itself, of strangers over a week, and of
    /// strangers at once.
    #[test]
    fn a_quiet_network_is_not_flooded_however_long_it_is_watched() {
        let begun = Instant::now();
        let own = ServiceEvent::SearchStarted(SERVICE_TYPE.into());
        let strange = ServiceEvent::ServiceFound(SERVICE_TYPE.into(), "somebody".into());
        let watched = |event, pause| {
            let mut answered = Answered::new(begun);
            let notes =
                (0..=LAN_ANSWERS_MAX as u32).map(|n| answered.note(event, begun + pause * n));
            notes.collect::<Result<(), End>>()
        };
        assert!(watched(&own, Duration::ZERO).is_ok());
        let slow = watched(&strange, Duration::from_secs(150));
        assert!(matches!(slow, Err(End::Full)));
        let fast = watched(&strange, Duration::from_millis(1));
        assert!(matches!(fast, Err(End::Flooded)));
    }
}
