//! Proofs that differ from valid ones: in a field, in a part, in a byte of their wire form.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ferrocore_log::Manifest;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::Proof;
use ferrocore_primitives::hash::Hash;
use ferrocore_replication::messages::{Data, Message};

use crate::messages::encode;

/// Changes one thing about `proof`; parts may come from `other`, a valid proof of another time.
pub(crate) fn mutate(
    input: &mut Unstructured<'_>,
    proof: &mut Proof,
    other: Option<&Proof>,
) -> Result<()> {
    match input.int_in_range(0..=11)? {
        0 => proof.fork = number(input, proof.fork)?,
        1 => change_block(input, proof)?,
        2 => {
            if let Some(hash) = &mut proof.hash {
                hash.index = number(input, hash.index)?;
            }
        }
        3 => {
            if let Some(seek) = &mut proof.seek {
                seek.bytes = number(input, seek.bytes)?;
            }
        }
        4 => change_upgrade(input, proof)?,
        5 => proof.manifest = None,
        6 => {
            if let Some(manifest) = &mut proof.manifest {
                change_manifest(input, manifest)?;
            }
        }
        7 => drop_part(input, proof)?,
        8 => {
            if let Some(other) = other {
                graft(input, proof, other)?;
            }
        }
        9 => change_byte(input, proof)?,
        _ => change_nodes(input, proof, other)?,
    }
    Ok(())
}

/// A number near `value`, or any.
fn number(input: &mut Unstructured<'_>, value: u64) -> Result<u64> {
    Ok(match input.int_in_range(0..=5)? {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => value ^ 1 << input.int_in_range(0..=63u32)?,
        3 => 0,
        4 => input.int_in_range(0..=80)?,
        _ => input.arbitrary()?,
    })
}

fn change_block(input: &mut Unstructured<'_>, proof: &mut Proof) -> Result<()> {
    let Some(block) = &mut proof.block else {
        return Ok(());
    };
    let mut value = block.value.to_vec();
    match input.int_in_range(0..=3)? {
        0 => block.index = number(input, block.index)?,
        1 => value.push(input.arbitrary()?),
        2 => drop(value.pop()),
        _ if value.is_empty() => {}
        _ => value[input.choose_index(block.value.len())?] ^= 1 << input.int_in_range(0..=7u8)?,
    }
    block.value = Bytes::from(value);
    Ok(())
}

fn change_upgrade(input: &mut Unstructured<'_>, proof: &mut Proof) -> Result<()> {
    let Some(upgrade) = &mut proof.upgrade else {
        return Ok(());
    };
    match input.int_in_range(0..=4)? {
        0 => upgrade.start = number(input, upgrade.start)?,
        1 => upgrade.length = number(input, upgrade.length)?,
        2 => upgrade.signature = None,
        3 => {
            // Nodes of the one list are taken for the other's.
            let moved = upgrade.additional.drain(..);
            upgrade.nodes.extend(moved);
        }
        _ => {
            let mut signature = upgrade.signature.clone().unwrap_or_default().to_vec();
            if signature.is_empty() || input.ratio(1, 4)? {
                signature.push(input.arbitrary()?);
            } else {
                let at = input.choose_index(signature.len())?;
                signature[at] ^= 1 << input.int_in_range(0..=7u8)?;
            }
            upgrade.signature = Some(signature.into());
        }
    }
    Ok(())
}

fn change_manifest(input: &mut Unstructured<'_>, manifest: &mut Manifest) -> Result<()> {
    match input.int_in_range(0..=4)? {
        0 => manifest.version = input.int_in_range(0..=4)?,
        1 => manifest.quorum = input.int_in_range(0..=3)?,
        2 => manifest.signers.clear(),
        3 => manifest.allow_patch ^= true,
        _ => manifest.user_data = Some(vec![1]),
    }
    Ok(())
}

fn drop_part(input: &mut Unstructured<'_>, proof: &mut Proof) -> Result<()> {
    match input.int_in_range(0..=3)? {
        0 => proof.block = None,
        1 => proof.hash = None,
        2 => proof.seek = None,
        _ => proof.upgrade = None,
    }
    Ok(())
}

fn graft(input: &mut Unstructured<'_>, proof: &mut Proof, other: &Proof) -> Result<()> {
    match input.int_in_range(0..=5)? {
        0 => proof.block.clone_from(&other.block),
        1 => proof.hash.clone_from(&other.hash),
        2 => proof.seek.clone_from(&other.seek),
        3 => proof.upgrade.clone_from(&other.upgrade),
        4 => proof.fork = other.fork,
        _ => {
            if let (Some(ours), Some(theirs)) = (&mut proof.upgrade, &other.upgrade) {
                ours.signature.clone_from(&theirs.signature);
            }
        }
    }
    Ok(())
}

/// Changes a byte of the wire form; what does not decode stays as it was.
fn change_byte(input: &mut Unstructured<'_>, proof: &mut Proof) -> Result<()> {
    let message = Message::Data(Data {
        request: 1,
        proof: proof.clone(),
    });
    // The encoder trusts its caller to keep to what can be written.
    if !is_encodable(proof) {
        return Ok(());
    }
    let mut bytes = encode(&message);
    let at = input.choose_index(bytes.len())?;
    bytes[at] = input.arbitrary()?;
    if let Ok(Some(Message::Data(data))) = Message::decode(message.kind(), &bytes.into()) {
        *proof = data.proof;
    }
    Ok(())
}

/// Whether all numbers of `proof` have a wire form.
pub(crate) fn is_encodable(proof: &Proof) -> bool {
    let max = ferrocore_primitives::encoding::UINT_MAX;
    let numbers = [
        Some(proof.fork),
        proof.block.as_ref().map(|part| part.index),
        proof.hash.as_ref().map(|part| part.index),
        proof.seek.as_ref().map(|part| part.bytes),
        proof.upgrade.as_ref().map(|part| part.start),
        proof.upgrade.as_ref().map(|part| part.length),
    ];
    let mut copy = proof.clone();
    let nodes = lists(&mut copy).into_iter().flat_map(|list| list.clone());
    let nodes: Vec<_> = nodes.flat_map(|node| [node.index, node.size]).collect();
    numbers.into_iter().flatten().chain(nodes).all(|n| n <= max)
}

/// The node lists that `proof` has.
fn lists(proof: &mut Proof) -> Vec<&mut Vec<Node>> {
    let mut lists = Vec::new();
    lists.extend(proof.block.as_mut().map(|part| &mut part.nodes));
    lists.extend(proof.hash.as_mut().map(|part| &mut part.nodes));
    lists.extend(proof.seek.as_mut().map(|part| &mut part.nodes));
    if let Some(upgrade) = &mut proof.upgrade {
        lists.extend([&mut upgrade.nodes, &mut upgrade.additional]);
    }
    lists
}

fn change_nodes(
    input: &mut Unstructured<'_>,
    proof: &mut Proof,
    other: Option<&Proof>,
) -> Result<()> {
    let mut other = other.cloned().unwrap_or_default();
    let foreign: Vec<Node> = lists(&mut other)
        .into_iter()
        .flat_map(|list| list.clone())
        .collect();
    let mut lists = lists(proof);
    if lists.is_empty() {
        return Ok(());
    }
    let chosen = input.choose_index(lists.len())?;
    let list = &mut *lists[chosen];
    let at = input.choose_index(list.len() + 1)?;
    match input.int_in_range(0..=7)? {
        0 if !foreign.is_empty() => list.insert(at, foreign[input.choose_index(foreign.len())?]),
        1 => list.insert(at, node(input)?),
        _ if at == list.len() => {}
        2 => drop(list.remove(at)),
        3 => list.insert(at, list[at]),
        4 => list[at].index = number(input, list[at].index)?,
        5 => list[at].size = number(input, list[at].size)?,
        6 => {
            // Two sizes whose sum stays the same.
            let with = input.choose_index(list.len())?;
            let shift = list[with].size.min(input.int_in_range(0..=9)?);
            list[with].size -= shift;
            list[at].size = list[at].size.saturating_add(shift);
        }
        _ => {
            let with = input.choose_index(list.len())?;
            list.swap(at, with);
        }
    }
    Ok(())
}

fn node(input: &mut Unstructured<'_>) -> Result<Node> {
    let hash: [u8; 32] = [input.arbitrary()?; 32];
    Ok(Node {
        index: number(input, 0)?,
        size: number(input, 0)?,
        hash: Hash::from(hash),
    })
}
