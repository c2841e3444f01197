//! A container's user and group ids, inside and on the host.

use serde::{Deserialize, Serialize};

/// User and group ids of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// First id of the container's range on the host; container id `n` is `base + n` for `n < 65535`.
    pub base: u32,
    /// The site's uid inside, which is also the owner of its documents on disk. One of 65535 or more is mapped
    /// to `base + 65535` by an extra line.
    pub uid: u32,
    /// The site's gid inside, treated as `uid` is.
    pub gid: u32,
    /// The site's own uid and gid are the same on the host, for documents on a file system that cannot be mounted
    /// with mapped ids (NFS, most of FUSE). Everything else is in the range.
    pub direct: bool,
}

impl Ids {
    /// How many host ids a container's range spans.
    pub const RANGE: u32 = 65_536;

    /// The host's uid of the site's processes.
    pub fn host_uid(&self) -> u32 {
        self.host_of(self.uid)
    }

    /// The host's gid of the site's processes.
    pub fn host_gid(&self) -> u32 {
        self.host_of(self.gid)
    }

    fn host_of(&self, own: u32) -> u32 {
        if self.direct {
            own
        } else {
            self.base + own.min(Self::RANGE - 1)
        }
    }

    /// Text for `/proc/PID/uid_map`.
    pub fn uid_map(&self) -> String {
        self.map(self.uid)
    }

    /// Text for `/proc/PID/gid_map`.
    pub fn gid_map(&self) -> String {
        self.map(self.gid)
    }

    /// The whole range, with the site's own id leading elsewhere if it has to.
    fn map(&self, own: u32) -> String {
        let (base, last) = (self.base, Self::RANGE - 1);
        match (own < last, self.direct) {
            (true, false) => format!("0 {base} {}\n", Self::RANGE),
            (false, _) => format!("0 {base} {last}\n{own} {} 1\n", self.host_of(own)),
            (true, true) => {
                let below = if own > 0 {
                    format!("0 {base} {own}\n")
                } else {
                    String::new()
                };
                format!(
                    "{below}{own} {own} 1\n{} {} {}\n",
                    own + 1,
                    base + own + 1,
                    last - own
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn maps_are_disjoint_and_lead_the_site_to_its_host_id(
            own in prop_oneof![0u32..70_000, any::<u32>()], direct: bool, slot in 1u32..1000,
        ) {
            let ids = Ids { base: 0x2000_0000 + slot * Ids::RANGE, uid: own, gid: own, direct };
            let mut lines: Vec<[u64; 3]> = ids
                .uid_map()
                .lines()
                .map(|line| line.split(' ').map(|w| w.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap())
                .collect();
            let host = lines.iter().find(|[first, _, n]| (*first..first + n).contains(&u64::from(own)));
            let [first, to, _] = host.unwrap();
            prop_assert_eq!(to + u64::from(own) - first, u64::from(ids.host_uid()));
            lines.sort_unstable();
            for pair in lines.windows(2) {
                prop_assert!(pair[0][0] + pair[0][2] <= pair[1][0]);
            }
            prop_assert!(lines.iter().all(|line| line[2] > 0));
        }
    }
}
