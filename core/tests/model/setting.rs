//! What a search is about: which service, which policies, how many faults, which rule is left out.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::Rules;
use streamsession_core::reconcile::Settings;
use streamsession_core::time::Validity;
use streamsession_testkit::fixtures::id;

use crate::omission::Omission;
use crate::service::Service;

/// Ticks in which the service takes a signature, and those of its own work.
const VALIDITY: Validity = Validity { signature_seconds: 1, margin_seconds: 1 };
/// Ticks in which a request can take effect.
pub const LIFE: i64 = VALIDITY.signature_seconds + VALIDITY.margin_seconds;
/// Ticks over which a detach has to be refused before anybody is released for it.
pub const STUCK: i64 = VALIDITY.signature_seconds * 2;

/// The operators' settings. No pause is waited for: a reconcile may begin at any time, which is
/// more than what any pause allows; and a journal of someone else becomes doubt at once, which is
/// the earliest that any patience allows.
pub fn settings() -> &'static Arc<Settings> {
    static SETTINGS: OnceLock<Arc<Settings>> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        Arc::new(Settings {
            rules: Rules { validity: VALIDITY, batch_size_max: 2, ..Rules::default() },
            journal_age_max_seconds: 0,
            foreign_journal_timeout: Duration::ZERO,
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
    SecondOperator,
    /// A permit is at hand for the next journal, so that it goes out with the settle.
    NextJournal,
    /// A reconcile in which a resync is due.
    Resync,
    /// The Secret gets another key of the same account.
    RotateKey,
    /// STS tells no account any more, or tells it again.
    Sts,
    // The rest are faults: they share a budget too.
    Crash,
    /// An answer is lost, unclear, or says that nothing was done.
    BadAnswer,
    /// The service refuses for no reason.
    Refusal,
    /// A write fails, or its answer is lost.
    FailedWrite,
    /// Somebody changes something that does not matter here: a conflict.
    Touch,
    /// `kubectl replace` without the finalizer.
    StripFinalizer,
    /// The status is lost, as after a restore.
    WipeStatus,
    SessionEnds,
    /// A read answers the copy before the last.
    StaleRead,
}

const KINDS: usize = 18;

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

/// A search.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: String,
    /// Which service it is; with nothing said, any.
    pub service: Service,
    /// `detachFailurePolicy: Forget`.
    pub forgets: bool,
    /// An instance that the service has refused to remove four times already.
    pub stuck: bool,
    pub ids: Vec<InstanceId>,
    pub operators: usize,
    /// The second operator's lower bound of the service's clock is a tick lower.
    pub lags: bool,
    pub budgets: Budgets,
    pub omission: Option<Omission>,
}

impl Setting {
    /// One id, one operator.
    pub fn new(name: &str, budgets: Budgets) -> Self {
        Self {
            name: name.to_owned(),
            service: Service { add_present_ok: None, remove_absent_ok: None },
            forgets: false,
            stuck: false,
            ids: vec![id("a")],
            operators: 1,
            lags: false,
            budgets,
            omission: None,
        }
    }

    pub fn omits(&self, omission: Omission) -> bool {
        self.omission == Some(omission)
    }
}
