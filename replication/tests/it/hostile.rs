//! What a peer can do wrong: what that is called, what it may cost, and what becomes of the peer.

mod answers;
mod forks;
mod kept;
mod messages;
mod questions;

use crate::common::script::{Script, request, sync_of};
use crate::common::{blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_replication::messages::{Message, Request};

fn upgrade(start: u64, length: u64) -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest { start, length }),
        ..ProofRequest::default()
    }
}

/// A script that has brought the victim to the length of the core, and the honest end it asks.
fn upgraded(count: usize) -> (Script, Script, Core, Core) {
    upgraded_to(&blocks(count))
}

/// The same, of a core with these blocks.
fn upgraded_to(blocks: &[Bytes]) -> (Script, Script, Core, Core) {
    let count = blocks.len();
    let (here, writer, there, reader) = writer_and_reader(blocks);
    let mut honest = Script::open(&here, &writer);
    honest.deliver().unwrap();
    let mut script = Script::open(&there, &reader);
    script.deliver().unwrap();
    script.say(&sync_of(count as u64));
    let asked = script.deliver().unwrap();
    for message in &asked {
        if let Message::Request(asked) = message {
            let manifest = ProofRequest {
                manifest: true,
                ..asked.proof.clone()
            };
            honest.say(&request(asked.id, manifest));
        }
    }
    honest
        .deliver()
        .unwrap()
        .iter()
        .for_each(|message| script.say(message));
    script.deliver().unwrap();
    assert_eq!(reader.length(), count as u64);
    (script, honest, writer, reader)
}

/// The requests for blocks among `messages`.
pub(crate) fn block_requests(messages: &[Message]) -> Vec<Request> {
    let requests = messages.iter().filter_map(|message| match message {
        Message::Request(request) if request.proof.block.is_some() => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}
