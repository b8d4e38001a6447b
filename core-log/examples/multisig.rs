//! Two of three people append to a core that none of them can write alone, and a reader takes nothing less.
//!
//! Usage: cargo run -p ferrocore-log --example multisig

use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, CoreError, CoreOptions, Corestore, Manifest};
use ferrocore_primitives::sign::KeyPair;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let people: Vec<KeyPair> = (0..3).map(|_| KeyPair::generate()).collect();
    let manifest = people
        .iter()
        .fold(Manifest::builder(), |builder, one| {
            builder.signer(one.public_key())
        })
        .quorum(2)
        .build()?;
    let core = Corestore::memory().get_with(CoreOptions {
        manifest: Some(manifest),
        ..CoreOptions::default()
    })?;
    println!("a core of three signers: {}", core.key());

    // Anybody may propose. Each signs where the secret lives, and sends back its part.
    let proposal = core.propose(vec!["we agree".into()])?;
    let first = proposal.sign(&people[0])?;
    let alone = proposal.assemble(&[first]);
    match core.append_signed(proposal.clone(), &alone) {
        Err(CoreError::Signature { .. }) => println!("one signature is not enough"),
        other => return Err(format!("one of two appended: {other:?}").into()),
    }
    let third = proposal.sign(&people[2])?;
    let signature = proposal.assemble(&[first, third]);
    let appended = core.append_signed(proposal, &signature)?;
    println!("two are: the log has {} block", appended.length);

    let reader = reader_of(&core)?;
    assert_eq!(reader.tree_hash(), core.tree_hash());
    println!("a reader that knows the key alone has verified both");

    // Cutting the log takes the same quorum.
    let proposal = core.propose_truncate(0, None)?;
    let parts = [proposal.sign(&people[1])?, proposal.sign(&people[2])?];
    let signature = proposal.assemble(&parts);
    core.truncate_signed(proposal, &signature)?;
    println!("cut to {} blocks under fork {}", core.length(), core.fork());
    Ok(())
}

/// A core in another store that has verified what `core` has.
fn reader_of(core: &Core) -> Result<Core, Box<dyn std::error::Error>> {
    let reader = Corestore::memory().get(&core.key())?;
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: core.length(),
        }),
        manifest: true,
        ..ProofRequest::default()
    };
    let proof = core.prove(&request)?.ok_or("nothing to prove")?;
    reader.accept(proof)?;
    Ok(reader)
}
