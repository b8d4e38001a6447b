//! Telling whether others can find what is served by its key alone.
//! Knows how searches of the swarm stand. Does not know what is served.

use std::collections::{BTreeSet, HashSet};

use ferrocore::DiscoveryKey;
use ferrocore::swarm::{SearchState, SwarmEvent, Topic};

use crate::context::Context;
use crate::events::Announced;
use crate::exit::Result;

/// Tells by which discoveries all of these cores are found, of each as soon as it is so: one may take long that leads
/// nowhere from here. If none does, says that. Ends only with a failure.
pub(super) async fn report_announced(
    context: &Context,
    cores: impl IntoIterator<Item = DiscoveryKey>,
) -> Result<()> {
    let Some(swarm) = context.store.node.swarm() else {
        return std::future::pending().await;
    };
    let mut announcing = Announcing::new(cores);
    // Before the look at how it stands, so that nothing is missed.
    let mut events = swarm.events();
    loop {
        let status = swarm.status();
        let topics = status.topics.iter();
        let topics = topics.map(|topic| (topic.topic, topic.searches.as_slice()));
        if let Some(news) = announcing.note(topics) {
            context.output().report(&news).await?;
        }
        loop {
            match events.next().await {
                Some(SwarmEvent::Searched { .. } | SwarmEvent::SearchFailed { .. }) => break,
                Some(_) => {}
                None => return std::future::pending().await,
            }
        }
    }
}

/// What is known, and what has been told.
#[derive(Debug, Default)]
struct Announcing {
    topics: HashSet<Topic>,
    /// Who knows which topic; that it is announced again changes nothing.
    done: HashSet<(Topic, &'static str)>,
    told: Option<BTreeSet<&'static str>>,
}

impl Announcing {
    fn new(cores: impl IntoIterator<Item = DiscoveryKey>) -> Self {
        Self {
            topics: cores.into_iter().map(Topic::from).collect(),
            ..Self::default()
        }
    }

    /// Takes in how searches stand, also of other topics; returns what is news.
    fn note<'a>(
        &mut self,
        topics: impl Iterator<Item = (Topic, &'a [(&'static str, SearchState)])>,
    ) -> Option<Announced> {
        let (mut joined, mut is_settled) = (0, true);
        for (topic, searches) in topics {
            if !self.topics.contains(&topic) {
                continue;
            }
            joined += 1;
            for (name, state) in searches {
                match state {
                    SearchState::Done => _ = self.done.insert((topic, name)),
                    SearchState::Failed(_) => {}
                    _ => is_settled = false,
                }
            }
        }
        let by = self.by();
        let is_news = match &self.told {
            None => !by.is_empty() || is_settled && joined == self.topics.len(),
            Some(told) => !by.is_subset(told),
        };
        is_news.then(|| {
            self.told = Some(by.clone());
            let by = by.into_iter().collect();
            Announced { by }
        })
    }

    /// The discoveries that know every topic.
    fn by(&self) -> BTreeSet<&'static str> {
        let names: BTreeSet<_> = self.done.iter().map(|(_, name)| *name).collect();
        let knows_all = |name: &&'static str| {
            let mut topics = self.topics.iter();
            topics.all(|topic| self.done.contains(&(*topic, *name)))
        };
        names.into_iter().filter(knows_all).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::SearchState::{Done, Failed, Searching};
    use super::*;

    /// What is told when the searches of the first two topics stand so.
    fn told(
        announcing: &mut Announcing,
        searches: [&[(&'static str, SearchState)]; 2],
    ) -> Option<Vec<&'static str>> {
        let topics = searches.into_iter().zip([1, 2]);
        let topics = topics.map(|(searches, byte)| (Topic::from([byte; 32]), searches));
        announcing.note(topics).map(|news| news.by)
    }

    fn cores(bytes: &[u8]) -> Announcing {
        Announcing::new(bytes.iter().map(|byte| DiscoveryKey::from([*byte; 32])))
    }

    #[test]
    fn each_discovery_is_told_once_it_knows_every_core() {
        let mut both = cores(&[1, 2]);
        let waiting = [("lan", Searching), ("dht", Searching)];
        let by_lan = [("lan", Done), ("dht", Searching)];
        assert_eq!(told(&mut both, [&waiting, &waiting]), None);
        assert_eq!(told(&mut both, [&by_lan, &waiting]), None);
        // Announced again already, which is no step back.
        assert_eq!(told(&mut both, [&waiting, &by_lan]), Some(vec!["lan"]));
        assert_eq!(told(&mut both, [&by_lan, &by_lan]), None);
        let by_all = [("lan", Done), ("dht", Done)];
        let all = Some(vec!["dht", "lan"]);
        assert_eq!(told(&mut both, [&by_all, &by_all]), all);
        assert_eq!(told(&mut both, [&waiting, &by_all]), None);
    }

    #[test]
    fn that_nobody_finds_it_is_told_once_all_have_failed_and_taken_back_later() {
        let failed = [("lan", Failed("no".into())), ("dht", Failed("no".into()))];
        let half = [("lan", Failed("no".into())), ("dht", Searching)];
        assert_eq!(
            told(&mut cores(&[1, 3]), [&failed, &failed]),
            None,
            "3 is not joined yet"
        );
        let mut one = cores(&[1]);
        assert_eq!(told(&mut one, [&half, &failed]), None);
        assert_eq!(told(&mut one, [&failed, &half]), Some(vec![]));
        assert_eq!(told(&mut one, [&failed, &half]), None);
        let by_dht = [("lan", Failed("no".into())), ("dht", Done)];
        assert_eq!(told(&mut one, [&by_dht, &half]), Some(vec!["dht"]));
    }
}
