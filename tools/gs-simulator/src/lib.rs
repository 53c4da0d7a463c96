//! A Tencent Cloud GS server for laptops and tests.
//!
//! It answers `SwitchCloudPhoneMultipleStreamSessionSlaves` over HTTP or HTTPS, verifies signatures
//! as the service does, counts the rate, keeps sessions in memory, and misbehaves on request. It
//! shares no code with the operator that it tests.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use gs_simulator::{Faults, Options, Simulator};
//!
//! let simulator = Simulator::start(Options::default()).await?;
//! simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
//! // … let a client call simulator.url() …
//! assert!(simulator.members("1326515201117065216").contains("phone-1"));
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! ```text
//! main ──> Simulator (here) ──> host: a lock and clocks ──> service: the order of judgement ──> tc3       signatures
//!                  ├─> tls: certificates       │                                            ├─> wire      JSON in and out
//!                  └─> http: connections ──────┘                                            ├─> rate      the quota
//!                        ├─> admin: JSON for people                                         ├─> sessions  members
//!                        ├─> metadata: a machine's role                                     ├─> world     what is published nowhere
//!                        └─> drip: slow answers                                             ├─> identity  STS, temporary keys
//!                                                                                           ├─> mischief  what goes wrong: faults, dice
//!                                                                                           ├─> answer    what leaves, as it should or not
//!                                                                                           └─> calls     the history
//! ```
//!
//! From `service` on, all is pure: no clock, no socket; `now` is an argument.

mod admin;
mod answer;
mod calls;
#[cfg(test)]
mod client;
mod dice;
mod drip;
mod faults;
mod host;
mod http;
mod identity;
mod metadata;
mod mischief;
mod rate;
mod service;
mod sessions;
mod tc3;
mod tls;
mod wire;
mod world;

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

pub use answer::Garbling;
pub use calls::{Call, KeyStats, Outcome, Stats};
pub use dice::{NotProbability, Probability};
pub use faults::{AnswerFault, Chances, ErrorFault, Faults, Refusing};
pub use identity::Identity;
pub use rate::RateWindow;
pub use tc3::{Key, Keys};
pub use tls::Tls;
pub use wire::Operation;
pub use world::{NotRepeated, Repeated, World};

use host::Host;
use mischief::Mischief;
use service::{Rules, Service};
use tls::Terminator;

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
    /// What the service answers where its documentation is silent.
    pub world: World,
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
            world: World::default(),
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
    host: Arc<Host>,
    /// None: plain HTTP.
    tls: Option<Terminator>,
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
                "{} is not a loopback address, and whoever reaches the simulator can change its state: allow it explicitly",
                options.listen
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let record = options.record.map(|path| open_record(&path)).transpose()?;
        let tls = options
            .tls
            .as_ref()
            .map(|tls| Terminator::new(tls, options.listen.ip()))
            .transpose()?;
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let rules = Rules {
            keys: options.keys,
            signature_validity: options.signature_validity,
            qps: options.qps,
            rate_window: options.rate_window,
        };
        // Request ids of two simulators must differ, as those of the service do.
        let seed = RandomState::new().hash_one(address);
        let mut service =
            Service::new(rules, options.world, options.known_sessions, options.faults, seed);
        service.issuer.identity = options.identity;
        let host = Arc::new(Host::new(service, options.clock_offset_seconds, record));
        let server = tokio::spawn(http::serve(
            listener,
            Arc::clone(&host),
            tls.as_ref().map(|tls| tls.acceptor.clone()),
        ));
        Ok(Self { address, host, tls, server })
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

    /// The certificate, as PEM, that clients must trust to accept [`Tls::SelfMade`]'s.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.tls.as_ref()?.ca_pem.as_deref()
    }

    /// The time by the service's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.host.now()
    }

    /// Every session with its members.
    #[must_use]
    pub fn sessions(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.host.with(|service| service.sessions.all().clone())
    }

    /// The members of a session; none if there is no such session.
    #[must_use]
    pub fn members(&self, session: &str) -> BTreeSet<String> {
        self.host.with(|service| service.sessions.all().get(session).cloned().unwrap_or_default())
    }

    /// Brings a session to life (again) with exactly these members.
    pub fn set_members(&self, session: &str, members: impl IntoIterator<Item = impl Into<String>>) {
        let members = members.into_iter().map(Into::into).collect();
        self.host.with(|service| service.sessions.set(session, members));
    }

    /// Ends a session: later calls answer `ResourceNotFound.SessionNotFound`.
    pub fn end_session(&self, session: &str) {
        self.host.with(|service| service.sessions.end(session));
    }

    /// What came and what became of it, oldest first; the newest 100,000.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.host.with(|service| service.calls().cloned().collect())
    }

    /// Counts since the start or the last [`Self::reset`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.host.with(|service| service.stats())
    }

    /// Which of the possible services this is.
    #[must_use]
    pub fn world(&self) -> World {
        self.host.with(|service| service.world.clone())
    }

    /// From the next call on, it is this one. Sessions stay as they are.
    pub fn set_world(&self, world: World) {
        self.host.with(|service| service.world = world);
    }

    /// Who gets temporary keys, from the next request on. Keys that were issued stay as they are.
    pub fn set_identity(&self, identity: Identity) {
        self.host.with(|service| service.issuer.identity = identity);
    }

    /// Every temporary key that was given out is refused from now on.
    pub fn expire_issued_keys(&self) {
        self.host.with_now(Service::expire_issued_keys);
    }

    /// The faults that are left.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.host.with(|service| service.mischief.faults().clone())
    }

    /// Replaces all faults, those of [`Options::faults`] included.
    pub fn set_faults(&self, faults: Faults) {
        self.host.with(|service| service.mischief = Mischief::new(faults));
    }

    /// Forgets sessions, calls and counts, the current second's quota included. The world and the
    /// faults stay.
    pub fn reset(&self) {
        self.host.with(Service::reset);
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
