//! A process of the operator: the scheduler, a clock that stands still until it is moved, and the
//! runs that it starts. Unless a test says otherwise each object has a session of its own, which is
//! named like the object, and wants `a` in it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use streamsession_core::answer::Answer;
use streamsession_core::conditions::{Conditions, Mode, Reason};
use streamsession_core::ids::InstanceId;
use streamsession_core::object::{ObjectKey, Scope};
use streamsession_core::reconcile::{Effect, Requeue, Response, View};
use streamsession_core::scheduler::run::Lesson;
use streamsession_core::scheduler::{Command, Digest, Event, Facts, Limits, Run, Scheduler};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::{
    NOW, attached_at, desired, ids, key, new_object, settings, status, success, with_status,
};

/// One call a second, so that the second one waits.
pub const LIMITS: Limits = Limits {
    concurrency: 2,
    calls_per_second: NonZeroU32::MIN,
    burst: NonZeroU32::MIN,
    call_deadline: seconds(10),
};

pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// An object with our finalizer that nobody has worked on yet.
pub fn object(name: &str) -> View {
    let session = name.replace('/', "-");
    View { uid: name.into(), finalizer: true, ..new_object(desired(&session, &["a"])) }
}

/// An object that is as it should be.
pub fn converged(name: &str) -> View {
    let object = object(name);
    let session = object.desired.session.as_str();
    let mut status = status(attached_at(session, &ids(&["a"])));
    status.conditions =
        Some(Conditions { mode: Mode::Ready, reason: Reason::UpToDate, message: String::new() });
    with_status(&object, status)
}

/// That version of the object.
pub fn version(version: &str, object: View) -> View {
    View { version: version.into(), ..object }
}

/// A success for `a`.
pub fn done() -> Answer {
    success(ids(&["a"]))
}

/// The names of the objects of these runs.
pub fn names(runs: &[Run]) -> Vec<&str> {
    runs.iter().map(|run| &*run.key().name).collect()
}

pub fn key_of(object: &View) -> ObjectKey {
    key(&object.uid)
}

pub struct Process {
    pub scheduler: Scheduler,
    pub now: Duration,
    nonce: u128,
    /// Of whom it was asked who else wants them.
    pub sought: Vec<BTreeSet<InstanceId>>,
}

impl Process {
    /// A process that has listed nothing yet, an hour after its start.
    pub fn unlisted(limits: Limits, scopes: Vec<Scope>) -> Self {
        let scheduler = Scheduler::new(settings(), limits, scopes);
        Self { scheduler, now: seconds(3_600), nonce: 0, sought: Vec::new() }
    }

    /// A process that has listed these objects.
    pub fn new(limits: Limits, objects: &[View]) -> Self {
        let mut process = Self::unlisted(limits, vec![Scope::All]);
        process.tell(Event::ListBegan(Scope::All));
        for object in objects {
            process.see(object);
        }
        process.tell(Event::ListEnded(Scope::All));
        process
    }

    pub fn tell(&mut self, event: Event) {
        self.scheduler.handle(event, self.now);
    }

    /// The watch shows the object.
    pub fn see(&mut self, object: &View) {
        self.tell(Event::Seen(key_of(object), Digest::of(object)));
    }

    /// The runs that are started now, and when the scheduler wants to be asked again.
    pub fn commands(&mut self) -> (Vec<Run>, Option<Duration>) {
        let mut runs = Vec::new();
        loop {
            match self.scheduler.next_command(self.now) {
                Command::Start(run) => runs.push(*run),
                Command::FindWanters(ids) => self.sought.push(ids),
                Command::WakeAt(at) => return (runs, Some(at)),
                Command::Wait => return (runs, None),
            }
        }
    }

    /// The objects that are reconciled now; each reconcile ends at once, until the object changes.
    pub fn reconciled(&mut self) -> Vec<String> {
        let mut reconciled = Vec::new();
        while let Command::Start(run) = self.scheduler.next_command(self.now) {
            reconciled.push(run.key().name.to_string());
            self.finish(*run, Requeue::OnChange);
        }
        reconciled
    }

    /// The only run that is started now.
    #[track_caller]
    pub fn start(&mut self) -> Run {
        let (mut runs, _) = self.commands();
        assert_eq!(runs.len(), 1, "{:?} are started", names(&runs));
        runs.remove(0)
    }

    /// Nothing is started now; when the scheduler wants to be asked again.
    #[track_caller]
    pub fn wakes_at(&mut self) -> Option<Duration> {
        let (runs, at) = self.commands();
        assert!(runs.is_empty(), "{:?} are started", names(&runs));
        at
    }

    pub fn finish(&mut self, run: Run, requeue: Requeue) {
        self.tell(Event::Finished(Box::new(run), requeue));
    }

    pub fn step(&mut self, run: &mut Run, response: Response) -> Effect {
        self.nonce += 1;
        let second = i64::try_from(self.now.as_secs()).unwrap();
        let service = Some(ServiceTime(NOW.0 + second));
        let facts = Facts { now: self.now, service, nonce: self.nonce, may_act: true };
        run.step(&mut self.scheduler, response, facts)
    }

    pub fn read(&mut self, run: &mut Run, object: &View) -> Effect {
        assert_eq!(self.step(run, Response::Started), Effect::Read);
        self.step(run, Response::Object(Some(Box::new(object.clone()))))
    }

    /// The run reads the object and finds credentials of that account.
    pub fn read_as(&mut self, run: &mut Run, object: &View, account: &str) -> Effect {
        assert_eq!(self.read(run, object), Effect::Credentials);
        self.step(run, Response::Credentials(Ok(account.into())))
    }

    /// The run takes a permit if one is at hand.
    pub fn take_permit(&mut self, run: &mut Run) -> Effect {
        let response = run.take_permit(&mut self.scheduler, self.now);
        self.step(run, response)
    }

    /// The status is stored, as the next version of the object.
    #[track_caller]
    pub fn write(&mut self, run: &mut Run, object: &mut View, effect: Effect) -> Effect {
        let Effect::WriteStatus(status, _) = effect else { panic!("a write, not {effect:?}") };
        *object = version(&format!("{}'", object.version), with_status(object, *status));
        self.step(run, Response::Object(Some(Box::new(object.clone()))))
    }

    /// The run goes on to its call; the object has its journal then.
    #[track_caller]
    pub fn call(&mut self, run: &mut Run, object: &mut View, account: &str) {
        let mut effect = self.read_as(run, object, account);
        if matches!(effect, Effect::Permit(_)) {
            effect = self.take_permit(run);
        }
        let effect = self.write(run, object, effect);
        assert!(matches!(effect, Effect::Call(_)), "{effect:?}");
    }

    /// The call is answered: what the run does then, and what it has learnt.
    pub fn answer(&mut self, run: &mut Run, answer: Answer) -> (Effect, Vec<Lesson>) {
        let effect = self.step(run, Response::Answer(answer));
        (effect, run.take_lessons())
    }

    /// The only run that is started now has no permit, and ends until it is granted one.
    #[track_caller]
    pub fn wait_for_permit(&mut self, object: &View, account: &str) {
        let mut run = self.start();
        assert!(matches!(self.read_as(&mut run, object, account), Effect::Permit(_)));
        let effect = self.take_permit(&mut run);
        let Effect::Done(requeue @ Requeue::OnPermit(_)) = effect else {
            panic!("it waits for a permit, not {effect:?}")
        };
        self.finish(run, requeue);
    }
}
