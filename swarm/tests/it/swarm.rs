//! Swarms over memory transports, on virtual time.
//!
//! Goal: whoever is on a topic is found, dialled, tried again and kept once, within the limits. Method: several swarms in one
//! process; tokio's clock is paused, so that backoffs of minutes cost nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_swarm::discovery::{Discovery, DiscoveryError, Finder, Interest, StaticList};
use ferrocore_swarm::limits::{
    GATHERED_LEN_MAX, PEERS_KNOWN_MAX, REFRESH_INTERVAL, REFRESH_JITTER, REFRESH_RETRY,
};
use ferrocore_swarm::roster::{Roster, RosterLimits};
use ferrocore_swarm::transport::BoxFuture;
use ferrocore_swarm::transport::memory::{Memory, MemoryNetwork};
use ferrocore_swarm::{
    Connection, Connections, JoinOptions, PeerId, PeerState, SearchState, Swarm, SwarmBuilder,
    SwarmEvent, Target, Topic,
};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(3600);

fn topic() -> Topic {
    Topic::from_name("test")
}

/// A tracker: whoever serves a topic is found by whoever looks it up afterwards.
#[derive(Clone, Default)]
struct Tracker {
    members: Arc<Mutex<HashMap<Topic, Members>>>,
}

/// Keys, and the numbers of their hosts.
type Members = BTreeSet<(PublicKey, u64)>;

struct Tracking {
    tracker: Tracker,
    key: PublicKey,
    number: u64,
}

impl Discovery for Tracking {
    fn name(&self) -> &'static str {
        "tracker"
    }

    fn refresh<'a>(
        &'a self,
        interest: Interest,
        finder: Finder,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        Box::pin(async move {
            let members = {
                let mut topics = self.tracker.members.lock().unwrap();
                let members = topics.entry(finder.topic()).or_default();
                match interest.server {
                    true => members.insert((self.key, self.number)),
                    false => members.remove(&(self.key, self.number)),
                };
                members.clone()
            };
            for (key, number) in members.into_iter().filter(|_| interest.client) {
                let addresses = vec![ferrocore_swarm::Address::Memory(number)];
                let id = PeerId::Key(key);
                finder.found(Target { id, addresses }).await;
            }
            Ok(())
        })
    }

    fn leave<'a>(&'a self, topic: Topic) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut topics = self.tracker.members.lock().unwrap();
            topics
                .entry(topic)
                .or_default()
                .remove(&(self.key, self.number));
        })
    }
}

/// Finds one peer, so many times.
struct Rumour {
    target: Target,
    finds_left: Arc<AtomicUsize>,
}

impl Discovery for Rumour {
    fn name(&self) -> &'static str {
        "rumour"
    }

    fn refresh<'a>(
        &'a self,
        _: Interest,
        finder: Finder,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        Box::pin(async move {
            if self.finds_left.load(Ordering::Relaxed) > 0 {
                self.finds_left.fetch_sub(1, Ordering::Relaxed);
                finder.found(self.target.clone()).await;
            }
            Ok(())
        })
    }

    fn leave<'a>(&'a self, _: Topic) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

#[derive(Default)]
struct World {
    network: MemoryNetwork,
    tracker: Tracker,
    hosts: u64,
}

impl World {
    /// A swarm on the tracker.
    fn swarm(&mut self) -> SwarmBuilder {
        let key_pair = KeyPair::generate();
        let host = self.host();
        self.hosts += 1;
        let tracking = Tracking {
            tracker: self.tracker.clone(),
            key: key_pair.public_key(),
            number: self.hosts - 1,
        };
        Swarm::builder()
            .key_pair(key_pair)
            .transport(host)
            .discovery(tracking)
    }

    fn host(&self) -> Memory {
        self.network.host(self.hosts)
    }
}

fn named(host: &Memory) -> Target {
    Target {
        id: PeerId::Name(host.address().to_string().into()),
        addresses: vec![host.address()],
    }
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.expect("it comes in time")
}

/// Keeps connections open, and says which are.
fn keep(mut connections: Connections) -> Arc<Mutex<Vec<[u8; 64]>>> {
    let open = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&open);
    tokio::spawn(async move {
        while let Some(connection) = connections.next().await {
            let hash = *connection.stream.handshake_hash();
            kept.lock().unwrap().push(hash);
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let (_sender, mut receiver) = connection.stream.split();
                while let Ok(Some(_)) = receiver.recv().await {}
                kept.lock().unwrap().retain(|each| *each != hash);
            });
        }
    });
    open
}

async fn echo(connection: Connection, word: &'static [u8]) -> Vec<u8> {
    let (mut sender, mut receiver) = connection.stream.split();
    sender.send(&[word]).await.unwrap();
    sender.flush().await.unwrap();
    receiver.recv().await.unwrap().unwrap().to_vec()
}

#[tokio::test(start_paused = true)]
async fn members_of_a_topic_meet_and_talk() {
    let mut world = World::default();
    let (alice, mut to_alice) = world.swarm().open();
    let (bob, mut to_bob) = world.swarm().open();
    let _serving = alice.join(
        topic(),
        JoinOptions {
            client: false,
            ..Default::default()
        },
    );
    soon(alice.flush()).await;
    let _looking = bob.join(
        topic(),
        JoinOptions {
            server: false,
            ..Default::default()
        },
    );
    soon(bob.flush()).await;
    let (at_alice, at_bob) = (
        soon(to_alice.next()).await.unwrap(),
        soon(to_bob.next()).await.unwrap(),
    );
    assert_eq!(at_bob.topics, [topic()]);
    assert!(at_bob.info.is_initiator && !at_alice.info.is_initiator);
    assert_eq!(at_alice.info.remote_key, bob.public_key());
    let (id, swarm) = (at_bob.info.id, bob.clone());
    let (heard, answer) = tokio::join!(echo(at_alice, b"hello"), echo(at_bob, b"hi"));
    assert_eq!(
        (heard.as_slice(), answer.as_slice()),
        (b"hi".as_slice(), b"hello".as_slice())
    );
    assert!(swarm.carried(id).is_none(), "it was dropped");
}

/// Goal: however two dials cross, one connection stays, the same on both sides, and nobody is dialled again. Method: two
/// swarms that know each other by address alone dial at once, 200 times, as the larger key and as the smaller; 100 of them
/// know each other's key.
#[tokio::test(start_paused = true)]
async fn of_crossing_dials_both_sides_keep_the_same_one() {
    let mut crossed = 0;
    for round in 0..200 {
        let network = MemoryNetwork::default();
        let hosts = [network.host(1), network.host(2)];
        let keys = [KeyPair::generate(), KeyPair::generate()];
        let targets: Vec<Target> = hosts
            .iter()
            .zip(&keys)
            .map(|(host, keys)| match round % 2 {
                0 => named(host),
                _ => Target {
                    id: keys.public_key().into(),
                    addresses: vec![host.address()],
                },
            })
            .collect();
        let [first, second] = hosts;
        let [first_keys, second_keys] = keys;
        let open = |host, key_pair, target: &Target| {
            let list = StaticList::new([target.clone()]);
            Swarm::builder()
                .transport(host)
                .key_pair(key_pair)
                .discovery(list)
                .seed(round)
                .open()
        };
        let (first, to_first) = open(first, first_keys, &targets[1]);
        let (second, to_second) = open(second, second_keys, &targets[0]);
        let mut events = first.events();
        let (at_first, at_second) = (keep(to_first), keep(to_second));
        let _sessions = [&first, &second].map(|swarm| swarm.join(topic(), JoinOptions::default()));
        // Long enough for every backoff but the longest.
        sleep(Duration::from_secs(60)).await;
        let open = at_first.lock().unwrap().clone();
        assert_eq!(open.len(), 1, "round {round}");
        assert_eq!(open, *at_second.lock().unwrap(), "round {round}");
        assert_eq!(first.status().connections.len(), 1);
        assert_eq!(second.status().connections.len(), 1);
        let mut opened = 0;
        while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
            opened += usize::from(matches!(event, SwarmEvent::Connected(_)));
            crossed += usize::from(matches!(event, SwarmEvent::Duplicate { .. }));
        }
        assert!(opened <= 2, "round {round}: {opened} connections");
    }
    assert!(crossed >= 100, "only {crossed} dials crossed");
}

#[tokio::test(start_paused = true)]
async fn peers_sought_are_limited_and_so_are_dials() {
    let mut world = World::default();
    let mut others = Vec::new();
    for _ in 0..100 {
        let (swarm, connections) = world.swarm().open();
        let session = swarm.join(
            topic(),
            JoinOptions {
                client: false,
                ..Default::default()
            },
        );
        soon(swarm.flush()).await;
        others.push((keep(connections), session, swarm));
    }
    let (swarm, connections) = world.swarm().open();
    let mut events = swarm.events();
    let open = keep(connections);
    let _session = swarm.join(topic(), JoinOptions::default());
    soon(swarm.flush()).await;
    assert_eq!(open.lock().unwrap().len(), 64);
    let (mut dialling, mut most) = (0_usize, 0);
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        match event {
            SwarmEvent::Dialing { .. } => dialling += 1,
            SwarmEvent::Connected(_) => dialling -= 1,
            _ => {}
        }
        most = most.max(dialling);
    }
    assert_eq!(most, 3);
    // Who leaves makes room.
    others.truncate(50);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(open.lock().unwrap().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_a_topic_holds() {
    let mut world = World::default();
    let mut others = Vec::new();
    for _ in 0..10 {
        let (swarm, connections) = world.swarm().open();
        let session = swarm.join(
            topic(),
            JoinOptions {
                client: false,
                ..Default::default()
            },
        );
        soon(swarm.flush()).await;
        others.push((keep(connections), session, swarm));
    }
    let (swarm, connections) = world.swarm().open();
    let open = keep(connections);
    let _session = swarm.join(
        topic(),
        JoinOptions {
            limit: Some(4),
            ..Default::default()
        },
    );
    soon(swarm.flush()).await;
    assert_eq!(open.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_is_dialled_again() {
    let mut world = World::default();
    let (alice, mut to_alice) = world.swarm().open();
    let (bob, mut to_bob) = world.swarm().open();
    let _serving = alice.join(
        topic(),
        JoinOptions {
            client: false,
            ..Default::default()
        },
    );
    soon(alice.flush()).await;
    let _looking = bob.join(
        topic(),
        JoinOptions {
            server: false,
            ..Default::default()
        },
    );
    let first = soon(to_bob.next()).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    let lost = Instant::now();
    drop((first, soon(to_alice.next()).await));
    let second = soon(to_bob.next()).await.unwrap();
    assert!(second.info.is_initiator);
    let waited = lost.elapsed().as_secs_f64();
    assert!((0.6..2.7).contains(&waited), "{waited} s");
}

/// Goal: whoever looks for a writer need not come after it, nor wait ten minutes when it comes back as somebody else. Method:
/// the reader joins first; writers that do not look for anybody come, go, and come under another key.
#[tokio::test(start_paused = true)]
async fn a_reader_finds_a_writer_who_comes_later() {
    let mut world = World::default();
    let (reader, mut to_reader) = world.swarm().open();
    let only = |server| JoinOptions {
        server,
        client: !server,
        ..Default::default()
    };
    let _looking = reader.join(topic(), only(false));
    soon(reader.flush()).await;
    for pause in [40, 90] {
        sleep(Duration::from_secs(pause)).await;
        let (writer, _to_writer) = world.swarm().open();
        let _serving = writer.join(topic(), only(true));
        let came = Instant::now();
        let connection = soon(to_reader.next()).await.unwrap();
        assert_eq!(connection.info.remote_key, writer.public_key());
        let waited = came.elapsed().as_secs();
        assert!(waited <= 2 * pause, "{waited} s");
        sleep(Duration::from_secs(1000)).await;
        writer.close().await;
    }
}

/// Goal: while somebody is met, a topic is looked up and announced again every ten to twelve minutes, as `hyperswarm` does.
#[tokio::test(start_paused = true)]
async fn a_topic_is_refreshed_every_ten_to_twelve_minutes() {
    let mut world = World::default();
    let (alice, to_alice) = world.swarm().open();
    let _kept = keep(to_alice);
    let _serving = alice.join(topic(), JoinOptions::default());
    soon(alice.flush()).await;
    let (bob, mut to_bob) = world.swarm().open();
    let _looking = bob.join(topic(), JoinOptions::default());
    let _connection = soon(to_bob.next()).await.unwrap();
    let (mut events, mut began) = (bob.events(), Vec::new());
    let listening = async {
        while let Some(event) = events.next().await {
            if matches!(event, SwarmEvent::Searching { .. }) {
                began.push(Instant::now());
            }
        }
    };
    assert!(timeout(PATIENCE, listening).await.is_err());
    assert!((4..=6).contains(&began.len()), "{}", began.len());
    for pair in began.windows(2) {
        let pause = pair[1] - pair[0];
        let most = REFRESH_INTERVAL + REFRESH_JITTER + REFRESH_RETRY;
        assert!((REFRESH_INTERVAL..=most).contains(&pause), "{pause:?}");
    }
}

/// Goal: a peer that cannot be reached is tried as often as the tiers say, and then left alone until it is found again.
#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_is_given_up_until_found_again() {
    let network = MemoryNetwork::default();
    let nobody = named(&network.host(7));
    let finds_left = Arc::new(AtomicUsize::new(1));
    let rumour = Rumour {
        target: nobody.clone(),
        finds_left: Arc::clone(&finds_left),
    };
    let (swarm, _connections) = Swarm::builder()
        .transport(network.host(1))
        .discovery(rumour)
        .open();
    let mut events = swarm.events();
    let _session = swarm.join(topic(), JoinOptions::default());
    sleep(Duration::from_secs(300)).await;
    let mut failed = 0;
    let mut last_retry = None;
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        if let SwarmEvent::DialFailed { peer, retry, .. } = event {
            assert_eq!(peer, nobody.id);
            failed += 1;
            last_retry = retry;
        }
    }
    assert_eq!((failed, last_retry), (4, None));
    assert!(swarm.status().peers.is_empty(), "it is forgotten");
    finds_left.store(1, Ordering::Relaxed);
    while !matches!(
        soon(events.next()).await,
        Some(SwarmEvent::DialFailed { .. })
    ) {}
    assert_eq!(swarm.status().peers[0].state, PeerState::Waiting);
    assert!(swarm.status().peers[0].last_failure.is_some());
}

/// Goal: whom the caller is connected to by a way of its own is not dialled beside, and dialled once that is over.
#[tokio::test(start_paused = true)]
async fn who_is_met_elsewhere_is_dialled_only_afterwards() {
    let mut world = World::default();
    let (alice, to_alice) = world.swarm().open();
    let (bob, mut to_bob) = world.swarm().open();
    let _kept = keep(to_alice);
    let _serving = alice.join(topic(), JoinOptions::default());
    soon(alice.flush()).await;
    bob.met_elsewhere([alice.public_key()].into());
    let options = JoinOptions {
        server: false,
        ..Default::default()
    };
    let _looking = bob.join(topic(), options);
    bob.join_peer(alice.public_key());
    soon(bob.flush()).await;
    // It is found again and again meanwhile.
    assert!(timeout(PATIENCE / 2, to_bob.next()).await.is_err());
    assert_eq!(bob.status().peers[0].attempts, 0);
    bob.met_elsewhere(Default::default());
    let met = soon(to_bob.next()).await.unwrap();
    assert_eq!(met.info.remote_key, alice.public_key());
}

/// Goal: what one says all others hear, each with the name of who said it; a message that is too long ends that connection alone.
#[tokio::test(start_paused = true)]
async fn a_gathering_talks_with_everybody() {
    let mut world = World::default();
    let mut members: Vec<_> = (0..3)
        .map(|_| {
            let (swarm, connections) = world.swarm().open();
            let session = swarm.join(topic(), JoinOptions::default());
            let (speaker, gathering) = connections.gather();
            (swarm, session, speaker, gathering)
        })
        .collect();
    for (swarm, _, speaker, _) in &members {
        while speaker.audience() < 2 {
            swarm.refresh();
            sleep(Duration::from_secs(1)).await;
        }
    }
    for speaker in 0..3 {
        assert_eq!(members[speaker].2.send(vec![speaker as u8; 3]), 2);
        let key = members[speaker].0.public_key();
        for listener in (0..3).filter(|listener| *listener != speaker) {
            let (who, said) = soon(members[listener].3.next()).await.unwrap();
            assert_eq!((who, said.as_ref()), (key, [speaker as u8; 3].as_slice()));
        }
    }
    let mut events = members[1].0.events();
    members[0].2.send(vec![0; GATHERED_LEN_MAX + 1]);
    let hung_up_on = members[0].0.public_key();
    while !matches!(
        soon(events.next()).await,
        Some(SwarmEvent::Disconnected(info)) if info.remote_key == hung_up_on
    ) {}
    members[2].2.send("still here");
    assert_eq!(soon(members[1].3.next()).await.unwrap().1, "still here");
}

#[tokio::test(start_paused = true)]
async fn an_explicit_peer_needs_no_topic() {
    let network = MemoryNetwork::default();
    let host = network.host(1);
    let target = named(&host);
    let (alice, to_alice) = Swarm::builder().transport(host).open();
    let _kept = keep(to_alice);
    // By key alone, through a discovery that knows where the key is: here, the list, under another topic.
    let by_key = Target {
        id: alice.public_key().into(),
        ..target
    };
    let list = StaticList::new([by_key]);
    let (bob, mut to_bob) = Swarm::builder()
        .transport(network.host(2))
        .discovery(list)
        .open();
    bob.join_peer(alice.public_key());
    assert!(
        timeout(Duration::from_secs(30), to_bob.next())
            .await
            .is_err(),
        "nowhere to dial"
    );
    let session = bob.join(topic(), JoinOptions::default());
    let connection = soon(to_bob.next()).await.unwrap();
    drop(session);
    drop(connection);
    assert!(
        soon(to_bob.next()).await.is_some(),
        "it is dialled again without a topic"
    );
    bob.leave_peer(alice.public_key());
}

#[tokio::test(start_paused = true)]
async fn the_firewall_bans_both_ways() {
    let mut world = World::default();
    let (eve, to_eve) = world.swarm().open();
    let _kept = keep(to_eve);
    let evil = eve.public_key();
    let (alice, mut to_alice) = world.swarm().firewall(move |key| *key == evil).open();
    let mut events = alice.events();
    let _sessions = [&alice, &eve].map(|swarm| swarm.join(topic(), JoinOptions::default()));
    let refused = timeout(Duration::from_secs(600), to_alice.next()).await;
    assert!(refused.is_err());
    let mut is_told = false;
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        is_told |= event == SwarmEvent::Banned(evil);
    }
    assert!(is_told);
}

#[tokio::test(start_paused = true)]
async fn a_ban_ends_the_connection_until_it_is_lifted() {
    let mut world = World::default();
    let (alice, to_alice) = world.swarm().open();
    let (bob, to_bob) = world.swarm().open();
    let (at_alice, at_bob) = (keep(to_alice), keep(to_bob));
    let _sessions = [&alice, &bob].map(|swarm| swarm.join(topic(), JoinOptions::default()));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(at_alice.lock().unwrap().len(), 1);
    alice.ban(bob.public_key(), true);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (at_alice.lock().unwrap().len(), at_bob.lock().unwrap().len()),
        (0, 0)
    );
    alice.ban(bob.public_key(), false);
    // One of them looks the topic up again.
    sleep(Duration::from_secs(800)).await;
    assert_eq!(
        (at_alice.lock().unwrap().len(), at_bob.lock().unwrap().len()),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn inbound_connections_are_limited() {
    let mut world = World::default();
    let (alice, to_alice) = world.swarm().max_inbound(5).open();
    let open = keep(to_alice);
    let _serving = alice.join(
        topic(),
        JoinOptions {
            client: false,
            ..Default::default()
        },
    );
    soon(alice.flush()).await;
    let mut others = Vec::new();
    for _ in 0..10 {
        let (swarm, connections) = world.swarm().open();
        let kept = keep(connections);
        others.push((
            swarm.join(
                topic(),
                JoinOptions {
                    server: false,
                    ..Default::default()
                },
            ),
            kept,
            swarm,
        ));
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(open.lock().unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn leaving_takes_the_announcement_back_and_dropping_does_too() {
    let mut world = World::default();
    let (alice, _to_alice) = world.swarm().open();
    let members = || {
        world
            .tracker
            .members
            .lock()
            .unwrap()
            .get(&topic())
            .map_or(0, BTreeSet::len)
    };
    let first = alice.join(topic(), JoinOptions::default());
    let second = alice.join(
        topic(),
        JoinOptions {
            server: false,
            ..Default::default()
        },
    );
    soon(alice.flush()).await;
    assert_eq!(members(), 1);
    first.leave().await;
    soon(alice.flush()).await;
    assert_eq!(members(), 0, "the other session does not serve");
    assert_eq!(alice.status().topics.len(), 1);
    drop(second);
    assert!(alice.status().topics.is_empty());
    let third = alice.join(topic(), JoinOptions::default());
    soon(alice.flush()).await;
    drop(third);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(members(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_swarm_that_closes_lets_go_of_everything() {
    let mut world = World::default();
    let (alice, to_alice) = world.swarm().open();
    let (bob, to_bob) = world.swarm().open();
    let (_at_alice, at_bob) = (keep(to_alice), keep(to_bob));
    let _sessions = [&alice, &bob].map(|swarm| swarm.join(topic(), JoinOptions::default()));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(at_bob.lock().unwrap().len(), 1);
    alice.close().await;
    drop(alice);
    sleep(Duration::from_secs(1)).await;
    assert!(at_bob.lock().unwrap().is_empty());
    let tracker = world.tracker.members.lock().unwrap();
    assert_eq!(tracker[&topic()].len(), 1);
}

/// Goal: a swarm that sleeps is found by nobody, connected to nobody and takes nobody, and is itself again afterwards.
#[tokio::test(start_paused = true)]
async fn a_swarm_that_sleeps_is_gone_until_it_wakes() {
    let mut world = World::default();
    let (alice, mut to_alice) = world.swarm().open();
    let (bob, mut to_bob) = world.swarm().open();
    let _serving = alice.join(topic(), JoinOptions::default());
    soon(alice.flush()).await;
    let _looking = bob.join(topic(), JoinOptions::default());
    let at_alice = soon(to_alice.next()).await.unwrap();
    let at_bob = soon(to_bob.next()).await.unwrap();

    soon(alice.suspend()).await;
    assert!(alice.status().is_suspended);
    let searches = alice.status().topics[0].searches.clone();
    assert_eq!(searches, [("tracker", SearchState::Suspended)]);
    let members = world.tracker.members.lock().unwrap()[&topic()].clone();
    let keys: Vec<_> = members.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [bob.public_key()], "the announcement is taken back");
    let (mut sender, mut receiver) = at_alice.stream.split();
    assert!(sender.send(&[b"hello"]).await.is_err() || sender.flush().await.is_err());
    assert!(receiver.recv().await.is_err(), "the connection is closed");
    drop((sender, receiver));
    drop(at_bob);
    // Bob tries again and again, and nobody answers.
    sleep(Duration::from_secs(60)).await;
    assert!(alice.status().connections.is_empty());
    soon(alice.flush()).await;
    let another = alice.join(Topic::from_name("another"), JoinOptions::default());
    assert!(
        !world
            .tracker
            .members
            .lock()
            .unwrap()
            .contains_key(&another.topic())
    );

    alice.resume().await.unwrap();
    let again = soon(to_alice.next()).await.unwrap();
    assert_eq!(again.info.remote_key, bob.public_key());
    assert!(!alice.status().is_suspended);
    soon(alice.flush()).await;
    assert!(
        world
            .tracker
            .members
            .lock()
            .unwrap()
            .contains_key(&another.topic())
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_for_by_key_is_dialled_again_after_sleep() {
    let mut world = World::default();
    let (alice, mut to_alice) = world.swarm().open();
    let (bob, _to_bob) = world.swarm().open();
    let _serving = alice.join(topic(), JoinOptions::default());
    let _looking = bob.join(topic(), JoinOptions::default());
    soon(to_alice.next()).await.unwrap();
    alice.join_peer(bob.public_key());
    for _ in 0..7 {
        soon(alice.suspend()).await;
        alice.resume().await.unwrap();
        let again = soon(to_alice.next()).await.unwrap();
        assert_eq!(again.info.remote_key, bob.public_key());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dial_has_tried_is_told() {
    let mut world = World::default();
    let gone = named(&world.network.host(99));
    let list = StaticList::new([gone]);
    let (swarm, _connections) = world.swarm().discovery(list).open();
    let _looking = swarm.join(topic(), JoinOptions::default());
    soon(swarm.flush()).await;
    let status = swarm.status();
    let [peer] = status.peers.as_slice() else {
        panic!("one peer: {status:?}");
    };
    assert!(peer.last_failure.is_some() && peer.retry.is_some());
    let paths: Vec<_> = peer.paths.iter().map(|path| path.path.as_str()).collect();
    assert_eq!(paths, ["memory 99"]);
}

/// Goal: strangers whom a firewall refuses take no room from bans. Method: more of them than peers are known; a ban made afterwards
/// holds, the latest of them is kept away, and the first is asked about again.
#[test]
fn who_is_refused_takes_no_room_from_bans() {
    let key = || KeyPair::generate().public_key();
    let mut roster = Roster::new(key(), RosterLimits::default(), 1);
    let (banned, first) = (key(), key());
    roster.refuse(first);
    for _ in 0..PEERS_KNOWN_MAX {
        roster.refuse(key());
    }
    roster.ban(banned, true);
    let last = key();
    roster.refuse(last);
    let is_kept_away = [banned, last, first].map(|key| roster.is_banned(&key));
    assert_eq!(is_kept_away, [true, true, false]);
    for key in [banned, last] {
        roster.ban(key, false);
        assert!(!roster.is_banned(&key));
    }
}
