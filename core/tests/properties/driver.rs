//! One reconcile, step by step: what its driver does with each effect is up to the test.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use streamsession_core::answer::{Answer, Operation};
use streamsession_core::ids::JournalId;
use streamsession_core::ledger::plan::Priority;
use streamsession_core::ledger::record::Record;
use streamsession_core::ledger::{Journal, Ledger, Rules};
use streamsession_core::reconcile::{
    Effect, LedgerState, Reconcile, ReconcileState, Requeue, Response, Settings, Status,
    StepContext, View,
};
use streamsession_core::time::{ServiceTime, Validity};
use streamsession_testkit::fixtures::{self, desired, ids, new_object, success, with_status};

/// For how long the service takes a signature, and works on a request.
pub const VALIDITY: Validity = Validity { signature_seconds: 10, margin_seconds: 2 };

pub fn settings() -> Arc<Settings> {
    static SETTINGS: LazyLock<Arc<Settings>> = LazyLock::new(|| {
        Arc::new(Settings {
            rules: Rules { validity: VALIDITY, batch_size_max: 2, ..Rules::default() },
            journal_age_max_seconds: 3,
            foreign_journal_timeout: Duration::from_secs(8),
            retry_base: Duration::from_secs(1),
        })
    });
    Arc::clone(&SETTINGS)
}

/// An object with our finalizer that wants `a` in session 1, and has no ledger yet.
pub fn unstarted() -> View {
    View { finalizer: true, ..new_object(desired("1", &["a"])) }
}

/// Likewise, with these records in its ledger, which the credential `AKID` has begun.
pub fn object(records: &[(&str, Record)]) -> View {
    let mut ledger = fixtures::ledger(records);
    ledger.target = Some(desired("1", &[]).target(Some(&"AKID".into())));
    let mut object = unstarted();
    object.status.ledger = LedgerState::Current(ledger);
    object
}

/// Likewise, and `a` is attached.
pub fn with_a() -> View {
    object(&[("a", Record::attached())])
}

/// An object whose ledger is lost.
pub fn lost() -> View {
    let mut object = unstarted();
    object.status.ledger = LedgerState::Lost { why: "Gone".into(), remains: Ledger::default() };
    object
}

/// A step so many seconds after the start of the process, at this time of the service.
pub fn at(service: Option<i64>, elapsed: u64) -> StepContext {
    StepContext {
        service: service.map(ServiceTime),
        elapsed: Duration::from_secs(elapsed),
        nonce: u128::from(elapsed),
        ..fixtures::context()
    }
}

/// The ledger of a status.
#[track_caller]
pub fn ledger(status: &Status) -> &Ledger {
    let LedgerState::Current(ledger) = &status.ledger else { panic!("a ledger: {status:?}") };
    ledger
}

/// A reconcile under way.
pub struct Driver {
    /// The object as it is stored.
    pub object: View,
    pub reconcile: Reconcile,
    /// What it wants to be done.
    pub effect: Effect,
    pub context: StepContext,
}

impl Driver {
    /// A reconcile goes on from what the last one left, and has read the object.
    pub fn resume(
        state: ReconcileState,
        object: &View,
        permit: bool,
        context: StepContext,
    ) -> Self {
        Self::resume_with(state, object, permit.then_some(Priority::Attach), context)
    }

    /// Likewise, with a permit for a call of that priority.
    pub fn resume_with(
        state: ReconcileState,
        object: &View,
        permit: Option<Priority>,
        context: StepContext,
    ) -> Self {
        let mut reconcile = Reconcile::new(settings(), state, permit);
        let effect = reconcile.step(Response::Started, &context);
        assert_eq!(effect, Effect::Read);
        let mut driver = Self { object: object.clone(), reconcile, effect, context };
        driver.read();
        driver
    }

    /// The first reconcile of this process has read the object, in the second 1,000.
    pub fn begin(object: &View, permit: bool) -> Self {
        Self::resume(ReconcileState::new(&settings()), object, permit, at(Some(1_000), 0))
    }

    /// Likewise, and the service's time is not known.
    pub fn begin_without_time(object: &View) -> Self {
        Self::resume(ReconcileState::new(&settings()), object, false, at(None, 0))
    }

    /// Likewise, with a permit, and it is about to write a journal.
    pub fn journalling(object: &View) -> Self {
        let mut driver = Self::begin(object, true);
        driver.credentials();
        assert!(driver.ledger().journal.is_some());
        driver
    }

    /// Likewise, and its call is on its way.
    pub fn calling(object: &View) -> Self {
        let mut driver = Self::journalling(object);
        driver.write();
        assert!(matches!(driver.effect, Effect::Call(_)), "{:?}", driver.effect);
        driver
    }

    pub fn respond(&mut self, response: Response) -> &mut Self {
        self.effect = self.reconcile.step(response, &self.context);
        self
    }

    /// The object is read as it is stored.
    pub fn read(&mut self) -> &mut Self {
        self.respond(Response::Object(Some(Box::new(self.object.clone()))))
    }

    /// The credentials are found.
    pub fn credentials(&mut self) -> &mut Self {
        assert_eq!(self.effect, Effect::Credentials);
        self.respond(Response::Credentials(Ok("AKID".into())))
    }

    /// The permit is granted, or none is at hand.
    pub fn permit(&mut self, granted: bool) -> &mut Self {
        let Effect::Permit(priority) = self.effect else { panic!("{:?}", self.effect) };
        self.respond(Response::Permit(granted.then_some(priority)))
    }

    /// The service can't be asked for its time.
    pub fn no_time(&mut self) -> &mut Self {
        assert_eq!(self.effect, Effect::AskTime);
        self.respond(Response::Time(Err("The service is down.".into())))
    }

    /// A second later the service answers.
    pub fn answer(&mut self, answer: Answer) -> &mut Self {
        self.context = at(Some(1_001), 1);
        self.respond(Response::Answer(answer))
    }

    /// The status is stored as it was meant.
    pub fn write(&mut self) -> &mut Self {
        self.object = with_status(&self.object, self.status().clone());
        self.read()
    }

    /// The status that is about to be written.
    #[track_caller]
    pub fn status(&self) -> &Status {
        let Effect::WriteStatus(status, _) = &self.effect else {
            panic!("a write, not {:?}", self.effect)
        };
        status
    }

    /// Its ledger.
    #[track_caller]
    pub fn ledger(&self) -> &Ledger {
        ledger(self.status())
    }

    /// Its message.
    #[track_caller]
    pub fn message(&self) -> &str {
        &self.status().conditions.as_ref().unwrap().message
    }

    /// How long the reconcile pauses after its end.
    #[track_caller]
    pub fn pause(&self) -> Duration {
        let Effect::Done(Requeue::After(pause)) = self.effect else {
            panic!("a pause, not {:?}", self.effect)
        };
        pause
    }

    /// Whether it is over, and comes back with a permit.
    pub fn waits_for_permit(&self) -> bool {
        matches!(self.effect, Effect::Done(Requeue::OnPermit(_)))
    }
}

/// A success for `a`.
pub fn done() -> Answer {
    Answer { request_id: "r".into(), ..success(ids(&["a"])) }
}

/// A journal of another process: an attach of `a` at the second 1,000.
pub fn foreign_journal(name: &str) -> Journal {
    Journal { id: JournalId(name.into()), ..fixtures::journal(Operation::Attach, &["a"]) }
}
