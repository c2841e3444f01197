//! A share of the disk beside a sibling who wants it all as well: where the disk has a scheduler that heeds weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use harness::inside::{self, site};
use harness::limits::{SITE, first_of_all};
use harness::{Host, run, seconds, skip};

use super::table::{Cell, Table, When};
use super::{io, limits};

const SIBLING: &str = "b.example.com";

/// A disk of its own for the documents of the test's sites, with the scheduler bfq. It is in memory: how busy others keep the
/// host's disk says nothing about shares.
struct Disk {
    device: String,
    mounted: PathBuf,
}

impl Disk {
    fn mount(host: &Host) -> Option<Self> {
        let name = host.dir.file_name().unwrap();
        let image = Path::new("/dev/shm").join(name).with_extension("disk");
        let file = fs::File::create(&image).and_then(|file| file.set_len(64 << 20));
        file.unwrap();
        let path = image.to_str().unwrap();
        run("mke2fs", &["-q", "-t", "ext4", path]);
        let device = run("losetup", &["-f", "--show", path]).trim().to_owned();
        // From here on it is gone with the device.
        fs::remove_file(&image).unwrap();
        let mounted = host.dir.join("www");
        let disk = Self { device, mounted };
        // Where it is a module; if that fails, the scheduler says so.
        let _ = Command::new("modprobe").arg("bfq").output();
        if let Err(error) = fs::write(disk.queue("scheduler"), "bfq") {
            skip(&format!("no I/O scheduler bfq here: {error}"));
            return None;
        }
        // It would favour whoever has just begun, and a disk as fast as this one is for nobody to wait. Turns are small, and
        // end with what was read in them, not because a reader had to wait for a processor meanwhile.
        for (file, value) in [
            ("low_latency", "0"),
            ("strict_guarantees", "1"),
            ("max_budget", "512"),
            ("slice_idle", "50"),
            ("timeout_sync", "2000"),
        ] {
            fs::write(disk.queue("iosched").join(file), value).unwrap();
        }
        run("mount", &[&disk.device, disk.mounted.to_str().unwrap()]);
        Some(disk)
    }

    fn queue(&self, file: &str) -> PathBuf {
        let name = self.device.trim_start_matches("/dev/");
        PathBuf::from(format!("/sys/block/{name}/queue/{file}"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mounted).output();
        let _ = fs::write(self.queue("scheduler"), "none");
        let _ = Command::new("losetup").args(["-d", &self.device]).output();
    }
}

/// The site's part of all that both read, in percent.
fn beside_a_sibling(addresses: &[String; 2], longer: u32) -> f64 {
    let what = format!("/reads-at-once/{}", 1500 * longer);
    let read = |address: &str| -> f64 {
        let answer = harness::http::get(address, &what, seconds(60)).unwrap();
        let said = String::from_utf8(answer.body).unwrap();
        said.parse().unwrap_or_else(|_| panic!("{said}"))
    };
    let [own, sibling] = thread::scope(|scope| {
        let both = addresses
            .each_ref()
            .map(|address| scope.spawn(move || read(address)));
        both.map(|thread| thread.join().unwrap())
    });
    own / (own + sibling) * 100.0
}

#[test]
fn weight() {
    let host = Host::new("");
    first_of_all(&host);
    let Some(disk) = Disk::mount(&host) else {
        return host.finish();
    };
    for vhost in [SITE, SIBLING] {
        inside::put_a_file(&host, vhost);
    }
    site(&host, SITE, &limits("io = { weight = 150 }"));
    site(&host, SIBLING, "");
    let addresses = [SITE, SIBLING].map(|vhost| host.dispatch(vhost).upstream());
    let mut table = Table::new(&host);
    for (when, weight, wanted) in [
        (When::Start, 150, 60.0),
        (When::Up, 300, 75.0),
        (When::Down, 50, 100.0 / 3.0),
    ] {
        if when != When::Start {
            table.change(&[&format!("io.weight={weight}")]);
        }
        let cell = Cell {
            limit: "io.weight",
            when,
            wanted,
            unit: "% of two",
            within: 0.1,
        };
        table.near(cell, |longer| beside_a_sibling(&addresses, longer));
        table.processes();
    }
    table.finish(&io::LIMITS[4..]);
    for vhost in [SITE, SIBLING] {
        host.verb(vhost, "down");
    }
    drop(disk);
    host.finish();
}
