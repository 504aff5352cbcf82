//! The policy as configured, and as its file changes.
//!
//! The file is looked at twice a second, through whatever symlinks lead to it, so that every way of
//! changing it is seen alike: written in place, replaced by a rename, or, as Kubernetes does, moved by
//! the rename of a symlink on the way. Notifications would see the first two on most filesystems.
//! SIGHUP makes it look at once.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::{Config, Origin};
use crate::metrics::Metrics;
use crate::policy::file::{FileError, MOST_BYTES, PolicyFile};
use crate::policy::{Mode, Policy};
use crate::proxy::Proxy;

/// Two looks that agree, so that a file is not read while it is being written, take a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The policy cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("OUTGATE_POLICY_FILE {path}: {error}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is no policy.
    #[error("OUTGATE_POLICY_FILE {path}: {error}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        error: FileError,
    },
}

/// A policy, and the state of its file when it was read.
#[derive(Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// Where it comes from.
    pub source: Source,
}

/// What a policy file was when it was last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    stamp: Option<Stamp>,
    /// Of its text; none where there was no text, or none that was a policy.
    digest: Option<u64>,
}

/// The policy that the variables and the file they name state.
///
/// # Errors
/// When the file cannot be read or is no policy.
pub fn load(config: &Config) -> Result<Loaded, LoadError> {
    let Some(path) = &config.policy_file else {
        let policy = build(config, PolicyFile::default());
        return Ok(Loaded {
            policy,
            source: Source::default(),
        });
    };
    // Before it is read: a change in between is then seen as one.
    let stamp = Stamp::of(path);
    let text = read(path).map_err(|error| LoadError::Unreadable {
        path: path.clone(),
        error,
    })?;
    let file = PolicyFile::parse(&text).map_err(|error| LoadError::Invalid {
        path: path.clone(),
        error,
    })?;
    let source = Source {
        stamp,
        digest: Some(digest(&text)),
    };
    Ok(Loaded {
        policy: build(config, file),
        source,
    })
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The variables' rules and the file's as one policy.
fn build(config: &Config, file: PolicyFile) -> Policy {
    let set_by_variable = config
        .values()
        .any(|(variable, _, origin)| variable.name == "OUTGATE_MODE" && origin != Origin::Default);
    let mode = file
        .mode
        .filter(|_| !set_by_variable)
        .unwrap_or(config.mode);
    let mut policy = Policy::builder()
        .allow_addresses(config.allow_addresses.iter().copied())
        .deny_addresses(config.deny_addresses.iter().copied())
        .clients(file.clients)
        .mode(mode);
    for rule in &config.allow {
        policy = policy.allow(rule.clone());
    }
    for rule in &config.deny {
        policy = policy.deny(rule.clone());
    }
    for rule in file.rules {
        policy = policy.rule(rule);
    }
    policy.build()
}

fn read(path: &Path) -> io::Result<String> {
    let refused = |reason: String| Err(io::Error::other(reason));
    // Before it is opened: a pipe would be waited for, perhaps for ever.
    if !std::fs::metadata(path)?.is_file() {
        return refused("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    // One more than may be read tells a file that is too large from one that fits.
    File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        let limit = MOST_BYTES / (1024 * 1024);
        return refused(format!("it is larger than {limit} MiB"));
    }
    String::from_utf8(bytes).or_else(|error| {
        let sound = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let line = sound.split('\n').count();
        let column = sound
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        refused(format!("line {line}, column {column}: it is not UTF-8"))
    })
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None where there is no file, or none to be seen.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Watches the policy file and puts what it says in force.
#[derive(Debug)]
pub struct Reloader {
    config: Arc<Config>,
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
    hangup: Arc<Notify>,
    source: Source,
}

impl Reloader {
    /// A reloader that follows `source`; `hangup` makes it read the file at once.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        proxy: Arc<Proxy>,
        metrics: Arc<Metrics>,
        hangup: Arc<Notify>,
        source: Source,
    ) -> Self {
        Self {
            config,
            proxy,
            metrics,
            hangup,
            source,
        }
    }

    /// Follows the file for as long as it is polled.
    pub async fn run(mut self) {
        let Some(path) = self.config.policy_file.clone() else {
            return std::future::pending().await;
        };
        let mut last = self.source.stamp;
        loop {
            let at_once = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => false,
                () = self.hangup.notified() => true,
            };
            let seen = stamp(&path).await;
            let settled = seen == last;
            last = seen;
            if at_once || (settled && seen != self.source.stamp) {
                self.source.stamp = seen;
                self.read_again().await;
            }
        }
    }

    async fn read_again(&mut self) {
        let (config, proxy) = (Arc::clone(&self.config), Arc::clone(&self.proxy));
        let known = self.source.digest;
        // All of it apart from the data path: long policies take a while to read and to build.
        let applied = tokio::task::spawn_blocking(move || apply(&config, &proxy, known));
        let applied = applied.await;
        let usable = matches!(applied, Ok(Ok(_)));
        self.metrics.policy.current.set(usable.into());
        match applied {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(Applied {
                digest,
                rules,
                mode,
                revoked,
            }))) => {
                self.source.digest = digest;
                self.metrics.policy.reloaded.inc();
                tracing::info!(rules, mode = mode.label(), revoked, "policy reloaded");
            }
            Ok(Err(error)) => self.failed(&error),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &dyn std::error::Error) {
        // A file mended to say what it said before is news all the same.
        self.source.digest = None;
        self.metrics.policy.reload_failed.inc();
        tracing::error!(%error, "policy not reloaded; the last one stays in force");
    }
}

/// A policy that was put in force.
struct Applied {
    digest: Option<u64>,
    rules: usize,
    mode: Mode,
    revoked: usize,
}

/// Reads the policy and puts it in force, unless it is the one that is.
fn apply(config: &Config, proxy: &Proxy, known: Option<u64>) -> Result<Option<Applied>, LoadError> {
    let Loaded { policy, source } = load(config)?;
    if source.digest == known {
        return Ok(None);
    }
    Ok(Some(Applied {
        digest: source.digest,
        rules: policy.rule_count(),
        mode: policy.mode(),
        revoked: proxy.enforce(policy),
    }))
}

async fn stamp(path: &Path) -> Option<Stamp> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || Stamp::of(&path))
        .await
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_the_file_holds_unless_the_variable_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, "mode: report\nrules: []\n").unwrap();
        let mode = |variables: &[(&str, &str)]| {
            let file = ("OUTGATE_POLICY_FILE", path.to_str().unwrap());
            let config = Config::load([&[file], variables].concat()).unwrap();
            load(&config).unwrap().policy.mode()
        };
        assert_eq!(mode(&[]), Mode::Report);
        assert_eq!(mode(&[("OUTGATE_MODE", "enforce")]), Mode::Enforce);
        std::fs::write(&path, "mode: enforce\nrules: []\n").unwrap();
        assert_eq!(mode(&[("OUTGATE_MODE", "report")]), Mode::Report);
    }

    #[test]
    fn what_is_no_file_of_text_is_refused_and_a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let pipe = path("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        std::fs::write(path("binary"), b"rules: []\n# \xff\n").unwrap();
        // Its limit falls between the two bytes of a letter.
        std::fs::write(path("long"), "é".repeat(3_000_000)).unwrap();
        for (name, hint) in [
            ("pipe", "not a regular file"),
            ("binary", "line 2, column 3"),
            ("long", "larger than 4 MiB"),
            ("none", "No such file"),
        ] {
            let error = read(&path(name)).unwrap_err().to_string();
            assert!(error.contains(hint), "{name}: {error}");
        }
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
