//! Inputs to start from: valid ones, so that what is behind a check is reached at all.

use ferrocore_log::Manifest;
use ferrocore_log::manifest::Prologue;
use ferrocore_primitives::encoding::{Encode, put_uint};
use ferrocore_primitives::hash;
use ferrocore_primitives::id::Link;
use ferrocore_replication::fully_remote::FullyRemoteProof;
use ferrocore_replication::messages::{
    BitfieldWords, Cancel, Data, Extension, Message, NoData, Range, Reason, Request, Sync, Want,
};

use crate::{
    bees, connect, core_files, dht, discovery, drives, honest, journal, messages, mux_frames,
    mux_pairs, session_pairs, store_files, streams, udx, udx_pairs, web_socket,
};

/// Target and input.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    seeds.extend(values().map(|input| ("primitives", input)));
    seeds.extend(link_texts().map(|text| ("links", text.into_bytes())));
    seeds.extend(manifests().map(|manifest| ("manifests", manifest.to_vec())));
    seeds.extend(signatures().map(|input| ("signatures", input)));
    seeds.extend([vec![], vec![1, 0, 3], vec![4, 0, 0, 70, 0, 9]].map(|input| ("patches", input)));
    seeds.extend(wire_messages().iter().map(|message| {
        let kind = message.kind() as u8;
        (
            "messages",
            [&[kind], &messages::encode(message)[..]].concat(),
        )
    }));
    seeds.push(("messages", [&[11, 1], &[9; 32][..]].concat()));
    seeds.push(("remote_proofs", remote_proof().to_vec()));
    seeds.extend(core_files::seeds());
    seeds.extend(journal::seeds().into_iter().map(|s| ("store_journal", s)));
    seeds.extend(store_files::seeds());
    seeds.extend(mux_frames::seeds().into_iter().map(|s| ("mux_frames", s)));
    seeds.extend(web_socket::seeds().into_iter().map(|s| ("web_socket", s)));
    seeds.extend(mux_pairs::seeds().into_iter().map(|s| ("mux_pairs", s)));
    seeds.extend(
        session_pairs::seeds()
            .into_iter()
            .map(|s| ("session_pairs", s)),
    );
    seeds.extend(streams::seeds());
    seeds.extend(bees::seeds().into_iter().map(|s| ("bee_blocks", s)));
    seeds.extend(drives::seeds());
    seeds.extend(udx::packet_seeds().into_iter().map(|s| ("udx_packets", s)));
    seeds.extend(udx::stream_seeds().into_iter().map(|s| ("udx_streams", s)));
    seeds.extend(udx_pairs::seeds().into_iter().map(|s| ("udx_pairs", s)));
    seeds.extend(connect::seeds());
    seeds.extend(dht::seeds());
    seeds.extend(discovery::seeds());
    seeds.extend(plays().map(|input| ("sessions", input)));
    seeds.extend(plays().map(|input| ("proofs", input)));
    seeds
}

fn values() -> impl Iterator<Item = Vec<u8>> {
    let numbers = [0, 0xfc, 0xfd, 0x1_0000, 0x1_0000_0000, (1 << 53) - 1];
    let uints = numbers.into_iter().map(|number| {
        let mut input = vec![0];
        put_uint(&mut input, number);
        input
    });
    let kinds = (1..16).map(|kind| vec![kind, 3, 1, b'a', b'b', b'c', 0, 2, 0, 1]);
    uints.chain(kinds)
}

fn link_texts() -> impl Iterator<Item = String> {
    let key = Manifest::single(honest::key_pair().public_key()).key();
    let link = Link {
        version: Some(7),
        path: Some("/a b/\u{e9}%".to_owned()),
        encryption_key: Some([3; 32]),
        ..Link::from(key)
    };
    [
        link.to_string(),
        key.to_string(),
        key.to_hex(),
        format!("pear://{key}/x"),
    ]
    .into_iter()
}

fn manifests() -> impl Iterator<Item = Manifest> {
    let public_key = honest::key_pair().public_key();
    let single = Manifest::single(public_key);
    let full = Manifest {
        version: 2,
        allow_patch: true,
        prologue: Some(Prologue {
            hash: hash::leaf(b"pinned"),
            length: 300,
        }),
        linked: Some(vec![single.key()]),
        user_data: Some(vec![1, 2, 3]),
        signers: [single.signers.clone(), single.signers.clone()].concat(),
        ..single.clone()
    };
    let multi_v0 = Manifest {
        version: 0,
        quorum: 2,
        ..full.clone()
    };
    let static_v0 = Manifest {
        signers: Vec::new(),
        quorum: 0,
        ..multi_v0.clone()
    };
    [
        Manifest::compat(public_key),
        single,
        full,
        multi_v0,
        static_v0,
    ]
    .into_iter()
}

fn signatures() -> impl Iterator<Item = Vec<u8>> {
    let proof = remote_proof();
    let one = proof_of(&proof)
        .upgrade
        .and_then(|upgrade| upgrade.signature);
    let one = one.expect("the writer signs").to_vec();
    let two = [
        &[2, 0][..],
        &[7; 64],
        &[3, 1],
        &[8; 64],
        &[0, 1, 4, 9],
        &[5; 32],
    ]
    .concat();
    [one, two].into_iter()
}

fn remote_proof() -> bytes::Bytes {
    let proof = FullyRemoteProof::of(&honest::writer(), Some(4));
    let proof = proof.expect("memory does not fail");
    proof.expect("the writer has blocks").to_vec().into()
}

fn proof_of(bytes: &bytes::Bytes) -> ferrocore_log::proof::Proof {
    let decoded = FullyRemoteProof::decode(bytes);
    decoded.expect("it was just encoded").proof
}

fn wire_messages() -> Vec<Message> {
    let want = Want {
        start: 64,
        length: 32,
        any: true,
    };
    vec![
        Message::Sync(Sync {
            fork: 1,
            length: 300,
            has_manifest: true,
            ..Sync::default()
        }),
        Message::Request(Request {
            id: 3,
            proof: request(),
            priority: 1,
        }),
        Message::Cancel(Cancel { request: 9 }),
        Message::Data(Data {
            request: 3,
            proof: proof_of(&remote_proof()),
        }),
        Message::NoData(NoData {
            request: 4,
            reason: Reason::NotAvailable,
        }),
        Message::Want(want),
        Message::Unwant(want),
        Message::Bitfield(BitfieldWords {
            start: 32,
            words: vec![1, u32::MAX],
        }),
        Message::Range(Range {
            drop: true,
            start: 9,
            length: 1,
        }),
        Message::Extension(Extension {
            name: "name".to_owned(),
            message: bytes::Bytes::from_static(b"payload"),
        }),
    ]
}

fn request() -> ferrocore_log::proof::ProofRequest {
    use ferrocore_log::proof::{NodeRequest, ProofRequest, SeekRequest, UpgradeRequest};
    ProofRequest {
        fork: 2,
        block: Some(NodeRequest { index: 4, nodes: 1 }),
        hash: None,
        seek: Some(SeekRequest {
            bytes: 300,
            padding: 8,
        }),
        upgrade: Some(UpgradeRequest {
            start: 1,
            length: 8,
        }),
        manifest: true,
    }
}

/// Courses of events, without meaning until they are found to have one.
fn plays() -> impl Iterator<Item = Vec<u8>> {
    (1..=12u32).map(|seed| {
        let mut state = seed;
        let byte = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..40 * seed).map(byte).collect()
    })
}
