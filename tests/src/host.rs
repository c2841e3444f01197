//! One agent with its own everything.

use std::cell::RefCell;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::connect::Connector;
use crate::http::{self, Answer};
use crate::leak::{Snapshot, descriptors};
use crate::programs::programs;
use crate::{seconds, time_scale, wait_for};

/// A definition's rest for a small static server.
pub const STATIC: &str = r#"
command = ["/usr/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/site"]
listen = "tcp:8080"
"#;

/// The uid and gid that own the documents of test sites.
pub const OWNER: u32 = 1001;

/// An agent, in a network namespace that the calling thread (and every thread it starts) is moved to.
pub struct Host {
    /// Everything of this test but [`Self::run_dir`]: `vhosts.d`, `www`, `state`.
    pub dir: PathBuf,
    /// The agent's run directory, in memory as `/run` is.
    pub run_dir: PathBuf,
    /// Its cgroups, below each mount.
    pub cgroup_parent: String,
    daemon: RefCell<Option<Child>>,
    _temporary: [tempfile::TempDir; 2],
}

impl Host {
    /// Starts an agent; `config` is its agent.toml. It makes as little ahead as shows that it does (`[pool]`, unless
    /// `config` has that): hundreds of agents, each of which fills a pool and empties it, would cost the tests more than
    /// all that they do themselves.
    pub fn new(config: &str) -> Self {
        let pool = if config.contains("[pool]") {
            ""
        } else {
            "\n[pool]\naddress = 2\nprivate = 1\ninits = 2\n"
        };
        Self::as_installed(&format!("{config}{pool}"))
    }

    /// Starts an agent with nothing in its agent.toml but `config`.
    pub fn as_installed(config: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "integration tests run as root: sudo scripts/test"
        );
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
        run("ip", &["link", "set", "lo", "up"]);
        let temporary = ["/var/tmp", "/dev/shm"].map(temporary_in);
        let [dir, run_dir] = temporary
            .each_ref()
            .map(|temporary| temporary.path().canonicalize().expect("its path"));
        for name in ["vhosts.d", "www"] {
            fs::create_dir(dir.join(name)).expect("a directory");
        }
        fs::write(dir.join("agent.toml"), config).expect("agent.toml");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup_parent = format!("fct-{}-{number}", std::process::id());
        let host = Self {
            dir,
            run_dir,
            cgroup_parent,
            daemon: RefCell::new(None),
            _temporary: temporary,
        };
        host.start();
        host
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// A connection to the agent's socket that hands over connections to sites.
    pub fn connector(&self) -> Connector {
        Connector::new(&self.run_dir.join("connect.sock")).expect("the agent accepts")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&programs().daemon);
        let path = |name: &str| self.dir.join(name);
        command
            .arg("--config")
            .arg(path("agent.toml"))
            .arg("--socket")
            .arg(self.socket())
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--run-dir")
            .arg(&self.run_dir)
            .arg("--vhosts-dir")
            .arg(path("vhosts.d"))
            .args(["--cgroup-parent", &self.cgroup_parent])
            .env(
                "FASTCONTAINER_LOG",
                std::env::var_os("FASTCONTAINER_LOG").unwrap_or("debug".into()),
            );
        command
    }

    /// Starts the agent (again) and waits until it answers.
    pub fn start(&self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("agent.log"))
            .expect("a log");
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        // Ours before it has answered: whatever becomes of that, it is ended with the test.
        *self.daemon.borrow_mut() = Some(command.spawn().expect("fastcontainerd starts"));
        wait_for("the agent's first answer", seconds(10), || {
            let mut daemon = self.daemon.borrow_mut();
            let child = daemon.as_mut().expect("it has been started");
            let ended = child.try_wait().expect("the agent can be asked");
            assert!(
                ended.is_none(),
                "the agent ended: {ended:?}\n{}",
                self.log()
            );
            self.try_request("GET", "/health.html", b"").is_ok()
        });
    }

    /// The agent's pid.
    pub fn pid(&self) -> u32 {
        self.daemon.borrow().as_ref().expect("the agent runs").id()
    }

    /// Ends the agent with a signal and waits for its end; one that does not end is killed, and the test fails.
    pub fn signal_agent(&self, signal: i32) {
        let Some(mut child) = self.daemon.borrow_mut().take() else {
            return;
        };
        send_signal(child.id(), signal);
        let end = Instant::now() + seconds(60);
        while child.try_wait().expect("the agent can be asked").is_none() {
            if Instant::now() > end {
                send_signal(child.id(), libc::SIGKILL);
                child.wait().expect("the agent ends");
                if !std::thread::panicking() {
                    panic!("the agent did not end\n{}", self.log());
                }
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `kill -9` of the agent, then a new one.
    pub fn crash_and_restart(&self) {
        self.signal_agent(libc::SIGKILL);
        self.start();
    }

    /// What the agent has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// Documents of a site, owned by [`OWNER`].
    pub fn documents(&self, name: &str) -> PathBuf {
        let dir = self.dir.join("www").join(name);
        fs::create_dir_all(&dir).expect("documents");
        fs::write(dir.join("index.html"), format!("<h1>{name}</h1>\n")).expect("a page");
        for path in [dir.clone(), dir.join("index.html")] {
            chown(&path, Some(OWNER), Some(OWNER)).expect("its owner");
        }
        dir
    }

    /// Defines a site of owner `acme` with documents; `rest` is TOML behind the first keys. In force when this returns.
    pub fn site(&self, name: &str, rest: &str) -> PathBuf {
        let documents = self.documents(name);
        self.define(name, &Self::definition(&documents, rest));
        documents
    }

    /// The text of such a definition, without its name.
    pub fn definition(documents: &Path, rest: &str) -> String {
        // Who does not ask for an idle time is not about it: the default is a minute of a real machine.
        let idle = if time_scale() == 1 || rest.contains("[idle]") {
            String::new()
        } else {
            format!("\n[idle]\ntimeout = \"{}s\"\n", seconds(60).as_secs())
        };
        format!("owner = \"acme\"\ndocuments = {documents:?}\n{rest}{idle}")
    }

    /// Writes a definition file and waits until it is in force.
    pub fn define(&self, name: &str, text: &str) {
        let text = format!("name = {name:?}\n{text}");
        fs::write(self.dir.join("new.tmp"), &text).expect("a definition");
        fs::rename(
            self.dir.join("new.tmp"),
            self.dir.join("vhosts.d").join(format!("{name}.toml")),
        )
        .expect("a definition");
        wait_for("the definition is in force", seconds(5), || {
            let problems = self.problems();
            assert!(problems.iter().all(|p| !p.contains(name)), "{problems:?}");
            self.try_request("GET", &format!("/v1/vhosts/{name}"), b"")
                .is_ok_and(|answer| answer.status == 200)
        });
    }

    /// What the agent finds wrong with definitions.
    pub fn problems(&self) -> Vec<String> {
        let status = self.request("GET", "/v1/status", b"").json();
        status["problems"]
            .as_array()
            .expect("problems")
            .iter()
            .map(Value::to_string)
            .collect()
    }

    /// One API request; panics if there is no answer at all.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.try_request(method, path, body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.log()))
    }

    /// One API request.
    pub fn try_request(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        http::request(&self.socket(), method, path, body)
    }

    /// Dispatches.
    pub fn dispatch(&self, vhost: &str) -> Answer {
        self.request(
            "POST",
            "/v1/dispatch",
            json!({"vhost": vhost}).to_string().as_bytes(),
        )
    }

    /// `GET /v1/vhosts/NAME`.
    pub fn status(&self, vhost: &str) -> Value {
        self.request("GET", &format!("/v1/vhosts/{vhost}"), b"")
            .json()
    }

    /// The state's word.
    pub fn state(&self, vhost: &str) -> String {
        self.status(vhost)["state"]
            .as_str()
            .expect("a state")
            .to_owned()
    }

    /// `POST /v1/vhosts/NAME/VERB`.
    pub fn verb(&self, vhost: &str, verb: &str) -> Answer {
        self.request("POST", &format!("/v1/vhosts/{vhost}/{verb}"), b"")
    }

    /// Waits until a site is in a state.
    pub fn wait_state(&self, vhost: &str, state: &str, limit: u64) {
        wait_for(&format!("{vhost} is {state}"), seconds(limit), || {
            self.state(vhost) == state
        });
    }

    /// `fastctl --socket S ARGS`.
    pub fn ctl(&self, args: &[&str]) -> Output {
        Command::new(&programs().ctl)
            .arg("--socket")
            .arg(self.socket())
            .args(args)
            .output()
            .expect("fastctl runs")
    }

    /// Dispatches and fetches a path from the site.
    pub fn get(&self, vhost: &str, path: &str) -> Answer {
        let upstream = self.dispatch(vhost).upstream();
        http::get(&upstream, path, seconds(10))
            .unwrap_or_else(|e| panic!("GET {upstream}{path}: {e}"))
    }

    /// What exists of this test now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.cgroup_parent, &self.dir, &self.run_dir)
    }

    /// Descriptors of the agent now.
    pub fn descriptors(&self) -> usize {
        descriptors(self.pid())
    }

    /// The same once all that it makes ahead is there: until then their number grows by itself.
    pub fn settled_descriptors(&self) -> usize {
        let mut last = (self.descriptors(), Instant::now());
        wait_for("what is made ahead is there", seconds(20), || {
            let now = self.descriptors();
            if now != last.0 {
                last = (now, Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(300) * time_scale()
        });
        last.0
    }

    /// Ends everything; fails if anything is left.
    pub fn finish(self) {
        self.end();
        // The kernel takes network namespaces apart in the background.
        let end = Instant::now() + seconds(10);
        let mut left = self.snapshot();
        while left != Snapshot::default() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            left = self.snapshot();
        }
        assert_eq!(
            left,
            Snapshot::default(),
            "something is left\n{}",
            self.log()
        );
    }

    fn end(&self) {
        self.signal_agent(libc::SIGTERM);
        let output = self
            .command()
            .arg("--teardown")
            .output()
            .expect("fastcontainerd --teardown runs");
        if !output.status.success() && !std::thread::panicking() {
            panic!(
                "teardown: {}\n{}",
                String::from_utf8_lossy(&output.stderr),
                self.log()
            );
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- agent's log\n{}", self.log());
            self.end();
        } else if self.daemon.borrow().is_some() {
            self.end();
        }
    }
}

fn temporary_in(parent: &str) -> tempfile::TempDir {
    let temporary = tempfile::Builder::new()
        .prefix("fct-")
        .tempdir_in(parent)
        .expect("a directory");
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    temporary
}

/// Sends a signal to a process that this test has started.
pub fn send_signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("a pid");
    let signal = nix::sys::signal::Signal::try_from(signal).expect("a signal");
    // ESRCH: it has ended already.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

/// Runs a command that has to succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Gives this network namespace one more address, as if the host had an interface to the outside: `outside`, whose
/// other end is `far`. Not every kernel has interfaces of the type dummy.
pub fn outside_address(address: Ipv4Addr) {
    run(
        "ip",
        &[
            "link", "add", "outside", "type", "veth", "peer", "name", "far",
        ],
    );
    run(
        "ip",
        &["addr", "add", &format!("{address}/24"), "dev", "outside"],
    );
    for end in ["outside", "far"] {
        run("ip", &["link", "set", end, "up"]);
    }
}
