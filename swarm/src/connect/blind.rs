//! Meeting a peer at a blind relay, as one of its two clients.
//! Knows the connection to the relay and what is said on it. Does not know the stream that goes over it.

use std::net::SocketAddrV4;

use ferrocore_dht::hyperdht::noise::RelayThrough;
use ferrocore_dht::hyperdht::relay::{PAIR, PAIR_TIMEOUT, PROTOCOL, Pair};
use ferrocore_dht::message::Token;
use ferrocore_mux::{ChannelId, Event, Mux, Segment};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_secret_stream::{Receiver, Sender, StreamError};
use ferrocore_udx::socket::{StreamHandle, UdxSocket, UdxStream};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dial::ConnectOptions;
use super::error::{ConnectError, RelayError};
use super::net::v4;
use super::peers::Peers;

/// The longest message that is taken on a connection to a relay, in bytes: what both sides say has at most a hundred, and some
/// may come together. Whoever sends opens in longer ones would be answered by as many refusals.
pub(super) const TALK_LEN_MAX: usize = 16 * 1024;

/// A place at a relay. The relay forgets it when this is dropped.
#[derive(Debug)]
pub(super) struct Meeting {
    /// The socket that the relay is reached by.
    pub(super) socket: UdxSocket,
    /// Where the relay is.
    pub(super) address: SocketAddrV4,
    /// Its id of the stream that leads to the peer.
    pub(super) stream_id: u32,
    /// Keeps the connection to the relay.
    _holding: JoinSet<()>,
}

impl Meeting {
    /// Has a stream that left go by the relay again.
    pub(super) fn take(&self, handle: &StreamHandle) {
        let to = self.address.into();
        if let Err(error) = handle.change_remote(&self.socket, self.stream_id, to) {
            tracing::debug!(%error, "back to a relay");
        }
    }

    /// At a relay that nobody talks to.
    #[cfg(test)]
    pub(super) fn at(socket: UdxSocket, address: SocketAddrV4, stream_id: u32) -> Self {
        Self {
            socket,
            address,
            stream_id,
            _holding: JoinSet::new(),
        }
    }
}

/// Shows a relay the token, and waits for the other peer to show it too. `stream_id` is ours of the stream that is to
/// go over the relay.
pub(super) async fn meet(
    peers: Peers,
    through: RelayThrough,
    is_initiator: bool,
    stream_id: u32,
) -> Result<Meeting, RelayError> {
    let meeting = go_and_meet(peers, through, is_initiator, stream_id);
    let met = timeout(PAIR_TIMEOUT, meeting).await;
    met.map_err(|_| RelayError::Timeout)?
}

async fn go_and_meet(
    peers: Peers,
    through: RelayThrough,
    is_initiator: bool,
    stream_id: u32,
) -> Result<Meeting, RelayError> {
    let unreachable = |error| RelayError::Unreachable(Box::new(error));
    let (key_pair, options) = (peers.key_pair(), ConnectOptions::default());
    let dialling = Box::pin(peers.connect(through.public_key, options));
    let connection = dialling.await.map_err(unreachable)?;
    let address = connection.remote_address().and_then(v4);
    let place = address.zip(connection.socket());
    let (address, socket) = place.ok_or(RelayError::Refused)?;
    let (sender, mut receiver) = connection.stream.split();
    receiver.set_message_len_max(TALK_LEN_MAX);
    let pair = Pair {
        is_initiator,
        token: through.token,
        id: stream_id.into(),
        seq: 0,
    };
    let id = *key_pair.public_key().as_bytes();
    let mut talk = Talk::open(sender, receiver, &id, &pair)?;
    let stream_id = talk.paired(&through.token).await?;
    let mut holding = JoinSet::new();
    holding.spawn(async move { while talk.turn().await.is_ok() {} });
    Ok(Meeting {
        socket,
        address,
        stream_id,
        _holding: holding,
    })
}

/// The conversation with a relay.
struct Talk {
    sender: Sender<WriteHalf<UdxStream>>,
    receiver: Receiver<ReadHalf<UdxStream>>,
    mux: Mux,
    channel: ChannelId,
}

impl Talk {
    fn open(
        sender: Sender<WriteHalf<UdxStream>>,
        receiver: Receiver<ReadHalf<UdxStream>>,
        id: &[u8],
        pair: &Pair,
    ) -> Result<Self, RelayError> {
        let mut mux = Mux::new();
        let refused = |_| RelayError::Refused;
        let channel = mux.open(PROTOCOL, Some(id), &[]).map_err(refused)?;
        mux.send(channel, PAIR, &[Segment::Copy(&pair.to_vec())])
            .map_err(refused)?;
        Ok(Self {
            sender,
            receiver,
            mux,
            channel,
        })
    }

    async fn paired(&mut self, token: &Token) -> Result<u32, RelayError> {
        loop {
            if let Some(pair) = self.turn().await?
                && pair.token == *token
            {
                return u32::try_from(pair.id).map_err(|_| RelayError::Refused);
            }
        }
    }

    /// Sends what there is, and takes in one frame, or keeps the connection alive.
    async fn turn(&mut self) -> Result<Option<Pair>, RelayError> {
        self.send().await.map_err(|_| RelayError::Refused)?;
        let received = tokio::select! {
            received = self.receiver.recv() => received,
            Err(error) = self.sender.keep_alive() => Err(error),
        };
        let Ok(Some(frame)) = received else {
            return Err(RelayError::Refused);
        };
        self.mux.handle_frame(frame);
        let mut found = None;
        while let Some(event) = self.mux.poll_event().map_err(|_| RelayError::Refused)? {
            match event {
                Event::Message {
                    kind: PAIR,
                    payload,
                    ..
                } => {
                    found = Pair::from_slice(&payload).ok().or(found);
                }
                Event::RemoteOpen { offer, .. } => self.mux.reject(offer),
                Event::Closed { channel } | Event::Rejected { channel }
                    if channel == self.channel =>
                {
                    return Err(RelayError::Refused);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    async fn send(&mut self) -> Result<(), StreamError> {
        while let Some(frame) = self.mux.poll_transmit() {
            self.sender.send(frame.segments()).await?;
        }
        self.sender.flush().await
    }
}

impl From<RelayError> for ConnectError {
    fn from(error: RelayError) -> Self {
        Self::Relay(error)
    }
}
