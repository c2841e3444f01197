//! Rates and byte counters of a container's link, measured with TCP through it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{as_host, host, inside, run, time_scale};
use netns::{Host, Namespace, Shape};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

const SLOT: u32 = 1;

/// In bytes per second.
const fn mbit(rate: u64) -> u64 {
    rate * 1_000_000 / 8
}

/// A connection through the link on which one end sends without pause, and the other end of it.
struct Flow(TcpStream);

impl Flow {
    fn out_of(host: &Host, container: &Namespace) -> Self {
        let [outside, inside] = connection(host, container);
        Self::of(inside, outside)
    }

    fn into(host: &Host, container: &Namespace) -> Self {
        let [outside, inside] = connection(host, container);
        Self::of(outside, inside)
    }

    fn of(mut sender: TcpStream, receiver: TcpStream) -> Self {
        let patience = Duration::from_secs(5) * time_scale();
        receiver.set_read_timeout(Some(patience)).unwrap();
        // Ends with the receiver.
        std::thread::spawn(move || while sender.write_all(&[0; 1 << 16]).is_ok() {});
        Self(receiver)
    }

    /// Bytes per second that arrive, once what was on its way has arrived and the sender has found its pace: TCP hands
    /// over in order, and so in lumps while it makes good what was lost when a rate fell.
    fn rate(&mut self) -> f64 {
        self.read_for(Duration::from_secs(1));
        let begin = Instant::now();
        let bytes = self.read_for(Duration::from_secs(2));
        bytes as f64 / begin.elapsed().as_secs_f64()
    }

    fn read_for(&mut self, time: Duration) -> u64 {
        let end = Instant::now() + time;
        let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
        while Instant::now() < end {
            bytes += self.0.read(&mut buffer).unwrap() as u64;
        }
        bytes
    }
}

/// Asserts that a measured rate is within 10 % of `limit`.
fn assert_rate(what: &str, rate: f64, limit: u64) {
    let share = rate / limit as f64;
    println!("{what}: {:.1} % of {limit} B/s", share * 100.0);
    assert!((0.9..1.1).contains(&share), "{what}: {share} of {limit}");
}

/// Both ends of a connection from the host to the container: the host's and the container's.
fn connection(host: &Host, container: &Namespace) -> [TcpStream; 2] {
    let address = host.address(SLOT).unwrap();
    let listener = TcpListener::from(container.listen_tcp((address, 0).into()).unwrap());
    let outside = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    [outside, listener.accept().unwrap().0]
}

fn container(host: &Host) -> Namespace {
    let namespace = Namespace::create().unwrap();
    host.attach(&namespace, SLOT).unwrap();
    namespace
}

/// What arrives at both ends, each with its limit in Mbit/s, as bytes per second on the link.
fn measured(host: &Host, into: (&mut Flow, u64), out: (&mut Flow, u64)) -> (f64, f64) {
    let ((into, ingress), (out, egress)) = (into, out);
    let (begin, before) = (Instant::now(), host.link_bytes(SLOT).unwrap());
    let (rate_in, rate_out) = std::thread::scope(|scope| {
        let rate_out = scope.spawn(|| out.rate());
        (into.rate(), rate_out.join().unwrap())
    });
    let (seconds, after) = (
        begin.elapsed().as_secs_f64(),
        host.link_bytes(SLOT).unwrap(),
    );
    // What the kernel counts on the link is never more, from the first moment on.
    for (what, bytes, limit) in [
        ("into the link", after.0 - before.0, mbit(ingress)),
        ("out of the link", after.1 - before.1, mbit(egress)),
    ] {
        let share = bytes as f64 / seconds / limit as f64;
        assert!(share < 1.05, "{what}: {share} of {limit}");
    }
    (rate_in * 1514.0 / 1448.0, rate_out * 1514.0 / 1448.0)
}

#[test]
fn both_directions_hold_their_rates_and_change_on_open_connections() {
    as_host(|| {
        let host = host();
        let one = container(&host);
        assert_eq!(host.shape_of(&one, SLOT).unwrap(), Shape::default());
        let mut out = Flow::out_of(&host, &one);
        let mut into = Flow::into(&host, &one);
        // Up, down, and each for itself.
        for (egress, ingress) in [(10, 20), (40, 30), (20, 10)] {
            let shape = Shape {
                egress: Some(mbit(egress)),
                ingress: Some(mbit(ingress)),
            };
            assert_eq!(host.shape(&one, SLOT, shape).unwrap(), shape);
            assert_eq!(host.shape_of(&one, SLOT).unwrap(), shape);
            // What arrives; of 1514 bytes on the link 1448 do, and some are acknowledgements. Others who use this machine may
            // slow a connection down, never speed it up: then once more.
            let mut tries = 0;
            let (rate_in, rate_out) = loop {
                let (rate_in, rate_out) = measured(&host, (&mut into, ingress), (&mut out, egress));
                tries += 1;
                let enough =
                    rate_in >= 0.9 * mbit(ingress) as f64 && rate_out >= 0.9 * mbit(egress) as f64;
                if enough || tries == 5 {
                    break (rate_in, rate_out);
                }
            };
            assert_rate("arriving inside", rate_in, mbit(ingress));
            assert_rate("arriving outside", rate_out, mbit(egress));
        }
        let only_in = Shape {
            egress: None,
            ingress: Some(mbit(10)),
        };
        assert_eq!(host.shape(&one, SLOT, only_in).unwrap(), only_in);
        let free = out.rate();
        assert!(free > mbit(30) as f64, "lifted: {free} B/s");
        assert_eq!(
            host.shape(&one, SLOT, Shape::default()).unwrap(),
            Shape::default()
        );
        let free = into.rate();
        assert!(free > mbit(30) as f64, "lifted: {free} B/s");
    });
}

#[test]
fn nothing_is_lost_while_limits_change() {
    as_host(|| {
        let host = host();
        let one = container(&host);
        let [mut sender, mut receiver] = connection(&host, &one);
        let writer = std::thread::spawn(move || sender.write_all(&vec![7; 4 << 20]).unwrap());
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            receiver.read_to_end(&mut bytes).unwrap();
            bytes
        });
        // A change in place, not a new queue: nothing waits for a retransmission.
        let mut changes = 0;
        while !reader.is_finished() {
            let rate = mbit(if changes % 2 == 0 { 80 } else { 160 });
            let shape = Shape {
                egress: None,
                ingress: Some(rate),
            };
            assert_eq!(host.shape(&one, SLOT, shape).unwrap(), shape);
            changes += 1;
        }
        writer.join().unwrap();
        assert!(reader.join().unwrap() == vec![7; 4 << 20]);
        println!("{changes} changes");
        assert!(changes > 10);
        let drops = run("tc -s qdisc show dev fc1 root");
        assert!(drops.contains("dropped 0"), "{drops}");
    });
}

#[test]
fn uid_0_of_a_user_namespace_has_no_power_over_the_limits() {
    as_host(|| {
        let host = host();
        let one = container(&host);
        let shape = Shape {
            egress: Some(mbit(10)),
            ingress: None,
        };
        host.shape(&one, SLOT, shape).unwrap();
        let lifts = |line: &'static str| {
            inside(&one, move || {
                let mut words = line.split(' ');
                let mut command = Command::new(words.next().unwrap());
                command.args(words).output().unwrap()
            })
        };
        let refused = lifts("unshare --user --map-root-user tc qdisc del dev eth0 root");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains("not permitted"),
            "{said}"
        );
        assert_eq!(host.shape_of(&one, SLOT).unwrap(), shape);
        let done = lifts("tc qdisc del dev eth0 root");
        assert!(done.status.success(), "but the host's root has");
        assert_eq!(host.shape_of(&one, SLOT).unwrap(), Shape::default());
    });
}

#[test]
fn what_fails_in_one_direction_changes_neither() {
    as_host(|| {
        let host = host();
        let one = container(&host);
        let before = Shape {
            egress: Some(mbit(3)),
            ingress: Some(mbit(5)),
        };
        host.shape(&one, SLOT, before).unwrap();
        let refused = Shape {
            egress: Some(0),
            ingress: Some(mbit(7)),
        };
        let error = host.shape(&one, SLOT, refused).unwrap_err().to_string();
        assert!(error.contains("at least a byte"), "{error}");
        assert_eq!(host.shape_of(&one, SLOT).unwrap(), before);
        // A link that is not there.
        assert!(host.shape(&one, SLOT + 1, before).is_err());
    });
}

#[test]
fn a_rate_set_by_hand_is_seen_and_put_right() {
    as_host(|| {
        let host = host();
        let one = container(&host);
        let wanted = Shape {
            egress: None,
            ingress: Some(mbit(10)),
        };
        run("tc qdisc replace dev fc1 root tbf rate 3mbit burst 20k limit 100k");
        assert_eq!(host.shape_of(&one, SLOT).unwrap().ingress, Some(mbit(3)));
        assert_eq!(host.shape(&one, SLOT, wanted).unwrap(), wanted);
        run("tc qdisc replace dev fc1 root pfifo");
        assert_eq!(host.shape_of(&one, SLOT).unwrap().ingress, None);
        assert_eq!(host.shape(&one, SLOT, wanted).unwrap(), wanted);
        // Beyond what 32 bits of bytes hold.
        let fast = Shape {
            ingress: Some(mbit(100_000)),
            ..wanted
        };
        assert_eq!(host.shape(&one, SLOT, fast).unwrap(), fast);
        run("tc qdisc replace dev fc1 root tbf rate 3mbit burst 20k limit 100k");
        host.shape(&one, SLOT, Shape::default()).unwrap();
        assert_eq!(host.shape_of(&one, SLOT).unwrap(), Shape::default());
    });
}

#[test]
fn bytes_are_counted_as_the_container_sees_them() {
    as_host(|| {
        let host = host();
        let one = container(&host);
        let before = host.link_bytes(SLOT).unwrap();
        let [outside, inside] = connection(&host, &one);
        let (received, sent) = (vec![1; 3_000_000], vec![2; 1_000_000]);
        for (from, mut to, data) in [(&outside, &inside, &received), (&inside, &outside, &sent)] {
            let (mut from, data) = (from.try_clone().unwrap(), data.clone());
            let length = data.len();
            let writer = std::thread::spawn(move || from.write_all(&data).unwrap());
            to.read_exact(&mut vec![0; length]).unwrap();
            writer.join().unwrap();
        }
        let after = host.link_bytes(SLOT).unwrap();
        let counted = [after.0 - before.0, after.1 - before.1];
        println!("{counted:?}");
        for (counted, data) in counted.into_iter().zip([received, sent]) {
            let least = data.len() as u64;
            // Headers and acknowledgements come on top.
            assert!((least..least + least / 5).contains(&counted), "{counted}");
        }
        assert!(host.link_bytes(SLOT + 1).is_err(), "no such link");
    });
}
