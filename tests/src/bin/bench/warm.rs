//! Dispatch of a running site.

use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;
use rustix::event::epoll;

use crate::Effort;
use crate::report::{Figures, Row};

const BODY: &[u8] = b"{\"vhost\":\"a.example.com\"}";
/// How many connections have a request under way at once.
const AT_ONCE: [usize; 2] = [16, 256];
/// Dispatches on one connection, and on those of each of [`AT_ONCE`] in all.
const ONE: usize = 10_000;
const MANY: usize = 100_000;

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

/// `count` dispatches on all these connections: whoever has been answered asks again. One thread does it as a proxy
/// does, since as many threads as connections would take the processor from the agent.
fn at_once(clients: &mut [Client], count: usize) -> Vec<Duration> {
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut sent = Vec::with_capacity(clients.len());
    for (n, client) in (0..).zip(clients.iter_mut()) {
        let data = epoll::EventData::new_u64(n);
        epoll::add(&ready, client.stream(), data, epoll::EventFlags::IN).unwrap();
        sent.push(Instant::now());
        client.send("POST", "/v1/dispatch", "", BODY).unwrap();
    }
    let mut times = Vec::with_capacity(count);
    let mut asked = sent.len();
    let mut events = Vec::with_capacity(clients.len());
    while times.len() < asked {
        events.clear();
        epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), None).unwrap();
        for event in &events {
            let n = usize::try_from(event.data.u64()).unwrap();
            let answer = clients[n].answer().unwrap();
            times.push(sent[n].elapsed());
            assert_eq!(answer.status, 200);
            if asked < count {
                asked += 1;
                sent[n] = Instant::now();
                clients[n].send("POST", "/v1/dispatch", "", BODY).unwrap();
            }
        }
    }
    times
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    host.site("a.example.com", harness::STATIC);
    host.dispatch("a.example.com").upstream();
    let mut client = Client::connect(&host.socket()).unwrap();
    dispatches(&mut client, 200);
    let one = Figures::micros(
        "one connection",
        &dispatches(&mut client, effort.rounds(ONE)),
    );
    let p50 = one.p50();
    let mut row =
        Row::new("dispatch of a running site on kept connections, client and agent together")
            .with(one)
            .at_most("one connection, p50 us", p50, 40.0);
    for connections in AT_ONCE {
        let mut clients: Vec<Client> = (0..connections)
            .map(|_| Client::connect(&host.socket()).unwrap())
            .collect();
        at_once(&mut clients, connections);
        let began = Instant::now();
        let times = at_once(&mut clients, effort.rounds(MANY));
        let rate = times.len() as f64 / began.elapsed().as_secs_f64();
        let what = format!("{connections} connections");
        row = row
            .with(Figures::micros(&what, &times))
            .with(Figures::new(&what, "req/s", vec![rate]))
            .at_least(&format!("{what}, req/s"), rate, 40_000.0);
    }
    host.finish();
    vec![row]
}
