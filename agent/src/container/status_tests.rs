//! What an init says of its end.
#![allow(clippy::unwrap_used)]

use shim::protocol::Failure;

use super::*;

#[tokio::test]
async fn a_failure_is_told() {
    let (ours, theirs) = status_socket().unwrap();
    let failure = Failure {
        step: "accept so many mounts".into(),
        object: "49".into(),
        errno: libc::EINVAL,
    };
    for report in [Report::Command, Report::Failed(failure)] {
        packet::send_now(&theirs, &postcard::to_stdvec(&report).unwrap(), &[]).unwrap();
    }
    drop(theirs);
    let mut executing = Executing::new(ours);
    let own = i32::try_from(std::process::id()).unwrap();
    assert_eq!(executing.main_pid().await.unwrap(), own);
    let error = executing.wait().await.unwrap_err().to_string();
    assert!(error.contains("cannot accept so many mounts 49"), "{error}");
}

#[tokio::test]
async fn an_end_without_a_word_is_an_end() {
    let (ours, theirs) = status_socket().unwrap();
    drop(theirs);
    let error = Executing::new(ours).wait().await.unwrap_err().to_string();
    assert!(error.contains("ended before it could say why"), "{error}");
}
