//! How finding and reaching peers goes, in `status`.

use serde::Serialize;

use crate::output::Event;

/// One topic: the discovery key of a core that is open.
#[derive(Debug, Serialize)]
pub(crate) struct Topic {
    pub(crate) discovery_key: String,
    /// Whether others can find us under it.
    pub(crate) server: bool,
    /// Whether we look for others.
    pub(crate) client: bool,
    pub(crate) searches: Vec<Search>,
}

/// One way to find peers of a topic.
#[derive(Debug, Serialize)]
pub(crate) struct Search {
    /// `lan` or `dht`.
    pub(crate) by: &'static str,
    pub(crate) state: &'static str,
    pub(crate) reason: Option<String>,
}

impl Event for Topic {
    const NAME: &'static str = "topic";

    fn words(&self) -> Option<String> {
        let wanted = match (self.server, self.client) {
            (true, true) => "announced and looked up",
            (true, false) => "announced",
            _ => "looked up",
        };
        let searches = self.searches.iter().map(|search| {
            let reason = search.reason.as_ref().map(|reason| format!(": {reason}"));
            let (by, state) = (search.by, search.state);
            format!("{by} {state}{}", reason.unwrap_or_default())
        });
        let searches: Vec<_> = searches.collect();
        let topic = &self.discovery_key;
        Some(format!("topic {topic} {wanted}; {}", searches.join(", ")))
    }
}

/// One peer that is known and not connected: what was tried, what failed, what comes next.
#[derive(Debug, Serialize)]
pub(crate) struct Dial {
    /// Its key, or the name it was found by.
    pub(crate) peer: String,
    pub(crate) state: &'static str,
    /// Dials that have ended since one lasted.
    pub(crate) attempts: u32,
    pub(crate) paths: Vec<Path>,
    /// Why the last dial failed.
    pub(crate) reason: Option<String>,
    /// About how soon after that it is dialled again, in seconds.
    pub(crate) retry: Option<f64>,
    /// Whether only a blind relay can help.
    pub(crate) needs_relay: bool,
    /// What happens next, or what to do.
    pub(crate) next: String,
}

/// One path of a dial.
#[derive(Debug, Serialize)]
pub(crate) struct Path {
    /// Its kind, and the address where it has one: `lan 192.168.1.7:4000`, `direct`, `punched`, `relayed`.
    pub(crate) path: String,
    pub(crate) reason: Option<String>,
}

impl Event for Dial {
    const NAME: &'static str = "dial";

    fn words(&self) -> Option<String> {
        let paths = self.paths.iter().map(|path| match &path.reason {
            Some(reason) => format!("{} ({reason})", path.path),
            None => path.path.clone(),
        });
        let paths: Vec<_> = paths.collect();
        let tried = match paths.is_empty() {
            true => "nothing tried yet".to_owned(),
            false => format!("tried {}", paths.join(", ")),
        };
        let reason = self.reason.as_ref().map(|reason| format!("; {reason}"));
        let (peer, next) = (&self.peer, &self.next);
        Some(format!(
            "dial {peer} {tried}{}; {next}",
            reason.unwrap_or_default()
        ))
    }
}
