//! A real etcd and kube-apiserver on this machine, without Docker, for the demo and the integration
//! tests.
//!
//! ```no_run
//! use devcluster::{Cluster, Options};
//!
//! let cluster = Cluster::start(Options::default())?;
//! let status = cluster.kubectl().args(["get", "namespaces"]).status();
//! # Ok::<(), devcluster::Error>(())
//! ```
//!
//! The first start builds the servers with Go, which takes minutes, and keeps them in the user's
//! cache folder; later starts take seconds. `KUBEBUILDER_ASSETS` names a folder with ready binaries
//! instead.
//!
//! The map, in the order in which a start uses the modules:
//!
//! ```text
//! cluster ──► binaries ──► go   etcd, kube-apiserver, kubectl: of the user, the cache or a build
//!    ├──────► folder              the paths in the temporary data folder
//!    ├──────► identity            who may log in: token, service-account key, kubeconfig
//!    ├──────► flags               the flags of each server
//!    └──────► guard               a watchdog for each server, a janitor for the data folder
//! ```

mod binaries;
mod cluster;
mod error;
mod flags;
mod folder;
mod go;
mod guard;
mod identity;

pub use binaries::{Binaries, report_to_stderr};
pub use cluster::{Cluster, Options};
pub use error::Error;
