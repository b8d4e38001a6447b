//! What a store keeps beside its cores, and secrets outside it.
//!
//! Holds: what is read means the same once it is written again; evidence about another core
//! proves nothing.

use ferrocore_log::conflict::{Conflict, SignedTree};
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_log::storage::Alias;
use ferrocore_log::{CoreOptions, Manifest, RootSecret, fuzzing};
use ferrocore_primitives::encoding::{Decode, Encode, put_buffer, put_string, put_uint};
use ferrocore_primitives::id;
use ferrocore_primitives::keys::{DiscoveryKey, Key};

use crate::honest;

/// The bytes are the index of names; unless the first one is 0, each line gets its checksum here.
pub fn aliases(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let (names, is_whole) = match mode {
        0 => fuzzing::aliases(rest),
        _ => fuzzing::aliases(&closed(rest)),
    };
    let text = fuzzing::aliases_text(&names);
    assert_eq!(fuzzing::aliases(&text), (names, true), "whole: {is_whole}");
}

fn closed(text: &[u8]) -> Vec<u8> {
    let lines = text.split(|byte| *byte == b'\n');
    let close = |line: &[u8]| {
        let end = format!(" {:08x}\n", crc32fast::hash(line));
        [line, end.as_bytes()].concat()
    };
    lines.flat_map(close).collect()
}

/// The bytes are the file of guards.
pub fn guards(data: &[u8]) {
    let Some((is_restored, cores)) = fuzzing::guards(data) else {
        return;
    };
    let mut text = String::new();
    if is_restored {
        text.push_str("restored\n");
    }
    for (core, is_guarded) in &cores {
        let word = if *is_guarded { "guarded" } else { "confirmed" };
        text.push_str(&format!("{word} {core}\n"));
    }
    let mut cores = cores;
    cores.sort_unstable();
    let sealed = fuzzing::guards_text(is_restored, &cores);
    for text in [text, sealed] {
        if is_restored || !cores.is_empty() {
            let (again, mut found) = fuzzing::guards(text.as_bytes()).expect("it is as written");
            found.sort_unstable();
            assert_eq!((again, &found), (is_restored, &cores));
        }
    }
}

/// The bytes are the evidence that stops a core.
pub fn conflicts(data: &[u8]) {
    let Ok(conflict) = Conflict::from_slice(data) else {
        return;
    };
    let encoded = conflict.to_vec();
    assert_eq!(encoded.len(), conflict.encoded_len());
    assert_eq!(Conflict::from_slice(&encoded).as_ref(), Ok(&conflict));
    let _ = conflict.verify(&honest_key());
    let stranger = conflict.verify(&Key::from([9; 32]));
    assert!(stranger.is_err(), "nobody signed anything for this key");
    assert_eq!(conflict.proofs().len(), 2);
}

/// The bytes are what a draft builds on.
pub fn draft_bases(data: &[u8]) {
    if let Some(base) = fuzzing::draft_base(data) {
        assert_eq!(fuzzing::draft_base(&base).as_ref(), Some(&base));
    }
}

/// The bytes are a backup: behind the seal if the first one is 0, before it if it is an `h`, in words if it is a `w`, else as
/// text. The seal itself is left out: it is made to be slow.
pub fn backups(data: &[u8]) {
    match data.split_first() {
        Some((0, content)) => {
            if let Some(backup) = fuzzing::backup(content) {
                assert_eq!(fuzzing::backup(&backup).as_ref(), Some(&backup));
            }
        }
        Some((b'h', sealed)) => {
            if let Some(head) = fuzzing::seal_head(sealed) {
                assert!(sealed.starts_with(&head));
            }
        }
        Some((b'w', words)) => phrases(words),
        Some((_, text)) => {
            if let Some(sealed) = fuzzing::backup_text(text) {
                assert!(sealed.len() < text.len());
                let text = format!("fcore-keys:\n{}\n", id::encode_z32(&sealed));
                assert_eq!(fuzzing::backup_text(text.as_bytes()), Some(sealed));
            }
        }
        None => {}
    }
}

/// The bytes are words, or begin with the secret that is put in words.
fn phrases(data: &[u8]) {
    let told = std::str::from_utf8(data).ok().map(RootSecret::from_phrase);
    let made = data.first_chunk().map(|secret| RootSecret::from(*secret));
    for secret in told.and_then(Result::ok).into_iter().chain(made) {
        let again = RootSecret::from_phrase(&secret.to_phrase());
        assert!(again.is_ok_and(|again| again == secret));
    }
}

fn honest_key() -> Key {
    Manifest::single(honest::key_pair().public_key()).key()
}

/// Real files to start from, by target.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let [one, two] = [1, 2].map(|byte| DiscoveryKey::from([byte; 32]));
    let alias = |name: &str| Alias {
        namespace: [7; 32],
        name: name.to_owned(),
    };
    let index = fuzzing::aliases_text(&[(alias("a \u{e9}\n"), one), (alias(""), two)]);
    let lines = format!("generation 3\n{one} {} 6162\n{two} ", "07".repeat(32));
    let old_guards = format!("guarded {one}\nrestored\nconfirmed {two}\n");
    let guards = fuzzing::guards_text(true, &[(one, false), (two, true)]);
    let base = [&[1, 3, 0xfd, 0, 1, 0xfd, 9, 9, 1, 2][..], &[7; 32]].concat();
    let backup = fuzzing::backup(&backup()).expect("it is as the table says");
    let text = format!("fcore-keys:\n{}\n", id::encode_z32(&[5; 50]));
    vec![
        ("aliases", [&[0], &index[..]].concat()),
        ("aliases", [&[1], lines.as_bytes()].concat()),
        ("guards", guards.into_bytes()),
        ("guards", old_guards.into_bytes()),
        ("conflicts", conflict().to_vec()),
        ("draft_bases", fuzzing::draft_base(&base).expect("a base")),
        ("backups", [&[0], &backup[..]].concat()),
        ("backups", [&[1], text.as_bytes()].concat()),
        ("backups", [b"h", &seal_head()[..]].concat()),
        (
            "backups",
            [b"w", RootSecret::from([7; 32]).to_phrase().as_bytes()].concat(),
        ),
    ]
}

/// As new backups have it, with a salt and a nonce of any bytes.
fn seal_head() -> Vec<u8> {
    let mut head = b"fcore-keys\x01".to_vec();
    [64 * 1024_u32, 3, 4]
        .iter()
        .for_each(|number| head.extend(number.to_le_bytes()));
    head.extend([9; 40]);
    assert_eq!(fuzzing::seal_head(&head).as_ref(), Some(&head));
    head
}

/// A root secret, a core with all there may be, and one with nothing.
fn backup() -> Vec<u8> {
    let mut whole = honest_key().as_bytes().to_vec();
    put_uint(&mut whole, 63);
    let manifest = Manifest::single(honest::key_pair().public_key());
    put_buffer(&mut whole, &manifest.to_vec());
    whole.extend([2; 32]);
    put_string(&mut whole, "name");
    whole.extend([7; 32]);
    whole.extend([3; 32]);
    put_string(&mut whole, "label");
    let mut out = [&[1][..], &[4; 32], &[2]].concat();
    put_buffer(&mut out, &whole);
    put_buffer(&mut out, &[&[5; 32][..], &[0]].concat());
    out
}

/// Two logs that the honest pair signed and must not have.
fn conflict() -> Conflict {
    let [ours, theirs] = [0, 1].map(|fork| {
        let core = honest::core_of(CoreOptions::default());
        let blocks = (0..9).map(|index| honest::block(fork, index));
        core.append_batch(blocks.collect()).expect("memory");
        let upgrade = Some(UpgradeRequest {
            start: 0,
            length: 9,
        });
        let request = ProofRequest {
            upgrade,
            ..ProofRequest::default()
        };
        let proof = core.prove(&request).expect("all of it is here");
        let upgrade = proof.and_then(|proof| proof.upgrade);
        let upgrade = upgrade.expect("it was asked for");
        SignedTree {
            nodes: upgrade.nodes,
            additional: upgrade.additional,
            signature: upgrade.signature,
        }
    });
    let conflict = Conflict {
        manifest: Some(Manifest::single(honest::key_pair().public_key())),
        fork: 0,
        length: 9,
        ours,
        theirs,
    };
    assert_eq!(conflict.verify(&honest_key()), Ok(()));
    conflict
}
