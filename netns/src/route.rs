//! rtnetlink requests: links, addresses, neighbours and routes, several in one send.

use crate::attributes::{Batch, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};
use crate::attributes::{attributes, u32_at, u64_at};
use crate::netlink::Netlink;
use crate::{Error, Result};
use netlink_packet_core::NetlinkSerializable;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use std::net::Ipv4Addr;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const IFLA_IFNAME: u16 = 3;
const RTM_GETSTATS: u16 = 94;
const IFLA_STATS_LINK_64: u16 = 1;
const IF_STATS_MSG: usize = 12;
const IFINFOMSG: usize = 16;
const LOOPBACK: u32 = 1;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// Requests that go to the kernel in one send; each has a name for its error.
#[derive(Default)]
pub(crate) struct Requests {
    batch: Batch,
    names: Vec<&'static str>,
}

/// One end of a veth pair.
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

impl Requests {
    fn add(&mut self, name: &'static str, flags: u16, message: &RouteNetlinkMessage) {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        self.batch.message(
            message.message_type(),
            NLM_F_REQUEST | NLM_F_ACK | flags,
            &body,
        );
        self.names.push(name);
    }

    /// A veth pair, the peer in the namespace of `peer_namespace` from the start. One queue each:
    /// the default is one per CPU, which costs memory and time and gives nothing here.
    pub(crate) fn veth(&mut self, own: &End<'_>, peer: &End<'_>, peer_namespace: i32) {
        let end = |end: &End<'_>| {
            vec![
                LinkAttribute::IfName(end.name.into()),
                LinkAttribute::Address(end.mac.to_vec()),
                LinkAttribute::NumTxQueues(1),
                LinkAttribute::NumRxQueues(1),
            ]
        };
        let mut inside = LinkMessage::default();
        inside.attributes = end(peer);
        inside
            .attributes
            .push(LinkAttribute::NetNsFd(peer_namespace));
        let mut link = LinkMessage::default();
        link.attributes = end(own);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inside))),
        ]));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.add("create veth", flags, &RouteNetlinkMessage::NewLink(link));
    }

    pub(crate) fn up(&mut self, index: u32, flags: LinkFlags) {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags | LinkFlags::Up;
        link.header.change_mask = flags | LinkFlags::Up;
        self.add("set link up", 0, &RouteNetlinkMessage::SetLink(link));
    }

    pub(crate) fn delete_link(&mut self, index: u32) {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.add("delete link", 0, &RouteNetlinkMessage::DelLink(link));
    }

    pub(crate) fn address(&mut self, index: u32, address: Ipv4Addr) {
        let message = RouteNetlinkMessage::NewAddress(host_address(index, address));
        self.add("add address", NLM_F_CREATE | NLM_F_REPLACE, &message);
    }

    pub(crate) fn loopback_address(&mut self, address: Ipv4Addr) {
        self.address(LOOPBACK, address);
    }

    pub(crate) fn delete_loopback_address(&mut self, address: Ipv4Addr) {
        let message = RouteNetlinkMessage::DelAddress(host_address(LOOPBACK, address));
        self.add("delete address", 0, &message);
    }

    /// A neighbour that is never asked for and never forgotten.
    pub(crate) fn neighbour(&mut self, index: u32, address: Ipv4Addr, mac: Mac) {
        let mut neighbour = NeighbourMessage::default();
        neighbour.header.family = AddressFamily::Inet;
        neighbour.header.ifindex = index;
        neighbour.header.state = NeighbourState::Permanent;
        neighbour.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        let message = RouteNetlinkMessage::NewNeighbour(neighbour);
        self.add("add neighbour", NLM_F_CREATE | NLM_F_REPLACE, &message);
    }

    /// The way to one container, from the host's own address.
    pub(crate) fn host_route(&mut self, index: u32, to: Ipv4Addr, from: Ipv4Addr) {
        let mut route = route(32, RouteType::Unicast, RouteScope::Link);
        route.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(to)),
            RouteAttribute::Oif(index),
            RouteAttribute::PrefSource(RouteAddress::Inet(from)),
        ];
        let message = RouteNetlinkMessage::NewRoute(route);
        self.add("add route", NLM_F_CREATE | NLM_F_REPLACE, &message);
    }

    /// A container's way to everything.
    pub(crate) fn default_route(&mut self, index: u32, gateway: Ipv4Addr) {
        let mut route = route(0, RouteType::Unicast, RouteScope::Universe);
        route.header.flags = RouteFlags::Onlink;
        route.attributes = vec![
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
            RouteAttribute::Oif(index),
        ];
        let message = RouteNetlinkMessage::NewRoute(route);
        self.add("add default route", NLM_F_CREATE | NLM_F_REPLACE, &message);
    }

    /// Addresses of the subnet without a container are refused at once, not sent to the outside.
    pub(crate) fn unreachable(&mut self, base: Ipv4Addr, length: u8) {
        let message = RouteNetlinkMessage::NewRoute(unreachable(base, length));
        self.add(
            "add unreachable route",
            NLM_F_CREATE | NLM_F_REPLACE,
            &message,
        );
    }

    pub(crate) fn delete_unreachable(&mut self, base: Ipv4Addr, length: u8) {
        let message = RouteNetlinkMessage::DelRoute(unreachable(base, length));
        self.add("delete unreachable route", 0, &message);
    }

    /// Sends all and waits until all are done; the first refusal is the error.
    pub(crate) fn send(mut self, socket: &mut Netlink, object: &str) -> Result<()> {
        socket
            .exchange(&mut self.batch, false, |_| {})?
            .map_err(|refused| {
                let action = self
                    .names
                    .get(refused.index as usize)
                    .copied()
                    .unwrap_or("request");
                Error::os(action, object, refused.errno)
            })
    }
}

fn host_address(index: u32, address: Ipv4Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address.into()),
        AddressAttribute::Address(address.into()),
    ];
    message
}

fn route(length: u8, kind: RouteType, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = scope;
    message.header.kind = kind;
    message
}

fn unreachable(base: Ipv4Addr, length: u8) -> RouteMessage {
    let mut message = route(length, RouteType::Unreachable, RouteScope::Universe);
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(base))];
    message
}

/// Sets `lo` up in the socket's namespace.
pub(crate) fn set_loopback_up(socket: &mut Netlink) -> Result<()> {
    let mut requests = Requests::default();
    requests.up(LOOPBACK, LinkFlags::empty());
    requests.send(socket, "lo")
}

/// The interface number of a name in the socket's namespace.
pub(crate) fn index_of(socket: &Netlink, name: &str) -> Result<Option<u32>> {
    match rustix::net::netdevice::name_to_index(socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(source) => Err(Error::os("look up interface", name, source)),
    }
}

/// Whether the link can carry packets. Recent kernels finish a pending change of the carrier before
/// they answer; older ones do it shortly after, so the caller asks again.
pub(crate) fn is_running(socket: &mut Netlink, index: u32) -> Result<bool> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let message = RouteNetlinkMessage::GetLink(link);
    let mut body = vec![0; message.buffer_len()];
    message.serialize(&mut body);
    let mut batch = Batch::default();
    batch.message(message.message_type(), NLM_F_REQUEST, &body);
    let flags = socket
        .ask(&mut batch, |answer| u32_at(answer.payload, 8))?
        .map_err(|source| Error::os("read link state", index.to_string(), source))?;
    Ok(LinkFlags::from_bits_retain(flags.unwrap_or(0)).contains(LinkFlags::Running))
}

/// What a link has carried, as its own end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// The byte counters of a link in the socket's namespace. Asked for alone: what else there is to know of a link takes the
/// kernel longer the more namespaces there are.
pub(crate) fn bytes_of(socket: &mut Netlink, name: &str) -> Result<Bytes> {
    let index = rustix::net::netdevice::name_to_index(&*socket, name)
        .map_err(|source| Error::os("read link counters", name, source))?;
    // struct if_stats_msg: family and padding, the link, which statistics.
    let mut body = [0; IF_STATS_MSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..].copy_from_slice(&(1u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
    let mut batch = Batch::default();
    batch.message(RTM_GETSTATS, NLM_F_REQUEST, &body);
    let counters = socket
        .ask(&mut batch, |answer| {
            let mut rest = attributes(answer.payload.get(IF_STATS_MSG..)?);
            let (_, counters) = rest.find(|(kind, _)| *kind == IFLA_STATS_LINK_64)?;
            // struct rtnl_link_stats64: packets received and sent, then bytes received and sent.
            Some(Bytes {
                received: u64_at(counters, 16)?,
                sent: u64_at(counters, 24)?,
            })
        })?
        .map_err(|source| Error::os("read link counters", name, source))?;
    counters.ok_or_else(|| Error::Answer {
        action: "read link counters",
        detail: format!("there are none of {name}"),
    })
}

/// The names of all links in the socket's namespace.
pub(crate) fn link_names(socket: &mut Netlink) -> Result<Vec<String>> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let message = RouteNetlinkMessage::GetLink(link);
    let mut body = vec![0; message.buffer_len()];
    message.serialize(&mut body);
    let mut batch = Batch::default();
    batch.message(message.message_type(), NLM_F_REQUEST | NLM_F_DUMP, &body);
    let mut names = Vec::new();
    socket
        .exchange(&mut batch, false, |answer| {
            let rest = answer.payload.get(IFINFOMSG..).unwrap_or_default();
            let name = attributes(rest).find(|(kind, _)| *kind == IFLA_IFNAME);
            names.extend(name.map(|(_, value)| {
                String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
            }));
        })?
        .map_err(|refused| Error::os("list", "links", refused.errno))?;
    Ok(names)
}
