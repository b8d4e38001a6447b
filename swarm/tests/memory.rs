//! Goal: what an idle connection costs is bounded, measured at the allocator. Method: one test, for nothing else may allocate
//! meanwhile; both ends of many connections in one process, by the DHT, each with a task that keeps it.

#[path = "it/network.rs"]
#[allow(dead_code)]
mod network;

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use ferrocore_swarm::connect::{ConnectOptions, Connection, ListenOptions, Peers, Server};
use network::{Network, connect, listening};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const CONNECTIONS: usize = 400;

/// Bytes of an idle connection, for both its ends and the tasks that keep them. More than a fifth of it are those.
const COST_MAX: usize = 10_000;

/// The same while its handshake is remembered.
const FRESH_COST_MAX: usize = 11_200;

/// Longer than anything of a connection's making is remembered.
const IDLE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_idle_connection_costs_little() {
    let network = Network::start(3).await;
    let (client, host) = (network.peers().await, network.peers().await);
    let mut server = listening(&host, ListenOptions::default()).await;
    // Tables and buffers of the nodes grow with the first ones, and stay.
    make(&client, &mut server).await;
    idle().await;
    let before = ALLOCATOR.allocated();
    make(&client, &mut server).await;
    let fresh = (ALLOCATOR.allocated() - before) / CONNECTIONS;
    idle().await;
    let cost = (ALLOCATOR.allocated() - before) / CONNECTIONS;
    println!("a connection costs {cost} bytes, and {fresh} at first");
    assert!(cost <= COST_MAX, "{cost} bytes");
    assert!(fresh <= FRESH_COST_MAX, "{fresh} bytes");
}

async fn make(client: &Peers, server: &mut Server) {
    for _ in 0..CONNECTIONS {
        let (ours, theirs) = connect(client, server, ConnectOptions::default()).await;
        tokio::spawn(keep(ours));
        tokio::spawn(keep(theirs));
    }
}

/// Lets time pass at once, whose every deadline is met.
async fn idle() {
    tokio::time::pause();
    tokio::time::sleep(IDLE).await;
    tokio::time::resume();
}

/// What an application does with a connection on which nothing is said.
async fn keep(connection: Connection) {
    let (mut sender, mut receiver) = connection.stream.split();
    tokio::select! {
        message = receiver.recv() => panic!("nothing was said: {message:?}"),
        error = sender.keep_alive() => panic!("{error:?}"),
    }
}
