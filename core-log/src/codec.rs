//! Blocks as values: how a type becomes bytes and comes back.
//!
//! One idea for whatever keeps bytes: a [`TypedCore`] has a codec for its blocks, a typed bee one
//! for its keys and one for its values.

use std::error::Error;
#[cfg(feature = "json")]
use std::marker::PhantomData;

use bytes::Bytes;
use thiserror::Error;

use crate::core::{Appended, Core, CoreError, ReadStream};

/// Turns values into bytes and back.
pub trait Codec {
    /// What is encoded.
    type In: ?Sized;
    /// What it comes back as.
    type Out;

    /// The bytes of `value`.
    ///
    /// # Errors
    /// [`CodecError`] if it has no such form.
    fn encode(&self, value: &Self::In) -> Result<Bytes, CodecError>;

    /// The value of `bytes`, which may be anybody's.
    ///
    /// # Errors
    /// [`CodecError`] if they are none.
    fn decode(&self, bytes: Bytes) -> Result<Self::Out, CodecError>;
}

/// A value or bytes do not fit the codec. Whoever wrote them used another one.
#[derive(Debug, Error)]
#[error("not {expected}: {source}")]
pub struct CodecError {
    /// What it should have been.
    pub expected: &'static str,
    /// What is wrong with it.
    pub source: Box<dyn Error + Send + Sync>,
}

impl CodecError {
    /// That something is not what was `expected`.
    pub fn new(expected: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self { expected, source }
    }
}

/// Bytes as they are: JavaScript's `binary`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Binary;

impl Codec for Binary {
    type In = [u8];
    type Out = Bytes;

    fn encode(&self, value: &[u8]) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(&self, bytes: Bytes) -> Result<Bytes, CodecError> {
        Ok(bytes)
    }
}

/// Text: JavaScript's `utf-8`, but bytes that are none are an error here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Utf8;

impl Codec for Utf8 {
    type In = str;
    type Out = String;

    fn encode(&self, value: &str) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(&self, bytes: Bytes) -> Result<String, CodecError> {
        String::from_utf8(bytes.into()).map_err(|error| CodecError::new("UTF-8", error))
    }
}

/// JSON of any type that serde knows: what JavaScript's `json` reads, and reads what it writes.
#[cfg(feature = "json")]
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn(T) -> T>);

#[cfg(feature = "json")]
impl<T> Json<T> {
    /// The codec.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

#[cfg(feature = "json")]
impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "json")]
impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        *self
    }
}

#[cfg(feature = "json")]
impl<T> Copy for Json<T> {}

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec for Json<T> {
    type In = T;
    type Out = T;

    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        let bytes = serde_json::to_vec(value).map_err(|error| CodecError::new("JSON", error))?;
        Ok(bytes.into())
    }

    fn decode(&self, bytes: Bytes) -> Result<T, CodecError> {
        serde_json::from_slice(&bytes).map_err(|error| CodecError::new("JSON", error))
    }
}

/// A core whose blocks are values.
///
/// # Examples
/// ```
/// # pollster::block_on(async {
/// use ferrocore_log::Corestore;
/// use ferrocore_log::codec::{TypedCore, Utf8};
///
/// let core = Corestore::memory().get_named("diary")?;
/// let diary = TypedCore::new(core, Utf8);
/// diary.append("Dear diary")?;
/// assert_eq!(diary.get(0).await?, "Dear diary");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct TypedCore<C> {
    core: Core,
    codec: C,
}

/// The values of a log, in order. Made by [`TypedCore::typed_stream`].
#[must_use = "it reads nothing until `next` is awaited"]
#[derive(Debug)]
pub struct TypedStream<C> {
    blocks: ReadStream,
    codec: C,
}

/// A value could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The core failed.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// A value has no form in the codec; nothing was appended.
    #[error("the value cannot be encoded: {0}")]
    Encode(#[source] CodecError),
    /// A block is no such value: its writer used another codec, or the core is encrypted with
    /// another key.
    #[error("block {index} cannot be decoded: {source}")]
    Decode {
        /// The block.
        index: u64,
        /// Why.
        source: CodecError,
    },
}

impl<C: Codec> TypedCore<C> {
    /// The blocks of `core` as values of `codec`.
    pub fn new(core: Core, codec: C) -> Self {
        Self { core, codec }
    }

    /// The core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Appends a value.
    ///
    /// # Errors
    /// [`TypedError::Encode`], and as for [`Core::append`].
    pub fn append(&self, value: &C::In) -> Result<Appended, TypedError> {
        self.append_batch([value])
    }

    /// Appends values as one: all or none of them.
    ///
    /// # Errors
    /// As for [`TypedCore::append`].
    pub fn append_batch<'a>(
        &self,
        values: impl IntoIterator<Item = &'a C::In>,
    ) -> Result<Appended, TypedError>
    where
        C::In: 'a,
    {
        let values = values.into_iter();
        let blocks: Result<Vec<Bytes>, _> = values.map(|value| self.codec.encode(value)).collect();
        Ok(self
            .core
            .append_batch(blocks.map_err(TypedError::Encode)?)?)
    }

    /// The value of block `index`, from a supplier if it is not here.
    ///
    /// # Errors
    /// [`TypedError::Decode`], and as for [`Core::get`].
    pub async fn get(&self, index: u64) -> Result<C::Out, TypedError> {
        decode(&self.codec, index, self.core.get(index).await?)
    }

    /// The value of block `index` if it is here.
    ///
    /// # Errors
    /// [`TypedError::Decode`], and as for [`Core::get_local`].
    pub fn get_local(&self, index: u64) -> Result<Option<C::Out>, TypedError> {
        let block = self.core.get_local(index)?;
        block
            .map(|block| decode(&self.codec, index, block))
            .transpose()
    }

    /// The values that `blocks` gives: a stream of this core or of a snapshot of it.
    pub fn typed_stream(&self, blocks: ReadStream) -> TypedStream<C>
    where
        C: Clone,
    {
        let codec = self.codec.clone();
        TypedStream { blocks, codec }
    }

    /// The values of a range, as [`Core::read_stream`].
    pub fn read_stream(&self, range: impl std::ops::RangeBounds<u64>) -> TypedStream<C>
    where
        C: Clone,
    {
        self.typed_stream(self.core.read_stream(range))
    }
}

impl<C: Codec> TypedStream<C> {
    /// The next value, or `None` after the last. After a block that cannot be decoded it goes on
    /// with the one behind.
    ///
    /// # Errors
    /// [`TypedError::Decode`], and as for [`ReadStream::next`].
    pub async fn next(&mut self) -> Result<Option<C::Out>, TypedError> {
        let index = self.blocks.position();
        let block = self.blocks.next().await?;
        block
            .map(|block| decode(&self.codec, index, block))
            .transpose()
    }
}

fn decode<C: Codec>(codec: &C, index: u64, block: Bytes) -> Result<C::Out, TypedError> {
    let value = codec.decode(block);
    value.map_err(|source| TypedError::Decode { index, source })
}
