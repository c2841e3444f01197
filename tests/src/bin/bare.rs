//! A container by the bare system calls: the isolation that an agent gives (namespaces, groups with limits, a root of its
//! own, ids, no capabilities, a filter), made for a no-op and taken away again. Nothing is made ahead, kept, read back or
//! written down: what the kernel itself costs. Part of the benchmark.
//!
//! `bare DIRECTORY DOCUMENTS GROUP…`: for each line that comes in, one container; answers how many µs it took. After `exit` a no-op,
//! until nothing is left of it; after `serve` `/site/server`, until the first byte of its answer, with a network namespace that is
//! there before.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

/// First id of the container's range.
const BASE: u32 = 0x3000_0000;
const NONE: Option<&str> = None;

struct Bare {
    /// Where the root is built, and what becomes its /dev.
    directory: PathBuf,
    documents: PathBuf,
    /// A group of its own in each hierarchy.
    groups: Vec<PathBuf>,
}

fn main() {
    let mut words = std::env::args().skip(1);
    let directory = PathBuf::from(words.next().unwrap());
    let bare = Bare {
        documents: words.next().unwrap().into(),
        groups: words.map(|group| Path::new(&group).join("bare")).collect(),
        directory,
    };
    for place in ["root", "dev"] {
        fs::create_dir_all(bare.directory.join(place)).unwrap();
    }
    for line in std::io::stdin().lines() {
        let took = match line.unwrap().as_str() {
            "serve" => bare.serve(),
            _ => bare.exit(),
        };
        println!("{}", took.as_micros());
    }
}

impl Bare {
    fn exit(&self) -> Duration {
        let began = Instant::now();
        let pid = self.start(libc::CLONE_NEWNET, "/usr/bin/true");
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
        self.remove_groups();
        began.elapsed()
    }

    /// This program is in the network namespace meanwhile: its child is born there, and it connects there.
    fn serve(&self) -> Duration {
        let home = fs::File::open("/proc/self/ns/net").unwrap();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        let began = Instant::now();
        let pid = self.start(0, "/site/server");
        let mut stream = loop {
            match TcpStream::connect("127.0.0.1:8080") {
                Ok(stream) => break stream,
                Err(_not_yet) => std::thread::yield_now(),
            }
        };
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let took = began.elapsed();
        kill(pid, Signal::SIGKILL).unwrap();
        waitpid(pid, None).unwrap();
        self.remove_groups();
        setns(home, CloneFlags::CLONE_NEWNET).unwrap();
        took
    }

    /// Makes a container, in which `program` is executed.
    fn start(&self, network: i32, program: &str) -> Pid {
        for group in &self.groups {
            fs::create_dir(group).unwrap();
            for (file, value) in [
                ("cpu.cfs_quota_us", "100000"),
                ("cpu.max", "100000 100000"),
                ("memory.limit_in_bytes", "67108864"),
                ("memory.max", "67108864"),
                ("pids.max", "64"),
            ] {
                // Err: another hierarchy has it.
                let _ = fs::OpenOptions::new()
                    .write(true)
                    .open(group.join(file))
                    .and_then(|mut file| file.write_all(value.as_bytes()));
            }
        }
        let (mut mapped, map) = std::io::pipe().unwrap();
        let (mut asks, ask) = std::io::pipe().unwrap();
        let flags = libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | network
            | libc::SIGCHLD;
        // SAFETY: without CLONE_VM and a stack this is fork, and this program has one thread.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            drop(map);
            self.set_up();
            unshare(CloneFlags::CLONE_NEWUSER).unwrap();
            drop(ask);
            // Its end: the ids are mapped.
            mapped.read_to_end(&mut Vec::new()).unwrap();
            confine();
            let error = Command::new(program).env_clear().exec();
            panic!("{error}");
        }
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        assert!(pid.as_raw() > 0);
        drop((ask, mapped));
        asks.read_to_end(&mut Vec::new()).unwrap();
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{file}"), format!("0 {BASE} 65536\n")).unwrap();
        }
        drop(map);
        pid
    }

    fn remove_groups(&self) {
        for group in &self.groups {
            // The kernel may need a moment to let go of who was in there.
            while let Err(error) = fs::remove_dir(group) {
                assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
                std::thread::yield_now();
            }
        }
    }

    /// Groups and files.
    fn set_up(&self) {
        for group in &self.groups {
            // One thread: `tasks` is the cheap way in, where there is one.
            let tasks = fs::OpenOptions::new().write(true).open(group.join("tasks"));
            let file = tasks.or_else(|_| {
                let procs = group.join("cgroup.procs");
                fs::OpenOptions::new().write(true).open(procs)
            });
            file.unwrap().write_all(b"0").unwrap();
        }
        unshare(CloneFlags::CLONE_NEWCGROUP).unwrap();
        let root = self.directory.join("root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, "/", NONE, private, NONE).unwrap();
        let held = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), &root, Some("tmpfs"), held, Some("size=32m")).unwrap();
        for name in ["usr", "etc", "site", "proc", "sys", "dev"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        for name in ["tmp", "run"] {
            let path = root.join(name);
            fs::DirBuilder::new().mode(0o777).create(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(BASE + 1001), Some(BASE + 1001)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        let read_only = held | MsFlags::MS_RDONLY;
        for (what, to, flags) in [
            (Path::new("/usr"), "usr", read_only),
            (Path::new("/etc"), "etc", read_only),
            (&self.documents, "site", held),
            (&self.directory.join("dev"), "dev", MsFlags::MS_RDONLY),
        ] {
            let to = root.join(to);
            mount(Some(what), &to, NONE, MsFlags::MS_BIND, NONE).unwrap();
            let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
            mount(NONE, &to, NONE, again, NONE).unwrap();
        }
        for (kind, flags) in [("proc", held), ("sysfs", read_only)] {
            let name = if kind == "sysfs" { "sys" } else { kind };
            let flags = flags | MsFlags::MS_NOEXEC;
            mount(Some(kind), &root.join(name), Some(kind), flags, NONE).unwrap();
        }
        std::env::set_current_dir(&root).unwrap();
        nix::unistd::pivot_root(".", ".").unwrap();
        umount2(".", MntFlags::MNT_DETACH).unwrap();
        std::env::set_current_dir("/").unwrap();
        rustix::system::sethostname(b"a.example.com").unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 1024, 4096).unwrap();
    }
}

/// Ids, capabilities and the filter, inside the user namespace.
fn confine() {
    // Most the kernel has; it says EINVAL from its own last one on.
    for capability in 0..64 {
        // SAFETY: a number, and nothing of this process's memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    let (user, group) = (Uid::from_raw(1001), Gid::from_raw(1001));
    rustix::thread::set_thread_groups(&[]).unwrap();
    nix::unistd::setresgid(group, group, group).unwrap();
    nix::unistd::setresuid(user, user, user).unwrap();
    rustix::thread::set_no_new_privs(true).unwrap();
    filter();
}

/// Refuses 64 system calls, one after the other.
fn filter() {
    let refused = [
        libc::SYS_ptrace,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_keyctl,
    ];
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    // As many comparisons as there are instructions on a way through the agent's own filter, several times over.
    for number in refused.iter().cycle().take(64) {
        let mut compare = statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            u32::try_from(*number).unwrap(),
        );
        compare.jf = 1;
        program.push(compare);
        program.push(statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | 1,
        ));
    }
    program.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
    ));
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `program` describes a filter that outlives the call, of which the kernel makes a copy.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(done, 0);
}
