//! CPU time as this process gets it, by its own clocks.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The kernel's period of quotas; the agent never sets another.
const PERIOD: Duration = Duration::from_millis(100);
/// So long without CPU time, at once, is the quota and nobody else on this machine.
const HELD_BACK: Duration = Duration::from_millis(15);

fn spent() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn work() {
    let mut sum = 0u64;
    for n in 0..10_000u64 {
        sum = std::hint::black_box(sum.wrapping_add(n));
    }
}

/// Works until `end`, or until it has been held back if that comes first.
fn work_until_held_back(end: Instant) {
    let mut before = (Instant::now(), spent());
    while before.0 < end {
        work();
        let now = (Instant::now(), spent());
        let without = (now.0 - before.0).saturating_sub(now.1 - before.1);
        if without > HELD_BACK {
            return;
        }
        before = now;
    }
}

fn work_for(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        work();
    }
}

/// The share of one CPU that this process gets while it wants all of it, in percent. It is measured from the beginning of
/// a period on, if there are such: otherwise one part of a quota more or less would count.
pub(crate) fn share(time: Duration) -> f64 {
    work_until_held_back(Instant::now() + 3 * PERIOD);
    let (began, before) = (Instant::now(), spent());
    work_for(time);
    (spent() - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0
}

/// CPU time in µs of two whole periods after a pause in which as much was saved up as may be, on average over `rounds`. What
/// the kernel gives too much in the first, up to one of its ticks, it takes back in the second.
pub(crate) fn after_a_pause(rounds: usize) -> u128 {
    let one = || {
        // To the end of a period, where the next begins with nothing saved up.
        work_until_held_back(Instant::now() + 5 * PERIOD);
        // The rest of this period and two whole ones, and a bit, so that what follows is within two.
        std::thread::sleep(3 * PERIOD + PERIOD / 20);
        let (began, before) = (Instant::now(), spent());
        for _ in 0..2 {
            work_until_held_back(Instant::now() + 5 * PERIOD);
        }
        let used = (spent() - before).as_micros();
        // Kept from working by others it went on into the next period, and had that one's quota as well; or was held back
        // by others, and had less.
        let periods = began.elapsed().as_secs_f64() / PERIOD.as_secs_f64();
        (1.5..2.5).contains(&periods).then_some(used)
    };
    let tries = (0..4 * rounds).filter_map(|_| one());
    let used: Vec<u128> = tries.take(rounds).collect();
    used.iter().sum::<u128>() / used.len().max(1) as u128
}

/// CPU time in µs within `time`, on the first CPU together with whoever else wants that one. Before and after it is busy
/// there just as well, for those who began or end a bit later.
pub(crate) fn beside_others(time: Duration) -> Result<u128, String> {
    let say = |e: rustix::io::Errno| format!("cannot stay on one CPU: {e}");
    let all = sched_getaffinity(None).map_err(say)?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(first.ok_or("no CPU")?);
    sched_setaffinity(None, &one).map_err(say)?;
    let margin = Duration::from_millis(300);
    work_for(margin);
    let before = spent();
    work_for(time);
    let used = spent() - before;
    work_for(margin);
    sched_setaffinity(None, &all).map_err(say)?;
    Ok(used.as_micros())
}
