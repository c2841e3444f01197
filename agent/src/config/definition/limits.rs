//! What a site may use: limits by key, and their overlay, difference and change.

use std::fmt;
use std::str::FromStr;

use crate::config::problem::unknown;
use crate::config::units::{BitRate, Bytes, Count, Cpu, Rate, Unit, UnitError, Weight};

/// The name of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LimitKey {
    /// CPU time per time.
    Cpu,
    /// Share of the CPU under contention.
    CpuWeight,
    /// Unused CPU time that may be saved up for a burst, per period of 100 ms.
    CpuBurst,
    /// Memory, above which the site is killed.
    Memory,
    /// Memory, above which the site is slowed and reclaimed from.
    MemoryHigh,
    /// Memory that is never reclaimed.
    MemoryMin,
    /// Swap.
    Swap,
    /// Processes and threads.
    Pids,
    /// Bytes read per second.
    IoRead,
    /// Bytes written per second.
    IoWrite,
    /// Reads per second.
    IoReadIops,
    /// Writes per second.
    IoWriteIops,
    /// Share of the disk under contention.
    IoWeight,
    /// Network traffic out.
    Egress,
    /// Network traffic in.
    Ingress,
    /// Disk space.
    Disk,
    /// Open files of one process.
    Nofile,
}

/// The number behind a key is one of these quantities.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cpu,
    Weight,
    Bytes,
    Rate,
    BitRate,
    Count,
}

/// Calls `$run` with `$U` as the quantity of a kind.
macro_rules! with_kind {
    ($kind:expr, $U:ident => $run:expr) => {
        match $kind {
            Kind::Cpu => {
                type $U = Cpu;
                $run
            }
            Kind::Weight => {
                type $U = Weight;
                $run
            }
            Kind::Bytes => {
                type $U = Bytes;
                $run
            }
            Kind::Rate => {
                type $U = Rate;
                $run
            }
            Kind::BitRate => {
                type $U = BitRate;
                $run
            }
            Kind::Count => {
                type $U = Count;
                $run
            }
        }
    };
}

impl LimitKey {
    /// All keys, in the order in which they are shown.
    pub const ALL: [LimitKey; 17] = {
        use LimitKey::*;
        [
            Cpu,
            CpuWeight,
            CpuBurst,
            Memory,
            MemoryHigh,
            MemoryMin,
            Swap,
            Pids,
            IoRead,
            IoWrite,
            IoReadIops,
            IoWriteIops,
            IoWeight,
            Egress,
            Ingress,
            Disk,
            Nofile,
        ]
    };

    /// The name, as on the command line: `cpu`, `io.read`.
    pub const fn name(self) -> &'static str {
        match self {
            LimitKey::Cpu => "cpu",
            LimitKey::CpuWeight => "cpu_weight",
            LimitKey::CpuBurst => "cpu_burst",
            LimitKey::Memory => "memory",
            LimitKey::MemoryHigh => "memory_high",
            LimitKey::MemoryMin => "memory_min",
            LimitKey::Swap => "swap",
            LimitKey::Pids => "pids",
            LimitKey::IoRead => "io.read",
            LimitKey::IoWrite => "io.write",
            LimitKey::IoReadIops => "io.read_iops",
            LimitKey::IoWriteIops => "io.write_iops",
            LimitKey::IoWeight => "io.weight",
            LimitKey::Egress => "egress",
            LimitKey::Ingress => "ingress",
            LimitKey::Disk => "disk",
            LimitKey::Nofile => "nofile",
        }
    }

    const fn kind(self) -> Kind {
        match self {
            LimitKey::Cpu | LimitKey::CpuBurst => Kind::Cpu,
            LimitKey::CpuWeight | LimitKey::IoWeight => Kind::Weight,
            LimitKey::Memory
            | LimitKey::MemoryHigh
            | LimitKey::MemoryMin
            | LimitKey::Swap
            | LimitKey::Disk => Kind::Bytes,
            LimitKey::IoRead | LimitKey::IoWrite => Kind::Rate,
            LimitKey::Egress | LimitKey::Ingress => Kind::BitRate,
            LimitKey::Pids | LimitKey::IoReadIops | LimitKey::IoWriteIops | LimitKey::Nofile => {
                Kind::Count
            }
        }
    }

    /// Reads a value of this limit: the number that [`Limits`] keeps for it.
    pub fn parse(self, text: &str) -> Result<u64, UnitError> {
        with_kind!(self.kind(), U => text.parse::<U>().map(U::raw))
    }

    /// The value as text: `20%`, `256M`, `max`.
    pub fn show(self, raw: u64) -> String {
        with_kind!(self.kind(), U => U::from_raw(raw).to_string())
    }

    /// Whether the value is written as a bare number in TOML and JSON.
    pub(super) fn bare(self) -> bool {
        with_kind!(self.kind(), U => U::BARE)
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LimitKey {
    type Err = String;

    /// Knows `io.read`, `io_read` and `read`, and hyphens for underscores.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.to_ascii_lowercase().replace('-', "_");
        Self::ALL
            .into_iter()
            .find(|key| {
                let name = key.name();
                // A bare "weight" could be the disk's or the CPU's.
                let short = name.strip_prefix("io.").filter(|short| *short != "weight");
                plain == name || plain == name.replace('.', "_") || short == Some(&plain)
            })
            .ok_or_else(|| unknown("limit", text, Self::ALL.map(Self::name)))
    }
}

/// The limits that somebody set; what is not set is not there. Sparse and sorted: most sites set few.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Limits(Box<[(LimitKey, u64)]>);

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
        let mut all = std::mem::take(&mut self.0).into_vec();
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
