//! Where etcd, kube-apiserver and kubectl come from: the user's folder, the cache, or a build that
//! fills the cache.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use sha2::{Digest, Sha256};

use crate::{
    Error,
    go::{Go, Job, elapsed},
    identity,
};

const GO_MOD: &str = include_str!("../controlplane/go.mod");
const GO_SUM: &str = include_str!("../controlplane/go.sum");
const ETCD_MAIN: &str = include_str!("../controlplane/etcd/main.go");

/// The module's folder; it is a path of the checkout, since `go build` needs the files themselves.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/controlplane");

/// What a control plane needs, in the order of the build: the smallest first, so that a broken
/// set-up shows soon.
const BASE: [Binary; 3] = [
    Binary { name: "etcd", package: "./etcd" },
    Binary { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl" },
    Binary { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver" },
];

const CONTROLLER_MANAGER: Binary = Binary {
    name: "kube-controller-manager",
    package: "k8s.io/kubernetes/cmd/kube-controller-manager",
};

#[derive(Clone, Copy)]
struct Binary {
    name: &'static str,
    package: &'static str,
}

/// A folder with the control plane's binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Finds the binaries in the folder that `KUBEBUILDER_ASSETS` names, or in the cache, or builds
    /// them into the cache with Go, reporting to `progress` line by line. It builds once, also when
    /// several processes ask at the same time.
    pub fn find_or_build(progress: &dyn Fn(&str)) -> Result<Self, Error> {
        if let Some(folder) = assets() {
            return Self::in_assets(folder);
        }
        let folder = cache_folder()?;
        ensure_built(&folder, &BASE, progress)?;
        Ok(Self { folder })
    }

    fn in_assets(folder: PathBuf) -> Result<Self, Error> {
        match BASE.iter().find(|binary| !folder.join(binary.name).is_file()) {
            Some(missing) => Err(Error::AssetMissing { folder, name: missing.name }),
            None => Ok(Self { folder }),
        }
    }

    /// The kube-controller-manager beside these binaries, else the cached one, else one that is
    /// built now: about three more minutes, for those only who need namespaces to end or garbage to
    /// be collected.
    pub fn controller_manager(&self, progress: &dyn Fn(&str)) -> Result<PathBuf, Error> {
        let beside = self.folder.join(CONTROLLER_MANAGER.name);
        if beside.is_file() {
            return Ok(beside);
        }
        let folder = cache_folder()?;
        ensure_built(&folder, &[CONTROLLER_MANAGER], progress)?;
        Ok(folder.join(CONTROLLER_MANAGER.name))
    }

    /// The folder that holds them.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The etcd server.
    #[must_use]
    pub fn etcd(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    /// The Kubernetes API server.
    #[must_use]
    pub fn kube_apiserver(&self) -> PathBuf {
        self.folder.join("kube-apiserver")
    }

    /// kubectl of the same version as the API server, if the folder is the cache.
    #[must_use]
    pub fn kubectl(&self) -> PathBuf {
        self.folder.join("kubectl")
    }
}

/// Writes a line of progress to stderr, also from inside a test: the test harness captures
/// `eprintln!`, and a build of minutes without a word looks like a hang.
pub fn report_to_stderr(line: &str) {
    // If stderr is closed, the work goes on.
    let _ = writeln!(io::stderr(), "{line}");
}

/// An empty variable counts as unset, as for kubebuilder's own tools.
fn assets() -> Option<PathBuf> {
    env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The folder that is ours in the user's cache. A relative `XDG_CACHE_HOME` is invalid by its
/// specification.
pub(crate) fn cache_root() -> Result<PathBuf, Error> {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("streamsession-operator").join("devcluster"))
        .ok_or(Error::NoCacheFolder)
}

fn cache_folder() -> Result<PathBuf, Error> {
    Ok(cache_root()?.join(cache_key(&[
        GO_SUM,
        GO_MOD,
        ETCD_MAIN,
        &ldflags(),
        env::consts::OS,
        env::consts::ARCH,
    ])))
}

/// Builds what is missing in `folder`. A binary has its name only when it is complete: so after an
/// interruption only the rest is built again.
fn ensure_built(folder: &Path, wanted: &[Binary], progress: &dyn Fn(&str)) -> Result<(), Error> {
    if missing(folder, wanted).is_empty() {
        return Ok(());
    }
    let unfinished = folder.join("unfinished");
    fs::create_dir_all(&unfinished).map_err(Error::file("create the cache folder", &unfinished))?;
    let lock = lock(&folder.join("lock"), progress)?;

    // Whoever held the lock before may have built everything.
    let missing = missing(folder, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let go = Go::find()?;
    let started = Instant::now();
    let names = missing.iter().map(|binary| binary.name).collect::<Vec<_>>().join(", ");
    // What the three of a control plane share is compiled with the first of them; one alone finds
    // it in Go's cache.
    let minutes = if missing.len() > 1 { "5 to 10" } else { "2 to 4" };
    let version = kubernetes_version();
    progress(&format!(
        "Building {names} of Kubernetes {version} with Go, once: about {minutes} minutes."
    ));
    for (number, binary) in missing.iter().enumerate() {
        let output = unfinished.join(binary.name);
        let title = format!("{} ({} of {})", binary.name, number + 1, missing.len());
        progress(&format!("  {title}: go build {}", binary.package));
        let job = Job {
            module: Path::new(MODULE),
            package: binary.package,
            ldflags: &ldflags(),
            output: &output,
            title: &title,
        };
        go.build(&job, &lock, progress)?;
        fs::rename(&output, folder.join(binary.name))
            .map_err(Error::file("move into the cache", &output))?;
    }
    progress(&format!("Built in {}; kept in {}.", elapsed(started.elapsed()), folder.display()));
    Ok(())
}

fn missing(folder: &Path, wanted: &[Binary]) -> Vec<Binary> {
    wanted.iter().filter(|binary| !folder.join(binary.name).is_file()).copied().collect()
}

/// Waits for the one builder's lock; the operating system frees it when its holder ends in any way.
fn lock(path: &Path, progress: &dyn Fn(&str)) -> Result<File, Error> {
    let file = File::create(path).map_err(Error::file("create the lock", path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress("Another process builds the control plane; waiting for it.");
        }
        Err(TryLockError::Error(source)) => {
            return Err(Error::File { action: "lock", path: path.to_owned(), source });
        }
    }
    file.lock().map_err(Error::file("lock", path))?;
    Ok(file)
}

/// The first quarter of a SHA-256: enough to tell versions apart, short enough for a path. Lengths
/// keep the parts apart.
fn cache_key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_string());
        hash.update(":");
        hash.update(part);
    }
    let mut key = identity::hex(&hash.finalize());
    key.truncate(16);
    key
}

/// The version that go.mod pins, such as `v1.37.2`.
fn kubernetes_version() -> &'static str {
    GO_MOD
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
        .unwrap_or("v0.0.0")
}

/// Without symbols, and with the version that Kubernetes's own build scripts would stamp; clients
/// compare by it.
fn ldflags() -> String {
    let version = kubernetes_version();
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let stamp = "-X k8s.io/component-base/version";
    format!("-s -w {stamp}.gitVersion={version} {stamp}.gitMajor={major} {stamp}.gitMinor={minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_stamp_follows_go_mod() {
        assert_eq!(kubernetes_version(), "v1.37.2");
        assert!(
            ldflags().ends_with("version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"),
            "{}",
            ldflags()
        );
    }

    #[test]
    fn the_cache_key_changes_with_every_part_and_with_their_borders() {
        let key = cache_key(&["sum", "mod"]);

        assert_eq!(key.len(), 16);
        assert_ne!(key, cache_key(&["sum", "other"]));
        assert_ne!(key, cache_key(&["summ", "od"]));
    }

    #[test]
    fn a_folder_of_the_users_that_lacks_a_binary_is_named_with_it() {
        let folder = env::temp_dir();

        let error = Binaries::in_assets(folder.clone()).unwrap_err().to_string();

        assert!(error.contains(&folder.display().to_string()), "{error}");
        assert!(error.contains("`etcd`"), "{error}");
    }
}
