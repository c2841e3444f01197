//! The places with tasks that wait, go and come.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;

/// All that can happen has happened.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_crowd_of_one_owner_keeps_another_waiting_for_one_start_at_most() {
    let admission = Admission::new(1);
    let first = admission.place("crowd", admission.arrival()).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let owners = [["crowd"; 60].as_slice(), &["other"; 3]].concat();
    for owner in owners {
        let (admission, order) = (admission.clone(), order.clone());
        tokio::spawn(async move {
            let place = admission.place(owner, admission.arrival()).await.unwrap();
            order.lock().unwrap().push(owner);
            drop(place);
        });
        settle().await;
    }
    assert_eq!(admission.standing().waiting, 63);
    drop(first);
    while admission.standing().taken + admission.standing().waiting > 0 {
        tokio::task::yield_now().await;
    }
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 63);
    assert_eq!(
        order[..6],
        ["crowd", "other", "crowd", "other", "crowd", "other"]
    );
}

#[tokio::test]
async fn who_gives_up_leaves_and_loses_no_place() {
    let admission = Admission::new(1);
    let first = admission.place("a", admission.arrival()).await.unwrap();
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let admission = admission.clone();
            tokio::spawn(async move { admission.place("a", admission.arrival()).await })
        })
        .collect();
    settle().await;
    for task in &waiting[..9] {
        task.abort();
    }
    settle().await;
    assert_eq!(admission.standing().waiting, 1);
    // It has been told, and goes before it hears.
    drop(first);
    waiting[9].abort();
    settle().await;
    let standing = admission.standing();
    // It may have heard: then its answer lies with its task.
    drop(waiting);
    settle().await;
    assert_eq!(standing.waiting, 0);
    assert_eq!(admission.standing().taken, 0);
    assert!(admission.lock().take());
}

#[tokio::test]
async fn a_turn_ends_by_itself_and_is_had_once() {
    let admission = Admission::new(1);
    let turn = Turn::new(&admission);
    turn.come("a").await.unwrap();
    turn.come("a").await.unwrap();
    assert_eq!(admission.standing().taken, 1);
    let began = turn.begun().unwrap();
    let end = turn.relieve(began).unwrap();
    assert!(end > began);
    assert_eq!(admission.standing().taken, 1);
    assert_eq!(turn.relieve(end), None);
    assert_eq!(admission.standing().taken, 0);
    assert_eq!(turn.begun(), Some(began));
}

#[tokio::test]
async fn fewer_places_hold_back_and_more_let_go() {
    let admission = Admission::new(4);
    admission.set_places(0);
    let first = admission.place("a", admission.arrival()).await.unwrap();
    let second = {
        let admission = admission.clone();
        tokio::spawn(async move { admission.place("a", admission.arrival()).await })
    };
    settle().await;
    let standing = admission.standing();
    assert_eq!((standing.places, standing.waiting), (1, 1));
    admission.set_places(100);
    let second = tokio::time::timeout(Duration::from_secs(60), second)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(admission.standing().places, 4);
    drop((first, second));
    assert_eq!(admission.standing().taken, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_pause_between_starts_is_told_after_it() {
    const LONG: Duration = Duration::from_millis(10);
    let admission = Admission::new(2);
    // At once: there has been none as yet.
    admission.quiet(LONG).await;
    let first = admission.place("a", admission.arrival()).await.unwrap();
    let second = admission.place("b", admission.arrival()).await.unwrap();
    let waits = {
        let admission = admission.clone();
        tokio::spawn(async move { admission.quiet(LONG).await })
    };
    settle().await;
    drop(first);
    tokio::time::sleep(LONG * 2).await;
    assert!(!waits.is_finished());
    drop(second);
    tokio::time::sleep(LONG / 2).await;
    assert!(!waits.is_finished(), "half the pause");
    // One that comes and goes in the middle of it.
    drop(admission.place("a", admission.arrival()).await.unwrap());
    tokio::time::sleep(LONG * 3 / 4).await;
    assert!(!waits.is_finished(), "the pause begins anew");
    tokio::time::sleep(LONG / 2).await;
    assert!(waits.is_finished());
}
