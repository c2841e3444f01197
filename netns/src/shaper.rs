//! A rate for what leaves through a link: a token bucket filter (tc-tbf) as its root queue. It delays packets and
//! slows TCP down without losing any, and drops only what more than a tenth of a second of traffic would have to wait.

use crate::attributes::{
    Batch, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, attributes, u32_at, u64_at,
};
use crate::netlink::Netlink;
use crate::{Error, Result};
use rustix::io::Errno;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const NLM_F_REPLACE: u16 = 0x100;
/// Before Linux 6.6 the answer to RTM_GETQDISC is sent to its asker as an echo only.
const NLM_F_ECHO: u16 = 0x8;

/// struct tcmsg: family, link, handle, parent, info.
const TCMSG: usize = 20;
const TC_H_ROOT: u32 = 0xffff_ffff;
/// Our queue's number, `fc00:`, which tells it from one that somebody else has set.
const HANDLE: u32 = 0xfc00_0000;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const TCA_STATS_QUEUE: u16 = 3;
/// The place of the drops in struct gnet_stats_queue.
const DROPS: usize = 8;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const KIND: &str = "tbf";
const TC_LINKLAYER_ETHERNET: u8 = 1;
/// The place of the rate's 32 bits in struct tc_tbf_qopt: last of its first struct tc_ratespec.
const RATE: usize = 8;

/// How much of the rate's time may pass at once, so that the timer has to fire 100 times a second at most.
const BURST_PART: u64 = 100;
/// Never less than the largest packet that offloading makes (64 KiB, and headers counted for each of its segments):
/// smaller ones would be cut up, and one that waits while the burst is made smaller than it is would wait for ever.
const BURSTS: (u64, u64) = (80 << 10, 4 << 20);
/// How much may wait: a tenth of a second's traffic, which is what TCP needs to keep a distant link busy.
const QUEUE_PART: u64 = 10;
const QUEUES: (u64, u64) = (128 << 10, 64 << 20);

/// Limits what leaves through the link to `rate` bytes per second, or with nothing lifts the limit. What was in force
/// is changed in place: no packet that waits is lost. Returns what is in force, read back.
pub(crate) fn set(
    socket: &mut Netlink,
    index: u32,
    name: &str,
    rate: Option<u64>,
) -> Result<Option<u64>> {
    let old = get(socket, index, name)?;
    match rate {
        Some(0) => {
            return Err(Error::Invalid(format!(
                "cannot limit the traffic of {name} to nothing: a rate is at least a byte per second"
            )));
        }
        Some(rate) if old != Some(rate) => send(socket, &mut replace(index, rate), name)?,
        None if old.is_some() => send(socket, &mut delete(index), name)?,
        Some(_) | None => return Ok(old),
    }
    let new = get(socket, index, name)?;
    if new == rate {
        return Ok(new);
    }
    Err(Error::Answer {
        action: "limit traffic",
        detail: format!("{name} was given {rate:?} bytes per second and has {new:?}"),
    })
}

/// What is in force; nothing where the root queue is of another kind.
pub(crate) fn get(socket: &mut Netlink, index: u32, name: &str) -> Result<Option<u64>> {
    ask(socket, index, name, rate_of)
}

/// Packets that were dropped because too much waited already; nothing where there is no limit.
pub(crate) fn dropped(socket: &mut Netlink, index: u32, name: &str) -> Result<Option<u64>> {
    ask(socket, index, name, drops_of)
}

fn ask(
    socket: &mut Netlink,
    index: u32,
    name: &str,
    read: impl Fn(&[u8]) -> Option<u64>,
) -> Result<Option<u64>> {
    let mut batch = Batch::default();
    // Acknowledged, because a link that has no queue of its own is answered by nothing else.
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO;
    batch.message(RTM_GETQDISC, flags, &header(index, 0));
    let mut found = None;
    socket
        .exchange(&mut batch, false, |answer| {
            if answer.kind == RTM_NEWQDISC {
                found = answer.payload.get(TCMSG..).and_then(&read);
            }
        })?
        .map_err(|refused| Error::os("read traffic limit", name, refused.errno))?;
    Ok(found)
}

fn send(socket: &mut Netlink, batch: &mut Batch, name: &str) -> Result<()> {
    socket
        .exchange(batch, false, |_| {})?
        .map_err(|refused| match refused.errno {
            Errno::NOENT | Errno::OPNOTSUPP => Error::NoShaper(name.into()),
            errno => Error::os("limit traffic", name, errno),
        })
}

fn replace(index: u32, rate: u64) -> Batch {
    let within = |part: u64, (least, most): (u64, u64)| (rate / part).clamp(least, most) as u32;
    let mut batch = Batch::default();
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    batch.message(RTM_NEWQDISC, flags, &header(index, HANDLE));
    batch.text(TCA_KIND, KIND);
    batch.nest(TCA_OPTIONS, |batch| {
        batch.attribute(TCA_TBF_PARMS, &parameters(rate, within(QUEUE_PART, QUEUES)));
        batch.attribute(TCA_TBF_BURST, &within(BURST_PART, BURSTS).to_ne_bytes());
        if u32::try_from(rate).is_err() {
            batch.attribute(TCA_TBF_RATE64, &rate.to_ne_bytes());
        }
    });
    batch
}

fn delete(index: u32) -> Batch {
    let mut batch = Batch::default();
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    batch.message(RTM_DELQDISC, flags, &header(index, HANDLE));
    batch
}

/// struct tcmsg for the link's root queue.
fn header(index: u32, handle: u32) -> [u8; TCMSG] {
    let mut header = [0; TCMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&TC_H_ROOT.to_ne_bytes());
    header
}

/// struct tc_tbf_qopt: rate, no peak rate, the length of the queue; the burst comes as an attribute.
fn parameters(rate: u64, queue: u32) -> [u8; 36] {
    let mut parameters = [0; 36];
    parameters[1] = TC_LINKLAYER_ETHERNET;
    let low = u32::try_from(rate).unwrap_or(u32::MAX);
    parameters[RATE..RATE + 4].copy_from_slice(&low.to_ne_bytes());
    parameters[24..28].copy_from_slice(&queue.to_ne_bytes());
    parameters
}

/// The rate in the attributes of a queue, if it is a token bucket filter.
fn rate_of(payload: &[u8]) -> Option<u64> {
    let options = of_filter(payload, TCA_OPTIONS)?;
    match find(options, TCA_TBF_RATE64) {
        Some(rate) => u64_at(rate, 0),
        None => u32_at(find(options, TCA_TBF_PARMS)?, RATE).map(u64::from),
    }
}

/// The drops in the attributes of a queue, likewise.
fn drops_of(payload: &[u8]) -> Option<u64> {
    let queue = find(of_filter(payload, TCA_STATS2)?, TCA_STATS_QUEUE)?;
    u32_at(queue, DROPS).map(u64::from)
}

/// An attribute of a queue that is a token bucket filter.
fn of_filter(payload: &[u8], wanted: u16) -> Option<&[u8]> {
    let kind = find(payload, TCA_KIND)?;
    let ours = kind.strip_suffix(&[0]).unwrap_or(kind) == KIND.as_bytes();
    find(payload, wanted).filter(|_| ours)
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::attributes::messages;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_rate_is_read_as_it_is_written(rate in 1u64..) {
            let mut batch = replace(7, rate);
            let bytes = batch.finish(1).to_vec();
            let message = messages(&bytes).next().unwrap();
            prop_assert_eq!(rate_of(&message.payload[TCMSG..]), Some(rate));
        }

        #[test]
        fn any_answer_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (rate_of(&bytes), drops_of(&bytes));
        }
    }
}
