//! BLAKE2b-256 and the three tree hashes built on it.
//! Knows how leaves, parents and roots are hashed. Does not know where they are in a tree.
//!
//! | hash | input |
//! |---|---|
//! | leaf | `00`, u64 length, block |
//! | parent | `01`, u64 size of both children, left hash, right hash |
//! | tree | `02`, then for each root: hash, u64 index, u64 size |
//!
//! Integers are little endian. The first byte keeps one kind from passing for another.

use std::hint::black_box;
use std::mem::MaybeUninit;

use blake2b_simd::many::{HashManyJob, MAX_DEGREE, degree, hash_many, update_many};
use blake2b_simd::{Params, State};
use subtle::ConstantTimeEq;

use crate::byte_array::write_hex;

const LEAF: u8 = 0;
const PARENT: u8 = 1;
const ROOTS: u8 = 2;

/// Bytes in front of a block in its leaf hash.
const LEAF_HEADER_LEN: usize = 9;

/// Bytes that are hashed for a parent.
const PARENT_LEN: usize = 9 + 2 * Hash::LEN;

/// How many blocks or nodes are hashed together: enough to keep all lanes busy when lengths differ.
const HASH_GROUP: usize = 4 * MAX_DEGREE;

/// A block that with its header is no longer than this is hashed from a copy: one call instead of three.
const LEAF_SHORT_MAX: usize = 256;

/// Blocks up to this length are copied behind their header so that even their first BLAKE2b block goes
/// through the lanes; for longer ones the copy would cost more than it saves.
const LEAF_COPY_MAX: usize = 4096;

byte_array! {
    /// A BLAKE2b-256 hash. Printed as lower-case hexadecimal.
    Hash, 32, write_hex
}

impl Hash {
    /// Compares in constant time: for hashes that prove knowledge of a secret.
    pub fn ct_eq(&self, other: &Hash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The hash of the concatenation of `parts`.
pub fn hash(parts: &[&[u8]]) -> Hash {
    finish(update(params().to_state(), parts))
}

/// The hash of the concatenation of `parts`, keyed by `key`.
///
/// # Panics
/// If `key` is longer than 64 bytes: keys are ours, of fixed length.
pub fn keyed(key: &[u8], parts: &[&[u8]]) -> Hash {
    finish(update(params().key(key).to_state(), parts))
}

/// The leaf hash of `block`.
pub fn leaf(block: &[u8]) -> Hash {
    let header = leaf_header(block);
    let mut copy = [0; LEAF_SHORT_MAX];
    let Some(input) = copy.get_mut(..LEAF_HEADER_LEN + block.len()) else {
        return hash(&[&header, block]);
    };
    let (front, body) = input.split_at_mut(LEAF_HEADER_LEN);
    front.copy_from_slice(&header);
    body.copy_from_slice(block);
    from_blake2b(&params().hash(input))
}

/// The leaf hashes of `blocks`, several at a time in SIMD lanes. Equal to [`leaf`] of each.
pub fn leaves(blocks: &[&[u8]]) -> Vec<Hash> {
    let mut hashes = Vec::with_capacity(blocks.len());
    for group in blocks.chunks(HASH_GROUP) {
        if group.iter().all(|block| block.len() <= LEAF_COPY_MAX) {
            hash_copied(group, &mut hashes);
        } else {
            hash_streamed(group, &mut hashes);
        }
    }
    hashes
}

/// The hash of the node above two siblings. `left` is the one of lower index; sizes are in bytes.
pub fn parent(left_size: u64, left: &Hash, right_size: u64, right: &Hash) -> Hash {
    from_blake2b(&params().hash(&parent_input(left_size, left, right_size, right)))
}

/// The hashes of the nodes above pairs of siblings, each given as size in bytes and hash, several at a time in
/// SIMD lanes. Equal to [`parent`] of each.
pub fn parents(pairs: &[[(u64, Hash); 2]]) -> Vec<Hash> {
    let params = params();
    let mut hashes = Vec::with_capacity(pairs.len());
    for group in pairs.chunks(HASH_GROUP) {
        let inputs = group
            .iter()
            .map(|[left, right]| parent_input(left.0, &left.1, right.0, &right.1));
        let inputs: Vec<_> = inputs.collect();
        let jobs = inputs.iter().map(|input| HashManyJob::new(&params, input));
        let mut jobs: Vec<_> = jobs.collect();
        from_page_start(|| hash_many(&mut jobs));
        hashes.extend(jobs.iter().map(|job| from_blake2b(&job.to_hash())));
    }
    hashes
}

/// The hash of a whole tree, from its roots left to right, each as (index, size in bytes, hash). Without
/// roots it is the hash of the empty log.
pub fn tree(roots: impl Iterator<Item = (u64, u64, Hash)>) -> Hash {
    let mut state = params().to_state();
    state.update(&[ROOTS]);
    for (index, size, hash) in roots {
        state.update(&hash.0);
        state.update(&index.to_le_bytes());
        state.update(&size.to_le_bytes());
    }
    finish(state)
}

/// Hashes short blocks from copies that stand behind their headers.
fn hash_copied(blocks: &[&[u8]], hashes: &mut Vec<Hash>) {
    let params = params();
    let copies_len = blocks.iter().map(|b| LEAF_HEADER_LEN + b.len()).sum();
    let mut copies = Vec::with_capacity(copies_len);
    for block in blocks {
        copies.extend_from_slice(&leaf_header(block));
        copies.extend_from_slice(block);
    }
    let mut rest = copies.as_slice();
    let mut jobs: Vec<_> = blocks
        .iter()
        .map(|block| {
            let (input, next) = rest.split_at(LEAF_HEADER_LEN + block.len());
            rest = next;
            HashManyJob::new(&params, input)
        })
        .collect();
    from_page_start(|| hash_many(&mut jobs));
    hashes.extend(jobs.iter().map(|job| from_blake2b(&job.to_hash())));
}

/// Hashes long blocks where they are.
fn hash_streamed(blocks: &[&[u8]], hashes: &mut Vec<Hash>) {
    let mut states: Vec<State> = blocks
        .iter()
        .map(|block| update(params().to_state(), &[&leaf_header(block)]))
        .collect();
    let mut idle = params().to_state();
    let filler = filler(blocks).map(|block| (&mut idle, block));
    let lanes = states.iter_mut().zip(blocks).chain(filler);
    from_page_start(|| update_many(lanes));
    hashes.extend(states.into_iter().map(finish));
}

/// What to hash beside `blocks` for nothing, if that is faster: when three are left in the end. In four lanes they take 93 us
/// for 64 KiB each (AVX2 on a Zen 4), in two lanes and then alone 140.
fn filler<'a, 'b>(blocks: &'a [&'b [u8]]) -> Option<&'a &'b [u8]> {
    let left = blocks.chunks(MAX_DEGREE).next_back()?;
    let is_faster = left.len() == 3 && degree() == 4;
    is_faster
        .then(|| left.iter().min_by_key(|block| block.len()))
        .flatten()
}

/// Calls `work` with a stack that begins at the edge of a page.
///
/// The lanes keep what does not fit into registers on the stack, without aligning it. Where one of those places lies
/// across two pages, each store to it takes so long that hashing takes twice the time: 53 instead of 25 us for 64 KiB
/// (AVX2 on a Zen 4), at one in thirty depths of the stack, and always there. All that is called fits in one page.
fn from_page_start<T>(work: impl FnOnce() -> T) -> T {
    let mut page = Page(MaybeUninit::uninit());
    black_box(&mut page);
    let done = work();
    black_box(&mut page);
    done
}

/// Aligned to what it is called. Its bytes are never touched.
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "it takes place")] MaybeUninit<[u8; 4096]>);

fn leaf_header(block: &[u8]) -> [u8; LEAF_HEADER_LEN] {
    tagged(LEAF, block.len() as u64)
}

fn parent_input(left_size: u64, left: &Hash, right_size: u64, right: &Hash) -> [u8; PARENT_LEN] {
    let mut input = [0; PARENT_LEN];
    let (header, children) = input.split_at_mut(PARENT_LEN - 2 * Hash::LEN);
    let (left_half, right_half) = children.split_at_mut(Hash::LEN);
    // Sizes stay below 2^53, see `encoding::UINT_MAX`; a saturated sum could match no signed tree.
    header.copy_from_slice(&tagged(PARENT, left_size.saturating_add(right_size)));
    left_half.copy_from_slice(&left.0);
    right_half.copy_from_slice(&right.0);
    input
}

fn tagged(kind: u8, size: u64) -> [u8; LEAF_HEADER_LEN] {
    let [a, b, c, d, e, f, g, h] = size.to_le_bytes();
    [kind, a, b, c, d, e, f, g, h]
}

fn params() -> Params {
    let mut params = Params::new();
    params.hash_length(Hash::LEN);
    params
}

fn update(mut state: State, parts: &[&[u8]]) -> State {
    for part in parts {
        state.update(part);
    }
    state
}

fn finish(state: State) -> Hash {
    from_blake2b(&state.finalize())
}

fn from_blake2b(hash: &blake2b_simd::Hash) -> Hash {
    Hash::try_from(hash.as_bytes()).expect("`params` asks for 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn constant_time_equality_is_equality() {
        let (a, b) = (leaf(b"a"), leaf(b"b"));
        assert!(a.ct_eq(&a));
        assert!(!a.ct_eq(&b));
    }

    proptest! {
        /// Lanes are an optimisation: block by block the hashes must be those of `leaf`, for short, long
        /// and mixed blocks and for every number of them.
        #[test]
        fn leaves_equal_leaf(lens in prop::collection::vec(prop_oneof![0..300usize, 4000..9000usize], 0..40)) {
            let blocks: Vec<Vec<u8>> = (0u8..).zip(lens).map(|(fill, len)| vec![fill; len]).collect();
            let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
            let expected: Vec<Hash> = blocks.iter().map(|block| leaf(block)).collect();
            prop_assert_eq!(leaves(&blocks), expected);
        }

        #[test]
        fn parents_equal_parent(sizes in prop::collection::vec(0u64..1 << 50, 0..40)) {
            let node = |size: u64| (size, leaf(&size.to_le_bytes()));
            let pairs: Vec<_> = sizes.iter().map(|size| [node(*size), node(size + 1)]).collect();
            let expected: Vec<Hash> = pairs.iter().map(|[a, b]| parent(a.0, &a.1, b.0, &b.1)).collect();
            prop_assert_eq!(parents(&pairs), expected);
        }
    }
}
