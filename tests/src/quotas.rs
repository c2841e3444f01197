//! A file system with project quotas.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::limits::text;
use crate::{Host, skip};

/// ext4 with project quotas where the documents of the test's sites are; unmounted at the end.
#[derive(Debug)]
pub struct Quotas(PathBuf);

impl Quotas {
    /// None where the kernel cannot.
    pub fn mount(host: &Host, kind: &str) -> Option<Self> {
        let image = host.dir.join("image");
        let (size, make) = match kind {
            "xfs" => (320, "mkfs.xfs -q"),
            _ => (
                160,
                "mke2fs -q -t ext4 -N 90000 -O quota,project -E quotatype=prjquota",
            ),
        };
        let file = fs::File::create(&image).and_then(|file| file.set_len(size << 20));
        file.expect("an empty image");
        let (image, www) = (image.display(), host.dir.join("www"));
        let script = format!(
            "{make} {image} && mount -o loop,prjquota {image} {}",
            www.display()
        );
        let mount = Command::new("/bin/sh")
            .args(["-c", &script])
            .output()
            .expect("a shell");
        if !mount.status.success() {
            let why = text(&mount);
            // Its kernel can; mkfs.xfs is not always there.
            let vm = std::env::var_os("FASTCONTAINER_VM").is_some();
            assert!(!vm || kind == "xfs", "{why}");
            skip(&format!(
                "no {kind} with project quotas here: {}",
                why.trim().replace('\n', "; ")
            ));
            return None;
        }
        Some(Self(www))
    }
}

impl Drop for Quotas {
    fn drop(&mut self) {
        // A container that is just ending may still have it.
        for _ in 0..200 {
            let output = Command::new("umount").arg(&self.0).output();
            if output.is_ok_and(|output| output.status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        eprintln!("{} is still mounted", self.0.display());
    }
}
