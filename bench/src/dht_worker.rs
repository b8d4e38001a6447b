//! ferrocore's end of the benchmark of the DHT: each command is the twin of one in `peers/dht.mjs`.
//! Knows how to do a job and time it. Does not know whom it is compared with.

use std::error::Error;
use std::io::{self, BufRead as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ferrocore_dht::id::Id;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_swarm::dht::{BootstrapNode, Builder, Dht};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::worker::{memory, processor_seconds, tell};

mod connections;

type Failure = Box<dyn Error + Send + Sync>;

/// A command with all that any of them needs; what one does not need is left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Job {
    id: u64,
    #[serde(rename = "do")]
    name: String,
    nodes: usize,
    topics: u64,
    count: u64,
    at_once: usize,
    /// Clients, and servers, of connections.
    peers: usize,
    seconds: u64,
}

/// Does what stdin says until it ends.
pub(crate) fn serve() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    tell(&json!({ "event": "started" }));
    let mut nodes = Vec::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let job: Job = serde_json::from_str(&line).expect("commands come from this program");
        let id = job.id;
        match runtime.block_on(work(&job, &mut nodes)) {
            Ok(answer) => tell(&json!({ "id": id, "ok": answer })),
            Err(error) => tell(&json!({ "id": id, "error": error.to_string() })),
        }
    }
}

async fn work(job: &Job, nodes: &mut Vec<Dht>) -> Result<Value, Failure> {
    match job.name.as_str() {
        "network" => network(job, nodes).await,
        "lookups" => lookups(job, &nodes[0]).await,
        "connects" => connections::connects(job, &nodes[0]).await,
        "idle" => connections::idle(job, &nodes[0]).await,
        name => Err(format!("no such command: {name}").into()),
    }
}

fn local() -> Builder {
    Dht::builder().host(Ipv4Addr::LOCALHOST).port(0)
}

fn bootstrap(first: &Dht) -> Result<BootstrapNode, Failure> {
    let address = first.local_address().ok_or("the first node has ended")?;
    Ok(address.into())
}

async fn network(job: &Job, nodes: &mut Vec<Dht>) -> Result<Value, Failure> {
    let (before, start) = (memory()?, Instant::now());
    let first = local().bootstrapper(Ipv4Addr::LOCALHOST).bind()?;
    first.bootstrapped().await?;
    let bootstrap = bootstrap(&first)?;
    nodes.push(first);
    while nodes.len() < job.nodes {
        let mut starting = JoinSet::new();
        for _ in nodes.len()..job.nodes.min(nodes.len() + job.at_once) {
            starting.spawn(node(bootstrap.clone()));
        }
        while let Some(node) = starting.join_next().await {
            nodes.push(node??);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "bytes": memory()?.saturating_sub(before) }))
}

async fn node(bootstrap: BootstrapNode) -> Result<Dht, Failure> {
    let node = local().bootstrap([bootstrap]).ephemeral(false);
    let node = node.firewalled(false).bind()?;
    node.bootstrapped().await?;
    Ok(node)
}

async fn guest(first: &Dht) -> Result<Dht, Failure> {
    let guest = local().bootstrap([bootstrap(first)?]).ephemeral(true);
    let guest = guest.bind()?;
    guest.bootstrapped().await?;
    Ok(guest)
}

async fn lookups(job: &Job, first: &Dht) -> Result<Value, Failure> {
    let (announcer, client) = (guest(first).await?, guest(first).await?);
    for number in 0..job.topics {
        let (topic, keys) = (topic(number), KeyPair::from_seed(topic(number).as_bytes()));
        announcer.announce(topic, &keys, Vec::new()).await?;
    }
    let (topics, client) = (job.topics, Arc::new(client));
    often(job, move |number| {
        let client = Arc::clone(&client);
        async move {
            let mut lookup = client.lookup(topic(number % topics))?;
            let mut is_found = false;
            while let Some((_, reply)) = lookup.next().await {
                is_found |= !reply.peers.is_empty();
            }
            Ok(is_found)
        }
    })
    .await
}

/// Acts `count` times, at most `at_once` at a time; answers how long that took and how often it succeeded.
async fn often<F>(
    job: &Job,
    act: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<Value, Failure>
where
    F: Future<Output = Result<bool, Failure>> + Send,
{
    let start = Instant::now();
    let (next, count) = (Arc::new(AtomicU64::new(0)), job.count);
    let mut workers = JoinSet::new();
    for _ in 0..job.at_once {
        let (next, act) = (Arc::clone(&next), act.clone());
        workers.spawn(async move {
            let mut found = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, Failure>(found);
                }
                found += u64::from(act(number).await?);
            }
        });
    }
    let mut found = 0;
    while let Some(done) = workers.join_next().await {
        found += done??;
    }
    Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "found": found }))
}

fn topic(number: u64) -> Id {
    let hash = blake2b_simd::Params::new()
        .hash_length(32)
        .hash(&number.to_le_bytes());
    let mut topic = [0; 32];
    topic.copy_from_slice(hash.as_bytes());
    topic.into()
}
