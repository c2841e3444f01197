//! Network traffic without pause, for measuring how fast it gets through.

use std::io::{Error, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const HEAD: &[u8] = b"HTTP/1.0 200 OK\r\n\r\n";

/// Sends for some seconds, or until the asker hangs up.
pub(crate) fn send(mut stream: &TcpStream, seconds: u64) -> Result<(), Error> {
    stream.write_all(HEAD)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if stream.write_all(&[b'x'; 1 << 16]).is_err() {
            break;
        }
    }
    Ok(())
}

/// Receives for some seconds, and after half of them measures bytes per second, which is the answer.
pub(crate) fn receive(mut stream: &TcpStream, seconds: u64) -> Result<(), Error> {
    let half = Duration::from_millis(seconds * 500);
    read_for(stream, half)?;
    let begin = Instant::now();
    let bytes = read_for(stream, half)?;
    let rate = bytes as f64 / begin.elapsed().as_secs_f64();
    stream.write_all(&[HEAD, rate.to_string().as_bytes()].concat())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Hanging up on what is under way would take the answer with it.
    let mut buffer = vec![0; 1 << 16];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    Ok(())
}

fn read_for(mut stream: &TcpStream, time: Duration) -> Result<usize, Error> {
    let end = Instant::now() + time;
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    while Instant::now() < end {
        match stream.read(&mut buffer)? {
            0 => break,
            length => bytes += length,
        }
    }
    Ok(bytes)
}

/// Sends so many datagrams to nobody, through more sockets than one: each waits for its own only.
pub(crate) fn flood(datagrams: usize) -> std::io::Result<usize> {
    let sockets: Vec<UdpSocket> = (0..16)
        .map(|_| UdpSocket::bind("0.0.0.0:0").and_then(|s| s.set_nonblocking(true).map(|()| s)))
        .collect::<Result<_, _>>()?;
    let sent = |socket: &UdpSocket| socket.send_to(&[0; 1400], "192.0.2.1:9").is_ok();
    Ok((0..datagrams).filter(|n| sent(&sockets[n % 16])).count())
}
