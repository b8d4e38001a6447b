//! Byte streams over WebSockets (RFC 6455): binary messages, whose boundaries mean nothing.
//! Knows WebSockets. Does not know what the bytes are.
//!
//! What goes through is a secret stream, as JavaScript peers make it of
//! `new NoiseSecretStream(isInitiator, websocketStream)`, where the stream writes each chunk as one binary
//! message (`websocket-stream`, `createWebSocketStream` of `ws`, the `Stream` of `@hyperswarm/dht-relay`).
//! Browsers, and networks that let nothing else through, speak no TCP.
//!
//! [`Node::listen`](crate::Node::listen) and [`Node::dial`](crate::Node::dial) take addresses that begin with
//! `ws://`. For TLS, or an HTTP server that serves other things too, wrap the stream with [`client`] or
//! [`accept`], or what they return, and give the secret stream on it to [`Node::replicate`](crate::Node::replicate).

mod pieces;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

pub use self::pieces::{PIECE_MAX, Pieces};

/// How many bytes one message of ours carries at most.
const CHUNK_MAX: usize = 256 * 1024;

/// A WebSocket as a stream of bytes.
///
/// What [`client`] and [`accept`] return costs a few pieces of 64 KiB, however long the peer's messages are: they are cut
/// as they come.
#[derive(Debug)]
pub struct WebSocketIo<T> {
    socket: WebSocketStream<T>,
    /// What was not read yet of the last message.
    rest: Bytes,
}

/// Opens a WebSocket on `io`, a connection to the host that `url` names.
///
/// # Errors
/// If `url` is malformed, the connection fails, or the server does not agree.
pub async fn client<T>(url: &str, io: T) -> io::Result<WebSocketIo<Pieces<T>>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let io = Pieces::new(io);
    let opened = tokio_tungstenite::client_async_with_config(url, io, Some(config())).await;
    let (socket, _) = opened.map_err(to_io)?;
    Ok(WebSocketIo::from(socket))
}

/// Answers a client that opens a WebSocket on `io`, whatever path it asks for.
///
/// # Errors
/// If the connection fails, or the client does not speak the protocol.
pub async fn accept<T>(io: T) -> io::Result<WebSocketIo<Pieces<T>>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let io = Pieces::new(io);
    let accepted = tokio_tungstenite::accept_async_with_config(io, Some(config())).await;
    accepted.map(WebSocketIo::from).map_err(to_io)
}

/// Takes over a WebSocket that is open. It may reserve as many bytes as its `max_frame_size` for a frame of which only the header
/// has come, whoever the peer is.
impl<T> From<WebSocketStream<T>> for WebSocketIo<T> {
    fn from(socket: WebSocketStream<T>) -> Self {
        Self {
            socket,
            rest: Bytes::new(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            let next = ready!(Pin::new(&mut self.socket).poll_next(cx));
            match next.transpose().map_err(to_io)? {
                Some(Message::Binary(bytes)) => self.rest = bytes,
                Some(Message::Text(_)) => return Poll::Ready(Err(text())),
                Some(Message::Close(_)) | None => return Poll::Ready(Ok(())),
                Some(_) => {} // pings are answered by the socket
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(self.rest.get(..count).unwrap_or_default());
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(to_io)?;
        let chunk = bytes.get(..CHUNK_MAX).unwrap_or(bytes);
        let message = Message::Binary(Bytes::copy_from_slice(chunk));
        Pin::new(&mut self.socket)
            .start_send(message)
            .map_err(to_io)?;
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Err(tungstenite::Error::ConnectionClosed) | Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(to_io(error))),
        }
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(PIECE_MAX))
        .max_frame_size(Some(PIECE_MAX))
        .read_buffer_size(PIECE_MAX)
        .write_buffer_size(0) // the secret stream gathers what belongs together
        .max_write_buffer_size(2 * CHUNK_MAX)
}

fn to_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::NotConnected.into()
        }
        tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => io::ErrorKind::UnexpectedEof.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

fn text() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the peer sent text where bytes belong",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::SinkExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    type Io = WebSocketIo<Pieces<DuplexStream>>;

    async fn pair(room: usize) -> (Io, Io) {
        let (near, far) = duplex(room);
        let (near, far) = tokio::join!(client("ws://host/path", near), accept(far));
        (near.unwrap(), far.unwrap())
    }

    /// Goal: bytes come as they went, however they were cut, and the end is an end.
    #[tokio::test]
    async fn bytes_cross_and_end() {
        let (mut near, mut far) = pair(1000).await;
        let bytes: Vec<u8> = (0..700_000_u32).map(|i| (i / 7) as u8).collect();
        let send = async {
            for chunk in bytes.chunks(300_001) {
                near.write_all(chunk).await.unwrap();
            }
            near.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let receive = async { far.read_to_end(&mut received).await.unwrap() };
        tokio::join!(send, receive);
        assert!(received == bytes);
    }

    #[tokio::test]
    async fn text_and_garbage_are_errors() {
        let (mut near, mut far) = pair(1000).await;
        near.socket.send(Message::text("hello")).await.unwrap();
        let read = far.read(&mut [0; 8]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);

        let (near, mut far) = pair(1000).await;
        let mut raw = near.socket.into_inner().into_inner();
        raw.write_all(&[0xff; 50]).await.unwrap();
        assert!(far.read(&mut [0; 8]).await.is_err());

        let (near, mut far) = duplex(1000);
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        drop(far);
        assert!(accept(near).await.is_err());
    }
}
