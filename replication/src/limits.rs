//! The bounds this crate keeps, in one place.

use std::num::NonZeroUsize;
use std::time::Duration;

use ferrocore_mux::limits::{BATCH_LEN_TARGET, LONG_FRAME_LEN, REMOTE_CHANNELS_MAX};
use ferrocore_secret_stream::budget::{FRAME_BUDGET, FREE_FRAME_LEN, SMALL_FRAME_LEN};
use ferrocore_secret_stream::{FRAME_LEN_MAX, READ_LEN_MAX, SEND_BUFFER_LEN};

/// A request is given up when the peer has answered nothing for this long since it was sent, and no frame was arriving: an
/// answer that takes longer than this to come through is waited for.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A request is given up this long after it was sent, even if others are being answered.
pub const REQUEST_TIMEOUT_TOTAL: Duration = Duration::from_secs(300);

/// ... but for a block of a core whose blocks are of more than [`FREE_FRAME_LEN`] bytes in the mean, as long as frames of more than
/// that arrive: then this long. Four of the longest answers, as many as are in flight at least, take it at 6.2 kB a second. It keeps
/// no other peer from the block for longer than [`REQUEST_TIMEOUT_TOTAL`].
pub const REQUEST_TIMEOUT_LONG: Duration = Duration::from_secs(3 * 3600);

/// Another peer may be asked for a block, too, once its answer takes twice the usual time on this
/// channel, but not sooner than this.
pub const LATE_AFTER_MIN: Duration = Duration::from_millis(500);

/// ... and not later than this.
pub const LATE_AFTER_MAX: Duration = Duration::from_secs(3);

/// While others have shown a log, a peer that owes its length since it opened a core, or the longer log that it says to
/// have, is waited for this long: `Core::update` goes on without it. It may say its length later: then it is waited
/// for once more. Each second in which it owes nothing is worth one in which it does.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(3);

/// ... and this long while nobody has shown a log.
pub const HEAD_PATIENCE_ALONE: Duration = REQUEST_TIMEOUT;

/// A peer to whom we offered a core and who neither takes nor rejects it is waited for as long as one that took it and says
/// nothing, while nobody has shown a log. Such offers are looked at no oftener than this.
pub const UNANSWERED_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// So `Core::update` waits this long for one peer, at the latest, whatever it says, once another has shown the log.
pub const UPDATE_TIME_MAX: Duration = Duration::from_secs(2 * HEAD_PATIENCE.as_secs());

pub use ferrocore_log::limits::{UPDATE_TOTAL_ALONE_MAX, UPDATE_TOTAL_MAX};

const _: () = assert!(
    2 * UPDATE_TIME_MAX.as_secs() <= UPDATE_TOTAL_MAX.as_secs()
        && 2 * HEAD_PATIENCE_ALONE.as_secs() <= UPDATE_TOTAL_ALONE_MAX.as_secs(),
    "who comes while others let us wait has its time"
);

/// A peer that seems not to know our state, or not to have told its own, hears ours again after this long...
pub const REMINDER_AFTER: Duration = Duration::from_secs(1);

/// ... and each time after twice as long, up to this.
pub const REMINDER_AFTER_MAX: Duration = Duration::from_secs(60);

/// Requests in flight on a fresh channel: what a JavaScript peer keeps in flight over TCP.
pub const WINDOW_START: usize = 48;

/// Fewest requests in flight that timeouts can shrink a channel to.
pub const WINDOW_MIN: usize = 4;

/// Most requests in flight on one channel.
pub const WINDOW_MAX: usize = 4096;

/// Bytes of blocks that the requests in flight on one channel may bring, judged by the core's mean
/// block; at least [`WINDOW_MIN`] requests are sent whatever their size.
pub const WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of answers that may be kept on one channel, for those they rest on or for the device, before no more is
/// asked for.
pub const UNSTORED_BYTES_MAX: u64 = 12 * 1024 * 1024;

/// Bytes of answers, asked for or pushed, that are kept on all channels of a connection: as many as before nothing
/// more is asked for on one, and then what may be in flight. More are dropped, and what they were to is asked for
/// again: blocks of more than 3 MiB, of which [`WINDOW_MIN`] may be in flight, or on several channels that all wait at once. All
/// but [`KEPT_BYTES_OWN`] are taken from [`KEPT_BYTES_ALL_MAX`].
pub const KEPT_BYTES_MAX: usize = KEPT_BYTES_ALL_MAX / 4 * 3;

/// Of [`KEPT_BYTES_ALL_MAX`] a connection takes no more than so many times what it leaves to others. One alone has three
/// quarters of it, and one that comes later three quarters of what is left, but never nothing: garbage that waits to be
/// judged makes others slower, not still.
pub const KEPT_TIMES_LEFT: NonZeroUsize = NonZeroUsize::new(3).expect("it is three");

/// What an answer takes that is kept, beside its block, in bytes: as many as the nodes of its path.
pub const KEPT_PROOF_BYTES: u64 = 1024;

/// Bytes of answers kept on a connection before no more is asked for on any of its channels.
pub const KEPT_BYTES_ASKING: usize = KEPT_BYTES_ALL_MAX / 2;

/// Bytes of answers that a connection may keep even when others have used up [`KEPT_BYTES_ALL_MAX`].
pub const KEPT_BYTES_OWN: usize = 8 * 1024;

/// Bytes of answers that all connections of a process keep, beyond what each has of its own: what comes at 300 MB/s while the
/// device takes nothing for a tenth of a second.
pub const KEPT_BYTES_ALL_MAX: usize = 32 * 1024 * 1024;

/// Answers that wait for another are given up when they have waited for this long and other connections find no room for theirs:
/// they are asked for again.
pub const PARKED_LOOK_INTERVAL: Duration = LATE_AFTER_MAX;

/// Answers on one channel that are verified and committed together: more of a burst are the next lot. What is gathered of
/// so many takes less than 128 KiB each time, from which on an allocator may take pages of their own and keep as much unused
/// afterwards, in each thread.
pub const ANSWERS_TOGETHER_MAX: usize = 256;

/// Pushed blocks on one channel that may wait for those before them to be stored; more are dropped, and so is what
/// takes more than [`KEPT_BYTES_MAX`] with what was asked for.
pub const PUSHED_WAITING_MAX: usize = 64;

/// A peer that lets a request go unanswered, or is overtaken, is not expected to answer soon for this long, ...
pub const DOUBT_MIN: Duration = Duration::from_secs(1);

/// ... each time in a row for twice as long, up to this.
pub const DOUBT_MAX: Duration = Duration::from_secs(60);

/// A peer's queue of our requests is kept to what it answers in this time, beyond its round trip.
pub const QUEUE_TIME: Duration = Duration::from_millis(100);

/// The rate at which a peer answers is the best of the last one to two of these time spans.
pub const RATE_TIME: Duration = Duration::from_secs(2);

/// Most requests in flight on all channels of a connection.
pub const IN_FLIGHT_MAX: usize = 8192;

/// While answers take too much room on a connection, no more than so many of the channels that wait for that to change are
/// looked at with each burst, in turn. Once it has changed, all are.
pub const CROWDED_LOOKS_MAX: usize = 16;

/// Requests and wants of a peer that wait for an answer. Beyond that nothing more is read from it.
pub const UPLOADS_MAX: usize = 16_384;

/// Bytes that the peer's questions may take, on all channels of a connection: as many as [`UPLOADS_MAX`] on one, or
/// [`IN_FLIGHT_MAX`] on as many channels. Beyond that nothing more is read from it.
pub const QUESTION_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Bytes that may be remembered of which blocks the peer has beside those without a gap, and which it wants, on all
/// channels of a connection. What it says to have beyond that is forgotten; who wants more is told everything.
pub const REMOTE_BITS_BYTES_MAX: usize = 1024 * 1024;

/// What a connection remembers of what its peer says, in bytes, whatever it says and on however many channels.
/// All of it but [`QUESTION_BYTES_OWN`] and [`REMOTE_BITS_BYTES_OWN`] is taken from [`PEERS_MEMORY_MAX`].
pub const PEER_MEMORY_MAX: usize = QUESTION_BYTES_MAX + REMOTE_BITS_BYTES_MAX;

/// Bytes that the peer's questions may take even when others have used up [`PEERS_MEMORY_MAX`]: some hundred.
pub const QUESTION_BYTES_OWN: usize = 32 * 1024;

/// Bytes that may be remembered of scattered blocks and of wants even then: some 200,000 blocks.
pub const REMOTE_BITS_BYTES_OWN: usize = 24 * 1024;

/// What all connections of a process together remember of what their peers say, beyond what each has of its
/// own. When it is used up, blocks beyond those are forgotten, and who has asked more is read from again when
/// it has been answered.
pub const PEERS_MEMORY_MAX: usize = 16 * 1024 * 1024;

/// Answers are made while fewer bytes than this wait to be written.
pub const UPLOAD_BUFFER_TARGET: usize = 128 * 1024;

/// What became of a core is told while fewer bytes than this wait to be written; later, all of it at once.
pub const ANNOUNCE_BUFFER_TARGET: usize = 32 * 1024;

/// Most requests of a channel that are answered together, so that their blocks are hashed in SIMD lanes.
pub const UPLOADS_TOGETHER: usize = 32;

/// Bytes of blocks that are read to be answered together; a larger block is answered alone. Four of 64 KiB,
/// which is what a drive's are, keep the lanes busy.
pub const UPLOAD_TOGETHER_BYTES: usize = 256 * 1024;

/// When more bytes than this wait to be written, nothing more is read from the peer: it makes us talk and does not
/// listen. Beside it there may be [`OFFER_LEN_MAX`] for each channel, and one long answer, for which there is
/// room elsewhere.
pub const OUTPUT_MAX: usize = 512 * 1024;

/// The same for a peer that has not shown yet that it knows a core's key.
pub const UNPROVEN_OUTPUT_MAX: usize = 128 * 1024;

/// What it takes to offer a core, at most, in bytes: protocol, discovery key, capability, numbers.
pub const OFFER_LEN_MAX: usize = 128;

/// Pushed blocks on one channel that may not hold: they may rest on what has changed meanwhile.
pub const BAD_PUSHES_MAX: u32 = 32;

/// Requests that make no sense, on one channel, before the connection is closed.
pub const INVALID_REQUESTS_MAX: u32 = 64;

/// Blocks of one fork that a peer announced and then would not give before it is asked for no more of them.
pub const DENIALS_MAX: usize = 32;

/// Roots of a peer's log below which it is asked for nothing, as our own tree is damaged above them. It has no more roots than that.
pub const UNPROVABLE_MAX: usize = 64;

/// Channels closed for bad proofs before the connection is.
pub const STRIKES_MAX: u32 = 8;

/// Misbehaviours of a peer that wait to be reported; more are only logged.
pub const MISBEHAVIOURS_MAX: usize = 16;

/// Channels on one connection: as many as either side may number.
pub const CHANNELS_MAX: usize = REMOTE_CHANNELS_MAX;

/// Channels at which no more cores are offered of our own accord: the rest is for those that the peer asks for.
pub const OFFERED_MAX: usize = CHANNELS_MAX - 1024;

/// Cores that are offered at a time to a peer that has neither taken nor rejected them. The next is offered when it has.
pub const UNANSWERED_OFFERS_MAX: usize = 1024;

/// The same while it has not shown yet that it knows a core's key.
pub const UNPROVEN_OFFERS_MAX: usize = 256;

/// So many are offered to any peer at a time, even when others have used up what they share for that.
pub const OFFERS_OWN: usize = 10;

/// What an offer takes in memory until it is answered, in bytes: its frame, its numbers, its channel.
pub const OFFER_MEMORY: usize = 1536;

/// Bytes of unanswered offers that all connections of a process share whose peers have shown no key, ...
pub const UNPROVEN_OFFERS_BYTES: usize = 1024 * 1024;

/// ... and those whose peers have: beyond [`OFFERS_OWN`] of each.
pub const UNANSWERED_OFFERS_BYTES: usize = 2 * 1024 * 1024;

/// How often those are told the time who wait for cores that were not offered yet.
pub const UNOFFERED_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Cores that wait to be offered on a connection that has no place for them; more are not offered, but the peer may ask.
pub const OFFERS_WAITING_MAX: usize = 1 << 17;

/// Blocks that one Want asks about, and its alignment; version 10 knows no other size.
pub const WANT_BLOCKS: u64 = 1 << 21;

/// Batches of [`WANT_BLOCKS`] that we ask one peer about.
pub const WANTS_MAX: usize = 512;

/// What a peer said of its blocks and could not be remembered is asked of it again after this long, if there is room.
pub const INQUIRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Ranges of which we ask one peer for any block at a time: a JavaScript peer that is asked for more takes
/// us to want everything (`hypercore/lib/wants.js` 11.37.1, `MAX_ANY`).
pub const ANY_WANTS_MAX: usize = 16;

/// A peer that has not said for this long that it has any block of a range is taken to have none.
pub const ANY_WANT_TIMEOUT: Duration = LATE_AFTER_MAX;

/// Ranges that a peer may ask about before it is taken to want everything.
pub const REMOTE_WANTS_MAX: usize = 512;

/// Pages of 32,768 bits that are kept of what a peer has, 4 KiB each, and runs of pages that it has as a whole; what it says
/// about more blocks is forgotten. Its contiguous length costs nothing.
pub const BITFIELD_PAGES_MAX: usize = 512;

/// A block this close to the end of a core is announced to everybody.
pub const LAST_BLOCKS: u64 = 256;

/// The longest frame read from a peer that has not shown yet that it knows a core's key.
pub const UNPROVEN_FRAME_LEN_MAX: usize = 1024 * 1024;

/// Frames are taken in together while they hold less than this, in bytes.
pub const BURST_BYTES_MAX: usize = 256 * 1024;

/// So many messages are taken in before others on the thread have their turn; each is a few steps of work, however much it
/// says. A burst holds more only of messages of less than 64 bytes.
pub const MESSAGES_TOGETHER_MAX: usize = 4096;

/// A core that a peer names counts as so many messages more of a turn: it is looked for on the disk, in some ten system calls.
pub const OPEN_MESSAGES: usize = 63;

/// A burst of this many bytes is worked on aside, while the next one is read.
pub const ASIDE_BYTES_MIN: usize = 96 * 1024;

/// Bursts are worked on aside while so many times as much is done so in the same time.
pub const ASIDE_GAIN_MIN: f64 = 1.1;

/// To know that, a session does both in turn, in spans of at least so many bytes...
pub const TRIAL_SPAN_BYTES: usize = 4 * 1024 * 1024;

/// ... and so long: several turns of a scheduler.
pub const TRIAL_SPAN_TIME: Duration = Duration::from_millis(20);

/// Spans of a trial, half of them aside.
pub const TRIAL_SPANS: u32 = 4;

/// Spans before the first trial, ...
pub const TRIAL_SPANS_BEFORE: u32 = 2;

/// ... and between two: what trying costs, and how soon a change is noticed.
pub const TRIAL_SPANS_BETWEEN: u32 = 40;

/// A span in which nothing was done for so long is measured anew.
pub const TRIAL_PAUSE_MAX: Duration = Duration::from_millis(250);

/// Bytes of the budget for long frames that answers of one session hold at a time; a longer answer holds what it needs, alone.
pub const LONG_ANSWERS_TOGETHER: usize = 2 * SMALL_FRAME_LEN;

/// Frames between a session and its writing task.
pub const FRAMES_QUEUED_MAX: usize = 2;

/// Connections of a process that may have long buffers at a time. The others have short ones: those below.
pub const LONG_BUFFERS_MAX: usize = 24;

/// Long buffers are given up when short ones would have done for this long.
pub const LONG_BUFFERS_IDLE: Duration = Duration::from_secs(1);

/// Short: frames are taken in together while they hold less than this, in bytes. One block of a drive is more.
pub const SHORT_BURST_BYTES: usize = 16 * 1024;

/// Short: what a read asks for, in bytes.
pub const SHORT_READ_LEN: usize = 16 * 1024;

/// Short: a longer frame, in bytes, waits for room of the process's, whether it comes or goes. A block of a drive with
/// its proof is not longer.
pub const SHORT_FRAME_LEN: usize = 72 * 1024;

/// Short: answers are made while fewer bytes than this wait to be written, that is, none.
pub const SHORT_UPLOAD_BUFFER_TARGET: usize = 1;

/// Short: bytes of blocks that are read to be answered together; a longer block is a long answer.
pub const SHORT_UPLOAD_TOGETHER_BYTES: usize = 64 * 1024;

/// Short: while more bytes than this wait to be written, nothing is read from the peer.
pub const SHORT_OUTPUT_MAX: usize = 80 * 1024;

/// What a session costs of its own while its buffers are short, in bytes, else as [`CONNECTION_OWN_MAX`].
pub const SHORT_CONNECTION_OWN_MAX: usize = 343 * 1024;

/// What a thousand connections cost together, in bytes, whatever their peers do: with what they share, and with what was
/// offered and not answered, but without the cores that both sides have opened.
pub const THOUSAND_CONNECTIONS_MAX: usize = 512 * 1024 * 1024;

/// What a session costs of its own once its peer has shown that it knows a core's key, in bytes: beside the room of
/// one long frame each way, what is held of [`PEERS_MEMORY_MAX`], answers that are kept ([`KEPT_BYTES_MAX`]), offers beyond
/// [`OFFERS_OWN`], and the cores that both sides have opened.
pub const CONNECTION_OWN_MAX: usize = 2631 * 1024;

/// How long a session that is closing waits for the peer to take what was written.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(64 * MESSAGES_TOGETHER_MAX >= BURST_BYTES_MAX);
const _: () = assert!(ANNOUNCE_BUFFER_TARGET < SHORT_OUTPUT_MAX);
const _: () = assert!(
    IN_FLIGHT_MAX <= UPLOADS_MAX,
    "two of us never wait for each other"
);
const _: () = assert!(
    UPLOAD_BUFFER_TARGET + UPLOAD_TOGETHER_BYTES < OUTPUT_MAX,
    "answers alone never stop reading"
);
const _: () = assert!(
    LONG_FRAME_LEN <= UPLOAD_TOGETHER_BYTES,
    "what needs room is a long frame"
);
const _: () = assert!(PEER_MEMORY_MAX <= PEERS_MEMORY_MAX);
const _: () = assert!(
    // Two bursts, and what of the next one has been read.
    2 * (BURST_BYTES_MAX + FREE_FRAME_LEN) + 2 * READ_LEN_MAX
        // Output: in the connection, on its way to the writing task, and sealed there.
        + OUTPUT_MAX
        + FRAMES_QUEUED_MAX * UPLOAD_TOGETHER_BYTES
        + SEND_BUFFER_LEN
        + UPLOAD_TOGETHER_BYTES
        // What the peer said, and what it has not answered.
        + QUESTION_BYTES_OWN
        + REMOTE_BITS_BYTES_OWN
        + OFFERS_OWN * OFFER_MEMORY
        <= CONNECTION_OWN_MAX
);
const _: () = assert!(
    // A burst, and what of the next one has been read behind it.
    SHORT_BURST_BYTES + SHORT_FRAME_LEN + 2 * SHORT_READ_LEN
        // Output: in the connection, and sealed.
        + SHORT_OUTPUT_MAX
        + SHORT_FRAME_LEN
        // What the peer said, and what it has not answered.
        + QUESTION_BYTES_OWN
        + REMOTE_BITS_BYTES_OWN
        + OFFERS_OWN * OFFER_MEMORY
        <= SHORT_CONNECTION_OWN_MAX
);
const _: () = assert!(
    // The same before the proof: nothing the peer says is remembered.
    SHORT_BURST_BYTES
        + SHORT_FRAME_LEN
        + 2 * SHORT_READ_LEN
        + UNPROVEN_OUTPUT_MAX
        + SHORT_FRAME_LEN
        + OFFERS_OWN * OFFER_MEMORY
        <= SHORT_CONNECTION_OWN_MAX
);
const _: () = assert!(
    1000 * SHORT_CONNECTION_OWN_MAX
        + LONG_BUFFERS_MAX * (CONNECTION_OWN_MAX - SHORT_CONNECTION_OWN_MAX)
        + FRAME_BUDGET
        + PEERS_MEMORY_MAX
        + KEPT_BYTES_ALL_MAX
        + 1000 * KEPT_BYTES_OWN
        + UNPROVEN_OFFERS_BYTES
        + UNANSWERED_OFFERS_BYTES
        <= THOUSAND_CONNECTIONS_MAX
);
const _: () = assert!(
    OFFERS_OWN > 0
        && UNPROVEN_OFFERS_MAX <= UNANSWERED_OFFERS_MAX
        && UNANSWERED_OFFERS_MAX <= OFFERED_MAX,
    "offers go on when some were answered"
);
const _: () = assert!(OFFER_LEN_MAX <= OFFER_MEMORY);
const _: () = assert!(
    SHORT_UPLOAD_BUFFER_TARGET + SHORT_UPLOAD_TOGETHER_BYTES < SHORT_OUTPUT_MAX,
    "short answers alone never stop reading"
);
const _: () = assert!(
    SHORT_UPLOAD_TOGETHER_BYTES < SHORT_FRAME_LEN && SHORT_FRAME_LEN < SHORT_OUTPUT_MAX,
    "a block that is no long answer travels in no long frame"
);
const _: () = assert!(SHORT_FRAME_LEN <= FREE_FRAME_LEN && BATCH_LEN_TARGET <= SHORT_FRAME_LEN);
const _: () = assert!(
    REMINDER_AFTER.as_secs() < HEAD_PATIENCE.as_secs()
        && HEAD_PATIENCE.as_secs() < HEAD_PATIENCE_ALONE.as_secs(),
    "who needs a reminder is waited for"
);
const _: () = assert!(LATE_AFTER_MAX.as_secs() < REQUEST_TIMEOUT.as_secs());
const _: () = assert!(WINDOW_MIN <= WINDOW_START && WINDOW_START <= WINDOW_MAX);
const _: () = assert!(WINDOW_MAX <= IN_FLIGHT_MAX);
const _: () = assert!(KEPT_BYTES_MAX <= KEPT_BYTES_ALL_MAX && FRAME_LEN_MAX < KEPT_BYTES_MAX);
const _: () = assert!(
    ASIDE_BYTES_MIN < BURST_BYTES_MAX,
    "a burst can be worth it without a long frame"
);

/// Most proofs of a conflict that one peer may show on a channel without being asked; each costs the
/// verification of a signature.
pub const CONFLICT_PROOFS_MAX: u32 = 4;
