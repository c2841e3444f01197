//! Loads many definitions, and prints how long that took and how much memory they occupy.
//!
//! `cargo run --release --example load_definitions -- [NUMBER [DIRECTORY]]`; without a directory the files are made in a temporary one.

use std::path::{Path, PathBuf};
use std::time::Instant;

use agent::config::Rules;
use agent::config::store::load_dir;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let number: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let made = tempfile::tempdir()?;
    let directory = match arguments.next() {
        Some(directory) => PathBuf::from(directory),
        None => {
            make(made.path(), number)?;
            made.path().into()
        }
    };
    let before = resident_kb()?;
    let start = Instant::now();
    let definitions = load_dir(
        &directory,
        &Rules {
            min_uid: 1000,
            min_gid: 1000,
            ..Rules::default()
        },
    )?;
    let took = start.elapsed();
    let grown = resident_kb()?.saturating_sub(before);
    let count = definitions.count();
    println!(
        "{count} definitions, {} problems",
        definitions.problems().count()
    );
    println!(
        "loaded in {:.3} s, {:.1} µs each",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / count.max(1) as f64
    );
    println!(
        "resident {} kB before, {grown} kB more after: {} bytes each",
        before,
        grown * 1024 / count.max(1) as u64
    );

    let file = "site1.example.com.toml";
    let text = std::fs::read_to_string(directory.join(file))?.replace("128", "129");
    let mut definitions = definitions;
    let start = Instant::now();
    let changes = definitions.apply_change(file, Some(&text));
    println!(
        "one changed file: {} change in {} µs",
        changes.len(),
        start.elapsed().as_micros()
    );
    Ok(())
}

/// Writes definitions as full as the ones of a hosting customer are.
fn make(directory: &Path, number: usize) -> std::io::Result<()> {
    for n in 0..number {
        let text = format!(
            r#"name = "site{n}.example.com"
aliases = ["www.site{n}.example.com"]
owner = "customer{}"
template = "host"
documents = "/srv/www/site{n}.example.com"
command = ["apache2", "-D", "FOREGROUND", "-f", "/site/httpd.conf"]
listen = "tcp:8080"
user = "auto"
env = {{ KEY = "value" }}
[limits]
cpu = "20%"
memory = "256M"
pids = 128
io = {{ read = "2MB/s", write = "2MB/s", read_iops = 200, write_iops = 200 }}
egress = "10Mbit"
disk = "5G"
[network]
mode = "address"
outbound = true
allow = ["10.0.0.5:3306"]
[idle]
timeout = "60s"
max_lifetime = "24h"
"#,
            n / 10
        );
        std::fs::write(directory.join(format!("site{n}.example.com.toml")), text)?;
    }
    Ok(())
}

/// This process's resident memory.
fn resident_kb() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
