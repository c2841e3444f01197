//! The smallest web server that is one: static, one process, one file. What a cold start costs is then the platform's.
//! `scripts/bench` builds it for musl.
#![allow(missing_docs)]

use std::io::{Read, Write};
use std::net::TcpListener;

fn main() -> std::io::Result<()> {
    let page = std::fs::read("/site/index.html")?;
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
    let answer = [head.as_bytes(), &page].concat();
    for stream in TcpListener::bind("0.0.0.0:8080")?.incoming() {
        let mut stream = stream?;
        // A client that has gone is no reason to end.
        let _ = stream
            .read(&mut [0; 4096])
            .and_then(|_| stream.write_all(&answer));
    }
    Ok(())
}
