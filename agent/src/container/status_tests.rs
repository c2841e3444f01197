//! What an init says of its end.
#![allow(clippy::unwrap_used)]

use shim::protocol::Failure;

use super::*;

#[tokio::test]
async fn a_failure_is_told_whatever_was_left_unread() {
    let (ours, theirs) = status_socket().unwrap();
    // What follows its request, which it does not come to.
    packet::send_now(ours.get_ref(), b"join", &[]).unwrap();
    let failure = Failure {
        step: "accept so many mounts".into(),
        object: "49".into(),
        errno: libc::EINVAL,
    };
    let report = postcard::to_stdvec(&Report::Failed(failure)).unwrap();
    packet::send_now(&theirs, &report, &[]).unwrap();
    drop(theirs);
    let error = wait_for_exec(&ours).await.unwrap_err().to_string();
    assert!(error.contains("cannot accept so many mounts 49"), "{error}");
}

#[tokio::test]
async fn an_end_without_a_word_is_an_end() {
    let (ours, theirs) = status_socket().unwrap();
    packet::send_now(ours.get_ref(), b"join", &[]).unwrap();
    drop(theirs);
    let error = wait_for_exec(&ours).await.unwrap_err().to_string();
    assert!(error.contains("ended before it could say why"), "{error}");
}
