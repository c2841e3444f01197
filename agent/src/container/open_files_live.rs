//! Open files of one process, changed on all processes of a running container: no control group has such a limit.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::freezing::Still;
use super::open_files::{OpenFiles, hard, raise_is_allowed};
use super::{Container, Drift, Record};
use crate::config::Limits;
use crate::config::definition::LimitKey;
use crate::persist;
use crate::sys;

/// How long its processes may take to stop. Those of a site that has used up its CPU quota wait for the next period.
const STILL_LIMIT: Duration = Duration::from_secs(2);

/// What a process had before it was changed; by pid where there are several.
type Old = (i32, (u64, u64));

impl Container {
    fn known_open_files(&self) -> MutexGuard<'_, Option<u64>> {
        self.open_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Its command has begun with these limits.
    pub(super) fn began_with_open_files(&self, limits: &Limits) {
        *self.known_open_files() = Some(hard(limits));
    }

    /// The hard limit that was set last, if this agent has set or seen it.
    pub fn last_open_files(&self) -> Option<u64> {
        *self.known_open_files()
    }

    /// The hard limit of a command that is about to begin in it.
    pub fn open_files_of_new(&self, limits: &Limits) -> u64 {
        self.last_open_files().unwrap_or_else(|| hard(limits))
    }

    /// Nothing is taken for granted any more: the command is asked.
    pub fn doubt_open_files(&self) {
        *self.known_open_files() = None;
    }

    /// What has to be done for `limits`. Where all is known, which is but after an agent that did not note it or was killed
    /// while it changed, that is one comparison.
    pub fn open_files_change(&self, limits: &Limits) -> Result<Option<OpenFiles>> {
        let before = match self.last_open_files() {
            Some(known) => known,
            None => {
                let found = self.open_files()?;
                *self.known_open_files().get_or_insert(found)
            }
        };
        let wanted = hard(limits);
        Ok((wanted != before).then_some(OpenFiles { before, wanted }))
    }

    /// Soft and hard limit of one of its processes, and before them those that are new. To lower them takes CAP_SYS_RESOURCE
    /// in the container's user namespace only, which the uid has that this namespace was made for.
    fn ask(&self, pid: i32, new: Option<(u64, u64)>) -> std::io::Result<(u64, u64)> {
        let owner = (!raise_is_allowed()).then_some(self.record.ids.base);
        sys::open_files(pid, new, owner)
    }

    /// The hard limit of its command, as the kernel says.
    pub fn open_files(&self) -> Result<u64> {
        let main = self.record.main_pid;
        let asked = self.members(&[main], |pid| self.ask(pid, None));
        let (_, (_, hard)) = asked?.pop().context("its command has ended")?;
        Ok(hard)
    }

    /// Whether its command may open more than it was told. Less it may have chosen itself.
    pub fn open_files_drift(&self) -> Option<Drift> {
        let wanted = self.last_open_files()?;
        // Err: it has ended.
        let found = self.open_files().ok()?;
        (found > wanted).then(|| Drift {
            key: LimitKey::Nofile.name().to_owned(),
            file: format!("RLIMIT_NOFILE of process {}", self.record.main_pid),
            wanted: LimitKey::Nofile.show(wanted),
            found: LimitKey::Nofile.show(found),
        })
    }

    /// For as long as what it returns lives its processes are stopped: else a child could be born with the old limit behind our
    /// back, and its children after it. Nothing is changed of processes that do not stop. Blocks.
    pub fn still_for_open_files(&self) -> Result<Still<'_>> {
        let still = self.still(STILL_LIMIT);
        still.context("cannot change nofile of processes that do not stop")
    }

    /// Changes the limit of all its processes, which are still, and does `rest`. A lower limit comes last, as without the
    /// capability it cannot be taken back: if that fails the rest has been done, else if one of both fails neither has.
    /// Blocks.
    pub fn limit_open_files<T>(
        &self,
        change: Option<(OpenFiles, Still<'_>)>,
        rest: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some((change, _still)) = change else {
            return rest();
        };
        // Among them are all that will be asked below, with the same right.
        let pids = self.processes()?;
        self.members(&pids, |pid| self.ask(pid, None))?;
        self.note_open_files(None)?;
        let done = match change.wanted > change.before {
            true => self
                .put_open_files(&pids, change)
                .and_then(|old| rest().map_err(|error| self.undo(&old, error))),
            false => rest().and_then(|done| self.put_open_files(&pids, change).map(|_| done)),
        };
        if done.is_ok() {
            *self.known_open_files() = Some(change.wanted);
        }
        match self.note_open_files(self.last_open_files()) {
            // The next agent asks the command, of which it may know no better.
            Err(error) if done.is_ok() => tracing::warn!("{error:#}"),
            _ => {}
        }
        done
    }

    /// Tells the next agent what its processes have been told.
    fn note_open_files(&self, told: Option<u64>) -> Result<()> {
        persist::change(&self.record_path, |record: &mut Record| {
            let own = (self.record.pid, self.record.start_time);
            record.open_files = told;
            (record.pid, record.start_time) == own
        })
    }

    /// All that are not init.
    fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = self.group.pids()?;
        pids.retain(|pid| *pid != self.record.pid);
        Ok(pids)
    }

    fn put_open_files(&self, pids: &[i32], change: OpenFiles) -> Result<Vec<Old>> {
        let mut old = Vec::new();
        let put = self.members(pids, |pid| {
            let own = self.ask(pid, None)?;
            let new = change.of(own);
            if new != own {
                self.ask(pid, Some(new))?;
                old.push((pid, own));
                let got = self.ask(pid, None)?;
                if got != new {
                    let what = format!("it has {got:?} and not {new:?} now");
                    return Err(std::io::Error::other(what));
                }
            }
            Ok(())
        });
        match put {
            Ok(_) => Ok(old),
            Err(error) => Err(self.undo(&old, error)),
        }
    }

    /// Gives processes back what they had.
    fn undo(&self, old: &[Old], error: anyhow::Error) -> anyhow::Error {
        let pids: Vec<i32> = old.iter().map(|(pid, _)| *pid).collect();
        let back = self.members(&pids, |pid| {
            match old.binary_search_by_key(&pid, |(known, _)| *known) {
                Ok(at) => self.ask(pid, Some(old[at].1)).map(drop),
                Err(_) => Ok(()),
            }
        });
        match back {
            Ok(_) => error,
            Err(undo) => {
                self.doubt_open_files();
                error.context(format!(
                    "the old limits of open files are not back: {undo:#}"
                ))
            }
        }
    }
}
