//! How far a long job is: a bar on a terminal, a line a second with `-v`, events in JSON.
//! Knows formats and pace. Does not know what is counted.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::events;
use crate::exit::Result;
use crate::output::Output;

/// How often a bar is drawn.
const BAR_PAUSE: Duration = Duration::from_millis(100);

/// How often a line is written.
const LINE_PAUSE: Duration = Duration::from_secs(1);

const TEMPLATE: &str =
    "{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {msg}";

/// For jobs whose end is not known.
const OPEN_TEMPLATE: &str = "{spinner} {decimal_bytes} {decimal_bytes_per_sec} {msg}";

/// Does `work` while a bar, if there can be one, shows what `count` says about it.
pub(crate) async fn with_bar<T>(
    output: &Output,
    count: impl Fn() -> events::Progress,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    if output.style().bars {
        with_progress(output, count, work).await
    } else {
        work.await
    }
}

/// Does `work` while it tells what `count` says about it.
pub(crate) async fn with_progress<T>(
    output: &Output,
    count: impl Fn() -> events::Progress,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let bar = Bar::new(output, &count());
    let telling = async {
        let mut told = None;
        loop {
            tokio::time::sleep(bar.pause()).await;
            let now = count();
            bar.show(&now);
            if bar.0.is_none() && told != Some(now) {
                output.report(&now).await?;
                told = Some(now);
            }
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        failed = telling => failed,
    }
}

/// The bar, if there is one, for as long as this lives.
struct Bar<'a>(Option<(ProgressBar, &'a Output)>);

impl<'a> Bar<'a> {
    fn new(output: &'a Output, first: &events::Progress) -> Self {
        if !output.style().bars {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(first.total), ProgressDrawTarget::stderr());
        let template = if first.total == 0 {
            OPEN_TEMPLATE
        } else {
            TEMPLATE
        };
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        bar.set_style(style);
        output.set_bar(Some(bar.clone()));
        Self(Some((bar, output)))
    }

    fn show(&self, progress: &events::Progress) {
        if let Some((bar, _)) = &self.0 {
            bar.set_length(progress.total);
            bar.set_position(progress.bytes);
            let (have, want, peers) = (progress.have, progress.want, progress.peers);
            bar.set_message(match progress.total {
                0 => format!("{have} files"),
                _ => format!("{have}/{want} files, {peers} peers"),
            });
        }
    }

    fn pause(&self) -> Duration {
        if self.0.is_some() {
            BAR_PAUSE
        } else {
            LINE_PAUSE
        }
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if let Some((bar, output)) = &self.0 {
            bar.finish_and_clear();
            output.set_bar(None);
        }
    }
}
