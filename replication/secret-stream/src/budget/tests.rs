use std::collections::VecDeque;

use tokio::time::Instant;

use super::room::LOOK_INTERVAL;
use super::tempo::{AT_LEISURE, HURRIED};
use super::*;

#[tokio::test(start_paused = true)]
async fn room_is_given_in_order_and_comes_back() {
    let budget = FrameBudget::new(0);
    let first = budget.room(FRAME_LEN_MAX).await.unwrap();
    assert!(!budget.is_crowded());
    let second = budget.clone();
    let second = tokio::spawn(async move { second.room(5000).await.unwrap() });
    tokio::task::yield_now().await;
    assert!(budget.is_crowded());
    drop(first);
    let second = second.await.unwrap();
    assert_eq!(budget.held(), 5 * UNIT);
    drop(second);
    assert_eq!(budget.held(), 0);
    assert!(!budget.is_crowded());
}

async fn wait_beside(budget: &FrameBudget) -> tokio::task::JoinHandle<()> {
    let budget = budget.clone();
    let waiting = tokio::spawn(async move { drop(budget.room(1).await) });
    tokio::task::yield_now().await;
    waiting
}

/// Moves so many bytes each second; returns after how many seconds the room was to be given back, if it was within `seconds`.
async fn ends_at(room: &FrameRoom, bytes_a_second: u64, seconds: u64) -> Option<u64> {
    for second in 0..seconds {
        if room.check().is_err() {
            return Some(second);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        room.moved(bytes_a_second);
    }
    None
}

#[tokio::test(start_paused = true)]
async fn room_is_held_for_as_long_as_something_moves() {
    let budget = FrameBudget::new(0);
    let room = budget.room(FRAME_LEN_MAX).await.unwrap();
    assert_eq!(
        ends_at(&room, AT_LEISURE.bytes_a_second, 10_000).await,
        None
    );
    let still = AT_LEISURE.still.as_secs();
    assert_eq!(ends_at(&room, 0, 1000).await, Some(still));
}

#[tokio::test(start_paused = true)]
async fn who_holds_room_has_to_hurry_while_others_wait() {
    let rate = HURRIED.bytes_a_second;
    let still = HURRIED.still.as_secs();
    let cases = [(0, Some(still)), (rate / 2, Some(2 * still)), (rate, None)];
    for (bytes_a_second, ends) in cases {
        let budget = FrameBudget::new(0);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        let waiting = wait_beside(&budget).await;
        assert_eq!(ends_at(&room, bytes_a_second, 1000).await, ends);
        waiting.abort();
        let _ = waiting.await;
        room.check().unwrap();
    }
}

/// Goal: nobody is held to what nobody asked of him at the time. Method: a slow one holds room for minutes; then somebody
/// waits, and it stands still, or goes on, or begins to hurry.
#[tokio::test(start_paused = true)]
async fn who_was_slow_before_anybody_waited_has_time_to_hurry() {
    let rate = HURRIED.bytes_a_second;
    let still = HURRIED.still.as_secs();
    for (then, ends) in [(0, Some(still)), (rate / 2, Some(2 * still)), (rate, None)] {
        let budget = FrameBudget::new(0);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        // Somebody else did, long before.
        let waiting = wait_beside(&budget).await;
        waiting.abort();
        waiting.await.unwrap_err();
        assert_eq!(ends_at(&room, AT_LEISURE.bytes_a_second, 150).await, None);
        let _waiting = wait_beside(&budget).await;
        assert_eq!(ends_at(&room, then, 200).await, ends);
    }
}

/// Goal: who stands still has the less time the more wait for it, but not on account of those who went away. Method: a crowd
/// begins to wait, and all but one hang up.
#[tokio::test(start_paused = true)]
async fn a_crowd_that_hung_up_hurries_nobody() {
    for (hangs_up, ends) in [(false, 2), (true, HURRIED.still.as_secs())] {
        let budget = FrameBudget::new(0);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        let wait = |budget: FrameBudget| async move { budget.room_at_last(FRAME_LEN_MAX).await };
        let crowd: Vec<_> = (0..60)
            .map(|_| tokio::spawn(wait(budget.clone())))
            .collect();
        let _one = wait_beside(&budget).await;
        if hangs_up {
            crowd.iter().for_each(|waiting| waiting.abort());
            for waiting in crowd {
                waiting.await.unwrap_err();
            }
        }
        assert_eq!(ends_at(&room, 0, 100).await, Some(ends));
    }
}

/// Goal: a limit of one's own lets nobody have room for ever while others wait. Method: one that moves what is asked of one of many.
#[tokio::test(start_paused = true)]
async fn a_limit_of_ones_own_is_no_reason_to_hold_room_for_ever() {
    const PACE: u64 = 100_000;
    let budget = FrameBudget::new(0).at_pace(PACE);
    let room = budget.room(FRAME_LEN_MAX).await.unwrap();
    let wait = |budget: FrameBudget| async move { budget.room_at_last(FRAME_LEN_MAX).await };
    let _waiting = tokio::spawn(wait(budget.clone()));
    tokio::task::yield_now().await;
    let most = budget.own_time() + HURRIED.time_for(FRAME_LEN_MAX);
    let ends = ends_at(&room, PACE / STREAMS_AT_PACE + 1, 10_000).await;
    assert_eq!(ends, Some(most.as_secs() + 1));
}

/// Goal: a crowd hurries those who stand still for as long as it takes to serve it, however long others come one by one after it.
#[tokio::test(start_paused = true)]
async fn a_crowd_is_forgotten_though_the_line_never_ends() {
    let budget = FrameBudget::new(0);
    let mut room = budget.room(FRAME_LEN_MAX).await.unwrap();
    let wait = |budget: FrameBudget| async move { budget.room_at_last(FRAME_LEN_MAX).await };
    let mut line: VecDeque<_> = (0..40)
        .map(|_| tokio::spawn(wait(budget.clone())))
        .collect();
    tokio::task::yield_now().await;
    for served in 0..300 {
        if served == 20 {
            let of_crowd = WAIT_TARGET.as_secs() / 40;
            assert_eq!(ends_at(&room, 0, 100).await, Some(of_crowd), "of the crowd");
        }
        tokio::time::advance(Duration::from_millis(2900)).await;
        if served >= 38 {
            line.push_back(tokio::spawn(wait(budget.clone())));
            tokio::task::yield_now().await;
        }
        drop(room);
        room = line.pop_front().unwrap().await.unwrap();
        assert!(budget.is_crowded());
    }
    assert_eq!(ends_at(&room, 0, 100).await, Some(HURRIED.still.as_secs()));
}

/// Goal: who stands still has no time for it anew each time somebody begins to wait. Method: the others are served in between,
/// each after a second, by what is left.
#[tokio::test(start_paused = true)]
async fn who_stands_still_is_found_out_though_others_are_served() {
    let budget = FrameBudget::new(0);
    let stalled = budget.room(FRAME_LEN_MAX / 2).await.unwrap();
    for second in 0.. {
        let other = budget.room(FRAME_LEN_MAX / 2).await.unwrap();
        let waiting = wait_beside(&budget).await;
        if stalled.check().is_err() {
            assert_eq!(second, HURRIED.still.as_secs());
            return;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(other);
        waiting.await.unwrap();
        assert!(!budget.is_crowded() && second < 100);
    }
}

/// Goal: a crowd of slow ones gets what it waits for, however many they are: who is cut off has moved in vain, and comes again.
/// Method: forty, of which one at a time has room for minutes.
#[tokio::test(start_paused = true)]
async fn a_crowd_gets_done_one_after_the_other() {
    let budget = FrameBudget::new(0);
    let load = |budget: FrameBudget| async move {
        let room = budget.room_at_last(FRAME_LEN_MAX).await;
        let seconds = FRAME_LEN_MAX as u64 / HURRIED.bytes_a_second;
        assert_eq!(ends_at(&room, HURRIED.bytes_a_second, seconds).await, None);
    };
    let crowd: Vec<_> = (0..40)
        .map(|_| tokio::spawn(load(budget.clone())))
        .collect();
    for loading in crowd {
        loading.await.unwrap();
    }
    assert_eq!(budget.held(), 0);
}

/// Goal: time in which our own machine stood still is held against nobody, but buys no time to stand still. Method: nobody
/// looks for a while, and then each second.
#[tokio::test(start_paused = true)]
async fn what_nobody_looked_at_is_our_own_time() {
    for unseen in [1, 9, 11, 200] {
        let budget = FrameBudget::new(0);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        let _waiting = wait_beside(&budget).await;
        assert_eq!(ends_at(&room, 0, 5).await, None);
        tokio::time::advance(Duration::from_secs(unseen)).await;
        let ends = ends_at(&room, 0, 100).await.unwrap();
        let left = HURRIED.still.as_secs() - 5;
        let held_against = unseen.min((2 * LOOK_INTERVAL).as_secs());
        assert_eq!(ends, left - held_against, "{unseen} s");
    }
}

#[tokio::test(start_paused = true)]
async fn what_moved_at_once_buys_no_time_to_stand_still() {
    let budget = FrameBudget::new(0);
    let room = budget.room(FRAME_LEN_MAX).await.unwrap();
    room.moved(FRAME_LEN_MAX as u64 - 1);
    let _waiting = wait_beside(&budget).await;
    let still = HURRIED.still.as_secs();
    assert_eq!(ends_at(&room, 0, 1000).await, Some(still));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_ones_own_slows_nobody_who_moves_and_excuses_nobody_who_stalls() {
    const PACE: u64 = 100_000;
    for (bytes_a_second, ends) in [(0, Some(HURRIED.still.as_secs())), (PACE / 3, None)] {
        let budget = FrameBudget::new(0).at_pace(PACE);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        let _waiting = wait_beside(&budget).await;
        let seconds = FRAME_LEN_MAX as u64 / PACE + WAIT_TARGET.as_secs();
        assert_eq!(ends_at(&room, bytes_a_second, seconds).await, ends);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let budget = FrameBudget::new(0);
    let _held = budget.room(FRAME_LEN_MAX).await.unwrap();
    let refused = budget.room(1).await.unwrap_err();
    assert!(matches!(refused, StreamError::NoRoom { len: 1 }));
    assert!(!budget.is_crowded());
}

/// Goal: a hundred that take room and stall do not keep one who came last waiting for longer than it may; and who
/// sends less does not wait for them at all.
#[tokio::test(start_paused = true)]
async fn many_that_stall_hold_up_nobody_for_long() {
    let budget = FrameBudget::new(FRAME_BUDGET / 2);
    let stall = |budget: FrameBudget| async move {
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        while room.check().is_ok() {
            tokio::time::sleep_until(room.next_check()).await;
        }
    };
    let stalling: Vec<_> = (0..100)
        .map(|_| tokio::spawn(stall(budget.clone())))
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(budget.is_crowded());
    let start = Instant::now();
    drop(budget.room(SMALL_FRAME_LEN).await.unwrap());
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(budget.room(FRAME_LEN_MAX).await.unwrap());
    let waited = start.elapsed();
    assert!(waited <= 2 * WAIT_TARGET, "{waited:?}");
    assert!(2 * WAIT_TARGET < ROOM_TIMEOUT);
    for stalling in stalling {
        stalling.await.unwrap();
    }
}
