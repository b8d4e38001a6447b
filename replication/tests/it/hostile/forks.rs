//! Forks that are said and not proven, or not signed.

use super::upgraded;
use crate::common::blocks;
use ferrocore_replication::messages::{Data, Message, NoData, Reason, Request, Sync};

fn sync_of_fork(fork: u64, length: u64) -> Message {
    Message::Sync(Sync {
        fork,
        length,
        uploading: true,
        ..Sync::default()
    })
}

#[test]
fn a_peer_that_does_not_prove_its_fork_supplies_nothing_until_it_is_back() {
    let (mut script, _, _, reader) = upgraded(10);
    for (fork, length, suppliers) in [(1, 0, 0), (0, 10, 1)] {
        script.say(&sync_of_fork(fork, length));
        script.deliver().unwrap();
        assert_eq!(reader.supply().suppliers(), suppliers, "fork {fork}");
    }
    // It is asked once each time it says so.
    for _ in 0..3 {
        script.say(&sync_of_fork(1, 10));
        let asked = requests_in(&script.deliver().unwrap());
        assert_eq!((asked.len(), asked[0].proof.fork), (1, 1));
        assert_eq!(reader.supply().suppliers(), 1);
        script.say(&Message::NoData(NoData {
            request: asked[0].id,
            reason: Reason::NotAvailable,
        }));
        assert!(requests_in(&script.deliver().unwrap()).is_empty());
        assert_eq!(reader.supply().suppliers(), 0);
    }
    assert_eq!((reader.fork(), reader.length()), (0, 10));
}

#[test]
fn a_fork_that_the_writer_has_not_signed_costs_the_channel() {
    for lie in ["fork", "node", "none"] {
        let (mut script, mut honest, writer, reader) = upgraded(10);
        script.say(&sync_of_fork(3, 10));
        let mut asked = requests_in(&script.deliver().unwrap());
        assert_eq!(asked.len(), 1);
        if lie != "fork" {
            writer.truncate(9, Some(3)).unwrap();
            writer.append_batch(blocks(7)).unwrap();
            honest.deliver().unwrap();
            asked[0].proof.upgrade.as_mut().unwrap().length = 16;
        } else {
            asked[0].proof.fork = 0;
        }
        honest.say(&Message::Request(asked[0].clone()));
        let answers = honest.deliver().unwrap();
        let mut data = data_in(&answers);
        data.proof.fork = 3;
        script.say(&Message::Data(data));
        let more = script.deliver().unwrap();
        if lie == "fork" {
            assert!(!script.is_open(&reader));
            assert_eq!((reader.fork(), reader.length()), (0, 10));
            continue;
        }
        let asked = requests_in(&more);
        assert!(asked[0].proof.hash.is_some(), "{asked:?}");
        honest.say(&Message::Request(asked[0].clone()));
        let mut data = data_in(&honest.deliver().unwrap());
        if lie == "node" {
            data.proof.hash.as_mut().unwrap().nodes[0].hash = [7; 32].into();
            script.say(&Message::Data(data));
            script.deliver().unwrap();
            assert!(!script.is_open(&reader));
            assert_eq!((reader.fork(), reader.length()), (0, 10));
        } else {
            // The fork is the writer's. Where it leaves ours cannot be learnt: so be it.
            script.say(&Message::NoData(NoData {
                request: asked[0].id,
                reason: Reason::NotAvailable,
            }));
            script.deliver().unwrap();
            assert_eq!((reader.fork(), reader.length()), (3, 16));
            assert_eq!(reader.tree_hash(), writer.tree_hash());
        }
    }
}

fn requests_in(messages: &[Message]) -> Vec<Request> {
    let requests = messages.iter().filter_map(|message| match message {
        Message::Request(request) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}

fn data_in(messages: &[Message]) -> Data {
    let data = messages.iter().find_map(|message| match message {
        Message::Data(data) => Some(data.clone()),
        _ => None,
    });
    data.unwrap()
}
