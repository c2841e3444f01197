//! What all vhosts of this host share: the cgroup tree, networks, slots, templates, the spawner.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::accounts::Accounts;
use crate::accounts::exposed::Exposed;
use crate::admission::Admission;
use crate::config::AgentConfig;
use crate::config::agent::ListenCheck;
use crate::config::definition::{Definition, Network, Protocol};
use crate::container::templates::Templates;
use crate::disk::Projects;
use crate::division::Division;
use crate::events::Events;
use crate::ladder::Ladder;
use crate::listening::Listening;
use crate::owner_groups::OwnerGroups;
use crate::owners::{Defaults, Owners};
use crate::promises::Promises;
use crate::ranges::Ranges;
use crate::readiness::Readiness;
use crate::reverts::Reverts;
use crate::seeing::Live;
use crate::site::HitTotals;
use crate::spawner::Spawner;

/// Bound for a start that has no bound of its own.
const LONGEST_START: Duration = Duration::from_secs(60);

/// So many times what is kept ready anyway is, while so many are taken.
pub const GROWTH: usize = 8;

/// A network namespace for one container.
pub struct Prepared {
    /// Its slot, which decides its address.
    pub slot: u32,
    /// Its address, where it has a veth.
    pub address: Option<Ipv4Addr>,
    /// The namespace.
    pub namespace: netns::Namespace,
    /// A sysfs of that namespace, where it has a veth.
    pub sysfs: Option<OwnedFd>,
}

/// The host as the agent uses it.
pub struct Platform {
    /// agent.toml with what the command line overrides.
    pub config: AgentConfig,
    /// The cgroups of the agent.
    pub tree: cgroup::Tree,
    /// Those of them that belong to owners.
    pub owner_groups: OwnerGroups,
    /// What their sites are promised.
    pub promises: Arc<Promises>,
    /// Their budgets and divisions.
    pub owners: Owners,
    /// Keeps joining a v1 cgroup fast for as long as the agent lives.
    _dynmods: Option<cgroup::DynmodsGuard>,
    /// veths and firewall.
    pub host: Arc<netns::Host>,
    /// Namespaces made ahead.
    /// Filled only after the slots of living containers have been reserved.
    pool: OnceLock<netns::Pool>,
    /// Slots: numbers of addresses.
    pub slots: Arc<netns::SlotSet>,
    /// The containers' uid and gid ranges.
    pub ranges: Ranges,
    /// Templates.
    pub templates: Templates,
    /// The process that clones.
    pub spawner: Spawner,
    /// Waits for listeners.
    pub readiness: Readiness,
    /// What happened.
    pub events: Events,
    /// What everyone used.
    pub accounts: Accounts,
    /// How much disk space they may take.
    pub disk: Projects,
    /// How often they came up against their limits.
    pub hits: HitTotals,
    /// The vhosts that have a container.
    pub live: Live,
    /// The vhosts with limits that are set for a time.
    pub reverts: Arc<Reverts>,
    /// Who may start when.
    pub admission: Arc<Admission>,
    /// The vhosts that rest.
    pub ladder: Arc<Ladder>,
    /// How listeners are found.
    pub method: netns::Method,
    /// Group of the servers in front, which may connect to Unix upstreams.
    pub front_gid: Option<u32>,
    /// Content of the containers' /etc/resolv.conf.
    pub resolver: String,
    /// The host's network namespace.
    pub home: Arc<netns::Namespace>,
    idmaps: Mutex<HashMap<u64, bool>>,
    /// Requests that may wait for starts.
    waiting: Arc<Semaphore>,
    born: Instant,
}

impl Platform {
    /// Sets the host up; what is there already is taken over.
    pub async fn new(config: AgentConfig) -> Result<Arc<Self>> {
        for (directory, mode) in [
            (config.run_dir.clone(), 0o755),
            (config.run_dir.join("sites"), 0o755),
            (config.state_dir.clone(), 0o711),
            (config.state_dir.join("vhosts"), 0o700),
            (config.state_dir.join("logs"), 0o711),
            (config.state_dir.join("owners"), 0o700),
            (config.state_dir.join("disk"), 0o700),
        ] {
            make_directory(&directory, mode)?;
        }
        let mut hierarchy = cgroup::Hierarchy::detect()?;
        let parent = config
            .cgroup_parent
            .clone()
            .unwrap_or_else(|| "fastcontainer".into());
        let parent = parent.to_string_lossy();
        // Also for those whom an earlier agent has given CPUs that they need not keep to any more.
        if config.guaranteed_cpus.is_some() || hierarchy.has_used_cpuset(&parent) {
            hierarchy.use_cpuset().context("guaranteed_cpus")?;
        }
        let tree = cgroup::Tree::open(hierarchy, &parent)?;
        let division = match (tree.cpus()?, config.guaranteed_cpus) {
            (Some(all), Some(wanted)) => {
                Some(Division::of(wanted, all).map_err(anyhow::Error::msg)?)
            }
            (Some(all), None) => Some(Division::none(all)),
            (None, _) => None,
        };
        // Only slower without it.
        let dynmods = tree
            .favor_dynmods()
            .map_err(|error| tracing::info!("{error}"));
        // An init that was made ahead has to move into its container's cgroup.
        let ahead = dynmods.as_ref().map_or(0, |_| config.pool.inits);
        let host = Arc::new(netns::Host::new(netns::HostConfig {
            subnet: netns::Subnet::new(config.subnet.address(), config.subnet.prefix())?,
            table: config.nft_table.to_string(),
            prefix: config.interface_prefix.to_string(),
            uplink: None,
        })?);
        let slots = Arc::new(netns::SlotSet::new(host.config().subnet.last_slot()));
        let ranges = Ranges::new(config.uid_base);
        let templates = Templates::new(&config)?;
        let shim = config.find_shim().map_err(|p| anyhow::anyhow!("{p}"))?;
        let spawner = Spawner::new(shim, ahead).await?;
        let owners = config.state_dir.join("owners");
        let budgets = Defaults {
            all: config.budget,
            each: config
                .owner
                .iter()
                .map(|(name, owner)| (name.clone(), owner.budget))
                .collect(),
        };
        let promises = !tree.hierarchy().is_v1(cgroup::Controller::Memory);
        let promises = Arc::new(Promises::new(config.reserve, promises).dividing(division));
        let exposed = Exposed::new(
            config.metrics.vhosts as usize,
            config.metrics.owners as usize,
        );
        let accounts = Accounts::open(&config.state_dir, &config.run_dir, exposed)?;
        let disk = Projects::load(config.state_dir.join("disk"))?;
        let notices = Listening::new()
            .inspect_err(|error| tracing::info!("looking by the clock who listens: {error}"));
        let readiness =
            Readiness::new(notices.ok()).context("cannot start the readiness thread")?;
        let platform = Self {
            method: match config.listen_check {
                ListenCheck::SockDiag => netns::Method::SockDiag,
                ListenCheck::Proc => netns::Method::ProcNet,
            },
            front_gid: config.front_group.gid().ok().flatten(),
            resolver: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            home: Arc::new(netns::Namespace::of_pid(std::process::id())?),
            idmaps: Mutex::default(),
            admission: Admission::new(parallel_starts(&config)),
            waiting: Arc::new(Semaphore::new(config.starts.max_waiting as usize)),
            born: Instant::now(),
            events: Events::default(),
            accounts,
            disk,
            hits: HitTotals::default(),
            live: Live::default(),
            reverts: Arc::default(),
            ladder: Arc::default(),
            config,
            owner_groups: OwnerGroups::new(tree.clone()),
            owners: Owners::load(tree.clone(), owners, budgets, promises.clone())?,
            promises,
            tree,
            _dynmods: dynmods.ok(),
            host,
            pool: OnceLock::new(),
            slots,
            ranges,
            templates,
            spawner,
            readiness,
        };
        Ok(Arc::new(platform))
    }

    /// Begins to make namespaces ahead. Called once, after the slots of living containers have been reserved.
    pub fn fill_pool(&self) -> Result<()> {
        let size = netns::PoolSize {
            address: self.config.pool.address as usize,
            private: self.config.pool.private as usize,
        };
        // A slot that waits in the pool is one that a site may need.
        let slots = self.host.config().subnet.last_slot() as usize / 8;
        let most = |least: usize| (least * GROWTH).min(slots);
        let most = netns::PoolSize {
            address: most(size.address),
            private: most(size.private),
        };
        let pool = netns::Pool::new(Some(self.host.clone()), self.slots.clone(), size, most)?;
        let _ = self.pool.set(pool);
        Ok(())
    }

    /// Undoes what the agent has made on the host, after all containers have ended.
    pub async fn teardown(mut platform: Arc<Self>) -> Result<()> {
        // Tasks of containers that have just ended still hold it for a moment.
        let end = Instant::now() + Duration::from_secs(15);
        let platform = loop {
            match Arc::try_unwrap(platform) {
                Ok(platform) => break platform,
                Err(_) if Instant::now() > end => anyhow::bail!(
                    "cannot clear this host: some containers cannot be ended, see the messages above"
                ),
                Err(shared) => platform = shared,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        platform.accounts.close();
        drop(platform.pool);
        platform.owner_groups.prune_leftover()?;
        platform.tree.remove()?;
        if let Ok(host) = Arc::try_unwrap(platform.host) {
            host.teardown()?;
        }
        match std::fs::remove_dir_all(&platform.config.run_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
                .with_context(|| format!("cannot remove {}", platform.config.run_dir.display())),
            _ => Ok(()),
        }
    }

    /// Time since the agent's start: the clock of the state machines.
    pub fn uptime(&self) -> Duration {
        self.born.elapsed()
    }

    /// Takes a network namespace from the pool, or makes one if it is empty.
    ///
    /// Not async: a start that is broken off must not lose the slot on the way. An empty pool costs the calling
    /// thread about a millisecond.
    pub fn take_network(&self, with_address: bool) -> Result<Prepared> {
        let kind = if with_address {
            netns::Kind::Address
        } else {
            netns::Kind::Private
        };
        let pool = self
            .pool
            .get()
            .context("the agent has not taken over its containers yet")?;
        let prepared = pool.take(kind)?;
        Ok(Prepared {
            slot: prepared.slot,
            address: prepared.link.as_ref().map(|link| link.address),
            namespace: prepared.namespace,
            sysfs: prepared.sysfs,
        })
    }

    /// Opens the firewall for what a definition allows.
    pub fn allow(&self, address: Ipv4Addr, network: &Network) -> Result<()> {
        if !network.outbound && network.allow.is_empty() {
            return Ok(());
        }
        let destination = |d: &crate::config::definition::Destination| {
            let protocol = match d.protocol {
                Protocol::Tcp => netns::Protocol::Tcp,
                Protocol::Udp => netns::Protocol::Udp,
            };
            match d.address {
                std::net::IpAddr::V4(address) => Ok(netns::Destination {
                    protocol,
                    address,
                    port: d.port,
                }),
                std::net::IpAddr::V6(_) => {
                    anyhow::bail!("cannot allow {d}: containers have IPv4 addresses only")
                }
            }
        };
        let allow = network
            .allow
            .iter()
            .map(destination)
            .collect::<Result<_>>()?;
        self.host.allow(
            address,
            &netns::Policy {
                outbound: network.outbound,
                allow,
            },
        )?;
        Ok(())
    }

    /// Whether the file system with this device number can be mounted with mapped ids; found out at first use.
    pub fn idmaps(&self, device: u64) -> bool {
        *self
            .idmaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&device)
            .unwrap_or(&true)
    }

    /// Remembers that the file system with this device number cannot be mounted with mapped ids.
    pub fn cannot_idmap(&self, device: u64) {
        self.idmaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(device, false);
    }

    /// A place for one more request that waits for a start; None if there are too many.
    pub fn waiting_place(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_owned().ok()
    }

    /// How long a start may take, and a server that runs to listen and to accept again.
    pub fn start_limit(&self, definition: &Definition) -> Duration {
        let timeout = definition.start.timeout;
        timeout.finite().unwrap_or(LONGEST_START)
    }

    /// `sites/VHOST` below the run directory.
    pub fn site_dir(&self, vhost: &str) -> PathBuf {
        self.config.run_dir.join("sites").join(vhost)
    }

    /// What the next agent takes a container over by.
    pub fn record_path(&self, vhost: &str) -> PathBuf {
        self.site_dir(vhost).join("container.json")
    }

    /// Where init writes how the command ended.
    pub fn exit_path(&self, vhost: &str) -> PathBuf {
        self.site_dir(vhost).join("exit")
    }

    /// How the last container ended.
    pub fn last_exit_path(&self, vhost: &str) -> PathBuf {
        self.config
            .state_dir
            .join("vhosts")
            .join(format!("{vhost}.exit.json"))
    }

    /// What the operator did.
    pub fn kept_path(&self, vhost: &str) -> PathBuf {
        self.config
            .state_dir
            .join("vhosts")
            .join(format!("{vhost}.json"))
    }

    /// The container's logs.
    pub fn log_dir(&self, vhost: &str) -> PathBuf {
        self.config.state_dir.join("logs").join(vhost)
    }
}

fn parallel_starts(config: &AgentConfig) -> usize {
    match config.starts.parallel {
        0 => std::thread::available_parallelism().map_or(4, |cores| cores.get() * 4),
        n => n as usize,
    }
}

fn make_directory(path: &std::path::Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot make {}", path.display()))
}
