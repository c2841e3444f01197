#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::*;

/// Waits for events, at most 5 s.
fn wait(watcher: &mut Watcher) -> Vec<Event> {
    loop {
        let limit = Timespec::try_from(Duration::from_secs(5)).unwrap();
        let mut fds = [PollFd::new(&*watcher, PollFlags::IN)];
        let ready = rustix::event::poll(&mut fds, Some(&limit)).unwrap();
        assert!(ready > 0, "nothing was reported");
        let changes = watcher.read_changes().unwrap();
        if !changes.is_empty() {
            return changes;
        }
    }
}

fn entry(target: Target, name: &str) -> Event {
    Event::Entry(target, name.into())
}

#[test]
fn reports_files_as_they_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let target = watcher.add(dir.path(), Kind::Files).unwrap();
    assert!(watcher.read_changes().unwrap().is_empty());
    let path = dir.path().join("a.toml");

    let file = fs::File::create(&path).unwrap();
    assert!(
        watcher.read_changes().unwrap().is_empty(),
        "a file without content yet is not reported"
    );
    drop(file);
    assert_eq!(wait(&mut watcher), [entry(target, "a.toml")]);
    fs::write(&path, "x").unwrap();
    fs::write(&path, "y").unwrap();
    assert_eq!(
        wait(&mut watcher),
        [entry(target, "a.toml")],
        "each thing once"
    );
    // What editors do: a backup, a new file, a rename over the old one.
    fs::rename(&path, dir.path().join("a.toml~")).unwrap();
    fs::write(dir.path().join(".a.toml.swp"), "z").unwrap();
    fs::rename(dir.path().join(".a.toml.swp"), &path).unwrap();
    assert!(wait(&mut watcher).contains(&entry(target, "a.toml")));
    fs::hard_link(&path, dir.path().join("b.toml")).unwrap();
    assert_eq!(wait(&mut watcher), [entry(target, "b.toml")]);
    std::os::unix::fs::symlink(&path, dir.path().join("c.toml")).unwrap();
    assert_eq!(wait(&mut watcher), [entry(target, "c.toml")]);
    fs::remove_file(&path).unwrap();
    assert_eq!(wait(&mut watcher), [entry(target, "a.toml")]);
    fs::create_dir(dir.path().join("sub")).unwrap();
    assert!(watcher.read_changes().unwrap().is_empty());
}

#[test]
fn reports_directories_only_if_asked_for_these() {
    let dir = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let target = watcher.add(dir.path(), Kind::Directories).unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    fs::create_dir(dir.path().join("a.example")).unwrap();
    assert_eq!(wait(&mut watcher), [entry(target, "a.example")]);
    fs::rename(dir.path().join("a.example"), dir.path().join("b.example")).unwrap();
    assert_eq!(
        wait(&mut watcher),
        [entry(target, "a.example"), entry(target, "b.example")]
    );
    fs::remove_dir(dir.path().join("b.example")).unwrap();
    assert_eq!(wait(&mut watcher), [entry(target, "b.example")]);
}

#[test]
fn finds_a_directory_that_comes_later_is_replaced_or_whose_parent_is() {
    let dir = tempfile::tempdir().unwrap();
    let (parent, path) = (dir.path().join("etc"), dir.path().join("etc/vhosts.d"));
    let mut watcher = Watcher::new().unwrap();
    let target = watcher.add(&path, Kind::Files).unwrap();
    let other = watcher.add(dir.path(), Kind::Files).unwrap();
    let rescanned = |watcher: &mut Watcher| {
        assert_eq!(wait(watcher), [Event::Rescan(target)]);
        // The new directory is watched from now on.
        fs::write(path.join("a.toml"), "x").unwrap();
        assert_eq!(wait(watcher), [entry(target, "a.toml")]);
    };
    fs::create_dir_all(&path).unwrap();
    rescanned(&mut watcher);
    fs::rename(&path, parent.join("old")).unwrap();
    fs::create_dir(&path).unwrap();
    rescanned(&mut watcher);
    fs::write(parent.join("old/b.toml"), "x").unwrap();
    assert!(
        watcher.read_changes().unwrap().is_empty(),
        "the old directory is watched no more"
    );
    fs::remove_dir_all(&parent).unwrap();
    assert_eq!(wait(&mut watcher), [Event::Rescan(target)]);
    fs::create_dir_all(&path).unwrap();
    rescanned(&mut watcher);
    fs::write(dir.path().join("c.toml"), "x").unwrap();
    assert_eq!(
        wait(&mut watcher),
        [entry(other, "c.toml")],
        "a directory above that is a target itself"
    );
    assert_eq!(watcher.path(target), Some(path.as_path()));
}

#[test]
fn asks_for_a_rescan_when_events_were_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let target = watcher.add(dir.path(), Kind::Files).unwrap();
    let queue: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (a, b) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
    fs::write(&a, "x").unwrap();
    // Two events each, and never two alike in a row, which the kernel would merge.
    for _ in 0..queue / 4 + 1 {
        fs::rename(&a, &b).unwrap();
        fs::rename(&b, &a).unwrap();
    }
    assert_eq!(wait(&mut watcher), [Event::Rescan(target)]);
    fs::write(&a, "y").unwrap();
    assert_eq!(wait(&mut watcher), [entry(target, "a.toml")]);
}

#[test]
fn wants_absolute_paths() {
    let mut watcher = Watcher::new().unwrap();
    assert!(
        watcher
            .add(Path::new("relative"), Kind::Files)
            .unwrap_err()
            .to_string()
            .contains("absolute")
    );
}
