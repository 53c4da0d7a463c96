//! The data folder: one temporary folder, only for its owner, with all that a cluster writes.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{Error, identity};

/// Linux allows 107 bytes for a socket's path, macOS 103, and etcd adds none.
const SOCKET_PATH_MAX_BYTES: usize = 103;

/// A log's end that explains a failure and still fits a screen.
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 16 * 1024;

/// Paths in the data folder.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// Creates a fresh folder with mode 0700 in the user's temporary folder.
    pub(crate) fn create() -> Result<Self, Error> {
        let suffix = identity::random_hex::<6>()?;
        let folder = Self { root: env::temp_dir().join(format!("devcluster-{suffix}")) };
        let socket = folder.etcd_socket();
        if socket.as_os_str().len() > SOCKET_PATH_MAX_BYTES {
            return Err(Error::SocketPathTooLong { path: socket });
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&folder.root)
            .map_err(Error::file("create the data folder", &folder.root))?;
        Ok(folder)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn etcd_data(&self) -> PathBuf {
        self.root.join("etcd")
    }

    pub(crate) fn etcd_socket(&self) -> PathBuf {
        self.root.join("etcd.sock")
    }

    pub(crate) fn peer_socket(&self) -> PathBuf {
        self.root.join("peer.sock")
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.root.join("certificates")
    }

    pub(crate) fn service_account_key(&self) -> PathBuf {
        self.root.join("service-account.key")
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.root.join("tokens.csv")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    pub(crate) fn audit_policy(&self) -> PathBuf {
        self.root.join("audit-policy.yaml")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.root.join("audit.log")
    }

    pub(crate) fn log(&self, server: &str) -> PathBuf {
        self.root.join(format!("{server}.log"))
    }

    pub(crate) fn pid(&self, server: &str) -> PathBuf {
        self.root.join(format!("{server}.pid"))
    }

    pub(crate) fn kubectl_cache(&self) -> PathBuf {
        self.root.join("kubectl-cache")
    }
}

/// Writes a file that only its owner may read. It appears under its name when it is complete.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", identity::random_hex::<6>()?));
    let unfinished = PathBuf::from(unfinished);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&unfinished);
    }
    written.map_err(Error::file("write", path))
}

/// The last lines of a log, or why they can't be read.
pub(crate) fn tail(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    match read() {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().collect::<Vec<_>>();
            lines
                .iter()
                .skip(lines.len().saturating_sub(TAIL_LINES))
                .map(|line| format!("  {line}\n"))
                .collect::<Vec<_>>()
                .concat()
        }
        Err(error) => format!("  (can't read {}: {error})\n", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_only_for_its_owner_and_leaves_no_other_behind() {
        let folder = DataFolder::create().unwrap();

        write_private(&folder.tokens(), "secret").unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.root()), mode(&folder.tokens())), (0o700, 0o600));
        assert_eq!(fs::read_dir(folder.root()).unwrap().count(), 1);
        fs::remove_dir_all(folder.root()).unwrap();
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = DataFolder::create().unwrap();
        let log = folder.log("etcd");
        fs::write(
            &log,
            (0..2000).map(|number| format!("line {number}\n")).collect::<Vec<_>>().concat(),
        )
        .unwrap();

        let tail = tail(&log);

        assert_eq!(
            (tail.lines().next(), tail.lines().last()),
            (Some("  line 1985"), Some("  line 1999"))
        );
        fs::remove_dir_all(folder.root()).unwrap();
    }
}
