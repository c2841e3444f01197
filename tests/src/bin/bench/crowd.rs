//! A host as it is: most sites only registered, many frozen, some running.

use std::thread;
use std::time::Duration;

use harness::Host;

use crate::Effort;
use crate::density;
use crate::live::name;
use crate::report::{Figures, Row};
use crate::room::{HANDED, room};
use crate::scale::{definition, memory, ticks};

const REGISTERED: usize = 100_000;
const FROZEN: usize = 2000;
const RUNNING: usize = 200;
/// After this all that is new has been read twice, and its private memory once.
const NEW: Duration = Duration::from_secs(200);
/// While nothing happens: whatever is done now and then is done once in this, but for readings of those that rest, of which ten
/// minutes have one each.
const IDLE: Duration = Duration::from_secs(60);

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let running = effort.rounds(RUNNING);
    let frozen = room(effort.rounds(FROZEN) + running, HANDED) - running;
    let registered = effort.rounds(REGISTERED);
    let host = Host::as_installed("");
    host.signal_agent(libc::SIGTERM);
    for n in frozen + running..registered {
        let file = host.dir.join(format!("vhosts.d/site{n}.example.com.toml"));
        std::fs::write(file, definition(n)).unwrap();
    }
    host.start();
    density::define(&host, frozen + running, registered);
    let connector = host.connector();
    for n in 0..frozen + running {
        density::start(&connector, n);
    }
    for n in 0..frozen {
        assert_eq!(host.verb(&name(n), "freeze").status, 200);
    }
    let pid = host.pid();
    let resident = memory(pid, "VmRSS:") / 1024.0;
    let cpu = |span: Duration| {
        let before = ticks(pid);
        thread::sleep(span);
        (ticks(pid) - before) as f64 / span.as_secs_f64()
    };
    // The counters of those that live are read: that is all there is to do.
    let new = cpu(NEW);
    let used = cpu(IDLE);
    host.finish();
    let what = format!("{registered} registered, {frozen} frozen, {running} running");
    vec![
        Row::new(&what)
            .with(Figures::new("agent resident", "MB", vec![resident]))
            .with(Figures::new(
                "agent's CPU right after that many starts",
                "%",
                vec![new],
            ))
            .with(Figures::new(
                "agent's CPU while nothing happens",
                "%",
                vec![used],
            ))
            .at_most("resident MB", resident, 200.0)
            .at_most("agent's CPU %", used, 0.5),
    ]
}
