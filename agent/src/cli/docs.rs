//! Completions and man pages, from the one definition.
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Args, Shell};
use super::daemon_args::DaemonArgs;
use super::failure::Failure;

/// The script for a shell.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "fastctl", &mut out);
    out
}

/// Writes `fastctl.1`, `fastctl-VERB.1` for each verb and `fastcontainerd.8`.
pub(crate) fn man(directory: &Path) -> Result<(), Failure> {
    let write = |name: &str, page: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, page)
            .map_err(|e| Failure::Failed(format!("cannot write {}: {e}", path.display())))
    };
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    write(
        "fastctl.1",
        &page(command.clone(), "fastctl", "1", "fastcontainerd(8)")?,
    )?;
    for verb in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = format!("fastctl-{}", verb.get_name());
        let see = "fastctl(1), fastcontainerd(8)";
        write(&format!("{name}.1"), &page(verb.clone(), &name, "1", see)?)?;
    }
    write(
        "fastcontainerd.8",
        &page(DaemonArgs::command(), "fastcontainerd", "8", "fastctl(1)")?,
    )
}

fn page(command: clap::Command, title: &str, section: &str, see: &str) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    Man::new(command)
        .title(title.to_uppercase())
        .section(section)
        .manual("FastContainer")
        .source(concat!("fastcontainer ", env!("CARGO_PKG_VERSION")))
        .render(&mut out)?;
    // clap_mangen's name for what follows the options in --help.
    let out = String::from_utf8_lossy(&out).replace(".SH EXTRA\n", ".SH NOTES\n");
    let mut out = out.into_bytes();
    out.extend_from_slice(format!(".SH \"SEE ALSO\"\n{see}\n").as_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        man(dir.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(read("fastctl.1").contains("fastctl\\-dispatch(1)"));
        assert!(read("fastctl-set.1").contains("io.write=2MB/s"));
        let daemon = read("fastcontainerd.8");
        for flag in [
            "config",
            "socket",
            "state\\-dir",
            "run\\-dir",
            "vhosts\\-dir",
            "cgroup\\-parent",
        ] {
            assert!(daemon.contains(flag), "{flag} in {daemon}");
        }
        assert!(!dir.path().join("fastctl-man.1").exists());
        let error = man(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/proc/nowhere/fastctl.1"), "{error}");
    }

    #[test]
    fn completions_know_verbs_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(shell)).unwrap();
            for word in ["dispatch", "dry-run", "completions"] {
                assert!(script.contains(word), "{word} for {shell:?}");
            }
        }
    }
}
