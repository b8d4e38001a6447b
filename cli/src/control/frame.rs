//! Frames of the control socket, and what is in a request.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use crate::passphrase::Passphrase;

/// Most bytes in one frame: a chunk of data, or a command line.
pub(super) const FRAME_BYTES_MAX: usize = 256 * 1024;

const REQUEST_VERSION: &[u8] = b"2";

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request = 0,
    Pull = 1,
    Stdin = 2,
    Stop = 3,
    Stdout = 4,
    Stderr = 5,
    Exit = 6,
}

/// A command line and where it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The arguments behind the program's name.
    pub(crate) arguments: Vec<OsString>,
    /// The working directory.
    pub(crate) directory: PathBuf,
    /// Whether to colour.
    pub(crate) color: bool,
    /// What to encrypt or decrypt with: the guest has asked for it where it was typed.
    pub(crate) passphrase: Option<Passphrase>,
}

impl Request {
    /// Neither arguments nor paths nor passphrases can contain zeros, so zeros part them.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let color: &[u8] = if self.color { b"color" } else { b"plain" };
        let passphrase = self.passphrase.as_ref().map(Passphrase::bytes);
        let head = [
            REQUEST_VERSION,
            color,
            passphrase.unwrap_or_default(),
            self.directory.as_os_str().as_bytes(),
        ];
        let arguments = self.arguments.iter().map(|argument| argument.as_bytes());
        let fields: Vec<&[u8]> = head.into_iter().chain(arguments).collect();
        Zeroizing::new(fields.join(&0))
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.split(|byte| *byte == 0);
        if fields.next()? != REQUEST_VERSION {
            return None;
        }
        let color = fields.next()? == b"color";
        let passphrase = Passphrase::new(Zeroizing::new(fields.next()?.to_vec()));
        let directory = OsStr::from_bytes(fields.next()?).into();
        let arguments = fields
            .map(|field| OsString::from_vec(field.to_vec()))
            .collect();
        Some(Self {
            arguments,
            directory,
            color,
            passphrase,
        })
    }
}

/// Writes one frame of at most [`FRAME_BYTES_MAX`].
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    payload: &[u8],
) -> io::Result<()> {
    if payload.len() > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the command line is too long",
        ));
    }
    let length = u32::try_from(payload.len()).expect("shorter than FRAME_BYTES_MAX");
    // It may carry a passphrase.
    let mut frame = Zeroizing::new(Vec::with_capacity(HEADER_LEN + payload.len()));
    frame.push(kind as u8);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await
}

/// Reads one frame; `None` if the other side has ended before it.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(Kind, Bytes)>> {
    let mut header = [0; HEADER_LEN];
    match stream.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let [kind, length @ ..] = header;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    let kind = ALL.into_iter().find(|known| *known as u8 == kind);
    let (Some(kind), 0..=FRAME_BYTES_MAX) = (kind, length) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a frame of the control socket",
        ));
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok(Some((kind, payload.into())))
}

const HEADER_LEN: usize = 5;

const ALL: [Kind; 7] = [
    Kind::Request,
    Kind::Pull,
    Kind::Stdin,
    Kind::Stop,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Exit,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip() {
        let mut request = Request {
            arguments: vec![
                "put".into(),
                "".into(),
                OsString::from_vec(vec![0xff, b' ']),
            ],
            directory: "/a b".into(),
            color: true,
            passphrase: None,
        };
        for passphrase in [None, Some(b" secret".to_vec())] {
            request.passphrase = passphrase.map(Zeroizing::new).and_then(Passphrase::new);
            let decoded = Request::decode(&request.encode());
            assert_eq!(decoded.as_ref(), Some(&request));
        }
        assert_eq!(Request::decode(b"1\0plain\0\0/"), None);
        assert_eq!(Request::decode(b"2\0plain\0"), None);
    }

    #[tokio::test]
    async fn a_frame_too_long_is_refused_before_it_is_read() {
        let mut frame = vec![Kind::Stdin as u8];
        frame.extend_from_slice(&u32::MAX.to_le_bytes());
        let error = read(&mut frame.as_slice()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let long = vec![0; FRAME_BYTES_MAX + 1];
        assert!(write(&mut Vec::new(), Kind::Stdin, &long).await.is_err());
    }
}
