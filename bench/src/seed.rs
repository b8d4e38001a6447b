//! A peer that serves a computed core on loopback.
//! Knows sockets. Does not know what is measured against it.

use bytes::Bytes;
use ferrocore_log::{Corestore, StoreOptions};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::session::SessionOptions;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::uniform::Uniform;

/// Serves a core of `length` equal blocks to whoever dials, for as long as it lives.
pub(crate) struct Seed {
    pub(crate) key: Key,
    pub(crate) port: u16,
    _runtime: Runtime,
}

impl Seed {
    pub(crate) fn serve(length: u64, block_bytes: usize) -> Self {
        let uniform = Uniform::new(length, Bytes::from(vec![7; block_bytes]));
        let key = uniform.key();
        let store = Corestore::with_storage(uniform, StoreOptions::default());
        let store = store.expect("a computed store has a root secret");
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("the system has a thread left");
        let port = runtime.block_on(listen(store)).expect("loopback is there");
        Self {
            key,
            port,
            _runtime: runtime,
        }
    }
}

/// Serves `store` on a free port of loopback, in a task of its own.
pub(crate) async fn listen(store: Corestore) -> std::io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(serve(listener, store));
    Ok(port)
}

async fn serve(listener: TcpListener, store: Corestore) {
    let (pair, mut sessions) = (KeyPair::generate(), Vec::new());
    while let Ok((socket, _)) = listener.accept().await {
        let options = Options::default();
        if socket.set_nodelay(true).is_err() {
            continue;
        }
        let stream = SecretStream::handshake(socket, Role::Responder, &pair, options).await;
        // Whoever fails is a contender, and says so.
        if let Ok(stream) = stream {
            let options = SessionOptions::default();
            sessions.push(Session::spawn(stream, store.clone(), options));
        }
    }
}
