//! Dispatch of a running site.

use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;

use crate::Effort;
use crate::report::{Figures, Row};

const BODY: &[u8] = b"{\"vhost\":\"a.example.com\"}";

fn dispatches(client: &mut Client, count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        let answer = client.request("POST", "/v1/dispatch", BODY).unwrap();
        times.push(began.elapsed());
        assert_eq!(answer.status, 200);
    }
    times
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    host.site("a.example.com", harness::STATIC);
    host.dispatch("a.example.com").upstream();
    let mut client = Client::connect(&host.socket()).unwrap();
    dispatches(&mut client, 200);
    let times = dispatches(&mut client, effort.rounds(10_000));
    let each = effort.rounds(5_000);
    let mut clients: Vec<Client> = (0..16)
        .map(|_| Client::connect(&host.socket()).unwrap())
        .collect();
    let began = Instant::now();
    let many: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || dispatches(client, each)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let rate = many.len() as f64 / began.elapsed().as_secs_f64();
    host.finish();
    let one = Figures::micros("fastcontainer, one connection", &times);
    let p50 = one.p50();
    vec![
        Row::new("dispatch of a running site on a kept connection")
            .with(one)
            .with(Figures::micros("16 connections at once", &many))
            .with(Figures::new("16 connections", "req/s", vec![rate]))
            .at_most("p50 us", p50, 60.0),
    ]
}
