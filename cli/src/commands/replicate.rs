//! `core replicate`: keep cores in step with peers, over TCP or over stdin and stdout.

use ferrocore::Core;
use ferrocore::log::events::Event;
use ferrocore::primitives::sign::KeyPair;
use ferrocore::replication::session::SessionOptions;
use ferrocore::replication::{PeerMisbehaved, Session, SessionError};
use ferrocore::secret_stream::{Options, Role, SecretStream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::announced::report_announced;
use crate::args::CoreReplicate;
use crate::context::{Context, does_not_verify, z32};
use crate::events::{self, CoreSynced};
use crate::exit::{Failure, Kind, Result};
use crate::input::{CHUNK_BYTES_MAX, Input};
use crate::output::{Sink, Stream};

/// How a peer at the other end of stdin and stdout is called.
const STDIO: &str = "stdio";

pub(crate) async fn replicate(context: &Context, replicate: CoreReplicate) -> Result<()> {
    let cores: Result<Vec<Core>> = replicate
        .cores
        .iter()
        .map(|place| context.store.core(place))
        .collect();
    let cores = cores?;
    if context.globals.has_network() {
        over_tcp(context, &cores).await
    } else {
        let role = if replicate.initiator {
            Role::Initiator
        } else {
            Role::Responder
        };
        over_stdio(context, &cores, role).await
    }
}

/// Until Ctrl-C, which is no failure once everything is here.
async fn over_tcp(context: &Context, cores: &[Core]) -> Result<()> {
    if context.globals.is_search_asked_for() {
        context.discover().await?;
    }
    context.report_ready().await?;
    let announcing = report_announced(context, cores.iter().map(Core::discovery_key));
    let wanted = wanted(cores);
    let following = follow_all(context, &wanted);
    tokio::select! {
        biased;
        failed = following => failed,
        failed = announcing => failed,
        () = context.stop().asked() => complete(&wanted, Failure::interrupted()),
    }
}

/// Until the other side ends the stream, or Ctrl-C.
async fn over_stdio(context: &Context, cores: &[Core], role: Role) -> Result<()> {
    match context.output().sink() {
        Sink::Process => {
            let io = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
            over_stream(context, cores, role, io).await
        }
        Sink::Guest(_) => {
            let (near, far) = tokio::io::duplex(4 * CHUNK_BYTES_MAX);
            tokio::select! {
                done = over_stream(context, cores, role, near) => done,
                failed = carry(context, far) => failed,
            }
        }
    }
}

async fn over_stream<T>(context: &Context, cores: &[Core], role: Role, io: T) -> Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let key_pair = KeyPair::generate();
    let handshake = SecretStream::handshake(io, role, &key_pair, Options::default());
    let stream = context
        .step(async { handshake.await.map_err(stream_failed) })
        .await?;
    let options = SessionOptions {
        follow_readers: false,
        ..SessionOptions::default()
    };
    let node = &context.store.node;
    let session = node.replicate(stream, options);
    // Whom the other side has for a peer may bring what it lacks now: only time ends the wait.
    let _finding = node.store().finding();
    cores.iter().for_each(|core| session.attach(core));
    report_peer(context, &session, "connected").await?;
    let replicating = async {
        let ended = replicate_until_end(context, &wanted(cores), &session).await;
        session.close();
        session.closed().await.ok();
        Ok(ended)
    };
    // Until there is no more to tell, which is after the end.
    let reporting = report_misbehaviour(context, &session);
    let (ended, ()) = tokio::try_join!(replicating, reporting)?;
    report_peer(context, &session, "disconnected").await?;
    match session.stats().proofs_refused {
        0 => ended,
        _ => ended.map_err(|_| does_not_verify()),
    }
}

/// Until the other side ends the stream, or Ctrl-C.
async fn replicate_until_end(context: &Context, wanted: &[&Core], session: &Session) -> Result<()> {
    let gone = || Failure::new(Kind::NoPeer, "the stream ended before everything was here");
    tokio::select! {
        biased;
        failed = follow_all(context, wanted) => failed,
        ended = session.closed() => match ended {
            Ok(()) => complete(wanted, gone()),
            Err(error) => {
                if let SessionError::Peer(misbehaved) = &error {
                    report_deed(context, session, misbehaved).await?;
                }
                complete(wanted, stream_failed(error))
            }
        },
        () = context.stop().asked() => complete(wanted, Failure::interrupted()),
    }
}

/// Says that the peer at the other end of stdin and stdout came or went.
async fn report_peer(context: &Context, session: &Session, state: &'static str) -> Result<()> {
    let peer = events::Peer {
        remote_key: Some(z32(session.remote_public_key().as_bytes())),
        address: STDIO.to_owned(),
        via: STDIO,
        state,
        reason: None,
    };
    context.output().report(&peer).await
}

/// Says what the peer does wrong until the session is over, except for what ended it.
async fn report_misbehaviour(context: &Context, session: &Session) -> Result<()> {
    while let Some(misbehaved) = session.misbehaved().await {
        report_deed(context, session, &misbehaved).await?;
    }
    Ok(())
}

async fn report_deed(context: &Context, session: &Session, deed: &PeerMisbehaved) -> Result<()> {
    let event = events::Misbehaviour::of(&session.remote_public_key(), deed);
    context.output().report(&event).await
}

fn stream_failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::NoPeer, format!("the stream failed: {error}"))
}

/// Ends only with a failure.
async fn follow_all(context: &Context, cores: &[&Core]) -> Result<()> {
    let mut following: Vec<_> = cores
        .iter()
        .map(|core| Box::pin(follow(context, core)))
        .collect();
    std::future::poll_fn(|cx| {
        for core in &mut following {
            if let std::task::Poll::Ready(failed) = core.as_mut().poll(cx) {
                return std::task::Poll::Ready(failed);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Downloads a core of others, and what comes to it later; says whenever it is all here.
async fn follow(context: &Context, core: &Core) -> Result<()> {
    let events = core.events();
    let download = core.download_all();
    loop {
        let progress = || core.length() + core.count(0..core.length());
        let catch_up = async { Ok(download.caught_up().await?) };
        context.while_progress(progress, catch_up).await?;
        let head = (core.fork(), core.length());
        let synced = CoreSynced {
            key: core.key().to_string(),
            length: head.1,
        };
        context.output().report(&synced).await?;
        while core.contiguous_length() == core.length() && (core.fork(), core.length()) == head {
            let _: Event = events.next().await;
        }
    }
}

/// The cores of which everything is to be here; the others are only served. What is missing of one that is written
/// here was given up on purpose, unless it was restored: then peers may have more.
fn wanted(cores: &[Core]) -> Vec<&Core> {
    let is_wanted = |core: &&Core| !core.is_writable() || core.is_guarded();
    cores.iter().filter(is_wanted).collect()
}

/// Nothing went wrong if everything is here.
fn complete(wanted: &[&Core], otherwise: Failure) -> Result<()> {
    let is_here = |core: &&Core| core.length() > 0 && core.contiguous_length() == core.length();
    if wanted.iter().all(is_here) {
        Ok(())
    } else {
        Err(otherwise)
    }
}

/// Carries bytes between the stream and a guest's stdin and stdout.
async fn carry(context: &Context, io: tokio::io::DuplexStream) -> Result<()> {
    let (mut from, mut to) = tokio::io::split(io);
    let inward = async {
        let mut input = context.streams.input.lock().await;
        carry_in(&mut input, &mut to).await
    };
    let outward = async {
        loop {
            let mut chunk = bytes::BytesMut::with_capacity(CHUNK_BYTES_MAX);
            from.read_buf(&mut chunk).await?;
            if chunk.is_empty() {
                return std::future::pending().await;
            }
            context
                .output()
                .sink()
                .write(Stream::Stdout, chunk.freeze())
                .await?;
        }
    };
    let carried: std::io::Result<()> = tokio::select! {
        failed = inward => failed,
        failed = outward => failed,
    };
    carried.map_err(stream_failed)
}

/// Ends only with an error: the end of stdin is passed on.
async fn carry_in(input: &mut Input, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    while let Some(chunk) = input.chunk().await? {
        to.write_all(&chunk).await?;
    }
    to.shutdown().await?;
    std::future::pending().await
}
