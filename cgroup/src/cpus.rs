//! Sets of CPUs, as the kernel writes them: `0-3,8`. Pure.

use std::fmt;

/// The most CPUs that a kernel for these machines can have.
const MOST: usize = 1024;
const WORD: usize = 64;

/// Some CPUs of the host, by number.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuSet([u64; MOST / WORD]);

impl CpuSet {
    /// Reads `0-3,8`; `None` for what is no such list, or names a CPU beyond what a kernel can have. Nothing at all is the
    /// empty set.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Some(set);
        }
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| text.parse::<usize>().ok()).flatten()
            };
            let (first, last) = (number(first.trim())?, number(last.trim())?);
            if first > last || last >= MOST {
                return None;
            }
            for cpu in first..=last {
                *set.0.get_mut(cpu / WORD)? |= 1 << (cpu % WORD);
            }
        }
        Some(set)
    }

    /// Whether the CPU is one of them.
    #[must_use]
    pub fn contains(&self, cpu: usize) -> bool {
        self.0
            .get(cpu / WORD)
            .is_some_and(|word| word & (1 << (cpu % WORD)) != 0)
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that are not among the others.
    #[must_use]
    pub fn without(mut self, others: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            *word &= !other;
        }
        self
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut cpu = 0;
        while cpu < MOST {
            if !self.contains(cpu) {
                cpu += 1;
                continue;
            }
            let first = cpu;
            while self.contains(cpu + 1) {
                cpu += 1;
            }
            write!(f, "{comma}{first}")?;
            if cpu > first {
                write!(f, "-{cpu}")?;
            }
            comma = ",";
            cpu += 1;
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_list_is_none() {
        for text in ["a", "1-", "-1", "2-1", "1,,2", "0-1024", "1024", "+1", ","] {
            assert_eq!(CpuSet::parse(text), None, "{text}");
        }
        assert!(CpuSet::parse(" \n").unwrap().is_empty());
        let set = CpuSet::parse("3,0-1,1023\n").unwrap();
        assert_eq!((set.to_string().as_str(), set.len()), ("0-1,3,1023", 4));
        let rest = set.without(&CpuSet::parse("1-3").unwrap());
        assert_eq!(rest.to_string(), "0,1023");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(cpus in prop::collection::btree_set(0..MOST, 0..40)) {
            let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
            let set = CpuSet::parse(&list.join(",")).unwrap();
            prop_assert_eq!(set.len(), cpus.len());
            prop_assert_eq!(CpuSet::parse(&set.to_string()), Some(set));
            prop_assert!((0..MOST).all(|cpu| set.contains(cpu) == cpus.contains(&cpu)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = CpuSet::parse(&text);
        }
    }
}
