//! The site's command: one request at a time, `GET /WHAT/NUMBER`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use crate::{load, report, space, traffic};

pub(crate) fn run(port: &str, inherited: &[String]) -> ExitCode {
    let listener = match TcpListener::bind(format!("0.0.0.0:{port}")) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("checker: cannot listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for connection in listener.incoming() {
        let answered = connection.and_then(|stream| answer(stream, inherited));
        if let Err(error) = answered {
            eprintln!("checker: {error}");
        }
    }
    ExitCode::SUCCESS
}

fn answer(stream: TcpStream, inherited: &[String]) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (what, number) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let n: usize = number.parse().unwrap_or(0);
    match what {
        "send" => return traffic::send(&stream, n as u64),
        "receive" => return traffic::receive(&stream, n as u64),
        _ => {}
    }
    let body = match what {
        "" => "checker\n".to_owned(),
        "report" => report::all(Some(inherited)),
        "burn" => load::burn(n as u64).to_string(),
        "put" => {
            load::put_direct(n).map_or_else(|error| error.to_string(), |bytes| bytes.to_string())
        }
        "cpu" => format!("{:.2}", load::cpu(n as u64)),
        "allocate" => load::allocate(n).to_string(),
        "allocate-in-child" => load::allocate_in_child(n),
        "hold" => load::hold(n),
        "fork" => load::fork(n),
        "write" => load::write_direct(n as u64)
            .map_or_else(|error| error.to_string(), |rate| format!("{rate:.0}")),
        "flood" => traffic::flood(n).map_or_else(|error| error.to_string(), |n| n.to_string()),
        "fill" => space::fill(n),
        "empty" => space::empty(),
        "escape" => format!("{} {}", space::escape("/site"), space::escape("/site/fill")),
        "inotify" => load::inotify(n).to_string(),
        "pid" => std::process::id().to_string(),
        _ => format!("cannot {what}"),
    };
    let mut stream = &stream;
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}
