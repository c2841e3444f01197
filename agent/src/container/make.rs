//! The start sequence up to execve of the command. Everything that comes into being is noted in [`Remains`] first,
//! so that whoever breaks off knows what to remove.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use shim::protocol::{IdMap, Ids, MAP_IDS, Mount, Program, Start};

use super::activated::{PORT, activate};
use super::begin::{Given, Resources, begin};
use super::documents::{self, Documents, DocumentsError};
use super::files;
use super::status::{Executing, status_socket};
use super::templates::Template;
use super::{
    Container, Phases, Record, Remains, fingerprint, limits, millis, request, start_time, upstream,
};
use crate::admission::Turn;
use crate::config::definition::{Listen, Mode, User};
use crate::config::{Definition, Limits};
use crate::disk;
use crate::owners::Disk;
use crate::platform::Platform;
use crate::spawner::SpawnError;

/// Why no container came of it.
pub enum MakeError {
    /// The storage of the documents does not answer; `released` resolves when it has.
    Hangs {
        /// What is known.
        message: String,
        /// See above.
        released: tokio::sync::oneshot::Receiver<()>,
    },
    /// The file system of the documents has no id-mapped mounts. That is remembered; another attempt does without.
    NoIdMaps(anyhow::Error),
    /// Anything else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for MakeError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// A container whose command is about to be executed.
pub struct Made {
    /// The container.
    pub container: Arc<Container>,
    executing: Executing,
    /// From when on its processes set themselves up, and nothing else is done.
    pub(crate) set_up_since: tokio::time::Instant,
    /// What its documents are on, where that is to map their ids.
    mapped: Option<u64>,
}

impl Made {
    /// Waits until the command has been executed.
    pub async fn executed(
        &mut self,
        platform: &Platform,
    ) -> Result<tokio::time::Instant, MakeError> {
        let executed = self.executing.wait().await;
        executed.map_err(|error| why(platform, self.mapped, error))?;
        Ok(tokio::time::Instant::now())
    }
}

/// Remembers the device of documents that cannot be mapped.
fn why(platform: &Platform, mapped: Option<u64>, error: anyhow::Error) -> MakeError {
    match mapped {
        Some(device) if cannot_map_documents(&error) => {
            platform.cannot_idmap(device);
            MakeError::NoIdMaps(error)
        }
        _ => MakeError::Other(error),
    }
}

/// Makes the container of a vhost and starts its command, which may not have been executed yet.
pub async fn make(
    platform: &Arc<Platform>,
    vhost: &Arc<str>,
    definition: &Arc<Definition>,
    wanted: &Limits,
    preferred_range: u32,
    turn: &Turn,
    remains: &mut Remains,
) -> Result<Made, MakeError> {
    let began = Instant::now();
    let documents = open_documents(platform, definition).await?;
    let template = platform.templates.get(&definition.template)?;
    let (uid, gid) = user(platform, definition, documents.as_ref())?;
    let path = definition.documents.as_deref();
    disk::limit_new(platform, vhost, path, documents.as_ref(), wanted).await?;
    // Not before the documents are open: storage that hangs must hold nobody up.
    turn.come(&definition.owner).await?;
    let opened = Instant::now();

    let range = platform.ranges.take(preferred_range);
    let range = range.context("all uid ranges are in use; lower uid_base or end some sites")?;
    remains.range = Some(range);
    let direct = documents
        .as_ref()
        .is_some_and(|d| !platform.idmaps(d.device));
    let device = documents.as_ref().map(|d| d.device);
    let ids = Ids {
        base: platform.ranges.base_of(range),
        uid,
        gid,
        direct,
    };
    // Made by the spawner while all that follows is made here.
    let users = platform.spawner.ask_users(ids).await?;
    let prepared = platform.take_network(definition.network.mode == Mode::Address)?;
    remains.slot = Some(prepared.slot);
    let address = prepared.address;
    remains.namespace = Some(Arc::new(prepared.namespace));
    let Some(namespace) = remains.namespace.clone() else {
        return Err(anyhow!("no network namespace").into());
    };
    files::site_directory(platform, vhost)?;
    let socket = match request::socket_directory(definition) {
        Some(inside) => Some((inside, upstream::prepare(platform, vhost, ids)?)),
        None => None,
    };
    let activated = activate(platform, vhost, definition, &namespace, address)?;
    let limits = limits::translate(wanted, documents.as_ref().map(|d| d.mount.as_fd()), false)?;
    let shared_sys = prepared.sysfs.is_none();
    let mounts = Mounts::new(&template, documents, prepared.sysfs, socket, direct)?;
    let (status, theirs) = status_socket()?;
    let resources = Resources {
        platform,
        vhost,
        definition,
        wanted,
        limits: &limits,
        disk: device.map_or(Disk::None, Disk::Of),
        ids,
        namespace: &namespace,
        slot: prepared.slot,
        address,
    };
    let id = platform.spawner.next_id();
    let (tmpfs_bytes, tmpfs_inodes) = request::tmpfs(wanted);
    let start = Start {
        id,
        vhost: vhost.to_string(),
        hostname: request::hostname(definition),
        mounts: mounts.list.iter().map(|(mount, _)| mount.clone()).collect(),
        shared_sys,
        symlinks: template.symlinks.clone(),
        writable: [
            ("tmp", 0o1777),
            ("run", 0o755),
            ("run/shm", 0o1777),
            ("var/tmp", 0o1777),
        ]
        .into_iter()
        .map(|(path, mode)| (path.to_owned(), mode))
        .filter(|(path, _)| {
            path != "var/tmp" || !template.mounts.iter().any(|(_, name)| name == "var")
        })
        .collect(),
        generated: request::generated(&template, definition, ids, address, &platform.resolver),
        tmpfs_bytes,
        tmpfs_inodes,
        program: Program {
            ids,
            command: definition.command.iter().map(str::to_owned).collect(),
            env: request::environment(definition),
            workdir: request::workdir(definition),
            rlimits: request::rlimits(wanted),
        },
        log: request::log_rule(&platform.config),
        fds: Vec::new(),
    };
    let users = platform.spawner.users(users).await?;
    let given = Given {
        status: &theirs,
        namespace: &namespace,
        users: &users,
        mounts: mounts.list.iter().map(|(_, fd)| fd.as_fd()).collect(),
        listen: activated.socket.as_ref(),
    };
    let prepared_at = Instant::now();
    let (started, resources) = begin(start, &given, &resources, remains).await?;
    let set_up_since = tokio::time::Instant::now();
    drop(given);
    drop((theirs, mounts, activated.socket));
    // While init works.
    let begun = start_time(started.pid);
    let fingerprint = fingerprint(definition);
    let pidfd = crate::sys::watch(started.pidfd).context("cannot watch its init")?;
    let mut executing = Executing::new(status);
    let mapped = device.filter(|_| !direct);
    let main_pid = executing.main_pid().await;
    let main_pid = main_pid.map_err(|error| why(platform, mapped, error))?;
    let Some(begun) = begun else {
        // Mostly it has told why.
        let told = executing.wait().await;
        told.map_err(|error| why(platform, mapped, error))?;
        return Err(anyhow!("its init has ended already").into());
    };

    let phases = Phases {
        documents: millis(opened - began),
        clone: millis(prepared_at - opened),
        resources: millis(resources),
        setup: 0.0,
        listen: 0.0,
        total: 0.0,
    };
    let upstream: Arc<str> = match (&definition.listen, &activated.path, address) {
        (Listen::Tcp(port), _, Some(address)) => format!("{address}:{port}").into(),
        (Listen::Activate, None, Some(address)) => format!("{address}:{PORT}").into(),
        (Listen::Activate, Some(path), _) => format!("unix:{path}").into(),
        (Listen::Unix(_), ..) => {
            format!("unix:{}", upstream::path(platform, vhost).display()).into()
        }
        // Reached through a socket that the agent hands over.
        (Listen::Tcp(port), _, None) => format!("127.0.0.1:{port}").into(),
        (Listen::Activate, None, None) => return Err(anyhow!("nothing was activated").into()),
    };
    let record = Record {
        vhost: vhost.to_string(),
        owner: definition.owner.to_string(),
        pid: started.pid,
        start_time: begun,
        main_pid,
        slot: prepared.slot,
        range,
        ids: ids.into(),
        address,
        activated_port: (activated.path.is_none() && definition.listen == Listen::Activate)
            .then_some(PORT),
        activated_path: activated.path,
        upstream: upstream.to_string(),
        ready_at: 0.0,
        ready_boot: 0,
        phases: phases.clone(),
        listen: definition.listen.to_string(),
        definition: fingerprint,
        device: Some(device.unwrap_or(0)),
        open_files: None,
    };
    let (Some(group), Some(namespace)) = (remains.group.clone(), remains.namespace.clone()) else {
        return Err(anyhow!("its cgroup or namespace is gone").into());
    };
    let container = Container::new(
        platform,
        vhost.clone(),
        record,
        pidfd,
        group,
        namespace,
        began,
    );
    container.began_with_open_files(wanted);
    Ok(Made {
        container: Arc::new(container),
        executing,
        set_up_since,
        mapped,
    })
}

/// The first time that a vhost has a limit of disk space: goes through its documents, which takes as long as they are many.
pub async fn count_documents(
    platform: &Arc<Platform>,
    vhost: &Arc<str>,
    definition: &Definition,
    wanted: &Limits,
) -> Result<(), MakeError> {
    let documents = open_documents(platform, definition).await?;
    let path = definition.documents.as_deref();
    Ok(disk::limit_new(platform, vhost, path, documents.as_ref(), wanted).await?)
}

async fn open_documents(
    platform: &Platform,
    definition: &Definition,
) -> Result<Option<Documents>, MakeError> {
    let Some(path) = &definition.documents else {
        return Ok(None);
    };
    let limit = platform.start_limit(definition) / 2;
    match documents::open(path, limit).await {
        Ok(documents) => Ok(Some(documents)),
        // As text: its source is in it already.
        Err(error @ DocumentsError::System { .. }) => Err(anyhow!(error.to_string()).into()),
        Err(error) => {
            let message = error.to_string();
            let DocumentsError::Hangs { released, .. } = error else {
                return Err(anyhow!(message).into());
            };
            Err(MakeError::Hangs { message, released })
        }
    }
}

/// As whom the command runs, never below the configured minimum.
fn user(
    platform: &Platform,
    definition: &Definition,
    documents: Option<&Documents>,
) -> Result<(u32, u32)> {
    let (uid, gid, whence) = match (&definition.user, documents) {
        (User::Auto, Some(d)) => (d.uid, d.gid, "the owner of its documents"),
        (User::Auto, None) => {
            bail!("there are no documents whose owner it could run as; set `user`")
        }
        (User::Ids(uid, gid), _) => (*uid, *gid, "its `user`"),
        (User::Name(name), _) => {
            let user = nix::unistd::User::from_name(name)?.with_context(|| {
                format!("this host has no user {name:?}; create it or change `user`")
            })?;
            (user.uid.as_raw(), user.gid.as_raw(), "its `user`")
        }
    };
    if let Some(d) = documents
        && d.uid == 0
    {
        bail!("its documents belong to root; give them to the site's user (chown)");
    }
    let config = &platform.config;
    if uid < config.min_uid || gid < config.min_gid {
        bail!(
            "{whence} is {uid}:{gid}, below the minimum {}:{}; give the documents to an ordinary user (chown) or lower min_uid/min_gid",
            config.min_uid,
            config.min_gid
        );
    }
    Ok((uid, gid))
}

/// All mounts of a container with their descriptors, in order.
struct Mounts {
    list: Vec<(Mount, OwnedFd)>,
}

impl Mounts {
    fn new(
        template: &Template,
        documents: Option<Documents>,
        sysfs: Option<OwnedFd>,
        socket: Option<(String, OwnedFd)>,
        direct: bool,
    ) -> Result<Self> {
        let idmap = IdMap::Container;
        let mut list: Vec<_> = request::template_mounts(template, idmap)
            .into_iter()
            .zip(template.open()?)
            .collect();
        if let Some(documents) = documents {
            let idmap = if direct { IdMap::None } else { IdMap::Site };
            list.push((request::documents_mount(idmap), documents.mount));
        }
        list.extend(sysfs.map(|sysfs| (request::sysfs_mount(), sysfs)));
        if let Some((inside, mount)) = socket {
            list.push((request::socket_mount(&inside), mount));
        }
        Ok(Self { list })
    }
}

/// Whether the kernel refused to map the ids of the documents' file system.
fn cannot_map_documents(error: &anyhow::Error) -> bool {
    let Some(SpawnError::Refused(failure)) = error.downcast_ref() else {
        return false;
    };
    failure.step == MAP_IDS && failure.object == request::DOCUMENTS && failure.errno == libc::EINVAL
}
