//! Trying out what a kernel can do, where nothing depends on it.

use crate::{Error, Namespace, Result, route, shaper};
use rustix::io::Errno;

/// Any rate will do.
const RATE: u64 = 1_000_000;
const LINK: &str = "lo";

/// Whether the traffic of links can be limited here: does that to the loopback device of a namespace that is made for it and
/// goes with it. An error is why not.
pub fn try_shaping() -> Result<()> {
    Namespace::create()?.with_route(|socket| {
        let index = route::index_of(socket, LINK)?
            .ok_or_else(|| Error::os("look up interface", LINK, Errno::NODEV))?;
        shaper::set(socket, index, LINK, Some(RATE)).map(drop)
    })
}
