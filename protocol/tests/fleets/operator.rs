//! One operator: a process with its watch, its agenda and claims, its permits, its clock; all of it
//! dies with it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use streamsession_protocol::ledger::Rules;
use streamsession_protocol::plan::Urgency;
use streamsession_protocol::step::{Round, Settings, View};
use streamsession_protocol::time::Validity;

use crate::agenda::Agenda;
use crate::api::Name;
use crate::queue::{Permit, Permits, Priority, WINDOW};
use crate::service::{MARGIN_SECONDS, SIGNATURE_SECONDS};

/// How long an operator waits for the API server, and for the service.
pub const API_DEADLINE_MS: u64 = 2_000;
pub const CALL_DEADLINE_MS: u64 = 3_000;
/// How long what a Secret holds is believed without a look.
const SECRET_KEPT_MS: u64 = 6_000;
/// A clock that is older than this is none.
const CLOCK_KEPT_MS: u64 = 3_600_000;

/// The settings of all operators, by batch size.
pub fn settings(batch_size_max: usize) -> &'static Settings {
    static SETTINGS: LazyLock<BTreeMap<usize, Settings>> = LazyLock::new(|| {
        let validity =
            Validity { signature_seconds: SIGNATURE_SECONDS, margin_seconds: MARGIN_SECONDS };
        let of = |batch_size_max| Settings {
            rules: Rules { validity, batch_size_max, ..Rules::default() },
            journal_age_max_seconds: 3,
            patience: Duration::from_millis(3_000 + CALL_DEADLINE_MS + API_DEADLINE_MS),
            retry_base: Duration::from_secs(1),
        };
        [1, 2, 3, 100].into_iter().map(|size| (size, of(size))).collect()
    });
    &SETTINGS[&batch_size_max]
}

/// Virtual time as the permits want it.
pub fn instant(now_ms: u64) -> Instant {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    *EPOCH + Duration::from_millis(now_ms)
}

fn milliseconds(instant_: Instant) -> u64 {
    // Rounded up: a look too early would find nothing.
    u64::try_from(instant_.duration_since(instant(0)).as_micros().div_ceil(1_000)).unwrap()
}

/// A round that is under way.
pub struct Running {
    pub name: Name,
    pub round: Round<'static>,
    /// It began with a permit.
    pub permitted: bool,
    pub permit: Option<(String, Permit)>,
    /// The key that the round's credentials are.
    pub key: Option<String>,
    /// The copy's version, and what it shows.
    pub copy: Option<(u64, Box<View>)>,
    pub versions: Vec<u64>,
    /// What was decided last trusts nothing that the service said before.
    pub displaced: bool,
}

pub struct Operator {
    /// Which process it is; what was meant for an earlier one is void.
    pub incarnation: u32,
    pub is_up: bool,
    pub started_ms: u64,
    pub frozen_until_ms: u64,
    pub fenced_until_ms: u64,
    pub agenda: Agenda,
    /// By number: an object that is gone may still have one beside the next object of its name.
    pub running: BTreeMap<u64, Running>,
    pub plain: usize,
    /// By key: the account as far as anybody can tell.
    pub permits: BTreeMap<String, Permits<Name>>,
    pub waiting: BTreeMap<Name, String>,
    /// When a look at them is planned.
    pub grant_at_ms: Option<u64>,
    quota: u32,
    /// The service's second, and when it was told.
    clock: Option<(i64, u64)>,
    /// What each namespace's Secret held, and until when that is believed.
    pub secrets: BTreeMap<u8, (String, u64)>,
    pub last_good: BTreeMap<u8, String>,
    /// The next line of the log to be seen; an event is on its way if it is to be seen soon.
    pub cursor: usize,
    pub is_watching: bool,
    pub stalled_until_ms: u64,
    /// A list is to be seen next.
    pub must_list: bool,
}

impl Operator {
    pub fn new(quota: u32) -> Self {
        Self {
            incarnation: 0,
            is_up: false,
            started_ms: 0,
            frozen_until_ms: 0,
            fenced_until_ms: 0,
            agenda: Agenda::default(),
            running: BTreeMap::new(),
            plain: 0,
            permits: BTreeMap::new(),
            waiting: BTreeMap::new(),
            grant_at_ms: None,
            quota,
            clock: None,
            secrets: BTreeMap::new(),
            last_good: BTreeMap::new(),
            cursor: 0,
            is_watching: false,
            stalled_until_ms: 0,
            must_list: false,
        }
    }

    /// The process dies, and all that it knew.
    pub fn die(&mut self) {
        let (incarnation, fenced_until_ms) = (self.incarnation + 1, self.fenced_until_ms);
        *self = Self { incarnation, fenced_until_ms, ..Self::new(self.quota) };
    }

    /// The lower bound of the service's clock.
    pub fn clock(&self, now_ms: u64) -> Option<i64> {
        let (second, at) = self.clock.filter(|(_, at)| now_ms - at <= CLOCK_KEPT_MS)?;
        Some(second + i64::try_from((now_ms - at) / 1_000).unwrap())
    }

    /// An answer told the time; an older one may come in later.
    pub fn was_told(&mut self, second: i64, now_ms: u64) {
        if self.clock(now_ms).is_none_or(|known| known <= second) {
            self.clock = Some((second, now_ms));
        }
    }

    /// What the Secret of a namespace held, if that is still believed.
    pub fn kept_secret(&self, namespace: u8, now_ms: u64) -> Option<String> {
        self.secrets
            .get(&namespace)
            .filter(|(_, until)| *until > now_ms)
            .map(|(secret, _)| secret.clone())
    }

    pub fn keep_secret(&mut self, namespace: u8, key: &str, now_ms: u64) {
        self.last_good.insert(namespace, key.to_owned());
        self.secrets.insert(namespace, (key.to_owned(), now_ms + SECRET_KEPT_MS));
    }

    fn permits_of(&mut self, key: &str) -> &mut Permits<Name> {
        let (quota, started) = (NonZeroU32::new(self.quota).unwrap(), instant(self.started_ms));
        self.permits.entry(key.to_owned()).or_insert_with(|| Permits::new(quota, started))
    }

    pub fn try_take(&mut self, key: &str, now_ms: u64) -> Option<Permit> {
        self.permits_of(key).try_take(instant(now_ms))
    }

    /// Lets an object wait for a permit.
    pub fn enqueue(&mut self, key: &str, name: Name, urgency: Urgency) {
        if self.waiting.get(&name).is_some_and(|elsewhere| elsewhere != key) {
            self.cancel_wait(name);
        }
        let priority = match urgency {
            Urgency::Detach => Priority::Detach,
            Urgency::Attach => Priority::Attach,
            Urgency::Retry => Priority::Retry,
        };
        self.permits_of(key).enqueue(name, priority);
        self.waiting.insert(name, key.to_owned());
    }

    pub fn cancel_wait(&mut self, name: Name) {
        if let Some(key) = self.waiting.remove(&name) {
            self.permits_of(&key).cancel(&name);
        }
    }

    /// The next object whose turn it is.
    pub fn grant(&mut self, now_ms: u64) -> Option<(Name, String, Permit)> {
        let now = instant(now_ms);
        let (key, (name, permit)) = self
            .permits
            .iter_mut()
            .find_map(|(key, permits)| Some((key.clone(), permits.grant(now)?)))?;
        self.waiting.remove(&name);
        Some((name, key, permit))
    }

    /// When somebody's turn may come.
    pub fn next_grant_ms(&self, now_ms: u64) -> Option<u64> {
        let now = instant(now_ms);
        self.permits.values().filter_map(|permits| permits.next(now)).min().map(milliseconds)
    }

    pub fn unspent(&mut self, permit: Option<(String, Permit)>) {
        if let Some((key, permit)) = permit {
            self.permits_of(&key).unspent(permit);
        }
    }

    /// The permit of a call is spent, until a window after the answer or the deadline.
    pub fn spent(&mut self, key: &str, permit: Permit, answered_ms: u64, throttled: bool) {
        let permits = self.permits_of(key);
        if throttled {
            permits.throttled(&permit, instant(answered_ms));
        }
        permits.spent(permit, instant(answered_ms) + WINDOW);
    }
}
