//! Every message survives its encoding, and its decoder whatever it is given.

use ferrocore_log::Manifest;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{
    BlockProof, HashProof, NodeRequest, Proof, ProofRequest, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use ferrocore_primitives::encoding::UINT_MAX;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn uint() -> impl Strategy<Value = u64> {
    prop_oneof![0..300u64, 0..=UINT_MAX]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn node_list() -> impl Strategy<Value = Vec<Node>> {
    let node = (uint(), uint(), any::<[u8; 32]>());
    let node = node.prop_map(|(index, size, hash)| Node {
        index,
        size,
        hash: hash.into(),
    });
    prop::collection::vec(node, 0..4)
}

fn proof_request() -> impl Strategy<Value = ProofRequest> {
    let node = || (uint(), uint()).prop_map(|(index, nodes)| NodeRequest { index, nodes });
    let seek = (uint(), uint()).prop_map(|(bytes, padding)| SeekRequest { bytes, padding });
    let upgrade = (uint(), uint()).prop_map(|(start, length)| UpgradeRequest { start, length });
    let parts = (
        option::of(node()),
        option::of(node()),
        option::of(seek),
        option::of(upgrade),
    );
    (uint(), parts, any::<bool>()).prop_map(|(fork, (block, hash, seek, upgrade), manifest)| {
        ProofRequest {
            fork,
            block,
            hash,
            seek,
            upgrade,
            manifest,
        }
    })
}

fn proof() -> impl Strategy<Value = Proof> {
    let block = (uint(), bytes(), node_list());
    let block = block.prop_map(|(index, value, nodes)| BlockProof {
        index,
        value,
        nodes,
    });
    let hash = (uint(), node_list()).prop_map(|(index, nodes)| HashProof { index, nodes });
    let seek = (uint(), node_list()).prop_map(|(bytes, nodes)| SeekProof { bytes, nodes });
    // An empty signature reads back as none.
    let signature = option::of(bytes().prop_filter("not empty", |bytes| !bytes.is_empty()));
    let upgrade = (uint(), uint(), node_list(), node_list(), signature);
    let upgrade = upgrade.prop_map(
        |(start, length, nodes, additional, signature)| UpgradeProof {
            start,
            length,
            nodes,
            additional,
            signature,
        },
    );
    let manifest = any::<[u8; 32]>().prop_map(|key| Manifest::single(key.into()));
    let parts = (option::of(block), option::of(hash), option::of(seek));
    (uint(), parts, option::of(upgrade), option::of(manifest)).prop_map(
        |(fork, (block, hash, seek), upgrade, manifest)| Proof {
            fork,
            block,
            hash,
            seek,
            upgrade,
            manifest,
        },
    )
}

fn sync() -> impl Strategy<Value = Sync> {
    (uint(), uint(), uint(), any::<[bool; 5]>()).prop_map(|(fork, length, remote_length, flags)| {
        Sync {
            fork,
            length,
            remote_length,
            can_upgrade: flags[0],
            uploading: flags[1],
            downloading: flags[2],
            has_manifest: flags[3],
            allow_push: flags[4],
        }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let want = || {
        (uint(), uint(), any::<bool>()).prop_map(|(start, length, any)| Want { start, length, any })
    };
    prop_oneof![
        sync().prop_map(Message::Sync),
        (uint(), proof_request(), uint()).prop_map(|(id, proof, priority)| Message::Request(
            Request {
                id,
                proof,
                priority
            }
        )),
        uint().prop_map(|request| Message::Cancel(Cancel { request })),
        (uint(), proof()).prop_map(|(request, proof)| Message::Data(Data { request, proof })),
        (uint(), uint()).prop_map(|(request, reason)| Message::NoData(NoData {
            request,
            reason: reason.into()
        })),
        want().prop_map(Message::Want),
        want().prop_map(Message::Unwant),
        (uint(), prop::collection::vec(any::<u32>(), 0..9))
            .prop_map(|(start, words)| Message::Bitfield(BitfieldWords { start, words })),
        (any::<bool>(), uint(), uint()).prop_map(|(drop, start, length)| Message::Range(Range {
            drop,
            start,
            length
        })),
        ("[a-z]{0,9}", bytes())
            .prop_map(|(name, message)| Message::Extension(Extension { name, message })),
    ]
}

fn encoded(message: &Message) -> Bytes {
    message.encode(&mut Vec::new(), |segments| {
        let parts = segments.iter().map(|segment| match segment {
            Segment::Copy(bytes) => bytes.to_vec(),
            Segment::Share(bytes) => bytes.to_vec(),
        });
        parts.collect::<Vec<_>>().concat().into()
    })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(message in message()) {
        let wire = encoded(&message);
        prop_assert_eq!(Message::decode(message.kind(), &wire), Ok(Some(message)));
    }

    #[test]
    fn fields_of_a_later_version_are_ignored(message in message(), later in 0x80..0xffu8) {
        // What ends in free bytes has no room for more fields, nor has what ends in optional flags.
        prop_assume!(!matches!(message, Message::Extension(_)));
        prop_assume!(!matches!(message, Message::Want(Want { any: false, .. }) | Message::Unwant(Want { any: false, .. })));
        let mut wire = encoded(&message).to_vec();
        wire.push(later);
        prop_assert_eq!(Message::decode(message.kind(), &wire.into()), Ok(Some(message)));
    }

    #[test]
    fn whatever_decodes_encodes_and_decodes_to_the_same(kind in 0..11u64, wire in prop::collection::vec(0..40u8, 0..80)) {
        if let Ok(Some(message)) = Message::decode(kind, &wire.into()) {
            let again = Message::decode(kind, &encoded(&message));
            prop_assert_eq!(again, Ok(Some(message)));
        }
    }

    #[test]
    fn what_is_cut_short_is_refused(message in message(), cut in 1..20usize) {
        prop_assume!(!matches!(message, Message::Extension(_) | Message::Want(_) | Message::Unwant(_) | Message::NoData(_)));
        let wire = encoded(&message);
        let short = wire.slice(..wire.len().saturating_sub(cut));
        prop_assert!(Message::decode(message.kind(), &short).is_err());
    }
}

#[test]
fn a_block_is_a_slice_of_its_message() {
    let value = Bytes::from(vec![7; 100]);
    let block = BlockProof {
        index: 3,
        value,
        nodes: Vec::new(),
    };
    let proof = Proof {
        block: Some(block),
        ..Proof::default()
    };
    let wire = encoded(&Message::Data(Data { request: 1, proof }));
    let Ok(Some(Message::Data(data))) = Message::decode(DATA, &wire) else {
        panic!("a Data message");
    };
    let value = data.proof.block.unwrap().value;
    assert!(wire.as_ptr_range().contains(&value.as_ptr()));
}
