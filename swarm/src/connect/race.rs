//! Which of the paths that are found a stream goes by: the first that carries.
//! Knows when a path has been silent for too long. Does not know how paths are found.
//!
//! Something answered at a path when it was found, and still it may lead to somebody else, as an address of a local network does
//! that several hosts have. So other ways are tried on until the peer has acked something, and taken in turn where it does not.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_secret_stream::HandshakeResult;
use ferrocore_udx::socket::{StreamHandle, UdxSocket, UdxStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::blind::Meeting;
use super::error::{ConnectError, DialEvent, Route, Watcher};
use super::net::Extra;
use super::stream::{Connection, PATH_TIMEOUT, encrypt};

/// How long a path may be silent while another one is there.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// A path that carries, as far as is known.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) socket: UdxSocket,
    pub(super) to: SocketAddrV4,
    /// The same socket, if it was opened to punch.
    pub(super) extra: Option<Extra>,
}

/// What one way led to.
#[derive(Debug)]
pub(super) enum Found {
    /// A path to the peer.
    Path(Carrier),
    /// A place at a relay.
    Meeting(Meeting),
}

/// The ways that are tried.
pub(super) type Tries = JoinSet<(Route, Result<Found, ConnectError>)>;

/// A path that may be gone by.
#[derive(Debug)]
struct Candidate {
    route: Route,
    found: Found,
    /// It was gone by for a while, and nothing came back.
    is_silent: bool,
}

/// The stream's start, and what it may go by.
pub(super) struct Race<'a> {
    /// The peer's id of the stream.
    remote_id: u32,
    keys: HandshakeResult,
    watcher: &'a Watcher,
    tries: Tries,
    /// Found, and not gone by now.
    spare: VecDeque<Candidate>,
    /// When the last path was found.
    found_at: Instant,
    /// Why the last way that led nowhere did not.
    error: ConnectError,
}

/// The path that the peer has answered on.
pub(super) struct Won {
    pub(super) connection: Connection,
    pub(super) route: Route,
    pub(super) found: Found,
    /// Ways that are still tried, those that have led somewhere among them.
    pub(super) tries: Tries,
}

impl<'a> Race<'a> {
    pub(super) fn new(
        remote_id: u32,
        keys: HandshakeResult,
        watcher: &'a Watcher,
        tries: Tries,
    ) -> Self {
        Self {
            remote_id,
            keys,
            watcher,
            tries,
            spare: VecDeque::new(),
            found_at: Instant::now(),
            error: ConnectError::CannotPunch,
        }
    }

    /// Goes by one path after the other until the peer answers.
    ///
    /// # Errors
    /// Why the last way led nowhere.
    pub(super) async fn run(mut self, stream: UdxStream) -> Result<Won, ConnectError> {
        let mut present = loop {
            match self.tries.join_next().await {
                Some(done) => self.note(done.ok()),
                None => return Err(self.error),
            }
            if let Some(first) = self.spare.pop_front() {
                break first;
            }
        };
        let (socket, id, to) = present.found.place(self.remote_id);
        if stream.remote().is_none() {
            let connected = stream.connect(socket, id, to.into());
            connected.map_err(|_| ConnectError::Silent(to))?;
        }
        let (keys, first) = (self.keys.clone(), Some(socket.clone()));
        let connection = encrypt(stream, keys, present.route, first).await?;
        let handle = connection.handle();
        while !self.answers(&handle, &present).await? {
            present = self.leave(&handle, present)?;
        }
        Ok(self.won(connection, present))
    }

    /// True once the peer has answered; false if another path is to be gone by.
    async fn answers(
        &mut self,
        handle: &StreamHandle,
        present: &Candidate,
    ) -> Result<bool, ConnectError> {
        let to = present.found.address();
        let turn = Instant::now() + SILENCE_MAX;
        loop {
            let is_hoping = !self.tries.is_empty();
            let end = self.found_at + PATH_TIMEOUT;
            tokio::select! {
                acked = handle.acked() => {
                    return acked.map(|()| true).map_err(|_| ConnectError::Silent(to));
                }
                () = sleep_until(turn), if !self.spare.is_empty() => return Ok(false),
                () = sleep_until(end), if !is_hoping => return Err(ConnectError::Silent(to)),
                Some(done) = self.tries.join_next(), if is_hoping => self.note(done.ok()),
            }
        }
    }

    /// Takes the next path. This one has its turn again: its peer may only be far away.
    fn leave(
        &mut self,
        handle: &StreamHandle,
        present: Candidate,
    ) -> Result<Candidate, ConnectError> {
        let Candidate { route, found, .. } = present;
        let silent = ConnectError::Silent(found.address());
        if !present.is_silent {
            let reason = silent.to_string();
            self.watcher.tell(DialEvent::Failed { route, reason });
        }
        let next = self.spare.pop_front().ok_or(silent)?;
        self.spare.push_back(Candidate {
            is_silent: true,
            route,
            found,
        });
        let (socket, id, to) = next.found.place(self.remote_id);
        let moved = handle.change_remote(socket, id, to.into());
        moved.map_err(|_| ConnectError::Silent(to))?;
        Ok(next)
    }

    fn won(mut self, connection: Connection, present: Candidate) -> Won {
        let Candidate { route, found, .. } = present;
        let untried = self.spare.into_iter().filter(|spare| !spare.is_silent);
        for Candidate { route, found, .. } in untried {
            self.tries.spawn(async move { (route, Ok(found)) });
        }
        Won {
            connection: connection.over(route, found.place(self.remote_id).0.clone()),
            route,
            found,
            tries: self.tries,
        }
    }

    /// What a way has led to. Direct paths have their turn before a relay's, and before those that were silent.
    fn note(&mut self, done: Option<(Route, Result<Found, ConnectError>)>) {
        match done {
            Some((route, Ok(found))) => {
                let is_direct = matches!(found, Found::Path(_));
                let is_behind = |spare: &Candidate| {
                    spare.is_silent || (is_direct && matches!(spare.found, Found::Meeting(_)))
                };
                let place = self.spare.iter().position(is_behind);
                let candidate = Candidate {
                    route,
                    found,
                    is_silent: false,
                };
                self.spare
                    .insert(place.unwrap_or(self.spare.len()), candidate);
                self.found_at = Instant::now();
            }
            Some((route, Err(error))) => {
                let reason = error.to_string();
                self.watcher.tell(DialEvent::Failed { route, reason });
                self.error = error;
            }
            None => {}
        }
    }
}

impl Found {
    /// Where the peer, or the relay, is.
    pub(super) fn address(&self) -> SocketAddrV4 {
        match self {
            Self::Path(carrier) => carrier.to,
            Self::Meeting(meeting) => meeting.address,
        }
    }

    /// The socket to send from, and whom and where to.
    fn place(&self, remote_id: u32) -> (&UdxSocket, u32, SocketAddrV4) {
        match self {
            Self::Path(Carrier { socket, to, .. }) => (socket, remote_id, *to),
            Self::Meeting(meeting) => (&meeting.socket, meeting.stream_id, meeting.address),
        }
    }
}

impl Carrier {
    /// Over a socket of the node.
    pub(super) fn own(socket: UdxSocket, to: SocketAddrV4) -> Self {
        Self {
            socket,
            to,
            extra: None,
        }
    }

    pub(super) fn punched(extra: Extra, to: SocketAddrV4) -> Self {
        let carrier = Self::own(extra.socket.clone(), to);
        Self {
            extra: Some(extra),
            ..carrier
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;

    use ferrocore_dht::hyperdht::handshake::{ClientHandshake, ServerHandshake};
    use ferrocore_dht::hyperdht::noise::NoisePayload;
    use ferrocore_primitives::sign::KeyPair;
    use ferrocore_udx::socket::Udx;
    use ferrocore_udx::stream::Config;
    use tokio::sync::Notify;
    use tokio::time::sleep;

    use super::*;

    const OURS: u32 = 7;
    const THEIRS: u32 = 9;

    /// What two sides have agreed on, that of the dialling one.
    pub(in crate::connect) fn keys() -> HandshakeResult {
        let payload = NoisePayload::new(THEIRS);
        let (client, server) = (KeyPair::generate(), KeyPair::generate());
        let asking = ClientHandshake::new(&client, server.public_key(), &payload).unwrap();
        let asked = ServerHandshake::read(&server, asking.request()).unwrap();
        let (noise, _) = asked.answer(&payload).unwrap();
        asking.read(&noise).unwrap().keys
    }

    fn socket(udx: &Udx) -> (UdxSocket, SocketAddrV4) {
        let socket = udx.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = crate::connect::net::v4(socket.local_addr()).unwrap();
        (socket, address)
    }

    /// Goal: a path that seems to lead to the peer, and leads to somebody who says nothing, does not keep the others from being
    /// taken. Method: such a path is found first, the peer's own while it is tried out.
    #[tokio::test]
    async fn a_silent_path_is_left_for_the_next() {
        let (near, far) = (Udx::new(), Udx::new());
        let ((ours, _), (_theirs, at_theirs)) = (socket(&near), socket(&far));
        let peer = far.create_stream(THEIRS, Config::default()).unwrap();
        peer.listen(OURS);
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at_nobody = crate::connect::net::v4(nobody.local_addr().unwrap()).unwrap();
        let mut tries = Tries::new();
        let silent = Carrier::own(ours.clone(), at_nobody);
        tries.spawn(async move { (Route::Lan, Ok(Found::Path(silent))) });
        let good = Carrier::own(ours, at_theirs);
        tries.spawn(async move {
            sleep(Duration::from_millis(50)).await;
            (Route::Punched, Ok(Found::Path(good)))
        });
        let stream = near.create_stream(OURS, Config::default()).unwrap();
        let watcher = Watcher::default();
        let race = Race::new(THEIRS, keys(), &watcher, tries);
        let won = race.run(stream).await.unwrap();
        assert_eq!(
            (won.route, won.found.address()),
            (Route::Punched, at_theirs)
        );
        assert_eq!(won.connection.remote_address(), Some(at_theirs.into()));
        assert_eq!(won.connection.route, Route::Punched);
    }

    /// Goal: a path that was left answers late, and is taken after all: its peer is far away. Method: the peer's path is found first, and
    /// one that is silent for good; the peer comes to live after the first turn of its path.
    #[tokio::test]
    async fn a_path_that_was_silent_has_its_turn_again() {
        let (near, far) = (Udx::new(), Udx::new());
        let ((ours, _), (theirs, at_theirs)) = (socket(&near), socket(&far));
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at_nobody = crate::connect::net::v4(nobody.local_addr().unwrap()).unwrap();
        let mut tries = Tries::new();
        let late = Carrier::own(ours.clone(), at_theirs);
        tries.spawn(async move { (Route::Punched, Ok(Found::Path(late))) });
        let silent = Carrier::own(ours, at_nobody);
        let (found, is_found) = tokio::sync::oneshot::channel();
        tries.spawn(async move {
            is_found.await.ok();
            (Route::Lan, Ok(Found::Path(silent)))
        });
        let failed = Arc::new(Notify::new());
        let left = Arc::clone(&failed);
        let watcher = Watcher::new(move |event| {
            if matches!(event, DialEvent::Failed { .. }) {
                left.notify_one();
            }
        });
        let stream = near.create_stream(OURS, Config::default()).unwrap();
        let racing = Race::new(THEIRS, keys(), &watcher, tries).run(stream);
        let coming = async {
            // The peer's first packet is swallowed: nobody listens for the stream yet.
            theirs.recv_from().await.unwrap();
            found.send(()).ok();
            failed.notified().await;
            let peer = far.create_stream(THEIRS, Config::default()).unwrap();
            peer.listen(OURS);
            peer
        };
        let (won, _peer) = tokio::join!(racing, coming);
        assert_eq!(won.unwrap().route, Route::Punched);
    }

    /// Goal: what is found while the first path is tried out is not lost. Method: the first path leads to the peer, and another one is
    /// found in the same moment: it is among the ways that are left, for who wants to leave a relay.
    #[tokio::test]
    async fn a_path_that_was_not_needed_is_among_the_ways_left() {
        let (near, far) = (Udx::new(), Udx::new());
        let ((ours, _), (_theirs, at_theirs)) = (socket(&near), socket(&far));
        let peer = far.create_stream(THEIRS, Config::default()).unwrap();
        peer.listen(OURS);
        let mut tries = Tries::new();
        for _ in 0..2 {
            let path = Carrier::own(ours.clone(), at_theirs);
            tries.spawn(async move { (Route::Direct, Ok(Found::Path(path))) });
        }
        let stream = near.create_stream(OURS, Config::default()).unwrap();
        let watcher = Watcher::default();
        let race = Race::new(THEIRS, keys(), &watcher, tries);
        let mut left = race.run(stream).await.unwrap().tries;
        let way = left.join_next().await;
        assert!(matches!(way, Some(Ok((Route::Direct, Ok(Found::Path(_)))))));
        assert!(left.is_empty());
    }
}
