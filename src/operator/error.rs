//! Why the operator does not run.

use crate::controller::Stopped;
use crate::gs::{self, Endpoint, InvalidEndpoint};

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Plain HTTP, which no flag allows.
    #[error("--gs-endpoint: {0}")]
    Endpoint(#[source] InvalidEndpoint),
    /// A signature validity that the service does not have.
    #[error(
        "--signature-validity {seconds} s is less than the service's own 300 s, \
         and {endpoint} is not on loopback: a lost call could still take effect after the operator \
         has forgotten it; leave the flag out"
    )]
    Validity {
        /// The flag's.
        seconds: u64,
        /// The service.
        endpoint: Endpoint,
    },
    /// No HTTP client.
    #[error(transparent)]
    Http(#[from] gs::HttpUnavailable),
    /// The controller died.
    #[error(transparent)]
    Controller(#[from] Stopped),
    /// The admin server died.
    #[error("the admin server ended: {0}")]
    Admin(#[source] std::io::Error),
}
