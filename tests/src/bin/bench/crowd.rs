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
/// While nothing happens.
const IDLE: Duration = Duration::from_secs(20);

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
    // The counters of what runs are read every five seconds: that is all there is to do.
    thread::sleep(IDLE);
    let before = ticks(pid);
    thread::sleep(IDLE);
    let used = (ticks(pid) - before) as f64 / IDLE.as_secs_f64();
    host.finish();
    let what = format!("{registered} registered, {frozen} frozen, {running} running");
    vec![
        Row::new(&what)
            .with(Figures::new("agent resident", "MB", vec![resident]))
            .with(Figures::new(
                "agent's CPU while nothing happens",
                "%",
                vec![used],
            ))
            .at_most("resident MB", resident, 200.0)
            .at_most("agent's CPU %", used, 0.5),
    ]
}
