//! `fastcontainerd` from its start to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::rights::Rights;
use crate::api::{Server, listen, listen_for_packets};
use crate::config::{AgentConfig, Overrides};
use crate::platform::Platform;
use crate::registry::{Registry, watch as watch_files};

/// What to do with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Serve.
    Serve,
    /// End every container, remove everything the agent has made outside its state directory, and exit.
    Teardown,
}

/// How long requests that are being answered may take once the agent has been told to end.
const GRACE: Duration = Duration::from_secs(10);

/// How long an agent that has been killed may take to be gone.
const PREDECESSOR: Duration = Duration::from_secs(3);

/// Runs the agent until it is told to end (SIGTERM, SIGINT). Containers live on.
pub async fn run(overrides: Overrides, mode: Mode) -> Result<()> {
    let config = AgentConfig::load(&overrides).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("cannot use the configuration:\n  {}", lines.join("\n  "))
    })?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let _alone = alone(&config)?;
    let rights = Rights::new(&config)?;
    let (socket, connect_socket) = (config.socket(), config.connect_socket());
    let platform = Platform::new(config).await?;
    let registry = Registry::new(platform.clone()).await?;
    if mode == Mode::Teardown {
        registry.end_all().await;
        drop(registry);
        platform.spawner.end().await;
        return Platform::teardown(platform).await;
    }
    platform.fill_pool()?;
    let mode = platform.config.socket_mode.0;
    let listener = listen(&socket, mode)?;
    let handing = listen_for_packets(&connect_socket, mode)?;
    let (stop, stopped) = watch::channel(false);
    let watching = tokio::spawn(watch_files(registry.clone(), stopped.clone()));
    let server = Server::new(registry.clone(), rights);
    let handing = tokio::spawn(server.clone().serve_connections(handing, stopped.clone()));
    let serving = tokio::spawn(server.clone().serve(listener, stopped));
    crate::ladder::attend(&platform);
    crate::admission::attend(&platform);
    #[cfg(target_env = "gnu")]
    crate::heap::attend(&platform);
    tracing::info!("serving on {}", socket.display());
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    let watchdog = tokio::spawn(watchdog(registry.clone()));

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: ending; containers live on"),
        _ = interrupt.recv() => tracing::info!("SIGINT: ending; containers live on"),
        ended = watching => tracing::error!("the watch of definitions has ended: {ended:?}"),
    }
    notify(&[NotifyState::Stopping]);
    registry.drain();
    // Err: nobody watches any more.
    let _ = stop.send(true);
    watchdog.abort();
    let _ = tokio::join!(serving, handing);
    if tokio::time::timeout(GRACE, server.answered())
        .await
        .is_err()
    {
        tracing::warn!(
            "requests that took longer than {} s are broken off",
            GRACE.as_secs()
        );
    }
    platform.owner_groups.prune_idle();
    platform.accounts.close();
    platform.spawner.end().await;
    // A request that comes between now and the next agent's start waits in no queue: it is told at once.
    for socket in [socket, connect_socket] {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

/// Makes sure that no other agent uses the same directories, before anything is touched. Held until the end.
fn alone(config: &AgentConfig) -> Result<std::fs::File> {
    let run_dir = &config.run_dir;
    let lock = run_dir.join("agent.lock");
    std::fs::create_dir_all(run_dir)
        .with_context(|| format!("cannot make {}", run_dir.display()))?;
    let file =
        std::fs::File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
    // One that was killed a moment ago may still be on its way out.
    let end = Instant::now() + PREDECESSOR;
    while let Err(error) = file.try_lock() {
        if Instant::now() > end {
            return match error {
                std::fs::TryLockError::WouldBlock => Err(anyhow::anyhow!(
                    "another agent uses {} already; stop it or choose another --run-dir",
                    run_dir.display()
                )),
                std::fs::TryLockError::Error(error) => {
                    Err(error).with_context(|| format!("cannot lock {}", lock.display()))
                }
            };
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(file)
}

/// Tells systemd that the agent answers, as long as it does: the proof is a look-up through the same locks that
/// requests take.
async fn watchdog(registry: Arc<Registry>) {
    let mut limit = 0;
    if !sd_notify::watchdog_enabled(false, &mut limit) {
        return;
    }
    let mut tick = tokio::time::interval(Duration::from_micros(limit) / 3);
    loop {
        tick.tick().await;
        registry.responds();
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(false, states);
}
