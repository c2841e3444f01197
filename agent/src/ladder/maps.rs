//! Which memory of a process is its own: `/proc/PID/maps`, of which a tenant decides how long it is. Pure.

/// Bytes of that file that are read; what is behind them stays in memory.
pub(super) const LONGEST: u64 = 4 << 20;
/// And of all those of one container: the processor time is the agent's.
pub(super) const MOST: u64 = 32 << 20;
/// Portions of one container, a microsecond or three each, touched or not: a quarter of a terabyte of addresses.
pub(super) const MOST_PORTIONS: u32 = 1 << 16;
/// One advice is about this much at most, so that whoever wakes the site soon gets its turn.
const PIECE: usize = 4 << 20;
/// And about as many ranges.
const PIECES: usize = 128;

/// Address and length of the private anonymous mappings that may be touched. Those of files stay: they may be other sites'
/// too, and so may shared memory.
pub(super) fn anonymous(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    // A line that was cut off has no end.
    let whole = maps.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(range)
}

fn range(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    // Programs reserve addresses by the terabyte that nobody may touch.
    let private = rights.ends_with('p') && !rights.starts_with("---");
    let inode = words.nth(2)?;
    let name = words.next();
    let own = match name {
        None | Some("[heap]" | "[stack]") => true,
        Some(name) => name.starts_with("[anon:"),
    };
    if !private || inode != "0" || !own {
        return None;
    }
    let from = usize::from_str_radix(from, 16).ok()?;
    let length = usize::from_str_radix(to, 16).ok()?.checked_sub(from)?;
    (length > 0).then_some((from, length))
}

/// The same memory in portions of a bounded size, each for one call.
pub(super) fn portions(
    ranges: impl Iterator<Item = (usize, usize)>,
) -> impl Iterator<Item = Vec<(usize, usize)>> {
    let mut pieces = ranges
        .flat_map(|(from, length)| {
            (0..length)
                .step_by(PIECE)
                .map(move |at| (from + at, PIECE.min(length - at)))
        })
        .peekable();
    std::iter::from_fn(move || {
        let mut portion = vec![pieces.next()?];
        let mut bytes = portion[0].1;
        while portion.len() < PIECES
            && let Some(piece) = pieces.next_if(|(_, length)| bytes + length <= PIECE)
        {
            bytes += piece.1;
            portion.push(piece);
        }
        Some(portion)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAPS: &str = "\
55d0c0a00000-55d0c0a21000 r--p 00000000 08:01 1234                       /usr/sbin/apache2
55d0c0b00000-55d0c0b04000 rw-p 000a0000 08:01 1234                       /usr/sbin/apache2
55d0c0b04000-55d0c0b08000 rw-p 00000000 00:00 0 
55d0c1a00000-55d0c1e00000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000200000 rw-s 00000000 00:01 99                         /dev/zero (deleted)
7f0000200000-7f0000300000 rw-s 00000000 00:00 0 
7f0000300000-7f0000301000 r--p 00000000 00:00 0                          [vvar]
7f0000301000-7f0000302000 r-xp 00000000 00:00 0                          [vdso]
7f0000400000-7f0000401000 rw-p 00000000 00:00 0                          [anon:name of its own]
7f1000000000-7ff000000000 ---p 00000000 00:00 0 
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 ";

    #[test]
    fn only_private_anonymous_memory_counts() {
        let found: Vec<_> = anonymous(MAPS)
            .map(|(from, length)| (from, length >> 12))
            .collect();
        assert_eq!(
            found,
            [
                (0x55d0_c0b0_4000, 4),
                (0x55d0_c1a0_0000, 0x400),
                (0x7f00_0040_0000, 1),
                (0x7ffc_0000_0000, 0x21),
            ],
            "the last line was cut off"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(([0-9a-f]{0,17}-?[0-9a-f]{0,17}|[rwxp-]{4}|0|\\PC{0,9}| |\n){0,12})") {
            for (from, length) in anonymous(&text) {
                prop_assert!(length > 0 && from.checked_add(length).is_some());
            }
        }

        #[test]
        fn portions_are_all_of_it_and_bounded(lengths in proptest::collection::vec(1usize..20_000_000, 0..30)) {
            let mut at = 4096;
            let ranges: Vec<_> = lengths.iter().map(|length| {
                let range = (at, *length);
                at += length + 4096;
                range
            }).collect();
            let portions: Vec<_> = portions(ranges.iter().copied()).collect();
            let mut joined: Vec<(usize, usize)> = Vec::new();
            for portion in portions {
                prop_assert!(portion.len() <= PIECES);
                prop_assert!(portion.iter().map(|(_, length)| length).sum::<usize>() <= PIECE);
                for (from, length) in portion {
                    match joined.last_mut() {
                        Some((begin, so_far)) if *begin + *so_far == from => *so_far += length,
                        _ => joined.push((from, length)),
                    }
                }
            }
            prop_assert_eq!(joined, ranges);
        }
    }
}
