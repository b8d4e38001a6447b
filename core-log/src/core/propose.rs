//! Appending what others sign: a quorum of signers, or one whose secret is far away.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::keys::Key;

use self::sealed::Tree;
use super::append::{Growth, HashedBlocks, check_sizes};
use super::{Appended, Core, CoreError, Inner, Stored};
use crate::descent::{Broken, Descent};
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::multisig::SignedLength;
use crate::signable::TreeHead;
use crate::signer::{Signer, SignerError};
use crate::verifier::Verifier;

/// A log as it would be, with the tree whose signatures make it the core's.
#[derive(Debug, Clone)]
pub struct Proposed<C> {
    core: Key,
    verifier: Verifier,
    change: C,
}

/// Blocks that are not appended yet.
pub type Proposal = Proposed<Addition>;

/// A shorter log under another fork.
pub type TruncateProposal = Proposed<Cut>;

/// What an append would bring.
#[derive(Debug, Clone)]
pub struct Addition(Growth);

/// What a truncate would leave.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The log that it cuts.
    from: (u64, u64),
    fork: u64,
    roots: Roots,
}

/// A change that signers agree on.
pub trait Change: sealed::Tree {}

impl<C: sealed::Tree> Change for C {}

mod sealed {
    use crate::merkle::Roots;

    /// The tree after the change, and its fork.
    pub trait Tree {
        fn fork(&self) -> u64;
        fn roots(&self) -> &Roots;
    }
}

impl Tree for Addition {
    fn fork(&self) -> u64 {
        self.0.fork
    }

    fn roots(&self) -> &Roots {
        &self.0.roots
    }
}

impl Tree for Cut {
    fn fork(&self) -> u64 {
        self.fork
    }

    fn roots(&self) -> &Roots {
        &self.roots
    }
}

impl Proposal {
    /// What `growth` would make of `core`.
    pub(super) fn of(core: &Inner, growth: Growth) -> Result<Self, CoreError> {
        Self::new(core, Addition(growth))
    }
}

impl<C> Proposed<C> {
    /// What `change` would make of `core`.
    fn new(core: &Inner, change: C) -> Result<Self, CoreError> {
        let verifier = core.read().verifier.clone();
        let core = core.key;
        let verifier = verifier.ok_or(CoreError::NotWritable { core })?;
        Ok(Self {
            core,
            verifier,
            change,
        })
    }
}

impl<C: Change> Proposed<C> {
    /// The tree that signers sign.
    pub fn head(&self) -> TreeHead {
        TreeHead::of(self.change.fork(), self.change.roots())
    }

    /// The bytes that signer number `signer` of the manifest signs.
    pub fn signable(&self, signer: usize) -> Vec<u8> {
        self.verifier.signable(&self.head(), signer)
    }

    /// The part of `signer` in the signature.
    ///
    /// # Errors
    /// [`SignerError`] if it may not or will not sign.
    pub fn sign(&self, signer: &dyn Signer) -> Result<SignedLength, SignerError> {
        self.verifier.sign_part(&self.head(), signer)
    }

    /// Whether `part` holds for this proposal: whom to ask again if the signature does not.
    pub fn verify_part(&self, part: &SignedLength) -> bool {
        let (fork, roots) = (self.change.fork(), self.change.roots());
        self.verifier.verify_part(fork, roots, part)
    }

    /// The signature that `parts` make. Those over other trees are left out, and it holds if the
    /// others are a quorum.
    pub fn assemble(&self, parts: &[SignedLength]) -> Bytes {
        let parts = parts.iter().filter(|part| self.verify_part(part));
        let parts: Vec<SignedLength> = parts.copied().collect();
        let never = |index| Err(index) as Result<Node, u64>; // none is longer
        let length = self.change.roots().length();
        let assembled = self.verifier.assemble(length, &parts, never);
        assembled.unwrap_or_default()
    }

    /// What of `signature` makes the proposed tree that of `core`, if it does.
    fn confirm(&self, core: &Inner, signature: &[u8]) -> Result<Bytes, CoreError> {
        match self.core == core.key {
            true => core.confirm(self.change.fork(), self.change.roots(), signature),
            false => Err(CoreError::Signature { core: core.key }),
        }
    }
}

impl Core {
    /// What an append of `blocks` would make of the log, for its signers to sign. Nothing is
    /// changed; [`Core::append_signed`] does that.
    ///
    /// Whoever has the blocks can propose them. On a handle that encrypts, signers sign what is
    /// stored, so they need the proposal's head and not the blocks.
    ///
    /// # Errors
    /// [`CoreError::NotWritable`] while the manifest is not known; [`CoreError::BlockTooLarge`],
    /// [`CoreError::BatchTooLarge`], [`CoreError::Prologue`], [`CoreError::Conflict`]; [`CoreError::WrongKey`] and
    /// [`CoreError::NotEncrypted`] as for [`Core::append_batch`].
    ///
    /// # Examples
    /// Two of three signers agree on an append:
    /// ```
    /// use ferrocore_log::{CoreOptions, Corestore, Manifest};
    /// use ferrocore_primitives::sign::KeyPair;
    ///
    /// let signers: Vec<KeyPair> = (0..3).map(|_| KeyPair::generate()).collect();
    /// let manifest = signers
    ///     .iter()
    ///     .fold(Manifest::builder(), |builder, signer| builder.signer(signer.public_key()))
    ///     .build()?;
    /// let store = Corestore::memory();
    /// let core = store.get_with(CoreOptions {
    ///     manifest: Some(manifest),
    ///     ..CoreOptions::default()
    /// })?;
    ///
    /// let proposal = core.propose(vec!["agreed".into()])?;
    /// // Each signs where its secret lives; what it sends back is 70 bytes or so.
    /// let parts = [proposal.sign(&signers[0])?, proposal.sign(&signers[2])?];
    /// let signature = proposal.assemble(&parts);
    /// assert_eq!(core.append_signed(proposal, &signature)?.length, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn propose(&self, blocks: Vec<Bytes>) -> Result<Proposal, CoreError> {
        check_sizes(&blocks, self.padding())?;
        let inner = &*self.inner;
        inner.check_not_frozen()?;
        // So that the key is tried on a block of the log that grows.
        let _writer = self.is_encrypted().then(|| inner.lock_writer());
        let mut growth = inner.growth();
        inner.grow(&mut growth, |inner, growth| match self.cipher() {
            Some(cipher) => inner.encrypt_next(cipher, &blocks, growth),
            None => Ok(HashedBlocks::hash(blocks)),
        })?;
        Proposal::of(inner, growth)
    }

    /// Appends what was proposed, under a signature that others made.
    ///
    /// # Errors
    /// [`CoreError::Moved`] if the log has moved on since, [`CoreError::Signature`] if the
    /// signature does not hold for it, [`CoreError::ReadOnly`], [`CoreError::Unconfirmed`] or
    /// [`CoreError::Behind`] while there may be more of the log elsewhere, [`CoreError::Storage`].
    pub fn append_signed(
        &self,
        proposal: Proposal,
        signature: &[u8],
    ) -> Result<Appended, CoreError> {
        self.check_not_read_only()?;
        let inner = &*self.inner;
        // Signatures are checked before anybody has to wait.
        let signature = proposal.confirm(inner, signature)?;
        let Addition(growth) = proposal.change;
        let _writer = inner.lock_writer();
        inner.check_end(growth.fork, growth.start)?;
        inner.check_guard()?;
        let appended = growth.appended(self.padding());
        inner.commit_signed(growth, signature)?;
        Ok(appended)
    }

    /// What a truncate to `length` blocks would make of the log, under the next fork or `fork`, for its signers
    /// to sign. Nothing is changed; [`Core::truncate_signed`] does that.
    ///
    /// # Errors
    /// [`CoreError::NotWritable`] while the manifest is not known; [`CoreError::OutOfBounds`],
    /// [`CoreError::InvalidFork`], [`CoreError::ForkTooLarge`] and [`CoreError::Prologue`] as for [`Core::truncate`];
    /// [`CoreError::Conflict`]; [`CoreError::MissingNodes`], [`CoreError::Storage`].
    ///
    /// # Examples
    /// ```
    /// use ferrocore_log::{CoreOptions, Corestore, Manifest};
    /// use ferrocore_primitives::sign::KeyPair;
    ///
    /// let signers = [KeyPair::generate(), KeyPair::generate()];
    /// let manifest = Manifest::builder()
    ///     .signer(signers[0].public_key())
    ///     .signer(signers[1].public_key())
    ///     .build()?;
    /// let core = Corestore::memory().get_with(CoreOptions {
    ///     manifest: Some(manifest),
    ///     ..CoreOptions::default()
    /// })?;
    /// let proposal = core.propose(vec!["keep".into(), "regret".into()])?;
    /// let parts = [proposal.sign(&signers[0])?, proposal.sign(&signers[1])?];
    /// let signature = proposal.assemble(&parts);
    /// core.append_signed(proposal, &signature)?;
    ///
    /// let proposal = core.propose_truncate(1, None)?;
    /// let parts = [proposal.sign(&signers[0])?, proposal.sign(&signers[1])?];
    /// let signature = proposal.assemble(&parts);
    /// let cut = core.truncate_signed(proposal, &signature)?;
    /// assert_eq!((cut.length, cut.fork), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn propose_truncate(
        &self,
        length: u64,
        fork: Option<u64>,
    ) -> Result<TruncateProposal, CoreError> {
        let inner = &*self.inner;
        inner.check_not_frozen()?;
        let _writer = inner.lock_writer(); // so that all is of one history
        let fork = inner.check_cut(length, fork)?;
        let current = Arc::clone(&inner.read().roots);
        let cut = Cut {
            from: (self.fork(), self.length()),
            fork,
            roots: inner.roots_within(&current, length)?,
        };
        TruncateProposal::new(inner, cut)
    }

    /// Cuts the log as was proposed, under a signature that others made.
    ///
    /// # Errors
    /// [`CoreError::Moved`] if the log has moved on since, [`CoreError::Signature`] if the signature does not
    /// hold for what it would be; [`CoreError::ReadOnly`], [`CoreError::Conflict`],
    /// [`CoreError::Unconfirmed`] or [`CoreError::Behind`] while there may be more of the log elsewhere,
    /// [`CoreError::Storage`].
    pub fn truncate_signed(
        &self,
        proposal: TruncateProposal,
        signature: &[u8],
    ) -> Result<Appended, CoreError> {
        self.check_not_read_only()?;
        let inner = &*self.inner;
        // Signatures are checked before anybody has to wait.
        let signature = proposal.confirm(inner, signature)?;
        let Cut { from, fork, roots } = proposal.change;
        let _writer = inner.lock_writer();
        let (from_fork, from_length) = from;
        inner.check_end(from_fork, from_length)?;
        inner.check_not_frozen()?;
        inner.check_guard()?;
        inner.cut(fork, roots, signature, self.padding())
    }

    /// The tree of the first `length` blocks, as it is signed.
    ///
    /// A signer of another core that begins with the same blocks signs it, with the fork of that
    /// core, through [`Verifier::sign_part`].
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`] if the log is shorter; [`CoreError::MissingNodes`] if the roots
    /// are not here, which fetching block `length - 1` brings; [`CoreError::Storage`].
    pub fn tree_head(&self, length: u64) -> Result<TreeHead, CoreError> {
        let (fork, roots) = self.inner.roots_at(length)?;
        Ok(TreeHead::of(fork, &roots))
    }

    /// The signature over `length` blocks for the core of `verifier`, which begins with the same
    /// blocks as this one: `parts` may be over longer trees if its manifest allows patches
    /// ([`multisig::signable_length`](crate::multisig::signable_length) tells how long a tree
    /// they make). It is not verified; [`Core::append_signed`] does that.
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`] if one is over a tree that is longer than this one,
    /// [`CoreError::MissingNodes`], [`CoreError::Storage`], also where a node that tells is damaged
    /// ([`StorageError::Corrupt`](crate::StorageError::Corrupt) in `tree`, which an audit repairs).
    pub fn assemble_signature(
        &self,
        verifier: &Verifier,
        length: u64,
        parts: &[SignedLength],
    ) -> Result<Bytes, CoreError> {
        let inner = &*self.inner;
        let longest = parts.iter().map(|part| part.length).max();
        inner.roots_at(longest.unwrap_or_default())?;
        let _writer = inner.lock_writer(); // so that all nodes are of one history
        let current = Arc::clone(&inner.read().roots);
        verifier.assemble(length, parts, |index| inner.node_within(&current, index))
    }
}

impl Inner {
    /// What of `signature` makes the tree the core's, if it does.
    pub(super) fn confirm(
        &self,
        fork: u64,
        roots: &Roots,
        signature: &[u8],
    ) -> Result<Bytes, CoreError> {
        let verifier = self.read().verifier.clone();
        let confirmed = verifier.and_then(|v| v.confirm(fork, roots, Some(signature)));
        confirmed.ok_or(CoreError::Signature { core: self.key })
    }

    /// Whether the log is at `fork` and has `length` blocks.
    fn check_end(&self, fork: u64, length: u64) -> Result<(), CoreError> {
        let (current, at) = {
            let shared = self.read();
            (shared.fork, shared.roots.length())
        };
        match (current, at) == (fork, length) {
            true => Ok(()),
            false => Err(CoreError::Moved {
                core: self.key,
                fork: current,
                length: at,
            }),
        }
    }

    /// The node at `index` of the log, which has `current`: proven, unless one on the way is not here.
    fn node_within(&self, current: &Roots, index: u64) -> Result<Node, CoreError> {
        let fresh = HashMap::new();
        let node = match Descent::new(current, &fresh, Stored(&*self.storage)).node(index)? {
            Ok(node) => Some(node),
            Err(Broken::Missing(_)) => self.storage.node(index)?,
            Err(broken) => return Err(self.broken(broken).into()),
        };
        node.ok_or(CoreError::MissingNodes {
            core: self.key,
            index: flat_tree::first_block(index),
        })
    }
}
