//! What a scripted peer can do, as data.

use std::time::Duration;

use ferrocore_replication::messages::Message;

use crate::lies::Lie;

#[allow(clippy::large_enum_variant, reason = "a few hundred of them")]
/// One thing that the peer does.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Says something on its channel.
    Say(Message),
    /// The same, `count` times with a number of its own, in as few frames as may be.
    Each(u64, fn(u64) -> Message),
    /// Sends bytes as a message of this kind on its channel.
    Raw(u64, Vec<u8>),
    /// The same, many times.
    RawTimes(usize, u64, Vec<u8>),
    /// Sends a frame.
    Frame(Vec<u8>),
    /// Opens a channel.
    Open(Opening),
    /// Answers the oldest question that waits, or one that nobody asked, with a proof that is true but for
    /// this.
    Answer(Lie),
    /// Pushes block 4, so many times, with a proof that is true but for this.
    Push(usize, Lie),
    /// Pushes the whole log with its first block, so many times.
    PushLog(usize, Lie),
    /// Forgets the oldest question that waits.
    Withhold,
    /// Says that it has no answer to the oldest question that waits.
    Refuse,
    /// Refuses whatever is asked, until nothing is.
    RefuseAll,
    /// Answers whatever is asked, until nothing is, with proofs that are true but for this.
    AnswerAll(Lie),
    /// Says its last answer again.
    Again,
    /// Does nothing for so long.
    Pass(Duration),
    /// Does nothing while we offer the core and wait for news of it, which must end.
    LeaveWaiting,
    /// Reads nothing of what it is told from now on.
    StopReading,
    /// Does nothing while our device takes what was held up, and whatever comes after it.
    LetCommit,
    /// Closes its channel.
    Close,
}

/// How a channel is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// As it should be.
    True,
    /// With a capability that is none.
    WrongCapability,
    /// With the one that we show.
    Mirrored,
    /// With that of another core.
    OfAnotherCore,
    /// With bytes that are too few.
    CutShort,
    /// For a core that is not here.
    UnknownCore,
    /// Of another protocol.
    UnknownProtocol,
    /// Without saying of which core.
    WithoutId,
    /// With an id that is no discovery key.
    ShortId,
    /// With a protocol name of 2 KiB.
    LongName,
    /// Under the number 0.
    NumberZero,
    /// Under a number far past the next.
    NumberFarOff,
    /// Under the number of the first channel.
    NumberInUse,
    /// The same core again, under the next number.
    Twice,
}
