//! Peers with blocks all over the place, of which little can be remembered.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_log::bitfield::PAGE_BITS;
use ferrocore_replication::messages::{BitfieldWords, Data, Message};
use ferrocore_replication::session::PeersMemory;

use crate::common::script::{Script, before_reader, sync_of};

const PAGES: u64 = 10;
const LENGTH: u64 = PAGES * PAGE_BITS;

/// Answers what is asked: every other block is here.
fn serve(script: &mut Script, writer: &Core) -> usize {
    let mut wants = 0;
    loop {
        let heard = script.deliver().unwrap();
        if heard.is_empty() {
            return wants;
        }
        for message in heard {
            match message {
                Message::Request(request) => {
                    let proof = writer.prove(&request.proof).unwrap().unwrap();
                    let request = request.id;
                    script.say(&Message::Data(Data { request, proof }));
                }
                Message::Want(want) if !want.any => {
                    wants += 1;
                    script.say(&Message::Bitfield(BitfieldWords {
                        start: want.start,
                        words: vec![0x5555_5555; LENGTH as usize / 32],
                    }));
                }
                _ => {}
            }
        }
    }
}

/// Goal: a block is found at a peer though there is no memory for all that the peer says to have, and the peer is not asked
/// again and again for that. Method: what all connections share is used up, so that a connection remembers seven pages
/// of its own; the peer has half of the blocks of ten.
#[test]
fn a_block_is_found_though_not_all_that_a_peer_has_can_be_remembered() {
    let blocks = vec![Bytes::from_static(b"x"); LENGTH as usize];
    let (writer, reader, mut script) = before_reader(&blocks);
    script.victim.connection.share_memory(&PeersMemory::new(0));
    script.say(&sync_of(LENGTH));
    serve(&mut script, &writer);
    let (mut seconds, mut wants) = (0, 0);
    for page in [PAGES - 1, 0, PAGES - 1, 4] {
        let mut read = Box::pin(reader.get(page * PAGE_BITS + 100 + 2 * seconds));
        let mut poll = || {
            let context = &mut Context::from_waker(Waker::noop());
            matches!(read.as_mut().poll(context), Poll::Ready(Ok(_)))
        };
        let began = seconds;
        while !poll() {
            wants += serve(&mut script, &writer);
            seconds += 1;
            script.now += Duration::from_secs(1);
            assert!(
                seconds < began + 60,
                "nobody asks for a block of page {page}"
            );
        }
    }
    assert!(wants as u64 <= 2 + seconds / 5, "{wants} in {seconds} s");
    // Nothing is waited for.
    serve(&mut script, &writer);
    script.now += Duration::from_secs(10);
    assert_eq!(serve(&mut script, &writer), 0);
    assert_eq!(script.victim.connection.next_timeout(), None);
}
