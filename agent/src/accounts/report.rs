//! What the API tells of the accounts.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Line;
use super::book::{RINGS, Ring};
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
        of_owner.sums.add(&sum.sums);
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
        shown.remove("memory_peak_bytes");
        shown.remove("pids_peak");
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
    map.insert("memory_peak_bytes".into(), json!(bucket.memory_peak));
    map.insert("pids_peak".into(), json!(bucket.pids));
    map
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
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
        }
    }
}
