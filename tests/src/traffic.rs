//! Network traffic of the site whose limits are tested, as fast as it may be.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::limits::SITE;
use crate::{Host, http, seconds};

/// Asks the checker for something on a connection that is kept.
pub fn connect(host: &Host, what: &str) -> TcpStream {
    let upstream = host.dispatch(SITE).upstream();
    let mut stream = TcpStream::connect(upstream).expect("the site listens");
    let limit = Some(seconds(60));
    stream.set_read_timeout(limit).expect("a limit of time");
    let request = format!("GET /{what} HTTP/1.0\r\n\r\n");
    let sent = stream.write_all(request.as_bytes());
    sent.expect("the site listens");
    stream
}

/// Bytes per second that leave the container, by the counter of its own end of the link, in the second half of `time`.
pub fn egress(host: &Host, time: Duration) -> f64 {
    let mut stream = connect(host, &format!("send/{}", time.as_millis()));
    let (mut buffer, mut last) = (vec![0; 1 << 20], Vec::new());
    loop {
        let length = stream.read(&mut buffer).expect("it sends to the end");
        if length == 0 {
            break;
        }
        last.extend_from_slice(&buffer[..length]);
        last.drain(..last.len().saturating_sub(100));
    }
    let text = String::from_utf8_lossy(&last).into_owned();
    let rate = text.lines().last().and_then(|line| line.parse().ok());
    rate.unwrap_or_else(|| panic!("no rate: {text}"))
}

/// Bytes per second that come into the container, by the counter of its own end of the link, in the second half of `time`.
pub fn ingress(host: &Host, time: Duration) -> f64 {
    let stream = connect(host, &format!("receive/{}", time.as_millis()));
    let mut sender = stream.try_clone().expect("the same connection");
    let flood = std::thread::spawn(move || while sender.write_all(&[b'x'; 1 << 16]).is_ok() {});
    let answer = http::read_answer(&stream).expect("an answer");
    // It may have ended by itself.
    let _ = stream.shutdown(Shutdown::Both);
    flood.join().expect("it ends with the connection");
    let text = String::from_utf8_lossy(&answer.body);
    text.parse().unwrap_or_else(|e| panic!("{e}: {text}"))
}
