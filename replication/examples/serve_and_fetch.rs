//! Replicates one core over TCP, with this program or a JavaScript peer at the other end.
//!
//! Usage:
//!   serve_and_fetch serve STORE [COUNT SIZE]     serves a core, first filled with COUNT blocks of SIZE bytes;
//!                                                appends every line of its input
//!   serve_and_fetch fetch STORE KEY ADDRESS      downloads every block of it
//!   serve_and_fetch follow STORE KEY ADDRESS     and those that are appended later, until the peer goes

use std::error::Error;
use std::time::Instant;

use ferrocore_log::{Core, Corestore, StoreOptions};
use ferrocore_primitives::id::parse_key;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::session::SessionOptions;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::net::{TcpListener, TcpStream};

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", store] => serve(store, 0, 0).await,
        ["serve", store, count, size] => serve(store, count.parse()?, size.parse()?).await,
        ["fetch", store, key, address] => fetch(store, key, address, false).await,
        ["follow", store, key, address] => fetch(store, key, address, true).await,
        _ => Err(
            "usage: serve_and_fetch serve STORE [COUNT SIZE] | fetch|follow STORE KEY ADDRESS"
                .into(),
        ),
    }
}

async fn serve(store: &str, count: usize, size: usize) -> Outcome {
    let store = Corestore::open(store, StoreOptions::default())?;
    let core = store.get_named("example")?;
    let batch = ((16 << 20) / size.max(1)).clamp(1, 10_000);
    while (core.length() as usize) < count {
        let missing = count - core.length() as usize;
        core.append_batch(
            (0..missing.min(batch))
                .map(|_| vec![7; size].into())
                .collect(),
        )?;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{} {}", core.key(), listener.local_addr()?);
    std::thread::spawn(move || append_lines(&core));
    let mut sessions = Vec::new();
    loop {
        let (socket, _) = listener.accept().await?;
        sessions.push(session(socket, Role::Responder, &store).await?);
        sessions.retain(|session| !session.is_closed());
    }
}

fn append_lines(core: &Core) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match core.append(line) {
            Ok(appended) => println!("{} blocks", appended.length),
            Err(error) => return eprintln!("{error}"),
        }
    }
}

async fn fetch(store: &str, key: &str, address: &str, follow: bool) -> Outcome {
    let store = Corestore::open(store, StoreOptions::default())?;
    let core = store.get(&parse_key(key)?)?;
    let all = core.download_all();
    let started = Instant::now();
    let session = session(TcpStream::connect(address).await?, Role::Initiator, &store).await?;
    all.caught_up().await?;
    let seconds = started.elapsed().as_secs_f64();
    let stats = session.stats();
    println!(
        "{} blocks, {} bytes in {seconds:.3} s: {stats:?}",
        core.length(),
        core.byte_length()
    );
    let events = core.events();
    while follow && !session.is_closed() {
        tokio::select! {
            event = events.next() => println!("{event:?}"),
            ended = session.closed() => ended?,
        }
    }
    session.close();
    Ok(session.closed().await?)
}

async fn session(
    socket: TcpStream,
    role: Role,
    store: &Corestore,
) -> Result<Session, Box<dyn Error>> {
    socket.set_nodelay(true)?;
    let stream =
        SecretStream::handshake(socket, role, &KeyPair::generate(), Options::default()).await?;
    Ok(Session::spawn(
        stream,
        store.clone(),
        SessionOptions::default(),
    ))
}
