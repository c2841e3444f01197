//! Network traffic without pause, for measuring how fast it gets through.

use std::io::{Error, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const HEAD: &[u8] = b"HTTP/1.0 200 OK\r\n\r\n";

/// So much may wait in the socket, so that what is sent last comes soon after.
const WAITING: usize = 128 << 10;

/// Sends for some time, or until the asker hangs up. What it says last is how many bytes a second have left through the
/// link in the second half of that time.
pub(crate) fn send(mut stream: &TcpStream, time: Duration) -> Result<(), Error> {
    rustix::net::sockopt::set_socket_send_buffer_size(stream, WAITING)?;
    stream.write_all(HEAD)?;
    let piece = [b'x'; 16 << 10];
    let rate = second_half(time, 1, || Ok(stream.write_all(&piece).is_ok()))?;
    // Whoever has hung up does not want to know.
    let _ = stream.write_all(format!("\n{rate}").as_bytes());
    Ok(())
}

/// Receives for some time; the answer is how many bytes a second have come in through the link in its second half.
pub(crate) fn receive(mut stream: &TcpStream, time: Duration) -> Result<(), Error> {
    let mut buffer = vec![0; 1 << 16];
    let rate = second_half(time, 0, || Ok(stream.read(&mut buffer)? > 0))?;
    stream.write_all(&[HEAD, rate.to_string().as_bytes()].concat())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Hanging up on what is under way would take the answer with it.
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    Ok(())
}

/// Goes on for some time, or until there is no more; bytes per second through the link, one `way`, in the second half.
fn second_half(
    time: Duration,
    way: usize,
    mut more: impl FnMut() -> Result<bool, Error>,
) -> Result<f64, Error> {
    let begin = Instant::now();
    let mut half = None;
    while begin.elapsed() < time && more()? {
        if half.is_none() && begin.elapsed() > time / 2 {
            half = Some((Instant::now(), link()?[way]));
        }
    }
    let Some((began, before)) = half else {
        return Ok(0.0);
    };
    Ok((link()?[way] - before) as f64 / began.elapsed().as_secs_f64())
}

/// Bytes that have come in through this container's link so far, and that have gone out.
fn link() -> Result<[u64; 2], Error> {
    let text = std::fs::read_to_string("/proc/net/dev")?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let numbers: Vec<u64> = line
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match (numbers.first(), numbers.get(8)) {
        (Some(into), Some(out)) => Ok([*into, *out]),
        _ => Err(Error::other("no eth0 in /proc/net/dev")),
    }
}

/// Sends so many datagrams to nobody, through more sockets than one: each waits for its own only.
pub(crate) fn flood(datagrams: usize) -> std::io::Result<usize> {
    let sockets: Vec<UdpSocket> = (0..16)
        .map(|_| UdpSocket::bind("0.0.0.0:0").and_then(|s| s.set_nonblocking(true).map(|()| s)))
        .collect::<Result<_, _>>()?;
    let sent = |socket: &UdpSocket| socket.send_to(&[0; 1400], "192.0.2.1:9").is_ok();
    Ok((0..datagrams).filter(|n| sent(&sockets[n % 16])).count())
}
