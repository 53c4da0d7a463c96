//! One operator: a process with the scheduler of the product, its watch and its clock; all of it
//! dies with it.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use streamsession_core::ledger::Rules;
use streamsession_core::object::Scope;
use streamsession_core::reconcile::{Settings, View};
use streamsession_core::scheduler::{Limits, Run, Scheduler};
use streamsession_core::time::Validity;

use crate::api::{Line, Name};
use crate::calls::{MARGIN_SECONDS, SIGNATURE_SECONDS};
use crate::scenario::Scenario;

/// How long an operator waits for the API server, and for the service.
pub const API_DEADLINE_MS: u64 = 2_000;
pub const CALL_DEADLINE_MS: u64 = 3_000;
/// How long a process that stops waits for what is under way: a call and two writes.
pub const STOP_PATIENCE_MS: u64 = CALL_DEADLINE_MS + 2 * API_DEADLINE_MS;
/// How long what a Secret holds is believed without a look.
const SECRET_CACHED_MS: u64 = 6_000;
/// A clock that is older than this is none.
const CLOCK_TRUSTED_MS: u64 = 3_600_000;

/// The settings of all operators, by batch size.
fn settings(batch_size_max: usize) -> Arc<Settings> {
    static SETTINGS: LazyLock<BTreeMap<usize, Arc<Settings>>> = LazyLock::new(|| {
        let validity =
            Validity { signature_seconds: SIGNATURE_SECONDS, margin_seconds: MARGIN_SECONDS };
        let of = |batch_size_max| Settings {
            rules: Rules { validity, batch_size_max, ..Rules::default() },
            journal_age_max_seconds: 3,
            foreign_journal_timeout: Duration::from_millis(
                3_000 + CALL_DEADLINE_MS + API_DEADLINE_MS,
            ),
            retry_base: Duration::from_secs(1),
        };
        [1, 2, 3, 100].into_iter().map(|size| (size, Arc::new(of(size)))).collect()
    });
    Arc::clone(&SETTINGS[&batch_size_max])
}

fn scheduler(scenario: &Scenario) -> Scheduler {
    let limits = Limits {
        concurrency: scenario.concurrency,
        calls_per_second: NonZeroU32::new(scenario.quota).unwrap(),
        burst: NonZeroU32::MIN,
        call_deadline: Duration::from_millis(CALL_DEADLINE_MS),
    };
    Scheduler::new(settings(scenario.batch_size_max), limits, vec![Scope::All])
}

/// A run that is under route.
pub struct Running {
    pub name: Name,
    pub run: Box<Run>,
    /// The key that its credentials are.
    pub key: Option<String>,
    /// The copy's version, and what it shows.
    pub copy: Option<(u64, Box<View>)>,
}

/// What the watch shows next.
pub enum Watch {
    /// The beginning of a list.
    MustList,
    /// The next portion of a list, or its end if there is none.
    Lists(VecDeque<Vec<Line>>),
    /// What happened since.
    Follows,
}

pub struct Operator {
    /// Which process it is; what was meant for an earlier one is void.
    pub incarnation: u32,
    pub is_up: bool,
    /// It was told to stop: it sees nothing new, and lets what is under way settle.
    pub is_stopping: bool,
    pub started_ms: u64,
    pub frozen_until_ms: u64,
    pub fenced_until_ms: u64,
    pub scheduler: Scheduler,
    /// By number: an object that is gone may still have one beside the next object of its name.
    pub running: BTreeMap<u64, Running>,
    /// When the scheduler is asked again.
    pub wake_at_ms: Option<u64>,
    /// The service's second, and when it was told.
    clock: Option<(i64, u64)>,
    /// What each namespace's Secret held, and until when that is believed.
    pub secrets: BTreeMap<u8, (String, u64)>,
    pub last_good: BTreeMap<u8, String>,
    /// The next line of the log to be seen; an event is on its way if it is to be seen soon.
    pub cursor: usize,
    pub is_watching: bool,
    pub stalled_until_ms: u64,
    pub watch: Watch,
}

impl Operator {
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            incarnation: 0,
            is_up: false,
            is_stopping: false,
            started_ms: 0,
            frozen_until_ms: 0,
            fenced_until_ms: 0,
            scheduler: scheduler(scenario),
            running: BTreeMap::new(),
            wake_at_ms: None,
            clock: None,
            secrets: BTreeMap::new(),
            last_good: BTreeMap::new(),
            cursor: 0,
            is_watching: false,
            stalled_until_ms: 0,
            watch: Watch::MustList,
        }
    }

    /// Whether the watch has something to show.
    pub fn sees_more(&self, log_lines: usize) -> bool {
        self.is_up
            && !self.is_stopping
            && (self.cursor < log_lines || !matches!(self.watch, Watch::Follows))
    }

    /// The process is gone, and everything that was in its memory.
    pub fn die(&mut self, scenario: &Scenario) {
        let (incarnation, fenced_until_ms) = (self.incarnation + 1, self.fenced_until_ms);
        *self = Self { incarnation, fenced_until_ms, ..Self::new(scenario) };
    }

    /// Monotonic time since the start of the process.
    pub fn elapsed(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms - self.started_ms)
    }

    /// When it is `elapsed` since the start of the process, rounded up: a look too early would find
    /// nothing.
    pub fn at_ms(&self, elapsed: Duration) -> u64 {
        self.started_ms + u64::try_from(elapsed.as_micros().div_ceil(1_000)).unwrap()
    }

    /// The lower bound of the service's clock.
    pub fn clock(&self, now_ms: u64) -> Option<i64> {
        let (second, at) = self.clock.filter(|(_, at)| now_ms - at <= CLOCK_TRUSTED_MS)?;
        Some(second + i64::try_from((now_ms - at) / 1_000).unwrap())
    }

    /// An answer told the time; an older one may come in later.
    pub fn learn_time(&mut self, second: i64, now_ms: u64) {
        if self.clock(now_ms).is_none_or(|known| known <= second) {
            self.clock = Some((second, now_ms));
        }
    }

    /// What the Secret of a namespace held, if that is still believed.
    pub fn cached_secret(&self, namespace: u8, now_ms: u64) -> Option<String> {
        let kept = self.secrets.get(&namespace).filter(|(_, until)| *until > now_ms);
        kept.map(|(secret, _)| secret.clone())
    }

    pub fn cache_secret(&mut self, namespace: u8, key: &str, now_ms: u64) {
        self.last_good.insert(namespace, key.to_owned());
        self.secrets.insert(namespace, (key.to_owned(), now_ms + SECRET_CACHED_MS));
    }
}
