//! Sleep and travel: what a swarm does when its program is to rest, and when the machine is on another network.
//! Knows the order of `hyperswarm` 4.17 (`suspend`, `resume`, `_handleNetworkChange`). Does not know topics or transports
//! from within.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::events::SwarmEvent;
use super::shared::Shared;
use crate::Topic;
use crate::limits::{ADDRESSES_SETTLE, SUSPEND_TIMEOUT};
use crate::surroundings::Addresses;
use crate::transport::{ListenError, Transport};

impl Shared {
    /// Ends searches, dials and connections, takes announcements back, then puts the transports to sleep.
    pub(super) async fn suspend(self: &Arc<Self>) {
        let searches = {
            let mut state = self.lock();
            if std::mem::replace(&mut state.is_suspended, true) {
                return;
            }
            state.roster.rest();
            for open in state.open.values() {
                open.control.close();
            }
            let topics = state.topics.values_mut();
            topics.map(|joined| joined.rest()).collect()
        };
        self.stir();
        timeout(SUSPEND_TIMEOUT, self.fall_silent(searches))
            .await
            .ok();
        for transport in &self.transports {
            transport.suspend().await;
        }
        self.tell(SwarmEvent::Suspended);
    }

    /// Waits for searches to end before what they announced is taken back.
    async fn fall_silent(self: &Arc<Self>, searches: Vec<(Topic, JoinSet<()>)>) {
        let mut topics = Vec::new();
        for (topic, mut tasks) in searches {
            while tasks.join_next().await.is_some() {}
            topics.push(topic);
        }
        self.take_back_all(topics).await;
    }

    /// Undoes it, in the other order.
    pub(super) async fn resume(self: &Arc<Self>) -> Result<(), ListenError> {
        if !self.lock().is_suspended {
            return Ok(());
        }
        for transport in &self.transports {
            transport.resume().await?;
        }
        {
            let mut state = self.lock();
            state.is_suspended = false;
            state.roster.wake();
            for joined in state.topics.values_mut() {
                joined.search(self);
            }
        }
        self.tell(SwarmEvent::Resumed);
        self.stir();
        Ok(())
    }

    /// Lets go of connections that cannot survive, and looks everything up and announces it anew.
    fn network_changed(&self, addresses: &Addresses) {
        {
            let state = self.lock();
            if state.is_suspended {
                return;
            }
            for open in state.open.values() {
                if open.bound_to.is_some_and(|own| !addresses.contain(own)) {
                    open.control.close();
                }
            }
        }
        self.tell(SwarmEvent::NetworkChanged);
        self.refresh();
    }
}

/// Looks out for another network. Runs until it is aborted.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut disruptions = JoinSet::new();
    for transport in &shared.transports {
        disruptions.spawn(disrupted(Arc::clone(transport)));
    }
    let mut addresses = Addresses::now();
    loop {
        tokio::select! {
            () = addresses.changed() => {}
            Some(Ok(transport)) = disruptions.join_next() => {
                // Whoever else notices does so in the same moment.
                sleep(ADDRESSES_SETTLE).await;
                let mut noticed = vec![transport];
                while let Some(Ok(transport)) = disruptions.try_join_next() {
                    noticed.push(transport);
                }
                for transport in noticed {
                    disruptions.spawn(disrupted(transport));
                }
                addresses = Addresses::now();
            }
        }
        shared.network_changed(&addresses);
    }
}

async fn disrupted(transport: Arc<dyn Transport>) -> Arc<dyn Transport> {
    transport.disrupted().await;
    transport
}
