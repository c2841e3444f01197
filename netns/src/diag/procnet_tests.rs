#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0
   1: 0600580A:1F90 0100580A:C350 01 00000000:00000000 00:00000000 00000000    33        0 12346 1 0 20 4 30 10 -1
   2: 0600580A:1F90 0100580A:C351 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   3: 0600580A:1F90 0100580A:C352 05 00000000:00000000 03:00000000 00000000     0        0 0 3 0
";
const TCP6: &str = "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0
   1: 0000000000000000FFFF00000600580A:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 778 1 0
   2: 00000000000000000000000001000000:0052 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 779 1 0
";
const UNIX: &str = "Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 111 /run/site/app.sock
0000000000000000: 00000003 00000000 00000000 0001 03 112 /run/site/app.sock
0000000000000000: 00000002 00000000 00000000 0001 02   0 /run/site/app.sock
0000000000000000: 00000003 00000000 00000000 0001 03 113
0000000000000000: 00000002 00000000 00010000 0005 01 114 @abstract name@
";

fn listens(table: &str, address: &str, port: u16) -> bool {
    tcp_table(table.as_bytes()).any(|s| s.takes(address.parse().unwrap(), port))
}

#[test]
fn listeners_take_what_they_are_bound_to() {
    assert!(listens(TCP, "127.0.0.1", 8080));
    assert!(!listens(TCP, "10.88.0.6", 8080));
    assert!(!listens(TCP, "127.0.0.1", 8081));
    assert!(listens(TCP6, "10.88.0.6", 80) && listens(TCP6, "::1", 80));
    assert!(listens(TCP6, "10.88.0.6", 81) && !listens(TCP6, "10.88.0.7", 81));
    assert!(listens(TCP6, "::1", 82) && !listens(TCP6, "127.0.0.1", 82));
}

#[test]
fn only_connections_that_a_stop_would_cut_are_open() {
    assert_eq!(
        tcp_table(TCP.as_bytes())
            .filter(|s| s.is_open_on(8080))
            .count(),
        1
    );
    assert_eq!(
        tcp_table(TCP.as_bytes())
            .filter(|s| s.is_open_on(8081))
            .count(),
        0
    );
}

#[test]
fn unix_sockets_by_name() {
    let named = |name: &[u8]| {
        let sockets: Vec<_> = unix_table(UNIX.as_bytes())
            .filter(|s| s.is_named(name))
            .collect();
        (
            sockets.iter().filter(|s| s.listening).count(),
            sockets.iter().filter(|s| s.open).count(),
        )
    };
    assert_eq!(named(b"/run/site/app.sock"), (1, 2));
    assert_eq!(named(b"\0abstract name\0"), (1, 0));
    assert_eq!(named(b"/run/site/app"), (0, 0));
    assert_eq!(named(b""), (0, 0));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let lines = bytes.split(|&byte| byte == b'\n').count();
        prop_assert!(tcp_table(&bytes).count() <= lines);
        prop_assert!(unix_table(&bytes).count() <= lines);
    }

    #[test]
    fn text_like_the_kernels_is_survived(text in "[0-9A-F: @\\n]{0,300}") {
        let lines = text.split('\n').count();
        prop_assert!(tcp_table(text.as_bytes()).count() <= lines);
        prop_assert!(unix_table(text.as_bytes()).count() <= lines);
    }

    #[test]
    fn every_ipv4_line_is_read_back(octets: [u8; 4], peer: [u8; 4], port: u16, state in 1u8..13, unread: u32, inode: u32) {
        let [word, other] = [octets, peer].map(u32::from_ne_bytes);
        let line = format!(
            "   0: {word:08X}:{port:04X} {other:08X}:0000 {state:02X} 0:{unread:08X} 00:0 0     0        0 {inode} 1"
        );
        let read: Vec<_> = tcp_table(line.as_bytes()).collect();
        let expected = TcpSocket {
            address: octets.into(), port, peer: peer.into(), state, unread, inode: inode.into(),
        };
        prop_assert_eq!(read, vec![expected]);
    }
}
