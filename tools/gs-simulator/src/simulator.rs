//! A simulator from its start to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::server;
use crate::server::shared_service::SharedService;
use crate::server::tls::{Tls, TlsTerminator};
use crate::service::calls::{Call, Stats};
use crate::service::faults::Faults;
use crate::service::identity::Identity;
use crate::service::keys::{Key, Keys};
use crate::service::rate::RateWindow;
use crate::service::unspecified::UnspecifiedBehaviour;
use crate::service::{Service, ServiceOptions};

/// The key that is known by default, as in the documentation's examples.
pub const EXAMPLE_SECRET_ID: &str = "AKIDEXAMPLE";
/// The secret of [`EXAMPLE_SECRET_ID`].
pub const EXAMPLE_SECRET_KEY: &str = "SECRETEXAMPLE";

/// How to start a [`Simulator`]. The default listens on a free port of loopback, knows the example
/// key and behaves well.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listening elsewhere than on loopback is an error without this: anyone who reaches the
    /// simulator may use its admin routes.
    pub allow_non_loopback: bool,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
    /// The keys whose signatures are accepted.
    pub keys: Keys,
    /// How far the service's clock is ahead of the machine's.
    pub clock_offset_seconds: i64,
    /// How far a signature's time may be from the service's clock, on both sides.
    pub signature_validity: Duration,
    /// How many calls of one key are accepted in any one second.
    pub qps: u32,
    /// Which second the rate is counted in.
    pub rate_window: RateWindow,
    /// If there are any, no other session exists. If not, a session exists from its first use on.
    pub known_sessions: BTreeSet<String>,
    /// What the service does where its documentation is silent.
    pub unspecified_behaviour: UnspecifiedBehaviour,
    /// Who gets temporary keys from STS and the metadata service.
    pub identity: Identity,
    /// What goes wrong from the start.
    pub faults: Faults,
    /// Every [`Call`] is appended to this file, as a line of JSON.
    pub record: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            allow_non_loopback: false,
            tls: None,
            keys: Keys::from([(EXAMPLE_SECRET_ID.to_owned(), Key::long_term(EXAMPLE_SECRET_KEY))]),
            clock_offset_seconds: 0,
            signature_validity: Duration::from_mins(5),
            qps: 20,
            rate_window: RateWindow::default(),
            known_sessions: BTreeSet::new(),
            unspecified_behaviour: UnspecifiedBehaviour::default(),
            identity: Identity::default(),
            faults: Faults::default(),
            record: None,
        }
    }
}

/// A running simulator. It stops, and closes its connections, when it is dropped.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    service: Arc<SharedService>,
    /// None: plain HTTP.
    tls: Option<TlsTerminator>,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Listens, and serves in a task of the current tokio runtime. Connections are accepted from
    /// the return on.
    ///
    /// # Errors
    ///
    /// The address can't be listened on, or is not loopback without
    /// [`Options::allow_non_loopback`]; the record can't be opened; the certificate can't be used.
    pub async fn start(options: Options) -> io::Result<Self> {
        if !options.listen.ip().is_loopback() && !options.allow_non_loopback {
            let message = format!(
                "{} is not a loopback address, and whoever reaches the simulator can change its \
                 state: allow it explicitly",
                options.listen
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let record = options.record.map(|path| open_record(&path)).transpose()?;
        let tls = options
            .tls
            .as_ref()
            .map(|tls| TlsTerminator::new(tls, options.listen.ip()))
            .transpose()?;
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let service = Service::new(ServiceOptions {
            keys: options.keys,
            signature_validity: options.signature_validity,
            qps: options.qps,
            rate_window: options.rate_window,
            known_sessions: options.known_sessions,
            unspecified_behaviour: options.unspecified_behaviour,
            identity: options.identity,
            faults: options.faults,
            // Request ids of two simulators must differ, as those of the service do.
            seed: RandomState::new().hash_one(address),
        });
        let service = Arc::new(SharedService::new(service, options.clock_offset_seconds, record));
        let acceptor = tls.as_ref().map(|tls| tls.acceptor.clone());
        let server = tokio::spawn(server::serve(listener, Arc::clone(&service), acceptor));
        Ok(Self { address, service, tls, server })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint for clients, without a slash at the end: `http://127.0.0.1:4711`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate, as PEM, that clients must trust to accept [`Tls::Generated`]'s.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.tls.as_ref()?.ca_pem.as_deref()
    }

    /// The time by the service's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.service.now()
    }

    /// Every session with its members.
    #[must_use]
    pub fn sessions(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.service.with(|service| service.sessions.all().clone())
    }

    /// The members of a session; none if there is no such session.
    #[must_use]
    pub fn members(&self, session: &str) -> BTreeSet<String> {
        self.service
            .with(|service| service.sessions.all().get(session).cloned().unwrap_or_default())
    }

    /// Creates a session, ended or not, with exactly these members.
    pub fn set_members(&self, session: &str, members: impl IntoIterator<Item = impl Into<String>>) {
        let members = members.into_iter().map(Into::into).collect();
        self.service.with(|service| service.sessions.set(session, members));
    }

    /// Ends a session: later calls answer `ResourceNotFound.SessionNotFound`.
    pub fn end_session(&self, session: &str) {
        self.service.with(|service| service.sessions.end(session));
    }

    /// The calls and what became of them, oldest first; the newest 100,000.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.service.with(|service| service.calls().cloned().collect())
    }

    /// Counts since the start or the last [`Self::reset`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.service.with(|service| service.stats())
    }

    /// What the service does where its documentation is silent.
    #[must_use]
    pub fn unspecified_behaviour(&self) -> UnspecifiedBehaviour {
        self.service.with(|service| service.unspecified_behaviour.clone())
    }

    /// Replaces the unspecified behaviour, from the next call on. Sessions stay as they are.
    pub fn set_unspecified_behaviour(&self, behaviour: UnspecifiedBehaviour) {
        self.service.with(|service| service.unspecified_behaviour = behaviour);
    }

    /// Replaces who gets temporary keys, from the next request on. Issued keys stay as they are.
    pub fn set_identity(&self, identity: Identity) {
        self.service.with(|service| service.issuer.identity = identity);
    }

    /// Every issued key is refused from now on.
    pub fn expire_issued_keys(&self) {
        self.service.with_now(Service::expire_issued_keys);
    }

    /// The faults that are left.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.service.with(|service| service.faults().clone())
    }

    /// Replaces all faults, those of [`Options::faults`] included.
    pub fn set_faults(&self, faults: Faults) {
        self.service.with(|service| service.set_faults(faults));
    }

    /// Forgets sessions, calls and counts, the current second's quota included. The faults and the
    /// unspecified behaviour stay.
    pub fn reset(&self) {
        self.service.with(Service::reset);
    }
}

fn open_record(path: &Path) -> io::Result<File> {
    let named = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("the record {} can't be opened: {error}", path.display()),
        )
    };
    File::options().create(true).append(true).open(path).map_err(named)
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}
