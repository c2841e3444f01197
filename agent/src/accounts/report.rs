//! What the API tells of the accounts.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Line;
use super::book::{RINGS, Ring};
use super::more::{PHASES, Starts};
use super::sums::{Bucket, Field};

/// So many points a series has at most, unless a step was asked for.
const POINTS: u64 = 120;
/// And so many if one was.
const MOST_POINTS: u64 = 10_000;
/// What is asked of many vhosts for longer than this comes from the coarsest ring: a finer one takes too long to add up.
const FINE_OF_MANY: u64 = 6 * 3600;

/// Which ring, and which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Index of the ring.
    pub ring: usize,
    /// Its first stretch that counts.
    pub from: u32,
    /// Stretches of the ring in each point of a series.
    pub each: u32,
}

impl Window {
    /// The window of the last `since` seconds before `now`: of the finest ring that reaches so far back. Begins with a
    /// whole stretch, so it may be longer than asked by one.
    pub fn new(now: u64, since: u64, step: Option<u64>, many: bool) -> Result<Self, String> {
        let fits = |ring: &Ring| {
            let fine = !many || since <= FINE_OF_MANY || ring.step == RINGS[RINGS.len() - 1].step;
            fine && since <= ring.step * ring.keep
        };
        let index = RINGS.iter().position(fits).unwrap_or(RINGS.len() - 1);
        let ring = RINGS[index];
        let stretches = (since / ring.step + 1).min(ring.keep + 1);
        let each = match step {
            Some(step) if step < ring.step => {
                return Err(format!(
                    "a step of {step} s is finer than what is kept of that time: {} s",
                    ring.step
                ));
            }
            Some(step) => step.div_ceil(ring.step),
            None => stretches.div_ceil(POINTS),
        };
        if stretches / each > MOST_POINTS {
            return Err(format!("more than {MOST_POINTS} steps; use a longer one"));
        }
        Ok(Self {
            ring: index,
            from: ring.number(now.saturating_sub(since)),
            each: u32::try_from(each).unwrap_or(u32::MAX),
        })
    }

    /// The last `since` seconds before `now` in whole stretches of a minute at least: readings lie seconds apart, so that
    /// shorter ones may hold what was used in the one before.
    pub fn coarse(now: u64, since: u64) -> Self {
        let reaches = |ring: &Ring| ring.step >= 60 && since <= ring.step * ring.keep;
        let index = RINGS.iter().position(reaches).unwrap_or(RINGS.len() - 1);
        Self {
            ring: index,
            from: RINGS[index].number(now.saturating_sub(since)),
            each: 1,
        }
    }

    /// Seconds of a point.
    pub fn step(self) -> u64 {
        RINGS[self.ring].step * u64::from(self.each)
    }

    /// When the window begins, seconds since 1970.
    pub fn begins(self) -> u64 {
        RINGS[self.ring].step * u64::from(self.from)
    }

    /// Stretches put together to points, by their beginning (seconds since 1970).
    fn points(self, series: &[(u32, Bucket)]) -> BTreeMap<u64, Bucket> {
        let mut points: BTreeMap<u64, Bucket> = BTreeMap::new();
        for (number, bucket) in series {
            let index = number.saturating_sub(self.from) / self.each.max(1);
            let at = self.begins() + u64::from(index) * self.step();
            points.entry(at).or_default().merge(bucket);
        }
        points
    }
}

/// The most of something at a time.
const PEAKS: [&str; 4] = [
    "memory_peak_bytes",
    "memory_current_bytes",
    "memory_private_bytes",
    "pids_peak",
];

/// The whole answer: sums of the window per vhost and per owner, and series of those stretches in which something was.
pub fn answer(window: Window, now: u64, lines: &[Line]) -> Value {
    let mut owners: BTreeMap<&str, Bucket> = BTreeMap::new();
    let mut vhosts = Vec::with_capacity(lines.len());
    for line in lines {
        let mut sum = Bucket::default();
        for (_, bucket) in &line.series {
            sum.merge(bucket);
        }
        let of_owner = owners.entry(&line.owner).or_default();
        of_owner.merge(&sum);
        let mut shown = show(&sum);
        shown.insert("vhost".into(), json!(line.vhost));
        shown.insert("owner".into(), json!(line.owner));
        shown.insert("total".into(), Value::Object(show(&line.total)));
        let points = window.points(&line.series).into_iter();
        let points = points.map(|(at, bucket)| {
            let mut point = show(&bucket);
            point.insert("at".into(), json!(at));
            Value::Object(point)
        });
        shown.insert("series".into(), points.collect());
        vhosts.push(Value::Object(shown));
    }
    let owners = owners.into_iter().map(|(owner, sum)| {
        let mut shown = show(&sum);
        // The peaks of sites come at different times: they add up to nothing.
        for key in PEAKS {
            shown.remove(key);
        }
        shown.insert("owner".into(), json!(owner));
        Value::Object(shown)
    });
    json!({
        "from": window.begins(),
        "to": now,
        "step_s": window.step(),
        "owners": owners.collect::<Vec<_>>(),
        "vhosts": vhosts,
    })
}

fn show(bucket: &Bucket) -> Map<String, Value> {
    let mut map = Map::new();
    for field in Field::ALL {
        let (name, unit) = field.shown();
        let raw = bucket.sums.get(field);
        let value = match unit {
            1 => json!(raw),
            unit => json!(raw as f64 / f64::from(unit)),
        };
        map.insert(name.into(), value);
    }
    let peaks = [
        bucket.memory_peak,
        bucket.more.memory,
        bucket.more.private,
        bucket.pids,
    ];
    for (key, most) in PEAKS.into_iter().zip(peaks) {
        map.insert(key.into(), json!(most));
    }
    if bucket.more.starts.count > 0 {
        map.insert("start_times".into(), times(&bucket.more.starts));
    }
    map
}

/// How long starts took, on average and at most: all of it, and each part.
fn times(starts: &Starts) -> Value {
    let shown = |of: &dyn Fn(usize) -> f64| -> (f64, Map<String, Value>) {
        let ms = |part| of(part).round() / 1e3;
        let (whole, parts) = (PHASES.len() - 1, PHASES.iter().enumerate());
        let parts = parts.take(whole);
        let parts = parts.map(|(part, name)| ((*name).to_owned(), json!(ms(part))));
        (ms(whole), parts.collect())
    };
    let (mean, mean_phases) = shown(&|part| starts.sum[part] as f64 / starts.count as f64);
    let (most, max_phases) = shown(&|part| starts.most[part] as f64);
    json!({
        "starts": starts.count,
        "mean_ms": mean,
        "max_ms": most,
        "mean_phases": mean_phases,
        "max_phases": max_phases,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::accounts::more::More;
    use crate::accounts::sums::Sums;

    const NOW: u64 = 1_800_000_123;

    #[test]
    fn the_finest_ring_that_reaches_back_is_used() {
        for (since, many, ring, step) in [
            (60, false, 0, 5),
            (3600, false, 0, 35),
            (3601, false, 1, 60),
            (86_400, false, 1, 780),
            (86_400, true, 2, 3600),
            (7200, true, 1, 120),
            (30 * 86_400, false, 2, 7 * 3600),
            (4000 * 86_400, false, 2, 81 * 3600),
        ] {
            let window = Window::new(NOW, since, None, many).unwrap();
            assert_eq!((window.ring, window.step()), (ring, step), "{since}");
            assert!(window.begins() <= NOW - since);
        }
        for (since, step) in [
            (60, 60),
            (86_400, 60),
            (3 * 86_400, 3600),
            (9999 * 86_400, 3600),
        ] {
            assert_eq!(Window::coarse(NOW, since).step(), step, "{since}");
        }
        let exact = Window::new(NOW, 3600, Some(60), false).unwrap();
        assert_eq!((exact.ring, exact.step()), (0, 60));
        assert!(
            Window::new(NOW, 86_400, Some(5), false)
                .unwrap_err()
                .contains("60 s")
        );
        assert!(Window::new(NOW, 400 * 86_400, Some(3600), false).is_ok());
    }

    #[test]
    fn points_and_owners_add_up_to_the_same() {
        let bucket = |cpu| {
            let mut sums = Sums::default();
            sums.set(Field::Cpu, cpu);
            Bucket {
                sums,
                memory_peak: cpu,
                pids: 1,
                more: More {
                    starts: Starts::one([0, 0, 0, 0, 1000, cpu * 1000]),
                    ..More::default()
                },
            }
        };
        let window = Window::new(NOW, 3600, None, false).unwrap();
        let series: Vec<_> = (0..721)
            .map(|i| (window.from + i, bucket(u64::from(i))))
            .collect();
        let sum: u64 = (0..721).sum();
        let line = |vhost: &str| Line {
            vhost: vhost.into(),
            owner: "acme".into(),
            total: bucket(sum),
            series: series.clone(),
        };
        let told = answer(window, NOW, &[line("a"), line("b")]);
        let seconds = sum as f64 / 1e6;
        assert_eq!(told["owners"][0]["cpu_seconds"], 2.0 * seconds);
        assert_eq!(told["owners"][0]["start_times"]["starts"], 2 * 721);
        assert!(told["owners"][0]["memory_peak_bytes"].is_null());
        for vhost in told["vhosts"].as_array().unwrap() {
            assert_eq!(vhost["cpu_seconds"], seconds);
            let points = vhost["series"].as_array().unwrap();
            assert_eq!(points.len(), 103);
            let added: f64 = points
                .iter()
                .map(|p| p["cpu_seconds"].as_f64().unwrap())
                .sum();
            assert!((added - seconds).abs() < 1e-9);
            assert_eq!(vhost["memory_peak_bytes"], 720);
            let times = &vhost["start_times"];
            assert_eq!(
                (&times["mean_ms"], &times["max_ms"]),
                (&json!(360.0), &json!(720.0))
            );
            assert_eq!(times["mean_phases"]["listen"], 1.0);
            assert!(times["max_phases"]["total"].is_null());
        }
    }
}
