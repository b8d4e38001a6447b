//! The control socket: whoever holds the store runs the commands of others.
//!
//! The *host* holds the store's lock and listens on `STORE/control.sock`. A *guest* finds the store
//! locked, sends its command line there and lends its streams. Both are the same program, so there is
//! one version of the conversation:
//!
//! | frame | from | payload |
//! |---|---|---|
//! | request | guest | [`Request`] |
//! | pull | host | none: asks for the next bytes of stdin |
//! | stdin | guest | answers a pull; empty at the end |
//! | stop | guest | none: Ctrl-C |
//! | stdout, stderr | host | bytes |
//! | exit | host | the exit code, one byte |
//!
//! A frame is its kind, one byte; its length, four bytes little-endian; and the payload. Knows streams
//! and exit codes. Does not know commands.

mod frame;
mod guest;
mod host;

pub(crate) use frame::Request;
pub(crate) use guest::run_through;
pub(crate) use host::{Host, Visit};

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const SOCKET: &str = "control.sock";

/// Most bytes in the path of a Unix socket, on the strictest system.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// A path to the socket of the store in `dir` that fits, valid while the file is open.
///
/// Longer paths go through the open directory, where the system has a short name for it.
fn socket_path(dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    use std::os::fd::AsRawFd as _;
    let path = dir.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((path, None));
    }
    let directory = File::open(dir)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    Ok((short.into(), Some(directory)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::output::{Sink, Stream};
    use crate::stop::Stop;
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::sync::mpsc;

    fn request(command: &str) -> Request {
        Request {
            arguments: vec![command.into()],
            directory: "/somewhere".into(),
            color: false,
            passphrase: None,
        }
    }

    /// Answers `echo` with stdin, `wait` once it is stopped, and everything else with code 3.
    fn serve(dir: &Path) -> Host {
        let run = |visit: Visit| async move {
            let Visit {
                request,
                mut input,
                sink,
                stop,
            } = visit;
            match request
                .arguments
                .first()
                .and_then(|argument| argument.to_str())
            {
                Some("echo") => echo(&mut input, &sink).await,
                Some("wait") => {
                    sink.write(Stream::Stderr, Bytes::from_static(b"waiting"))
                        .await
                        .unwrap();
                    stop.asked().await;
                    130
                }
                _ => 3,
            }
        };
        Host::start(dir, run).unwrap()
    }

    async fn echo(input: &mut Input, sink: &Sink) -> u8 {
        while let Some(chunk) = input.chunk().await.unwrap() {
            sink.write(Stream::Stdout, chunk).await.unwrap();
        }
        0
    }

    /// Runs `command` as a guest, with `stdin`; returns its exit code and stdout.
    async fn visit(dir: &Path, command: &str, mut stdin: &[u8]) -> (Option<u8>, Vec<u8>) {
        let (_stopper, stop) = crate::stop::pair();
        let mut stdout = Vec::new();
        let code = guest(
            dir,
            command,
            &mut stdin,
            &mut stdout,
            &mut Vec::new(),
            &stop,
        )
        .await;
        (code, stdout)
    }

    async fn guest(
        dir: &Path,
        command: &str,
        stdin: &mut &[u8],
        stdout: &mut Vec<u8>,
        stderr: &mut (impl AsyncWrite + Unpin),
        stop: &Stop,
    ) -> Option<u8> {
        let request = request(command);
        let ran = super::guest::run(dir, &request, stdin, stdout, stderr, stop);
        ran.await.unwrap()
    }

    async fn connect(dir: &Path) -> UnixStream {
        let (path, _directory) = socket_path(dir).unwrap();
        UnixStream::connect(path).await.unwrap()
    }

    #[tokio::test]
    async fn streams_and_exit_codes_cross() {
        let dir = tempfile::tempdir().unwrap();
        let host = serve(dir.path());
        let input: Vec<u8> = (0..300_000_u32).map(|i| i as u8).collect();
        let (code, output) = visit(dir.path(), "echo", &input).await;
        assert_eq!(code, Some(0));
        assert!(output == input);
        assert_eq!(
            visit(dir.path(), "other", &input).await,
            (Some(3), Vec::new())
        );
        host.close().await;
        assert!(!dir.path().join(SOCKET).exists());
    }

    #[tokio::test]
    async fn ctrl_c_reaches_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let _host = serve(dir.path());
        let (stopper, stop) = crate::stop::pair();
        let (mut said, mut heard) = tokio::io::duplex(64);
        let waiting = async {
            heard.read_exact(&mut [0; 7]).await.unwrap();
            stopper.stop();
        };
        let (mut stdin, mut stdout): (&[u8], _) = (&[], Vec::new());
        let run = guest(
            dir.path(),
            "wait",
            &mut stdin,
            &mut stdout,
            &mut said,
            &stop,
        );
        let (code, ()) = tokio::join!(run, waiting);
        assert_eq!(code, Some(130));
    }

    #[tokio::test]
    async fn a_guest_that_vanishes_stops_its_command() {
        let dir = tempfile::tempdir().unwrap();
        let (ended, mut endings) = mpsc::channel(1);
        let run = move |visit: Visit| {
            let ended = ended.clone();
            async move {
                visit.stop.asked().await;
                ended.send(()).await.unwrap();
                130
            }
        };
        let host = Host::start(dir.path(), run).unwrap();
        let mut stream = connect(dir.path()).await;
        frame::write(&mut stream, frame::Kind::Request, &request("x").encode())
            .await
            .unwrap();
        drop(stream);
        endings.recv().await.unwrap();
        host.close().await;
    }

    #[tokio::test]
    async fn a_host_that_ends_stops_its_guests() {
        let dir = tempfile::tempdir().unwrap();
        let host = serve(dir.path());
        let mut stream = connect(dir.path()).await;
        frame::write(&mut stream, frame::Kind::Request, &request("wait").encode())
            .await
            .unwrap();
        assert_eq!(
            frame::read(&mut stream).await.unwrap().unwrap().0,
            frame::Kind::Stderr
        );
        host.close().await;
        let (kind, code) = frame::read(&mut stream).await.unwrap().unwrap();
        assert_eq!((kind, code.as_ref()), (frame::Kind::Exit, &[130][..]));
    }

    #[tokio::test]
    async fn guests_are_bounded_and_wait_for_their_turn() {
        let dir = tempfile::tempdir().unwrap();
        let host = serve(dir.path());
        let mut guests = Vec::new();
        for _ in 0..host::GUESTS_MAX {
            let mut stream = connect(dir.path()).await;
            let wait = request("wait").encode();
            frame::write(&mut stream, frame::Kind::Request, &wait)
                .await
                .unwrap();
            frame::read(&mut stream).await.unwrap();
            guests.push(stream);
        }
        let mut another = std::pin::pin!(visit(dir.path(), "x", &[]));
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), &mut another);
        assert!(waits.await.is_err());
        guests.pop();
        assert_eq!(another.await.0, Some(3));
        host.close().await;
    }

    #[tokio::test]
    async fn garbage_on_the_socket_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let host = serve(dir.path());
        for garbage in [
            &b"\xff\xff\xff\xff\xff"[..],
            b"\x00\xff\xff\xff\xff",
            b"\x00\x03\0\0\0abc",
        ] {
            let mut stream = connect(dir.path()).await;
            stream.write_all(garbage).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.is_empty());
        }
        assert_eq!(visit(dir.path(), "x", &[]).await.0, Some(3));
        host.close().await;
    }

    #[tokio::test]
    async fn a_stale_socket_is_nobody_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        assert_eq!(visit(dir.path(), "x", &[]).await.0, None);
        let host = serve(dir.path());
        assert_eq!(visit(dir.path(), "x", &[]).await.0, Some(3));
        host.close().await;
    }

    #[tokio::test]
    async fn a_store_deep_down_has_a_socket_too() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("deep".repeat(50));
        std::fs::create_dir(&dir).unwrap();
        let host = serve(&dir);
        assert_eq!(visit(&dir, "x", &[]).await.0, Some(3));
        host.close().await;
    }
}
