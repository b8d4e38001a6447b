//! Where the drafts of a core are kept, and which of them are open.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};

use ferrocore_primitives::sign::KeyPair;
use ferrocore_primitives::{hash, namespace};

use super::base::{BASE_USER_DATA, Base, NAME_USER_DATA};
use super::{Draft, Inner, State};
use crate::core::{Core, CoreError, Snapshot};
use crate::manifest::Manifest;
use crate::signer::Secret;
use crate::storage::{
    CoreHeader, DraftStorage, Head, OpenedCore, StorageError, lock, set_user_data,
};

/// How a draft is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DraftOptions {
    /// Begin anew where the core ends, whatever the draft was.
    pub overwrite: bool,
    /// Cut the draft to this length, if it is longer.
    pub checkout: Option<u64>,
}

/// The drafts of one core.
#[derive(Default)]
pub(in crate::core) struct Drafts {
    storage: Option<Arc<dyn DraftStorage>>,
    open: Mutex<HashMap<String, Weak<Inner>>>,
}

impl Drafts {
    pub(in crate::core) fn new(storage: Option<Arc<dyn DraftStorage>>) -> Self {
        let open = Mutex::default();
        Self { storage, open }
    }
}

impl Core {
    /// The draft called `name`, any text, begun where the core ends now if there is none yet. In a store that is
    /// only read it is as it was last committed, and must be there.
    ///
    /// # Errors
    /// [`CoreError::NoDrafts`] if the storage has no place for drafts; [`CoreError::ReadOnly`] from a read-only
    /// handle, as a draft can be written through its own; [`StorageError::ReadOnly`] for one that would have to
    /// be begun in a store that is only read;
    /// [`CoreError::MissingNodes`], [`CoreError::Storage`].
    pub fn draft(&self, name: &str) -> Result<Draft, CoreError> {
        self.draft_with(name, DraftOptions::default())
    }

    /// As [`Core::draft`], begun anew or cut as `options` say.
    ///
    /// # Errors
    /// As for [`Core::draft`] and [`Draft::truncate`].
    pub fn draft_with(&self, name: &str, options: DraftOptions) -> Result<Draft, CoreError> {
        self.check_not_read_only()?;
        let draft = Draft {
            inner: self.open_draft(name)?,
            core: self.clone(),
        };
        if options.overwrite {
            draft.overwrite()?;
        }
        if let Some(length) = options.checkout.filter(|length| *length < draft.length()) {
            draft.truncate(length)?;
        }
        Ok(draft)
    }

    /// The names of all drafts of the core, in order.
    ///
    /// # Errors
    /// [`CoreError::Storage`] if one cannot be read.
    pub fn drafts(&self) -> Result<Vec<String>, CoreError> {
        let Some(storage) = &self.inner.drafts.storage else {
            return Ok(Vec::new());
        };
        let mut names: Vec<String> = storage.list()?.iter().map(name_of).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Deletes the draft called `name`; returns whether there was one.
    ///
    /// # Errors
    /// [`CoreError::DraftInUse`] while anybody holds it, [`CoreError::ReadOnly`],
    /// [`CoreError::Storage`].
    pub fn delete_draft(&self, name: &str) -> Result<bool, CoreError> {
        self.check_not_read_only()?;
        let Some(storage) = &self.inner.drafts.storage else {
            return Ok(false);
        };
        let mut open = lock(&self.inner.drafts.open);
        if open.get(name).is_some_and(|draft| draft.strong_count() > 0) {
            return Err(CoreError::DraftInUse {
                core: self.key(),
                name: name.to_owned(),
            });
        }
        open.remove(name);
        let draft = Manifest::single(self.draft_key_pair(name).public_key()).key();
        Ok(storage.remove(&draft.discovery_key())?)
    }

    /// One draft is opened at a time, so that none is opened twice.
    fn open_draft(&self, name: &str) -> Result<Arc<Inner>, CoreError> {
        let drafts = &self.inner.drafts;
        let core = self.key();
        let storage = drafts.storage.as_ref();
        let storage = storage.ok_or(CoreError::NoDrafts { core })?;
        let mut open = lock(&drafts.open);
        if let Some(draft) = open.get(name).and_then(Weak::upgrade) {
            return Ok(draft);
        }
        open.retain(|_, draft| draft.strong_count() > 0);
        let draft = Arc::new(self.load_draft(&**storage, name)?);
        open.insert(name.to_owned(), Arc::downgrade(&draft));
        Ok(draft)
    }

    fn load_draft(&self, storage: &dyn DraftStorage, name: &str) -> Result<Inner, CoreError> {
        let plain = Self {
            ciphers: None,
            ..self.clone()
        };
        let key_pair = self.draft_key_pair(name);
        let manifest = Manifest::single(key_pair.public_key());
        let opened = match storage.open(&manifest.key().discovery_key())? {
            Some(opened) => opened,
            None => storage.create(new_header(manifest, name, &plain.snapshot()))?,
        };
        let base = base_of(&opened)?;
        let (durability, flusher) = (self.inner.durability, Arc::clone(&self.inner.flusher));
        let secret = Some(Secret::Here(key_pair));
        let own = Self::open_in(opened, secret, durability, flusher)?;
        if own.fork() < base.own_fork {
            own.truncate(0, None)?; // what a crash kept from being done
        }
        let state = State {
            below: plain.still_begins_with(&base)?,
            base,
            moves: 0,
            fitting: None,
        };
        Ok(Inner {
            name: name.to_owned(),
            plain,
            own,
            state: Mutex::new(state),
        })
    }

    /// The part of the core that the draft on `base` saw, unless the core was cut since.
    pub(super) fn still_begins_with(&self, base: &Base) -> Result<Option<Snapshot>, CoreError> {
        match self.checkout(base.length) {
            Ok(below) => Ok((below.tree_hash() == base.hash).then_some(below)),
            Err(CoreError::OutOfBounds { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a draft's own core is signed with. Anybody can derive it: it only names the draft.
    fn draft_key_pair(&self, name: &str) -> KeyPair {
        let purpose = namespace::nth("ferrocore draft", 0);
        let parts = [
            purpose.as_bytes(),
            self.inner.key.as_bytes(),
            name.as_bytes(),
        ];
        KeyPair::from_seed(hash::hash(&parts).as_bytes())
    }
}

/// The header of a draft that begins behind `below`.
fn new_header(manifest: Manifest, name: &str, below: &Snapshot) -> CoreHeader {
    let base = Base::behind(below.roots(), below.fork());
    let mut user_data = BTreeMap::new();
    for (key, value) in [
        (BASE_USER_DATA, base.encode()),
        (NAME_USER_DATA, name.into()),
    ] {
        set_user_data(&mut user_data, key.to_owned(), Some(value));
    }
    CoreHeader {
        key: manifest.key(),
        manifest: Some(manifest),
        key_pair: None,
        user_data,
        head: Head::empty(),
    }
}

fn base_of(opened: &OpenedCore) -> Result<Base, StorageError> {
    let bytes = opened.header.user_data.get(BASE_USER_DATA);
    let bytes = bytes.map(Vec::as_slice).unwrap_or_default();
    Base::decode(bytes).map_err(|source| StorageError::Decode {
        what: "the base of a draft",
        source,
    })
}

fn name_of(header: &CoreHeader) -> String {
    let name = header.user_data.get(NAME_USER_DATA);
    String::from_utf8_lossy(name.map(Vec::as_slice).unwrap_or_default()).into_owned()
}
