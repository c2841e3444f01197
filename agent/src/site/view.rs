//! A vhost as users see it.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Site;
use crate::config::Limits;
use crate::config::definition::LimitKey;
use crate::container::Container;
use crate::machine::{Event, State, Verdict};

impl Site {
    /// When a request last came; one that still waits is as good as new.
    pub(crate) fn last_request(&self) -> Instant {
        let inner = self.lock();
        match inner.waiting {
            0 => Instant::from_std(inner.last_request),
            _ => Instant::now(),
        }
    }

    /// When a request was last told where to connect.
    pub(super) fn last_answer(&self) -> std::time::Instant {
        self.lock().last_answer
    }

    /// Whether its container has had as many requests as it may have.
    pub(super) fn is_worn(&self) -> bool {
        self.lock().is_worn()
    }

    /// The uid range of its last container; 0 if it had none.
    pub(crate) fn last_range(&self) -> u32 {
        self.lock().last_range
    }

    /// Dispatches and starts since the agent's start.
    pub fn counters(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.dispatches, inner.starts)
    }

    /// Whether `container` is in place and not being ended.
    pub(crate) fn owns(&self, container: &Arc<Container>) -> bool {
        let inner = self.lock();
        let current = inner
            .container
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, container));
        current && inner.machine.state().rung().is_some()
    }

    /// Its container, which is in use by an operator's command from now on until what comes with it is dropped; the state if
    /// it does not run or is being ended. Decided under the lock under which idleness ends it. One that rests is thawed.
    pub(crate) fn begin_session(self: &Arc<Self>) -> Result<(Arc<Container>, Arc<()>), State> {
        let mut inner = self.lock();
        let state = inner.machine.state();
        match inner.container.clone() {
            Some(container) if state.rung().is_some() => {
                let session = container.session();
                self.step(&mut inner, Event::Thaw);
                Ok((container, session))
            }
            _ => Err(state),
        }
    }

    /// Feeds `event` if it runs, unless a request has come in the last `quiet`, or a request waits or its container is in
    /// session and `quiet` is not zero; decided under the lock that requests and operators' commands take as well.
    pub(crate) fn feed_if_quiet(
        self: &Arc<Self>,
        container: &Arc<Container>,
        quiet: std::time::Duration,
        event: Event,
    ) -> Verdict {
        let mut inner = self.lock();
        let current = inner
            .container
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, container));
        let runs = inner.machine.state() == State::Running;
        let in_use = (container.in_session() || inner.waiting > 0) && !quiet.is_zero();
        if !current || !runs || in_use || inner.last_request.elapsed() < quiet {
            return Verdict::Stale;
        }
        self.step(&mut inner, event)
    }

    /// Everything about it.
    pub async fn view(self: &Arc<Self>) -> Value {
        let site = self.clone();
        // Reads a dozen files of cgroups.
        tokio::task::spawn_blocking(move || site.view_now(true))
            .await
            .unwrap_or_default()
    }

    /// [`Self::view`] on this thread; without `full` only what a list shows.
    pub(crate) fn view_now(&self, full: bool) -> Value {
        let (container, mut view) = {
            let inner = self.lock();
            let state = inner.machine.state();
            let container = inner.container.clone();
            let wanted = if state.wanted_down() || inner.kept.down {
                "down"
            } else {
                "up"
            };
            let limits = inner.effective_limits(&self.platform.config.limits);
            let mut view = json!({
                "vhost": &*self.name,
                "owner": &*inner.owner,
                "state": state.word(),
                "wanted": wanted,
                "pid": container.as_ref().map(|c| c.record.main_pid),
                "uptime_s": container.as_ref().map(|c| c.uptime_s()),
                "upstream": container.as_ref().and_then(|c| c.reachable()),
                "dispatches": inner.dispatches,
                "starts": inner.starts,
                "class": limits.class().unwrap_or_default(),
                "promised": self.platform.promises.view_of(&self.name),
                "cpus": self.platform.promises.cpus_of(&self.name),
                "limits": shown(&limits),
            });
            if full {
                view["aliases"] = json!(inner.definition.aliases);
                view["definition"] = json!(&*inner.definition);
                view["overrides"] = shown(&inner.kept.overrides);
                let defined = inner.definition.limits_over(&self.platform.config.limits);
                view["temporary"] =
                    super::revert::shown(&inner.kept, &defined, crate::time::unix_millis());
                view["last_exit"] = json!(inner.last_exit);
                view["failures"] = json!(inner.machine.failures());
                view["last_failure"] = json!(inner.last_failure.as_ref().map(|f| &*f.because));
                if let State::Failed { until } = state {
                    let left = until.saturating_sub(self.platform.uptime());
                    view["retry_after_s"] = json!(left.as_secs_f64());
                }
            }
            (container, view)
        };
        let Some(container) = container else {
            return view;
        };
        let mut disk_bytes = None;
        if full {
            view["init_pid"] = json!(container.record.pid);
            view["uid"] = json!(shim::protocol::Ids::from(container.record.ids).host_uid());
            view["cgroup"] = json!(container.group.name());
            view["last_start"] =
                json!({"start_ms": container.phases.total, "phases": &*container.phases});
            view["ready_at"] = json!(container.record.ready_at);
            let quota = self.platform.disk.quota(&self.name).transpose();
            let limits = quota.and_then(|quota| {
                disk_bytes = quota.map(|quota| quota.used);
                self.in_force_with(&container, quota)
            });
            match limits {
                Ok(mut limits) => {
                    // No control group shows it.
                    let class = self.lock().effective_limits(&self.platform.config.limits);
                    limits.set(LimitKey::Class, class.get(LimitKey::Class));
                    view["limits"] = shown(&limits);
                }
                Err(error) => view["limits_error"] = json!(error.to_string()),
            }
            match self.drift(&container) {
                Ok(drift) => view["drift"] = json!(drift),
                Err(error) => view["limits_error"] = json!(format!("{error:#}")),
            }
        }
        if let Ok(usage) = container.group.usage() {
            let (received, sent) = container.network_bytes().unzip();
            view["usage"] = json!({
                "cpu_seconds": usage.cpu_usec.map(|us| us as f64 / 1e6),
                "throttled_seconds": usage.throttled_usec.map(|us| us as f64 / 1e6),
                "memory_bytes": usage.memory_current,
                "memory_peak_bytes": usage.memory_peak,
                "pids": usage.pids_current,
                "io_read_bytes": usage.io_read_bytes,
                "io_write_bytes": usage.io_write_bytes,
                "net_rx_bytes": received,
                "net_tx_bytes": sent,
                "oom_kills": usage.oom_kills,
                "forks_refused": usage.pids_max_events,
            });
            if full {
                view["usage"]["memory_reclaims"] = json!(container.group.limit_hits().memory);
                view["usage"]["egress_dropped_packets"] = json!(container.egress_dropped());
            }
            if let Some(used) = disk_bytes {
                view["usage"]["disk_bytes"] = json!(used);
            }
        }
        view
    }
}

/// Limits with values as people write them: `{"cpu": "20%", "io": {"write": "2MB/s"}}`.
pub(crate) fn shown(limits: &Limits) -> Value {
    let mut map = Map::new();
    for (key, raw) in limits.iter() {
        put(&mut map, key, raw);
    }
    Value::Object(map)
}

fn put(map: &mut Map<String, Value>, key: LimitKey, raw: u64) {
    let text = key.show(raw);
    let value = text.parse::<u64>().map_or(Value::String(text), Value::from);
    match key.name().split_once('.') {
        None => {
            map.insert(key.name().to_owned(), value);
        }
        Some((table, name)) => {
            let inner = map.entry(table).or_insert_with(|| json!({}));
            inner[name] = value;
        }
    }
}
