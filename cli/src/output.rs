//! What a command says: data and listings on stdout, human text on stderr, or events as JSON lines.
//! Knows streams and formats. Does not know what the events mean.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use crate::exit::{Failure, Kind, Result};

/// Something that a command reports, in words and as JSON.
pub(crate) trait Event: Serialize + Sync {
    /// The value of `event` in JSON.
    const NAME: &'static str;
    /// How often `-v` must be given for the words to be shown; the JSON line always is.
    const VERBOSITY: u8 = 0;

    /// The event in words; nothing if it is for programs only.
    fn words(&self) -> Option<String>;
}

/// How output looks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
    pub(crate) color: bool,
    /// Whether progress may be drawn over and over on the same line.
    pub(crate) bars: bool,
    /// Whether stdout carries data, so that events go to stderr.
    pub(crate) data: bool,
}

/// The two streams a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Where the streams end.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    /// In this process.
    Process,
    /// In the process that asked, through the control socket.
    Guest(mpsc::Sender<(Stream, Bytes)>),
}

/// The output of one command. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    style: Style,
    sink: Sink,
    /// One line at a time; also keeps the streams of this process in order.
    turn: Arc<tokio::sync::Mutex<()>>,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

#[derive(Serialize)]
struct Line<'a, E> {
    v: u8,
    event: &'static str,
    #[serde(flatten)]
    body: &'a E,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: u8,
    kind: &'static str,
    message: &'a str,
    hint: Option<&'a str>,
}

/// The version of the JSON lines.
const JSON_VERSION: u8 = 1;

impl Output {
    pub(crate) fn new(style: Style, sink: Sink) -> Self {
        Self {
            style,
            sink,
            turn: Arc::default(),
            bar: Arc::default(),
        }
    }

    /// Reports what happens: words on stderr.
    pub(crate) async fn report(&self, event: &impl Event) -> Result<()> {
        self.event(event, Stream::Stderr).await
    }

    /// Lists what was asked for: words on stdout.
    pub(crate) async fn list(&self, event: &impl Event) -> Result<()> {
        self.event(event, Stream::Stdout).await
    }

    /// Says something that only people need to know.
    pub(crate) async fn say(&self, text: &str) {
        if !self.style.json && !self.style.quiet {
            self.line(Stream::Stderr, text.to_owned()).await.ok();
        }
    }

    /// Writes data to stdout.
    pub(crate) async fn data(&self, bytes: Bytes) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.write(Stream::Stdout, bytes).await
    }

    /// Says why the command failed; that its reader has gone is no failure.
    async fn fail(&self, failure: &Failure) {
        if failure.kind == Kind::ReaderGone {
            return;
        }
        self.line(Stream::Stderr, self.style.failure(failure))
            .await
            .ok();
    }

    /// Says how a command ended, and returns the exit code.
    pub(crate) async fn finish(&self, result: Result<()>) -> u8 {
        match result {
            Ok(()) => 0,
            Err(failure) => {
                self.fail(&failure).await;
                failure.kind.code()
            }
        }
    }

    /// The bar above which lines are written from now on, or none.
    pub(crate) fn set_bar(&self, bar: Option<ProgressBar>) {
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    pub(crate) fn style(&self) -> Style {
        self.style
    }

    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }

    async fn event<E: Event>(&self, event: &E, words_on: Stream) -> Result<()> {
        let stream = match self.style {
            Style {
                json: true,
                data: true,
                ..
            } => Stream::Stderr,
            Style { json: true, .. } => Stream::Stdout,
            Style { quiet: true, .. } if words_on == Stream::Stderr => return Ok(()),
            _ => words_on,
        };
        match self.style.event(event) {
            Some(line) => self.line(stream, line).await,
            None => Ok(()),
        }
    }

    async fn line(&self, stream: Stream, mut text: String) -> Result<()> {
        let bar = self
            .bar
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(bar) = bar.filter(|_| stream == Stream::Stderr) {
            bar.println(text);
            return Ok(());
        }
        text.push('\n');
        let _turn = self.turn.lock().await;
        self.write(stream, text.into()).await
    }

    /// Nobody reading stderr is no reason to stop.
    async fn write(&self, stream: Stream, bytes: Bytes) -> Result<()> {
        match (self.sink.write(stream, bytes).await, stream) {
            (Err(error), Stream::Stdout) => Err(stdout_failure(&error)),
            _ => Ok(()),
        }
    }
}

impl Style {
    /// The line that tells `event`, if it is to be told at all.
    pub(crate) fn event<E: Event>(self, event: &E) -> Option<String> {
        match self.json {
            true => Some(json(E::NAME, event)),
            false if self.verbose < E::VERBOSITY => None,
            false => event.words(),
        }
    }

    /// The lines that tell a failure.
    pub(crate) fn failure(self, failure: &Failure) -> String {
        let hint = failure.hint.as_deref();
        if self.json {
            let body = ErrorBody {
                code: failure.kind.code(),
                kind: failure.kind.name(),
                message: &failure.message,
                hint,
            };
            return json("error", &body);
        }
        let hint = hint.map(|hint| format!("\n{} {hint}", self.paint(CYAN, "hint:")));
        format!(
            "{} {}{}",
            self.paint(RED, "error:"),
            failure.message,
            hint.unwrap_or_default()
        )
    }

    fn paint(self, color: &str, text: &str) -> String {
        if self.color {
            format!("{color}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

const RED: &str = "\x1b[1;31m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

impl Sink {
    /// Writes all of `bytes` and hands them on at once.
    pub(crate) async fn write(&self, stream: Stream, bytes: Bytes) -> io::Result<()> {
        match (self, stream) {
            (Self::Process, Stream::Stdout) => write_all(tokio::io::stdout(), &bytes).await,
            (Self::Process, Stream::Stderr) => write_all(tokio::io::stderr(), &bytes).await,
            (Self::Guest(frames), stream) => {
                let sent = frames.send((stream, bytes)).await;
                sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
        }
    }
}

async fn write_all(mut stream: impl tokio::io::AsyncWrite + Unpin, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn json<E: Serialize>(name: &'static str, body: &E) -> String {
    let line = Line {
        v: JSON_VERSION,
        event: name,
        body,
    };
    serde_json::to_string(&line).expect("events are structs with string keys")
}

/// `fcore cat … | head`: whoever reads has seen enough.
fn stdout_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Kind::ReaderGone, "stdout was closed"),
        _ => Failure::storage("cannot write to stdout", error),
    }
}

/// A number of bytes for people: SI units, one decimal.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"kB");
    while value >= 999.95 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1000.0, next);
    }
    format!("{value:.1} {unit}")
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Said {
        text: &'static str,
    }

    impl Event for Said {
        const NAME: &'static str = "said";
        const VERBOSITY: u8 = 1;

        fn words(&self) -> Option<String> {
            Some(self.text.to_owned())
        }
    }

    /// What `style` makes of one report, one listing and one failure.
    async fn said(style: Style) -> Vec<(Stream, String)> {
        let (sender, mut frames) = mpsc::channel(8);
        let output = Output::new(style, Sink::Guest(sender));
        let event = Said { text: "hello" };
        output.report(&event).await.unwrap();
        output.list(&event).await.unwrap();
        let failure = Failure::usage("no").hint("yes");
        output.fail(&failure).await;
        drop(output);
        let mut lines = Vec::new();
        while let Some((stream, bytes)) = frames.recv().await {
            lines.push((stream, String::from_utf8(bytes.to_vec()).unwrap()));
        }
        lines
    }

    #[tokio::test]
    async fn words_follow_verbosity_and_quiet() {
        let style = Style::default();
        let error = (Stream::Stderr, "error: no\nhint: yes\n".to_owned());
        assert_eq!(said(style).await, std::slice::from_ref(&error));
        let verbose = Style {
            verbose: 1,
            ..style
        };
        let hello = |stream| (stream, "hello\n".to_owned());
        let all = [hello(Stream::Stderr), hello(Stream::Stdout), error.clone()];
        assert_eq!(said(verbose).await, all);
        let quiet = Style {
            quiet: true,
            ..verbose
        };
        assert_eq!(said(quiet).await, [hello(Stream::Stdout), error]);
    }

    #[tokio::test]
    async fn events_are_json_lines_beside_the_data() {
        let line = "{\"v\":1,\"event\":\"said\",\"text\":\"hello\"}\n".to_owned();
        let error = concat!(
            r#"{"v":1,"event":"error","code":2,"kind":"usage","message":"no","hint":"yes"}"#,
            "\n"
        );
        let json = Style {
            json: true,
            ..Style::default()
        };
        for (data, stream) in [(false, Stream::Stdout), (true, Stream::Stderr)] {
            let lines = said(Style { data, ..json }).await;
            let event = (stream, line.clone());
            assert_eq!(
                lines,
                [event.clone(), event, (Stream::Stderr, error.to_owned())]
            );
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_ends_the_command_in_silence() {
        let (sender, frames) = mpsc::channel(1);
        drop(frames);
        let output = Output::new(Style::default(), Sink::Guest(sender));
        let failure = output.data(Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!((failure.kind, failure.kind.code()), (Kind::ReaderGone, 0));
    }

    #[test]
    fn bytes_are_rounded_for_people() {
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1000), "1.0 kB");
        assert_eq!(human_bytes(999_949), "999.9 kB");
        assert_eq!(human_bytes(999_950), "1.0 MB");
        assert_eq!(human_bytes(u64::MAX), "18.4 EB");
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
    }
}
