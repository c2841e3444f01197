//! What is left of vhosts that nobody asks for: it is removed, and until it is gone nobody starts under these names.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Registry;
use crate::api::problem::Problem;
use crate::container::{KILL_LIMIT, Remains};
use crate::machine::Refusal;
use crate::site::account_leftover;

/// How often it is tried.
const RETRY: Duration = Duration::from_secs(10);
/// For so long somebody waits for it: as long as a first try takes at most.
const PATIENCE: Duration = KILL_LIMIT.saturating_mul(2);

impl Registry {
    /// Removes what is left of a vhost, however long that takes; [`super::unclaimed::Unclaimed`] knows already that it begins.
    pub(super) fn clear(self: &Arc<Self>, mut remains: Remains, vhost: String) {
        account_leftover(&self.platform, &vhost, &remains);
        let registry = self.clone();
        tokio::spawn(async move {
            loop {
                let (platform, name) = (registry.platform.clone(), vhost.clone());
                let work = tokio::task::spawn_blocking(move || {
                    let result = remains.remove(&platform, &name, KILL_LIMIT);
                    (remains, result)
                });
                let Ok((back, result)) = work.await else {
                    break;
                };
                match result {
                    Ok(()) => {
                        tracing::info!("{vhost}: removed what was left of it");
                        break;
                    }
                    Err(error) => tracing::error!("{error}"),
                }
                remains = back;
                tokio::time::sleep(RETRY).await;
            }
            registry.unclaimed.end_clearing(&vhost);
        });
    }

    /// Waits until nothing is left of a vhost that is not its own.
    pub(super) async fn cleared(&self, vhost: &str) -> Result<(), Problem> {
        let Some(mut clearing) = self.unclaimed.clearing(vhost) else {
            return Ok(());
        };
        // Err: it is over.
        let over = timeout(PATIENCE, clearing.wait_for(|count| *count == 0)).await;
        over.map(drop)
            .map_err(|_| Problem::refused(vhost, Refusal::Stuck, None))
    }

    /// Those that nobody has claimed end, too, as far as they can be ended.
    pub(super) async fn end_unclaimed(self: &Arc<Self>) {
        for vhost in self.unclaimed.vhosts() {
            self.end_found(vhost);
        }
        let mut waiting = tokio::task::JoinSet::new();
        for vhost in self.unclaimed.being_cleared() {
            let registry = self.clone();
            waiting.spawn(async move {
                if registry.cleared(&vhost).await.is_err() {
                    tracing::error!("{vhost}: cannot be ended");
                }
            });
        }
        while waiting.join_next().await.is_some() {}
    }
}
