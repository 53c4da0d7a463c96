//! What a search is about: which service, which policies, how many faults, which rule is left out.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::Rules;
use streamsession_core::reconcile::Settings;
use streamsession_core::time::Validity;

use crate::service::Service;

/// Ticks in which the service takes a signature, and those of its own work.
const VALIDITY: Validity = Validity { signature_seconds: 1, margin_seconds: 1 };
/// Ticks in which a request can take effect.
pub const LIFE: i64 = VALIDITY.signature_seconds + VALIDITY.margin_seconds;
/// Ticks over which a detach has to be refused before anybody is let go of.
pub const STUCK: i64 = VALIDITY.signature_seconds * 2;

/// The operators' settings. No pause is waited for: a reconcile may begin at any moment, which is more
/// than what any pause allows; and a journal of someone else becomes doubt at once, which is the
/// earliest that any patience allows.
pub fn settings() -> &'static Arc<Settings> {
    static SETTINGS: OnceLock<Arc<Settings>> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        Arc::new(Settings {
            rules: Rules { validity: VALIDITY, batch_size_max: 2, ..Rules::default() },
            journal_age_max_seconds: 0,
            patience: Duration::ZERO,
            retry_base: Duration::ZERO,
        })
    })
}

/// What may happen a limited number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An instance joins or leaves the spec.
    Edit,
    Delete,
    /// `deletionPolicy: Orphan`, once it is being deleted.
    Orphan,
    /// A new object under the name of one that is gone.
    Recreate,
    /// A reconcile of the second operator.
    Intrude,
    /// A permit is at hand for the next journal, so that it rides on the settle.
    Ride,
    // The rest are faults: they share a budget too.
    Crash,
    /// An answer is lost, unclear, or says that nothing was done.
    Loss,
    /// The service refuses for no reason.
    Refusal,
    /// A write fails, or its answer is lost.
    Write,
    /// Somebody changes something that does not matter here: a conflict.
    Touch,
    /// `kubectl replace` without the finalizer.
    Strip,
    /// The status is lost, as after a restore.
    Wipe,
    /// The session ends.
    Gone,
    /// A read answers the copy before the last.
    Stale,
}

const KINDS: usize = 15;

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budgets {
    left: [u8; KINDS],
    /// Faults of all kinds together.
    faults: u8,
}

impl Budgets {
    pub const NONE: Self = Self { left: [0; KINDS], faults: 0 };

    pub fn new(faults: u8, each: &[(Kind, u8)]) -> Self {
        let mut budgets = Self { faults, ..Self::NONE };
        for (kind, count) in each {
            budgets.left[*kind as usize] = *count;
        }
        budgets
    }

    pub fn has(&self, kind: Kind) -> bool {
        self.left[kind as usize] > 0 && (self.faults > 0 || !Self::is_fault(kind))
    }

    pub fn spend(&mut self, kind: Kind) {
        debug_assert!(self.has(kind));
        self.left[kind as usize] -= 1;
        self.faults -= u8::from(Self::is_fault(kind));
        if self.faults == 0 {
            // What can't happen any more is the same for all.
            self.left[Kind::Crash as usize..].fill(0);
        }
    }

    fn is_fault(kind: Kind) -> bool {
        kind as usize >= Kind::Crash as usize
    }
}

/// A rule that is left out, by bending what lies between a reconcile and the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    /// The journal is acknowledged, and not stored.
    NoJournal,
    /// A write succeeds though the object has changed.
    NoPrecondition,
    /// A write of an object hits the next one of its name.
    NoUid,
    /// Likewise, but only one of the finalizer (kube's own helper sends no uid).
    NoUidOfFinalizer,
    /// Deadlines are not stored.
    NoDeadlines,
    /// A success ends the opposite doubt though it is not over.
    EarlyTrust,
    /// "Over" is judged when the answer is written, not when the journal was.
    JudgedAtSettle,
    /// Refusals count though the opposite may still arrive.
    CountsEarly,
    /// The detach that finds out and is refused does not begin the count anew.
    KeepsCount,
    /// The count never reaches the detach that finds out.
    NeverFindsOut,
    /// A deleted object does not wait for a detach that may still arrive.
    HastyFinalizer,
    /// A request is signed when it is sent.
    SignsNow,
    /// An unclear answer is taken for a refusal.
    UnclearIsRefused,
    /// The finalizer is put on before the first status.
    FinalizerFirst,
}

/// A search.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: String,
    /// Which service it is; with nothing said, any.
    pub service: Service,
    /// `detachFailurePolicy: Forget`.
    pub forgets: bool,
    /// A phone that the service has refused to remove four times already.
    pub stuck: bool,
    pub ids: Vec<InstanceId>,
    pub operators: usize,
    /// The second operator's lower bound of the service's clock is a tick lower.
    pub lags: bool,
    pub budgets: Budgets,
    pub bend: Option<Bend>,
}

impl Setting {
    /// One id, one operator.
    pub fn new(name: &str, budgets: Budgets) -> Self {
        Self {
            name: name.to_owned(),
            service: Service { add_present_ok: None, remove_absent_ok: None },
            forgets: false,
            stuck: false,
            ids: vec![InstanceId::parse("a").unwrap()],
            operators: 1,
            lags: false,
            budgets,
            bend: None,
        }
    }

    pub fn is_bent(&self, bend: Bend) -> bool {
        self.bend == Some(bend)
    }
}
