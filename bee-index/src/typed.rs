//! A bee of values instead of bytes.

use ferrocore_log::codec::{Codec, CodecError};

use crate::bee::Bee;
use crate::block::Entry;
use crate::error::BeeError;
use crate::range::{Range, RangeOptions};

/// A map whose keys and values are turned into bytes by codecs, those of typed cores.
///
/// Keys are ordered as their bytes are: text is, JSON is not.
///
/// ```
/// # pollster::block_on(async {
/// use ferrocore_bee::{Bee, Options, TypedBee};
/// use ferrocore_log::Corestore;
/// use ferrocore_log::codec::Utf8;
///
/// let bee = Bee::new(Corestore::memory().get_named("map")?, Options::default());
/// let capitals = TypedBee::new(bee, Utf8, Utf8);
/// capitals.put("Austria", "Vienna").await?;
/// assert_eq!(capitals.get("Austria").await?.unwrap(), "Vienna");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct TypedBee<K, V> {
    bee: Bee,
    keys: K,
    values: V,
}

/// A walk over entries in the order of their keys. Made by [`TypedBee::range`].
pub struct TypedRange<K, V> {
    range: Range,
    keys: K,
    values: V,
}

impl<K: Codec, V: Codec> TypedBee<K, V> {
    /// The entries of `bee` as keys of one codec and values of another.
    pub fn new(bee: Bee, keys: K, values: V) -> Self {
        Self { bee, keys, values }
    }

    /// The bee.
    pub fn bee(&self) -> &Bee {
        &self.bee
    }

    /// As [`Bee::put`].
    ///
    /// # Errors
    /// [`BeeError::Codec`], and as for [`Bee::put`].
    pub async fn put(&self, key: &K::In, value: &V::In) -> Result<bool, BeeError> {
        let (key, value) = (self.keys.encode(key)?, self.values.encode(value)?);
        self.bee.put(key, value).await
    }

    /// As [`Bee::del`].
    ///
    /// # Errors
    /// [`BeeError::Codec`], and as for [`Bee::del`].
    pub async fn del(&self, key: &K::In) -> Result<bool, BeeError> {
        self.bee.del(self.keys.encode(key)?).await
    }

    /// The value of `key`. JavaScript's null, an entry without a value, is what the codec makes of
    /// no bytes.
    ///
    /// # Errors
    /// [`BeeError::Codec`], and as for [`Bee::get`].
    pub async fn get(&self, key: &K::In) -> Result<Option<V::Out>, BeeError> {
        let entry = self.bee.get(self.keys.encode(key)?).await?;
        let value = entry.map(|entry| self.values.decode(entry.value.unwrap_or_default()));
        Ok(value.transpose()?)
    }

    /// As [`Bee::range`]; its bounds are bytes.
    pub fn range(&self, options: RangeOptions) -> TypedRange<K, V>
    where
        K: Clone,
        V: Clone,
    {
        TypedRange {
            range: self.bee.range(options),
            keys: self.keys.clone(),
            values: self.values.clone(),
        }
    }
}

impl<K: Codec, V: Codec> TypedRange<K, V> {
    /// The next key and value, or `None` after the last. After an entry that cannot be decoded it
    /// goes on with the one behind.
    ///
    /// # Errors
    /// [`BeeError::Codec`], and as for [`Range::next`].
    pub async fn next(&mut self) -> Result<Option<(K::Out, V::Out)>, BeeError> {
        let entry = self.range.next().await?;
        Ok(entry.map(|entry| self.decode(entry)).transpose()?)
    }

    fn decode(&self, entry: Entry) -> Result<(K::Out, V::Out), CodecError> {
        let value = entry.value.unwrap_or_default();
        Ok((self.keys.decode(entry.key)?, self.values.decode(value)?))
    }
}
