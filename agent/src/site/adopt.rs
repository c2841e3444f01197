//! Taking over what the last agent left: containers that live go on, everything else is removed.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Site, keeper, oom};
use crate::container::{Container, Record, Remains, Rest, fingerprint, open_process};
use crate::machine::{After, Event, Machine};
use crate::persist;
use crate::platform::Platform;

/// A container of the last agent.
pub struct Found {
    record: Record,
    pidfd: OwnedFd,
    group: Arc<cgroup::Group>,
    namespace: Arc<netns::Namespace>,
    /// Its slot is reserved for it.
    has_slot: bool,
    /// Its uid range is; in its record, then.
    has_range: bool,
}

impl Found {
    /// Keeps its slot and uid range from others. False if they have one of them already.
    pub fn claim(&mut self, platform: &Platform) -> bool {
        self.has_slot = self.has_slot || platform.slots.reserve(self.record.slot);
        if !self.has_range
            && let Some(range) = platform.ranges.claim(self.record.ids.base)
        {
            (self.has_range, self.record.range) = (true, range);
        }
        self.has_slot && self.has_range
    }

    /// All of it as something to be removed, and given back as far as it is its own.
    pub fn remains(mut self, platform: &Arc<Platform>) -> Remains {
        self.claim(platform);
        Remains {
            group: Some(self.group),
            namespace: Some(self.namespace),
            address: self.record.address,
            slot: self.has_slot.then_some(self.record.slot),
            range: self.has_range.then_some(self.record.range),
            ..Remains::default()
        }
    }
}

/// What the last agent left on this host.
pub struct Survey {
    /// Containers that live, by vhost.
    pub alive: Vec<(String, Found)>,
    /// Vhosts of which something is left that has to go, with their owners.
    pub remains: Vec<(String, Remains)>,
}

impl Survey {
    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty() && self.remains.is_empty()
    }
}

/// Looks at the cgroups, run directory and firewall. Blocks.
pub fn survey(platform: &Arc<Platform>) -> Result<Survey> {
    let mut survey = Survey {
        alive: Vec::new(),
        remains: Vec::new(),
    };
    let mut known: HashSet<Vec<String>> = HashSet::new();
    // Directories without a record: of a start that the last agent did not live to see through.
    let mut bare: Vec<String> = Vec::new();
    let sites = platform.config.run_dir.join("sites");
    for entry in
        std::fs::read_dir(&sites).with_context(|| format!("cannot read {}", sites.display()))?
    {
        let Ok(vhost) = entry?.file_name().into_string() else {
            continue;
        };
        let record: Option<Record> =
            persist::read(&platform.record_path(&vhost)).unwrap_or_else(|error| {
                tracing::error!("{error:#}; its container is ended");
                None
            });
        let Some(record) = record else {
            bare.push(vhost);
            continue;
        };
        known.insert(vec![record.owner.clone(), vhost.clone()]);
        match find(platform, &record) {
            Ok(Some(found)) => survey.alive.push((vhost, found)),
            Ok(None) => survey.remains.push((
                vhost.clone(),
                leftover(platform, &record.owner, &vhost, Some(&record)),
            )),
            Err(error) => {
                tracing::error!("{vhost}: {error:#}; its container is ended");
                survey.remains.push((
                    vhost.clone(),
                    leftover(platform, &record.owner, &vhost, Some(&record)),
                ));
            }
        }
    }
    for path in platform.tree.existing()? {
        if let [owner, vhost] = path.as_slice()
            && !known.contains(&path)
        {
            bare.retain(|name| name != vhost);
            survey
                .remains
                .push((vhost.clone(), leftover(platform, owner, vhost, None)));
        }
    }
    platform.owner_groups.prune_leftover()?;
    let bare = bare.into_iter().map(|vhost| (vhost, Remains::default()));
    survey.remains.extend(bare);
    Ok(survey)
}

/// The living container of a record: its init is the same process (pid and start time) and in the cgroup.
fn find(platform: &Arc<Platform>, record: &Record) -> Result<Option<Found>> {
    let Some(pidfd) = open_process(record.pid, record.start_time)? else {
        return Ok(None);
    };
    let Ok(group) = platform
        .tree
        .open_group(&[record.owner.as_str(), record.vhost.as_str()])
    else {
        return Ok(None);
    };
    // Made when nothing was said of CPUs.
    let group = match platform.tree.complete(&group) {
        Ok(whole) => whole.unwrap_or(group),
        Err(error) => {
            tracing::error!("{error}; it keeps all CPUs until it starts again");
            group
        }
    };
    if !group.pids()?.contains(&record.pid) {
        anyhow::bail!(
            "process {} is not in the cgroup {} any more",
            record.pid,
            group.name()
        );
    }
    let namespace = netns::Namespace::of_pid(record.pid.unsigned_abs())?;
    Ok(Some(Found {
        record: record.clone(),
        pidfd,
        group: Arc::new(group),
        namespace: Arc::new(namespace),
        has_slot: false,
        has_range: false,
    }))
}

fn leftover(
    platform: &Arc<Platform>,
    owner: &str,
    vhost: &str,
    record: Option<&Record>,
) -> Remains {
    Remains {
        group: platform.tree.open_group(&[owner, vhost]).ok().map(Arc::new),
        address: record.and_then(|r| r.address),
        // Claimed so that nobody gets it before the processes are gone.
        slot: record
            .map(|r| r.slot)
            .filter(|slot| platform.slots.reserve(*slot)),
        range: record.and_then(|r| platform.ranges.claim(r.ids.base)),
        ..Remains::default()
    }
}

/// After the survey: firewall entries and links that belong to no living container.
pub fn sweep(platform: &Arc<Platform>, survey: &Survey) {
    let addresses: HashSet<_> = survey
        .alive
        .iter()
        .filter_map(|(_, found)| found.record.address)
        .collect();
    match platform.host.policies() {
        Ok(policies) => {
            for address in policies
                .keys()
                .filter(|address| !addresses.contains(address))
            {
                if let Err(error) = platform.host.revoke(*address) {
                    tracing::error!("cannot remove the firewall entries of {address}: {error}");
                }
            }
        }
        Err(error) => tracing::error!("cannot read the firewall: {error}"),
    }
}

impl Site {
    /// A vhost whose container lives on from the last agent. If it cannot, it has to go.
    pub fn adopt(self: &Arc<Self>, mut found: Found) -> Result<(), (Remains, anyhow::Error)> {
        let watched = match found.pidfd.try_clone().and_then(crate::sys::watch) {
            Ok(watched) => watched,
            Err(error) => return Err((found.remains(&self.platform), error.into())),
        };
        if !found.claim(&self.platform) {
            let (slot, base) = (found.record.slot, found.record.ids.base);
            let error =
                anyhow::anyhow!("its address or uid range ({slot}, {base}) cannot be reserved");
            return Err((found.remains(&self.platform), error));
        }
        // Before anything wakes it: the last agent may have been killed while it gave the memory back.
        if let Err(error) = found.group.settle() {
            tracing::error!("{}: {error}", self.name);
        }
        let rest = Rest::found(&found.group);
        let age = crate::time::boot_millis().saturating_sub(found.record.ready_boot);
        let age = std::time::Duration::from_millis(age);
        let container = Arc::new(Container::new(
            &self.platform,
            self.name.clone(),
            found.record,
            watched,
            found.group,
            found.namespace,
            std::time::Instant::now()
                .checked_sub(age)
                .unwrap_or_else(std::time::Instant::now),
        ));
        container.found_frozen(rest.rests());
        {
            let mut inner = self.lock();
            container.set_rest(rest);
            inner.machine = Machine::adopted(rest.rung, self.platform.uptime());
            inner.container = Some(container.clone());
            self.platform.live.follow(self, inner.machine.state());
        }
        let owner = self.owner();
        self.platform.events.emit(
            "state",
            Some((&self.name, &owner)),
            serde_json::json!({"to": self.state().word(), "cause": "adopted"}),
        );
        let changed = container.record.definition != fingerprint(&self.definition());
        let down = self.lock().kept.down;
        self.account_adopted(&container);
        oom::spawn(self.clone(), container.clone());
        keeper::spawn(self.clone(), container);
        self.take_up_rung();
        // What the last agent was told, or what has changed while there was none.
        if down {
            self.feed(Event::Down);
        } else if changed {
            self.feed(Event::Recycle);
        } else {
            let site = self.clone();
            tokio::spawn(async move {
                if let Err(error) = site.enforce_limits().await {
                    tracing::error!("{}: {error:#}", site.name);
                }
            });
        }
        Ok(())
    }

    /// A vhost of whose last container something is left: it goes first.
    pub fn clear_leftover(self: &Arc<Self>, remains: Remains) {
        let after = if self.lock().kept.down {
            After::Down
        } else {
            After::Sleep
        };
        self.lock().machine = Machine::leftover(after);
        super::stop::note_exit_of_leftover(self, &remains);
        let site = self.clone();
        tokio::spawn(async move {
            super::stop::remove_until_gone(&site, remains, Some(Event::Ended)).await;
        });
    }
}
