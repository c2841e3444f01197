//! What other limits would have done to a site on its recorded history: a pure function of that.

use serde::{Deserialize, Serialize};

use crate::accounts::sums::{Bucket, Field};
use crate::config::definition::{LimitKey, LimitPatch};

/// What came of one limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Name of the limit.
    pub key: String,
    /// Its value, as text.
    pub limit: String,
    /// Steps in which more was used than the limit lets pass.
    pub over: u64,
    /// The most that was used, as the limit is written.
    pub most: String,
    /// Of a rate: for how many seconds what went over would have had to wait.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delayed_seconds: Option<f64>,
    /// Of memory: steps in which what the processes had for themselves was more, as far as that was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub private_over: Option<u64>,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WhatIf {
    /// The vhost.
    pub vhost: String,
    /// When the history begins, seconds since 1970.
    pub from: u64,
    /// When it ends.
    pub to: u64,
    /// Length of a step, seconds.
    pub step_s: u64,
    /// Steps in which something was recorded.
    pub recorded: u64,
    /// Of these, steps in which a CPU limit held it back: it wanted more than what is recorded.
    pub throttled: u64,
    /// In the order in which they were asked for.
    pub effects: Vec<Effect>,
    /// How exact that is.
    pub resolution: String,
}

/// How a limit is held against a step.
enum Measure {
    /// So much may pass in a second; a raw value is so many parts of a unit.
    Rate(Field, u64),
    /// No more may there be at a time.
    Level(fn(&Bucket) -> u64),
}

fn measure(key: LimitKey) -> Option<Measure> {
    Some(match key {
        // Hundredths of a percent of a CPU: 100 µs a second each.
        LimitKey::Cpu => Measure::Rate(Field::Cpu, 100),
        LimitKey::IoRead => Measure::Rate(Field::IoRead, 1),
        LimitKey::IoWrite => Measure::Rate(Field::IoWrite, 1),
        LimitKey::IoReadIops => Measure::Rate(Field::IoReads, 1),
        LimitKey::IoWriteIops => Measure::Rate(Field::IoWrites, 1),
        LimitKey::Egress => Measure::Rate(Field::NetTx, 1),
        LimitKey::Ingress => Measure::Rate(Field::NetRx, 1),
        LimitKey::Memory => Measure::Level(|bucket| bucket.memory_peak),
        LimitKey::Pids => Measure::Level(|bucket| bucket.pids),
        _ => return None,
    })
}

/// Holds limits against steps of `step` seconds. Names the limit if it cannot be told from what is recorded.
pub fn what_if(step: u64, steps: &[Bucket], limits: &LimitPatch) -> Result<WhatIf, String> {
    let mut answer = WhatIf {
        step_s: step,
        recorded: steps.len() as u64,
        throttled: steps
            .iter()
            .filter(|bucket| bucket.sums.get(Field::Throttled) > 0)
            .count() as u64,
        resolution: format!(
            "a lower bound: what is recorded are sums and peaks of {step} s, read up to 5 s late, 30 s where \
             hardly any CPU time was used; what was held back within \
             them is not seen, and what the site wanted beyond the limits of that time is not known"
        ),
        ..WhatIf::default()
    };
    for (key, limit) in &limits.0 {
        let limit = limit.ok_or_else(|| format!("{key}: a value is needed, such as max"))?;
        let measure = measure(*key).ok_or_else(|| {
            format!("{key}: what it would have done cannot be told from what is recorded")
        })?;
        answer
            .effects
            .push(effect(step, steps, *key, limit, &measure));
    }
    Ok(answer)
}

fn effect(step: u64, steps: &[Bucket], key: LimitKey, limit: u64, measure: &Measure) -> Effect {
    let mut effect = Effect {
        key: key.name().to_owned(),
        limit: key.show(limit),
        over: 0,
        most: String::new(),
        delayed_seconds: None,
        private_over: None,
    };
    let over = |used: &dyn Fn(&Bucket) -> u64, most: u64| {
        steps.iter().filter(|bucket| used(bucket) > most).count() as u64
    };
    match measure {
        Measure::Rate(field, unit) => {
            let used = |bucket: &Bucket| bucket.sums.get(*field);
            let second = limit.saturating_mul(*unit).max(1);
            let allowed = second.saturating_mul(step);
            effect.over = over(&used, allowed);
            let excess = steps.iter().map(|b| used(b).saturating_sub(allowed) as f64);
            effect.delayed_seconds = Some(excess.sum::<f64>() / second as f64);
            let most = steps.iter().map(used).max().unwrap_or(0);
            effect.most = key.show(most / step.max(1) / unit);
        }
        Measure::Level(used) => {
            effect.over = over(used, limit);
            effect.most = key.show(steps.iter().map(used).max().unwrap_or(0));
            if key == LimitKey::Memory {
                effect.private_over = Some(over(&|bucket| bucket.more.private, limit));
            }
        }
    }
    effect
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn step(cpu_ms: u64, memory: u64, private: u64) -> Bucket {
        let mut bucket = Bucket {
            memory_peak: memory,
            ..Bucket::default()
        };
        bucket.sums.set(Field::Cpu, cpu_ms * 1000);
        bucket.sums.set(Field::IoWrite, memory);
        bucket.more.private = private;
        bucket
    }

    fn ask(steps: &[Bucket], words: &[&str]) -> Result<WhatIf, String> {
        what_if(60, steps, &LimitPatch::parse(words).unwrap())
    }

    #[test]
    fn steps_over_a_limit_are_counted() {
        let mut steps = [
            step(12_000, 10 * MIB, 0),
            step(12_001, 200 * MIB, 20 * MIB),
            step(60_000, 300 * MIB, 150 * MIB),
        ];
        steps[2].sums.set(Field::Throttled, 1);
        let told = ask(&steps, &["cpu=20%", "memory=128M", "io.write=5MB/s"]).unwrap();
        assert_eq!((told.recorded, told.throttled), (3, 1));
        let [cpu, memory, io] = told.effects.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!((cpu.over, cpu.most.as_str()), (2, "100%"));
        // 48.001 s of CPU time more than fits, at 20 %.
        assert!((cpu.delayed_seconds.unwrap() - 240.005).abs() < 1e-6);
        assert_eq!((memory.over, memory.private_over), (2, Some(1)));
        assert_eq!(
            (memory.limit.as_str(), memory.most.as_str()),
            ("128M", "300M")
        );
        assert_eq!(
            (io.over, io.delayed_seconds.map(f64::round)),
            (1, Some(3.0))
        );
        let max = ask(&steps, &["cpu=max", "memory=max"]).unwrap();
        assert!(max.effects.iter().all(|effect| effect.over == 0));
    }

    #[test]
    fn what_is_not_recorded_is_refused() {
        for word in ["cpu_weight=100", "nofile=100", "cpu=default"] {
            let error = ask(&[], &[word]).unwrap_err();
            assert!(
                error.starts_with(word.split('=').next().unwrap()),
                "{error}"
            );
        }
        assert_eq!(ask(&[], &["cpu=20%"]).unwrap().effects[0].over, 0);
    }

    proptest! {
        /// A looser limit never does more, and what fits was not delayed.
        #[test]
        fn looser_is_never_worse(
            used in proptest::collection::vec((0..200_000u64, 0..1u64 << 32, 0..1u64 << 32), 0..50),
            low in 100..20_000u64, more in 0..20_000u64, key in 0..2usize,
        ) {
            let steps: Vec<Bucket> = used.iter().map(|(cpu, memory, private)| step(*cpu, *memory, *private)).collect();
            let (key, unit) = [(LimitKey::Cpu, 1), (LimitKey::Memory, 200_000)][key];
            let at = |limit: u64| {
                let patch = LimitPatch(vec![(key, Some(limit * unit))]);
                what_if(60, &steps, &patch).unwrap().effects.remove(0)
            };
            let (tight, loose) = (at(low), at(low + more));
            prop_assert!(loose.over <= tight.over && tight.over <= steps.len() as u64);
            prop_assert!(loose.private_over <= tight.private_over);
            for effect in [&tight, &loose] {
                if let Some(delayed) = effect.delayed_seconds {
                    prop_assert_eq!(effect.over == 0, delayed == 0.0);
                }
            }
            prop_assert!(loose.delayed_seconds.unwrap_or(0.0) <= tight.delayed_seconds.unwrap_or(0.0));
        }
    }
}
