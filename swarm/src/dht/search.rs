//! A query under way in its owner's hands.
//! Knows how to wait. Does not know what is asked.

use std::sync::Arc;

use ferrocore_dht::rpc::{Outcome, QueryId, Response};
use tokio::sync::mpsc;

use super::DhtError;
use super::shared::{Found, Shared};

/// A query under way. Dropped, it is given up.
#[derive(Debug)]
pub struct Search {
    shared: Arc<Shared>,
    id: QueryId,
    found: mpsc::UnboundedReceiver<Found>,
    ended: Option<Result<Outcome, DhtError>>,
}

/// A query for something: answers without it are passed over.
#[derive(Debug)]
pub struct Finding<T> {
    search: Search,
    read: fn(&Response) -> Option<T>,
}

impl Search {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: QueryId,
        found: mpsc::UnboundedReceiver<Found>,
    ) -> Self {
        Self {
            shared,
            id,
            found,
            ended: None,
        }
    }

    /// The next answer; `None` once the query is over.
    pub async fn next(&mut self) -> Option<Response> {
        if self.ended.is_some() {
            return None;
        }
        match self.found.recv().await {
            Some(Found::Response(response)) => return Some(response),
            Some(Found::End(result)) => self.ended = Some(result.map_err(DhtError::from)),
            None => self.ended = Some(Err(DhtError::Closed)),
        }
        None
    }

    /// Waits for the end, and returns the answers of the closest nodes.
    ///
    /// # Errors
    /// [`DhtError::Request`] if the node was put to sleep, [`DhtError::Closed`].
    pub async fn finish(mut self) -> Result<Outcome, DhtError> {
        while self.next().await.is_some() {}
        self.ended.take().unwrap_or(Err(DhtError::Closed))
    }

    pub(super) fn reading<T>(self, read: fn(&Response) -> Option<T>) -> Finding<T> {
        Finding { search: self, read }
    }
}

impl<T> Finding<T> {
    /// The next answer with something in it; `None` once the query is over.
    pub async fn next(&mut self) -> Option<(Response, T)> {
        loop {
            let response = self.search.next().await?;
            if let Some(found) = (self.read)(&response) {
                return Some((response, found));
            }
        }
    }

    /// Waits for the end, and returns the answers of the closest nodes, with and without something in them.
    ///
    /// # Errors
    /// As [`Search::finish`].
    pub async fn finish(self) -> Result<Outcome, DhtError> {
        self.search.finish().await
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.shared.cancel_query(self.id);
        }
    }
}
