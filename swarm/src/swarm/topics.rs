//! Topics: who joined them, and the lookups that go on meanwhile.
//! Knows sessions, refreshes and pauses. Does not know how a discovery finds anybody.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ferrocore_primitives::random;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::JoinOptions;
use super::events::{SearchState, SwarmEvent, TopicStatus};
use super::shared::Shared;
use crate::Topic;
use crate::discovery::{Discovery, DiscoveryError, Finder, Interest};
use crate::limits::{
    DESERTED_PAUSE, LEAVE_TIMEOUT, LEAVING_MAX, REFRESH_INTERVAL, REFRESH_JITTER, REFRESH_RETRY,
};
use crate::rng::Rng;

/// A topic that at least one session holds.
pub(super) struct Joined {
    topic: Topic,
    sessions: HashMap<u64, JoinOptions>,
    /// Changed, every search starts anew: at another interest, or another number, which counts the calls for a refresh.
    wanted: watch::Sender<(Interest, u64)>,
    /// What each search came to, for the number it was asked for.
    searches: HashMap<&'static str, (SearchState, u64)>,
    /// Told when the last peer found under the topic is gone, or does not answer.
    deserted: Arc<Notify>,
    /// Dropped, they end.
    tasks: JoinSet<()>,
    /// For the tasks of leaving it, which may begin where there is no runtime.
    runtime: Handle,
}

impl Joined {
    fn interest(sessions: &HashMap<u64, JoinOptions>) -> Interest {
        Interest {
            server: sessions.values().any(|session| session.server),
            client: sessions.values().any(|session| session.client),
        }
    }

    /// How many may be dialled who are found; `None` if nobody is to be found.
    pub(super) fn client_limit(&self) -> Option<usize> {
        let clients = self.sessions.values().filter(|session| session.client);
        clients
            .map(|session| session.limit.unwrap_or(usize::MAX))
            .max()
    }

    /// Whether every search is done that was asked for.
    pub(super) fn is_settled(&self) -> bool {
        let (_, wanted) = *self.wanted.borrow();
        let mut searches = self.searches.values();
        searches.all(|(state, number)| *number == wanted && *state != SearchState::Searching)
    }

    pub(super) fn status(&self) -> TopicStatus {
        let searches = self.searches.iter();
        TopicStatus {
            topic: self.topic,
            interest: self.wanted.borrow().0,
            searches: searches
                .map(|(name, (state, _))| (*name, state.clone()))
                .collect(),
        }
    }

    /// Ends every search, and returns those that still have to notice.
    pub(super) fn rest(&mut self) -> (Topic, JoinSet<()>) {
        for (state, _) in self.searches.values_mut() {
            *state = SearchState::Suspended;
        }
        let mut tasks = std::mem::take(&mut self.tasks);
        tasks.abort_all();
        (self.topic, tasks)
    }

    /// Starts every search.
    pub(super) fn search(&mut self, shared: &Arc<Shared>) {
        let (_, number) = *self.wanted.borrow();
        for discovery in &shared.discoveries {
            let search = Search {
                shared: Arc::clone(shared),
                discovery: Arc::clone(discovery),
                topic: self.topic,
                deserted: Arc::clone(&self.deserted),
            };
            self.tasks.spawn(search.run(self.wanted.subscribe()));
            let state = (SearchState::Searching, number);
            self.searches.insert(discovery.name(), state);
        }
    }

    /// The last peer found under it is gone: searches need not wait for their next turn.
    pub(super) fn desert(&self) {
        self.deserted.notify_waiters();
    }

    /// Lets every search start anew.
    fn restart(&self) {
        let interest = Self::interest(&self.sessions);
        self.wanted.send_modify(|(wanted, number)| {
            *wanted = interest;
            *number += 1;
        });
    }

    fn restart_if_changed(&self) {
        if self.wanted.borrow().0 != Self::interest(&self.sessions) {
            self.restart();
        }
    }
}

impl Shared {
    /// Adds a session to a topic; the first one starts its searches.
    pub(super) fn join(self: &Arc<Self>, topic: Topic, options: JoinOptions) -> u64 {
        let mut state = self.lock();
        state.next_id += 1;
        let id = state.next_id;
        if let Some(joined) = state.topics.get_mut(&topic) {
            joined.sessions.insert(id, options);
            joined.restart_if_changed();
            return id;
        }
        let sessions = HashMap::from([(id, options)]);
        let mut joined = Joined {
            topic,
            wanted: watch::Sender::new((Joined::interest(&sessions), 0)),
            sessions,
            searches: HashMap::new(),
            deserted: Arc::default(),
            tasks: JoinSet::new(),
            runtime: Handle::current(),
        };
        if !state.is_suspended {
            joined.search(self);
        }
        state.topics.insert(topic, joined);
        id
    }

    /// Ends a session; after the last one of its topic, tells others.
    pub(super) async fn leave(&self, topic: Topic, session: u64) {
        if self.end_session(topic, session).is_some() {
            self.take_back(topic).await;
        }
    }

    /// As [`leave`](Self::leave), without waiting.
    pub(super) fn leave_later(self: &Arc<Self>, topic: Topic, session: u64) {
        if let Some(runtime) = self.end_session(topic, session) {
            let shared = Arc::clone(self);
            runtime.spawn(async move { shared.take_back(topic).await });
        }
    }

    /// Leaves every topic, whoever holds it.
    pub(super) async fn leave_all(self: &Arc<Self>) {
        let topics: Vec<Topic> = {
            let mut state = self.lock();
            let topics = std::mem::take(&mut state.topics);
            topics.into_keys().collect()
        };
        timeout(LEAVE_TIMEOUT, self.take_back_all(topics))
            .await
            .ok();
    }

    /// Takes announcements back, of several topics at once.
    pub(super) async fn take_back_all(self: &Arc<Self>, topics: Vec<Topic>) {
        let mut leaving = JoinSet::new();
        for topic in topics {
            while leaving.len() >= LEAVING_MAX && leaving.join_next().await.is_some() {}
            let shared = Arc::clone(self);
            leaving.spawn(async move { shared.take_back(topic).await });
        }
        while leaving.join_next().await.is_some() {}
    }

    /// Looks everything up and announces it now.
    pub(super) fn refresh(&self) {
        for joined in self.lock().topics.values() {
            joined.restart();
        }
    }

    /// Returns where to go on if it was the topic's last session.
    fn end_session(&self, topic: Topic, session: u64) -> Option<Handle> {
        let mut state = self.lock();
        let joined = state.topics.get_mut(&topic)?;
        joined.sessions.remove(&session)?;
        if !joined.sessions.is_empty() {
            joined.restart_if_changed();
            return None;
        }
        let joined = state.topics.remove(&topic)?;
        state.roster.leave_topic(&topic);
        Some(joined.runtime.clone())
    }

    async fn take_back(&self, topic: Topic) {
        for discovery in &self.discoveries {
            let is_announced_again = {
                let state = self.lock();
                state.topics.contains_key(&topic) && !state.is_suspended
            };
            if !is_announced_again {
                timeout(LEAVE_TIMEOUT, discovery.leave(topic)).await.ok();
            }
        }
        self.stir();
    }
}

/// One discovery of one topic.
struct Search {
    shared: Arc<Shared>,
    discovery: Arc<dyn Discovery>,
    topic: Topic,
    deserted: Arc<Notify>,
}

impl Search {
    /// Searches again and again; ends only by being aborted.
    async fn run(self, mut wanted: watch::Receiver<(Interest, u64)>) {
        let mut rng = Rng::new(random::u64());
        let mut retry = REFRESH_RETRY;
        loop {
            let (interest, number) = *wanted.borrow_and_update();
            self.note(SearchState::Searching, number);
            let finder = self.finder();
            let searched = tokio::select! {
                searched = self.discovery.refresh(interest, finder) => searched,
                changed = wanted.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            let has_failed = searched.is_err();
            self.tell(searched, number, retry);
            let seeks_somebody = || has_failed || interest.client && self.is_alone();
            tokio::select! {
                () = self.rest(seeks_somebody, &mut retry, &mut rng) => {}
                changed = wanted.changed() => match changed {
                    Ok(()) => retry = REFRESH_RETRY,
                    Err(_) => return,
                },
            }
        }
    }

    /// Waits until it is time to search again: soon, and ever later, while the search is in vain, and soon when the last
    /// who was met is gone. Whoever is sought may come after us, or come back under another key, and need
    /// not look for us.
    async fn rest(&self, is_in_vain: impl Fn() -> bool, retry: &mut Duration, rng: &mut Rng) {
        loop {
            let deserted = self.deserted.notified();
            sleep(*retry).await;
            if is_in_vain() {
                *retry = (*retry * 2).min(REFRESH_INTERVAL);
                return;
            }
            *retry = REFRESH_RETRY;
            tokio::select! {
                () = sleep(REFRESH_INTERVAL + rng.up_to(REFRESH_JITTER)) => return,
                () = deserted => {}
            }
            sleep(DESERTED_PAUSE).await;
            if is_in_vain() {
                return;
            }
        }
    }

    /// Whether nobody who was found under the topic is connected.
    fn is_alone(&self) -> bool {
        !self.shared.lock().roster.is_met(&self.topic)
    }

    fn finder(&self) -> Finder {
        let (sender, waiting) = (self.shared.found.clone(), self.shared.found_waiting.clone());
        Finder::new(self.topic, self.discovery.name(), sender, waiting)
    }

    fn tell(&self, searched: Result<(), DiscoveryError>, number: u64, retry_in: Duration) {
        let (topic, discovery) = (self.topic, self.discovery.name());
        match searched {
            Ok(()) => {
                self.note(SearchState::Done, number);
                self.shared.tell(SwarmEvent::Searched { topic, discovery });
            }
            Err(DiscoveryError(reason)) => {
                self.note(SearchState::Failed(reason.clone()), number);
                self.shared.tell(SwarmEvent::SearchFailed {
                    topic,
                    discovery,
                    reason,
                    retry_in,
                });
            }
        }
    }

    fn note(&self, search: SearchState, number: u64) {
        if search == SearchState::Searching {
            let (topic, discovery) = (self.topic, self.discovery.name());
            self.shared.tell(SwarmEvent::Searching { topic, discovery });
        }
        {
            let mut state = self.shared.lock();
            let is_over = state.is_suspended;
            if let Some(joined) = state.topics.get_mut(&self.topic)
                && !is_over
            {
                let (name, search) = (self.discovery.name(), (search, number));
                joined.searches.insert(name, search);
            }
        }
        self.shared.progress.send_replace(());
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status().fmt(f)
    }
}
