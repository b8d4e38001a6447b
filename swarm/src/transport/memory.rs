//! Connections within one process, for tests of swarms on virtual time.
//! Knows pipes. Does not know networks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ferrocore_primitives::sign::KeyPair;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{BoxFuture, DialError, Established, Inbound, ListenError, Paths, Transport, Via};
use crate::target::{Address, Target};

/// How many bytes a pipe holds each way.
const PIPE_BYTES: usize = 64 * 1024;

/// How many dials may wait to be accepted.
const BACKLOG: usize = 256;

/// Whom the swarms of this process can reach.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {
    hosts: Arc<Mutex<HashMap<u64, mpsc::Sender<DuplexStream>>>>,
}

/// One host of a [`MemoryNetwork`].
#[derive(Debug)]
pub struct Memory {
    network: MemoryNetwork,
    number: u64,
    accepted: tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>,
}

impl MemoryNetwork {
    /// A host that is reached at [`Address::Memory`] with its number.
    pub fn host(&self, number: u64) -> Memory {
        let (sender, accepted) = mpsc::channel(BACKLOG);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.insert(number, sender);
        Memory {
            network: self.clone(),
            number,
            accepted: tokio::sync::Mutex::new(accepted),
        }
    }

    fn sender(&self, number: u64) -> Option<mpsc::Sender<DuplexStream>> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(&number).cloned()
    }
}

impl Memory {
    /// Where this host is reached.
    pub fn address(&self) -> Address {
        Address::Memory(self.number)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut hosts = self
            .network
            .hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        hosts.remove(&self.number);
    }
}

impl Transport for Memory {
    fn name(&self) -> &'static str {
        Via::Memory.name()
    }

    fn can_dial(&self, target: &Target) -> bool {
        let mut addresses = target.addresses.iter();
        addresses.any(|address| matches!(address, Address::Memory(_)))
    }

    fn dial<'a>(
        &'a self,
        target: &'a Target,
        key_pair: &'a KeyPair,
        paths: &'a Paths,
    ) -> BoxFuture<'a, Result<Established, DialError>> {
        Box::pin(async move {
            let mut addresses = target.addresses.iter();
            let number = addresses.find_map(|address| match address {
                Address::Memory(number) => Some(*number),
                _ => None,
            });
            let number = number.ok_or(DialError::NoAddress)?;
            paths.trying(Address::Memory(number));
            let host = self.network.sender(number).ok_or(DialError::NoAddress)?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            host.send(far).await.map_err(|_| DialError::NoAddress)?;
            let stream =
                SecretStream::handshake(near, Role::Initiator, key_pair, Options::default())
                    .await?;
            let expected = target.expected_key();
            if expected.is_some_and(|expected| expected != stream.remote_public_key()) {
                return Err(DialError::OtherKey);
            }
            Ok(Established::new(stream, Via::Memory, None))
        })
    }

    fn listen<'a>(
        &'a self,
        key_pair: &'a KeyPair,
        inbound: Inbound,
    ) -> BoxFuture<'a, Result<(), ListenError>> {
        Box::pin(async move {
            let mut handshakes = JoinSet::new();
            let mut accepted = self.accepted.lock().await;
            while let Some(io) = accepted.recv().await {
                while handshakes.try_join_next().is_some() {}
                let (key_pair, inbound) = (key_pair.clone(), inbound.clone());
                handshakes.spawn(async move {
                    let options = Options::default();
                    let role = Role::Responder;
                    let stream = SecretStream::handshake(io, role, &key_pair, options).await;
                    if let Ok(stream) = stream
                        && inbound.admits(&stream.remote_public_key())
                    {
                        let connection = Established::new(stream, Via::Memory, None);
                        inbound.hand_in(connection).await;
                    }
                });
            }
            Ok(())
        })
    }
}
