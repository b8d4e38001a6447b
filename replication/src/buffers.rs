//! How much a connection holds of what comes and of what goes: little, or much while it has a place.
//!
//! Knows bounds, and how many connections of a process may have the long ones. Does not know what is held.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ferrocore_mux::limits::LONG_FRAME_LEN;
use ferrocore_secret_stream::READ_LEN_MAX;
use ferrocore_secret_stream::budget::FREE_FRAME_LEN;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{
    BURST_BYTES_MAX, LONG_BUFFERS_MAX, OUTPUT_MAX, SHORT_BURST_BYTES, SHORT_FRAME_LEN,
    SHORT_OUTPUT_MAX, SHORT_READ_LEN, SHORT_UPLOAD_BUFFER_TARGET, SHORT_UPLOAD_TOGETHER_BYTES,
    UPLOAD_BUFFER_TARGET, UPLOAD_TOGETHER_BYTES,
};

/// What one connection may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Frames are taken in together while they hold less.
    pub(crate) burst: usize,
    /// What a read asks for.
    pub(crate) read_len: usize,
    /// A frame that comes and is longer waits for room of the process's.
    pub(crate) free_frame_len: usize,
    /// Answers are made while less waits to be written.
    pub(crate) upload_target: usize,
    /// Blocks that are answered together; for one that is longer there must be room of the process's.
    pub(crate) upload_together: usize,
    /// While more waits to be written, nothing is read.
    pub(crate) output_max: usize,
    /// A frame that goes and is longer has room of the process's.
    pub(crate) long_frame_len: usize,
}

impl Bounds {
    /// Those that are fast.
    pub(crate) const LONG: Self = Self {
        burst: BURST_BYTES_MAX,
        read_len: READ_LEN_MAX,
        free_frame_len: FREE_FRAME_LEN,
        upload_target: UPLOAD_BUFFER_TARGET,
        upload_together: UPLOAD_TOGETHER_BYTES,
        output_max: OUTPUT_MAX,
        long_frame_len: LONG_FRAME_LEN,
    };

    /// Those that any number of connections may have.
    pub(crate) const SHORT: Self = Self {
        burst: SHORT_BURST_BYTES,
        read_len: SHORT_READ_LEN,
        free_frame_len: SHORT_FRAME_LEN,
        upload_target: SHORT_UPLOAD_BUFFER_TARGET,
        upload_together: SHORT_UPLOAD_TOGETHER_BYTES,
        output_max: SHORT_OUTPUT_MAX,
        long_frame_len: SHORT_FRAME_LEN,
    };
}

/// Places for connections that have long buffers, which sessions share. Clones are the same places.
///
/// A session takes one when short buffers hold it up, and gives it back some time after they would not have. Who finds
/// none is slower, and no less right: a block of a drive fits into the short ones.
#[derive(Clone)]
pub struct LongBuffers {
    places: Arc<Semaphore>,
}

impl LongBuffers {
    /// Those of this process: [`LONG_BUFFERS_MAX`].
    pub fn process() -> Self {
        static PROCESS: OnceLock<LongBuffers> = OnceLock::new();
        PROCESS.get_or_init(|| Self::new(LONG_BUFFERS_MAX)).clone()
    }

    /// Some of their own.
    pub fn new(count: usize) -> Self {
        let count = count.min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(count)),
        }
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// One of them, if one is free.
    pub(crate) fn place(&self) -> Option<BufferPlace> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(BufferPlace { _permit: permit })
    }
}

impl fmt::Debug for LongBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongBuffers")
            .field("free", &self.free())
            .finish_non_exhaustive()
    }
}

/// The right to long buffers, until it is dropped.
pub(crate) struct BufferPlace {
    _permit: OwnedSemaphorePermit,
}
