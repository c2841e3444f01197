//! What a site may use: limits by key, and their overlay, difference and change.

use std::fmt;
use std::sync::Arc;

use super::limit_key::LimitKey;
use crate::config::units::{BitRate, Bytes, Class, Count, Cpu, Rate, Unit, UnitError, Weight};

/// The limits that somebody set; what is not set is not there. Sparse and sorted, because most sites set
/// few, and shared when cloned.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Limits(Arc<[(LimitKey, u64)]>);

/// One limit that differs: the key, the old value and the new one (nothing: not set).
pub type LimitChange = (LimitKey, Option<u64>, Option<u64>);

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $key:ident -> $type:ty),+ $(,)?) => {
        impl Limits {$(
            $(#[$doc])*
            pub fn $name(&self) -> Option<$type> {
                self.get(LimitKey::$key).map(<$type>::from_raw)
            }
        )+}
    };
}

getters! {
    /// CPU time per time.
    cpu: Cpu -> Cpu,
    /// Share of the CPU under contention.
    cpu_weight: CpuWeight -> Weight,
    /// CPU time that may be saved up, per period.
    cpu_burst: CpuBurst -> Cpu,
    /// The hard limit on memory.
    memory: Memory -> Bytes,
    /// The soft limit on memory.
    memory_high: MemoryHigh -> Bytes,
    /// The guaranteed memory.
    memory_min: MemoryMin -> Bytes,
    /// Swap.
    swap: Swap -> Bytes,
    /// Processes and threads.
    pids: Pids -> Count,
    /// Bytes read per second.
    io_read: IoRead -> Rate,
    /// Bytes written per second.
    io_write: IoWrite -> Rate,
    /// Reads per second.
    io_read_iops: IoReadIops -> Count,
    /// Writes per second.
    io_write_iops: IoWriteIops -> Count,
    /// Share of the disk under contention.
    io_weight: IoWeight -> Weight,
    /// Network traffic out.
    egress: Egress -> BitRate,
    /// Network traffic in.
    ingress: Ingress -> BitRate,
    /// Disk space.
    disk: Disk -> Bytes,
    /// Open files of one process.
    nofile: Nofile -> Count,
    /// Whether it is promised its CPU time.
    class: Class -> Class,
}

impl Limits {
    /// The stored number of a limit, if it is set.
    pub fn get(&self, key: LimitKey) -> Option<u64> {
        self.0
            .binary_search_by_key(&key, |(k, _)| *k)
            .ok()
            .map(|at| self.0[at].1)
    }

    /// Sets a limit, or with nothing unsets it.
    pub fn set(&mut self, key: LimitKey, value: Option<u64>) {
        let mut all = self.0.to_vec();
        match (all.binary_search_by_key(&key, |(k, _)| *k), value) {
            (Ok(at), Some(value)) => all[at].1 = value,
            (Ok(at), None) => drop(all.remove(at)),
            (Err(at), Some(value)) => all.insert(at, (key, value)),
            (Err(_), None) => {}
        }
        self.0 = all.into();
    }

    /// What is set, in the order of [`LimitKey::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (LimitKey, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These limits with `over` laid over them: what `over` sets counts, including `max`.
    #[must_use]
    pub fn merge(&self, over: &Limits) -> Limits {
        let mut merged = self.clone();
        over.iter()
            .for_each(|(key, value)| merged.set(key, Some(value)));
        merged
    }

    /// These limits after a change.
    #[must_use]
    pub fn patched(&self, patch: &LimitPatch) -> Limits {
        let mut patched = self.clone();
        patch
            .0
            .iter()
            .for_each(|(key, value)| patched.set(*key, *value));
        patched
    }

    /// What differs from `old` to `new`.
    pub fn diff(old: &Limits, new: &Limits) -> Vec<LimitChange> {
        LimitKey::ALL
            .into_iter()
            .map(|key| (key, old.get(key), new.get(key)))
            .filter(|(_, old, new)| old != new)
            .collect()
    }
}

impl fmt::Display for Limits {
    /// `cpu=20% memory=256M`, which [`LimitPatch::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().enumerate().try_for_each(|(at, (key, value))| {
            write!(
                f,
                "{}{key}={}",
                if at == 0 { "" } else { " " },
                key.show(value)
            )
        })
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limits({self})")
    }
}

/// A change of some limits; nothing as value means "as the definition says" and is written `default`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitPatch(pub Vec<(LimitKey, Option<u64>)>);

impl LimitPatch {
    /// Reads `cpu=20%`, `memory=256M`, `io.write=max`, `pids=default`; of a key that comes twice the last counts.
    pub fn parse<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> Result<Self, String> {
        let mut patch = LimitPatch::default();
        for word in words {
            let word = word.as_ref();
            let Some((key, value)) = word.split_once('=') else {
                let word = crate::config::units::shorten(word);
                return Err(format!(
                    "\"{word}\" is no change of a limit; write key=value, such as cpu=20% or memory=256M"
                ));
            };
            let key: LimitKey = key.trim().parse()?;
            patch.push(key, value).map_err(|e| format!("{key}: {e}"))?;
        }
        Ok(patch)
    }

    /// Adds one change, given as text.
    pub(super) fn push(&mut self, key: LimitKey, text: &str) -> Result<(), UnitError> {
        let value = if text.trim() == "default" {
            None
        } else {
            Some(key.parse(text)?)
        };
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, value));
        Ok(())
    }
}
