//! Peers that break the stream below the protocol, beside an honest one.

use std::time::Duration;

use ferrocore_log::{Core, Corestore};
use ferrocore_mux::{Mux, Segment};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::capability::capability;
use ferrocore_replication::connection::PROTOCOL;
use ferrocore_replication::limits::UPDATE_TIME_MAX;
use ferrocore_replication::messages::{Handshake, Message};
use ferrocore_replication::session::SessionOptions;
use ferrocore_replication::{Session, SessionError};
use ferrocore_secret_stream::{Options, Receiver, Role, SecretStream, Sender, WRITE_TIMEOUT};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::{sleep, timeout};

use crate::common::script::sync_of;
use crate::common::{assert_complete_copy, blocks, writer_and_reader};

const LENGTH: usize = 20;

const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What is wrong with what a peer sends, after it has shown the key and said something if not told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    /// The last frame again.
    Replay,
    /// All it has sent, from its first frame on.
    ReplayOfAll,
    /// What it sent on another stream.
    ReplayOfAnother,
    /// One frame is left out.
    Gap,
    /// A changed bit.
    Flip,
    /// A frame that is shorter than what proves it.
    TooShort,
    /// It begins with a frame that is longer than may be before it has shown a key.
    TooLong,
    /// It goes away in mid-frame.
    End,
    /// It sends nothing any more.
    Silence,
    /// It reads nothing.
    DoesNotRead,
}

/// What it is called.
const BREAKS: [(Break, &str); 10] = [
    (Break::Replay, "Forged"),
    (Break::ReplayOfAll, "Forged"),
    (Break::ReplayOfAnother, "Forged"),
    (Break::Gap, "Forged"),
    (Break::Flip, "Forged"),
    (Break::TooShort, "Forged"),
    (Break::TooLong, "FrameTooLong"),
    (Break::End, "UnexpectedEnd"),
    (Break::Silence, "IdleTimeout"),
    (Break::DoesNotRead, "WriteTimeout"),
];

/// A peer whose frames can be had before they are written.
struct Peer {
    session: Session,
    sender: Sender<DuplexStream>,
    /// What it would have written.
    sealed: DuplexStream,
    wire: WriteHalf<DuplexStream>,
    receiver: Receiver<ReadHalf<DuplexStream>>,
    hash: [u8; 64],
    mux: Mux,
}

async fn stream(
    io: DuplexStream,
    role: Role,
    idle_timeout: Option<Duration>,
) -> SecretStream<DuplexStream> {
    let options = Options {
        idle_timeout,
        ..Options::default()
    };
    let opened = SecretStream::handshake(io, role, &KeyPair::generate(), options).await;
    opened.unwrap()
}

impl Peer {
    /// A session of ours with one that is to break its stream in this way.
    async fn of(store: &Corestore, kind: Break) -> Self {
        let pipe_len = if kind == Break::DoesNotRead {
            1000
        } else {
            100_000
        };
        let idle_timeout = (kind == Break::Silence).then_some(IDLE_TIMEOUT);
        let (ours, theirs) = duplex(pipe_len);
        let (ours, theirs) = tokio::join!(
            stream(ours, Role::Initiator, idle_timeout),
            stream(theirs, Role::Responder, None)
        );
        let session = Session::spawn(ours, store.clone(), SessionOptions::default());
        let hash = *theirs.handshake_hash();
        let (sealed, into_sealed) = duplex(100_000);
        let mut wire = None;
        let (sender, receiver) = theirs.split_with(|io| {
            let (reader, writer) = split(io);
            wire = Some(writer);
            (into_sealed, reader)
        });
        Self {
            session,
            sender,
            sealed,
            wire: wire.expect("it was split"),
            receiver,
            hash,
            mux: Mux::new(),
        }
    }

    /// What it writes next: all that its mux has to say.
    async fn seal(&mut self) -> Vec<u8> {
        while let Some(frame) = self.mux.poll_transmit() {
            self.sender.send(frame.segments()).await.unwrap();
        }
        self.sender.flush().await.unwrap();
        let mut bytes = Vec::with_capacity(100_000);
        self.sealed.read_buf(&mut bytes).await.unwrap();
        bytes
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).await.unwrap();
    }

    /// The frames in which it opens `core`, says how long the log is, and says it again.
    async fn frames(&mut self, core: &Core) -> [Vec<u8>; 3] {
        let capability = capability(false, &core.key(), &self.hash);
        let seeks = true;
        let handshake = Handshake { seeks, capability }.to_vec();
        let id = core.discovery_key();
        let opened = self.mux.open(PROTOCOL, Some(id.as_bytes()), &handshake);
        let channel = opened.unwrap();
        let open = self.seal().await;
        let mut said = Vec::new();
        for _ in 0..2 {
            let message: Message = sync_of(LENGTH as u64);
            let sent = message.encode(&mut Vec::new(), |segments: &[Segment<'_>]| {
                self.mux.send(channel, message.kind(), segments)
            });
            sent.unwrap();
            said.push(self.seal().await);
        }
        let [first, again] = said.try_into().expect("it said two");
        [open, first, again]
    }

    /// It has shown the key, and what it does now is wrong.
    async fn play(&mut self, kind: Break, store: &Corestore, core: &Core) {
        match kind {
            Break::TooLong => return self.write(&[255, 255, 255]).await,
            Break::DoesNotRead => return,
            _ => {}
        }
        let [open, said, again] = self.frames(core).await;
        self.write(&open).await;
        while !self.session.is_proven() {
            let heard = self.receiver.recv().await;
            heard.unwrap().expect("it goes on");
        }
        if kind != Break::Gap {
            self.write(&said).await;
        }
        match kind {
            Break::Replay => self.write(&said).await,
            Break::ReplayOfAll => self.write(&[open, said].concat()).await,
            Break::ReplayOfAnother => {
                let mut other = Self::of(store, kind).await;
                let [_, _, again] = other.frames(core).await;
                self.write(&again).await;
            }
            Break::Gap => self.write(&again).await,
            Break::Flip => {
                let mut flipped = again;
                *flipped.last_mut().expect("it is long") ^= 1;
                self.write(&flipped).await;
            }
            Break::TooShort => self.write(&[3, 0, 0, 1, 2, 3]).await,
            Break::End => {
                self.write(&again[..again.len() - 1]).await;
                self.wire.shutdown().await.unwrap();
            }
            Break::Silence => {}
            Break::TooLong | Break::DoesNotRead => unreachable!(),
        }
    }
}

/// One more block is written and, soon, there. All blocks are wanted.
async fn go_on(writer: &Core, reader: &Core) {
    let index = writer.length();
    let events = reader.events();
    writer.append(format!("more {index}")).unwrap();
    let comes = async {
        while !reader.has(index) {
            events.next().await;
        }
    };
    let comes = timeout(UPDATE_TIME_MAX, comes).await;
    comes.expect("nobody holds it up");
}

/// Goal: who breaks the stream, by replays, by changes, by silence, while we read or write the log, loses its session under a name
/// and changes nothing; an honest peer on the same log is served before, meanwhile and afterwards.
#[tokio::test(start_paused = true)]
async fn who_breaks_the_stream_loses_its_session_alone() {
    for (kind, error) in BREAKS {
        for reads in [true, false] {
            let row = format!("{kind:?}, reads: {reads}");
            let (here, writer, there, reader) = writer_and_reader(&blocks(LENGTH));
            let (ours, theirs) = duplex(100_000);
            let (ours, theirs) = tokio::join!(
                stream(ours, Role::Responder, None),
                stream(theirs, Role::Initiator, None)
            );
            let options = SessionOptions::default();
            let honest = [
                Session::spawn(ours, here.clone(), options.clone()),
                Session::spawn(theirs, there.clone(), options),
            ];
            let all = reader.download_all();
            timeout(UPDATE_TIME_MAX, all.caught_up())
                .await
                .expect("nobody else is there")
                .unwrap();

            let (store, core) = if reads {
                (&there, &reader)
            } else {
                (&here, &writer)
            };
            let mut peer = Peer::of(store, kind).await;
            let goes_on = async {
                loop {
                    go_on(&writer, &reader).await;
                    sleep(Duration::from_secs(1)).await;
                }
            };
            let played = timeout(10 * WRITE_TIMEOUT, async {
                peer.play(kind, store, core).await;
                peer.session.closed().await
            });
            let ended = tokio::select! {
                ended = played => ended.unwrap_or_else(|_| panic!("{row}: it goes on")),
                () = goes_on => unreachable!(),
            };
            match ended {
                Err(SessionError::Stream(found)) => {
                    assert!(format!("{found:?}").starts_with(error), "{row}: {found:?}");
                }
                other => panic!("{row}: {other:?}"),
            }
            let stats = peer.session.stats();
            assert_eq!(
                (stats.blocks_uploaded, stats.blocks_downloaded),
                (0, 0),
                "{row}"
            );

            assert_eq!(reader.supply().suppliers(), 1, "{row}: the honest one");
            go_on(&writer, &reader).await;
            all.caught_up().await.unwrap();
            assert_complete_copy(&writer, &reader);
            for session in &honest {
                assert!(!session.is_closed(), "{row}");
            }
        }
    }
}
