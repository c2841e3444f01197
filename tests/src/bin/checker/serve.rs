//! The site's command: one request at a time, `GET /WHAT/NUMBER`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::{amounts, cpu, load, rates, report, space, traffic};

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

/// Pieces in which a disk is read and written: few of them a second are many bytes, many of them few.
const LARGE: usize = 64 << 10;
const SMALL: usize = 4 << 10;

/// `each` times the operations of a second.
fn rate(write: bool, piece: usize, time: Duration, each: f64) -> String {
    let rate = rates::operations(write, piece, time);
    rate.map_or_else(
        |error| error.to_string(),
        |rate| format!("{:.3}", rate * each),
    )
}

fn number(pages: std::io::Result<usize>) -> String {
    pages.map_or_else(|error| error.to_string(), |pages| pages.to_string())
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
    let (what, n) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let n: usize = n.parse().unwrap_or(0);
    // What takes time says how much, in milliseconds.
    let time = Duration::from_millis(n as u64);
    match what {
        "send" => return traffic::send(&stream, time),
        "receive" => return traffic::receive(&stream, time),
        _ => {}
    }
    let body = match what {
        "" => "checker\n".to_owned(),
        "report" => report::all(Some(inherited)),
        "burn" => load::burn(n as u64).to_string(),
        "put" => {
            load::put_direct(n).map_or_else(|error| error.to_string(), |bytes| bytes.to_string())
        }
        "cpu" => format!("{:.3}", cpu::share(time)),
        "cpu-after-a-pause" => cpu::after_a_pause(n).to_string(),
        "cpu-beside-others" => {
            cpu::beside_others(time).map_or_else(|error| error, |used| used.to_string())
        }
        "pages" => amounts::pages(n).unwrap_or_else(|error| error.to_string()),
        "cache" => number(amounts::cache(n)),
        "resident" => number(amounts::resident()),
        "files" => amounts::files().unwrap_or_else(|error| error.to_string()),
        "read" => rate(false, LARGE, time, LARGE as f64),
        "write" => rate(true, LARGE, time, LARGE as f64),
        "reads" => rate(false, SMALL, time, 1.0),
        "reads-at-once" => rates::reads_at_once(LARGE, time)
            .map_or_else(|error| error.to_string(), |rate| format!("{rate:.3}")),
        "writes" => rate(true, SMALL, time, 1.0),
        "allocate" => load::allocate(n).to_string(),
        "allocate-in-child" => load::allocate_in_child(n),
        "hold" => load::hold(n),
        "fork" => load::fork(n),
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
