use super::*;
use std::time::Duration;

fn candidate(id: u64, remote_key: PublicKey) -> Candidate<ConnectionId> {
    Candidate {
        id: ConnectionId(id),
        remote_key,
        is_initiator: true,
        handshake_hash: [0; 64],
    }
}

/// Goal: who stopped answering and has come back under its key is met, and not dialled again whenever it is found. Method: its
/// connection falls silent, it is found and dialled, and the new connection takes the place of the silent one.
#[test]
fn who_has_come_back_after_a_silence_is_met() {
    let (us, them) = ([1; 32].into(), [2; 32].into());
    let mut roster = Roster::new(us, RosterLimits::default(), 1);
    let (target, topic) = (Target::key(them), Topic::from_name("one"));
    let mut now = Time::ZERO;
    roster.found(target.clone(), topic);
    assert_eq!(roster.poll_dial(now).as_ref(), Some(&target));
    let verdict = roster.dialled(&target.id, candidate(1, them), now);
    assert_eq!(verdict, Verdict::Only);
    assert!(roster.set_silent(ConnectionId(1), true));
    assert!(!roster.is_met(&topic));

    now += Duration::from_secs(60);
    roster.found(target.clone(), topic);
    assert_eq!(roster.poll_dial(now).as_ref(), Some(&target));
    let verdict = roster.dialled(&target.id, candidate(2, them), now);
    assert_eq!(verdict, Verdict::Replaces(ConnectionId(1)));
    assert!(!roster.closed(ConnectionId(1), now));
    assert!(roster.is_met(&topic));
    roster.found(target, topic);
    assert_eq!(roster.poll_dial(now), None);
}
