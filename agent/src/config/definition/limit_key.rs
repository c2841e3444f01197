//! The names of limits, and how the value of each is written.

use std::fmt;
use std::str::FromStr;

use crate::config::problem::unknown;
use crate::config::units::{BitRate, Bytes, Class, Count, Cpu, Rate, Unit, UnitError, Weight};

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
    /// Whether it is promised its CPU time.
    Class,
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
    Class,
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
            Kind::Class => {
                type $U = Class;
                $run
            }
        }
    };
}

impl LimitKey {
    /// All keys, in the order in which they are shown.
    pub const ALL: [LimitKey; 18] = {
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
            Class,
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
            LimitKey::Class => "class",
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
            LimitKey::Class => Kind::Class,
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
