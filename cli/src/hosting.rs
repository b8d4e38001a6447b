//! Running commands for others, and having others run ours: what the control socket is for.
//! Knows how a visit becomes a run of a command. Where there are no Unix sockets, nobody visits.

pub(crate) use sys::{Host, run_through};

#[cfg(unix)]
mod sys {
    use std::ffi::OsString;
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::Arc;

    use tokio::sync::Mutex;

    use crate::context::Streams;
    use crate::control::{self, Request, Visit};
    use crate::exit::{Failure, Kind, Result};
    use crate::output::Output;
    use crate::run;
    use crate::store::Store;

    /// The control socket of a store that we hold, if it could be made.
    pub(crate) struct Host(Option<control::Host>);

    impl Host {
        pub(crate) async fn start(store: &Arc<Store>, output: &Output) -> Self {
            let shared = Arc::clone(store);
            let run = move |visit| receive(visit, Arc::clone(&shared));
            match control::Host::start(&store.dir, run) {
                Ok(host) => Self(Some(host)),
                Err(error) => {
                    let text = format!("Other commands cannot use the store meanwhile: {error}");
                    output.say(&text).await;
                    Self(None)
                }
            }
        }

        pub(crate) async fn close(self) {
            if let Some(host) = self.0 {
                host.close().await;
            }
        }
    }

    /// Has the holder of the store run the command, if it takes visits; returns the exit code.
    pub(crate) async fn run_through(
        dir: &Path,
        arguments: &[OsString],
        streams: &Streams,
    ) -> Result<Option<u8>> {
        let request = Request {
            arguments: arguments.to_vec(),
            directory: streams.directory.clone(),
            color: streams.output.style().color,
            passphrase: streams.passphrase.clone(),
        };
        let ran = control::run_through(dir, &request, &streams.stop).await;
        ran.map_err(|error| Failure::new(Kind::Other, error))
    }

    /// Runs a visitor's command on our store. Boxed, since a command that holds a store receives
    /// visitors, whose commands are commands.
    fn receive(visit: Visit, store: Arc<Store>) -> Pin<Box<dyn Future<Output = u8> + Send>> {
        Box::pin(async move {
            let cli = match run::parse(&visit.request.arguments) {
                Ok(cli) => cli,
                Err(code) => return code,
            };
            let style = run::style(&cli, visit.request.color, false);
            let output = Output::new(style, visit.sink);
            let streams = Streams {
                output: output.clone(),
                input: Mutex::new(visit.input),
                stop: visit.stop,
                passphrase: visit.request.passphrase,
                directory: visit.request.directory,
            };
            let result = match store.check_guest(&cli.globals) {
                Ok(()) => run::command(cli, streams, store).await,
                Err(failure) => Err(failure),
            };
            output.finish(result).await
        })
    }
}

#[cfg(not(unix))]
mod sys {
    use std::ffi::OsString;
    use std::path::Path;
    use std::sync::Arc;

    use crate::context::Streams;
    use crate::exit::Result;
    use crate::output::Output;
    use crate::store::Store;

    /// Nobody can visit.
    pub(crate) struct Host;

    impl Host {
        pub(crate) async fn start(_: &Arc<Store>, _: &Output) -> Self {
            Self
        }

        pub(crate) async fn close(self) {}
    }

    /// Nobody can be visited.
    pub(crate) async fn run_through(_: &Path, _: &[OsString], _: &Streams) -> Result<Option<u8>> {
        Ok(None)
    }
}
