//! The object as the core sees it: what it asks for, and what stands in its status.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::conditions::{Conditions, Counts, Mode, Reason};
use crate::ids::{InstanceId, SessionId};
use crate::ledger::Ledger;
use crate::ledger::desired::Desired;
use crate::ledger::record::{FailureReason, Record, State, Want};
use crate::ownership::claims::{Claim, Claimant, Place};
use crate::ownership::hand_over::Shown;

/// The ledger as the object's copy shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LedgerState {
    /// The object has none and never had one.
    New,
    /// It is lost, or another object's.
    Lost {
        /// The evidence, for people.
        why: String,
        /// What can be read of what is there: ids that may be in.
        remains: Ledger,
    },
    /// It is the object's own.
    Current(Ledger),
}

/// What a person asks for by an annotation, once for each value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The annotation's value, or a shorter text that stands for it.
    pub value: String,
    /// The instances that it names.
    pub instances: BTreeSet<InstanceId>,
}

/// The annotations, as they stand in the object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Release these: `gs.tencentcloud.dev/forget-instances`.
    pub forget: Option<Request>,
    /// Take these into the ledger: `gs.tencentcloud.dev/adopt`.
    pub adopt: Option<Request>,
}

/// The values that were acted on last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Handled {
    /// Of `forget-instances`.
    pub forget: Option<String>,
    /// Of `adopt`.
    pub adopt: Option<String>,
}

/// The status that the operator writes, whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// The generation that it speaks of; negative before the first.
    pub observed_generation: i64,
    /// The conditions; none before the first.
    pub conditions: Option<Conditions>,
    /// How many.
    pub counts: Counts,
    /// What was asked for and is done.
    pub handled: Handled,
    /// The ledger.
    pub ledger: LedgerState,
}

/// A copy of the object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Which object of that name.
    pub uid: Arc<str>,
    /// Which copy of it: `metadata.resourceVersion`.
    pub version: Arc<str>,
    /// When it was created, in seconds.
    pub created: i64,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// What it asks for.
    pub desired: Desired,
    /// What a person asks for besides.
    pub asked: Asked,
    /// What stands in its status.
    pub status: Status,
}

impl View {
    /// The endpoint whose clock and permits count: that of the ledger, or where a new one would be
    /// bound.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<str> {
        self.with(self.ledger()).0
    }

    /// The session that the object owns, or would: that of the ledger until it is empty, then
    /// that of the spec.
    #[must_use]
    pub fn place(&self) -> Place {
        let (endpoint, session) = self.with(self.ledger());
        Place { endpoint: Arc::clone(endpoint), session: session.clone() }
    }

    /// The service that the ledger is about, if it is not the one that the operator calls. Nothing
    /// is sent there, whatever a status says.
    #[must_use]
    pub fn foreign_service(&self) -> Option<&Arc<str>> {
        let (service, _) = self.with(self.ledger());
        (*service != self.desired.endpoint).then_some(service)
    }

    /// The ledger, if it is the object's own.
    #[must_use]
    pub fn own_ledger(&self) -> Option<&Ledger> {
        match &self.status.ledger {
            LedgerState::Current(ledger) => Some(ledger),
            LedgerState::New | LedgerState::Lost { .. } => None,
        }
    }

    /// Whether nothing is to be done: the status says so, of this generation, and the ledger holds
    /// what the spec wants and nothing else. So a restart of a converged fleet reads nothing twice.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        let done = |asked: &Option<Request>, handled: &Option<String>| {
            asked.as_ref().is_none_or(|asked| Some(&asked.value) == handled.as_ref())
        };
        let Status { observed_generation, conditions, handled, .. } = &self.status;
        let ready = conditions.as_ref().is_some_and(|conditions| conditions.mode == Mode::Ready);
        let is_settled = |ledger: &Ledger| {
            let attached = Record::attached();
            ledger.journal.is_none()
                && ledger.target.as_ref().is_none_or(|target| !self.desired.moves_from(target))
                && ledger.records.keys().eq(&self.desired.instances)
                && ledger.records.values().all(|record| *record == attached)
                && (self.finalizer || ledger.records.is_empty())
        };
        ready
            && *observed_generation == self.desired.generation
            && !self.desired.deleting
            && done(&self.asked.forget, &handled.forget)
            && done(&self.asked.adopt, &handled.adopt)
            && self.own_ledger().is_some_and(is_settled)
    }

    /// What the object claims: its spec's session and, until its ledger is empty, the one that the
    /// ledger is about. Who wants nothing and holds nothing claims nothing. A ledger that is not
    /// the object's own, or a record that is assumed, proves nothing.
    #[must_use]
    pub fn claimant(&self) -> Claimant {
        let place = |endpoint: &Arc<str>, session: &SessionId| Place {
            endpoint: Arc::clone(endpoint),
            session: session.clone(),
        };
        let deleting = self.desired.deleting;
        let target = self.ledger().and_then(|ledger| {
            let is_empty = ledger.records.is_empty() && ledger.journal.is_none();
            ledger.target.as_ref().filter(|_| !is_empty)
        });
        let has_attached = self.own_ledger().is_some_and(|ledger| {
            ledger.records.values().any(|record| record.state == State::Attached)
        });
        let mut claims = Vec::new();
        // What goes without our finalizer is none of our business any more.
        let is_gone = deleting && !self.finalizer;
        if let Some(target) = target.filter(|_| !is_gone) {
            claims.push(Claim {
                place: place(&target.endpoint, &target.session),
                has_attached,
                holds: true,
                leaving: deleting || target.session != self.desired.session,
            });
        }
        let may_hold = matches!(self.status.ledger, LedgerState::Lost { .. });
        if target.is_none_or(|target| target.session != self.desired.session)
            && (!self.desired.wants_nothing() || may_hold)
            && !is_gone
        {
            claims.push(Claim {
                place: place(&self.desired.endpoint, &self.desired.session),
                has_attached: false,
                holds: may_hold,
                leaving: deleting,
            });
        }
        Claimant {
            uid: Arc::clone(&self.uid),
            created: self.created,
            is_unable: self.is_unable(),
            claims,
        }
    }

    /// Whether it can't make a call, as its status says: its credentials do not serve, the action is
    /// not offered to it, its ledger is about another service, or the work on it has stopped.
    fn is_unable(&self) -> bool {
        let is_stopped = self.foreign_service().is_some();
        is_stopped
            || self.status.conditions.as_ref().is_some_and(|conditions| {
                matches!(
                    conditions.reason,
                    Reason::CredentialsNotFound
                        | Reason::CredentialsRejected
                        | Reason::ActionUnavailable
                        | Reason::InvariantViolated
                )
            })
    }

    /// The instances that it wants and whose attach the service refused last, or failed for an unclear
    /// reason.
    #[must_use]
    pub fn failed_attaches(&self) -> BTreeSet<InstanceId> {
        let records = self.own_ledger().into_iter().flat_map(|ledger| &ledger.records);
        let failed = records.filter(|(id, record)| {
            let is_refused = record.failure(Want::In).is_some_and(|failure| {
                matches!(failure.reason, FailureReason::Refused | FailureReason::Unclear)
            });
            is_refused && self.desired.instances.contains(*id)
        });
        failed.map(|(id, _)| id.clone()).collect()
    }

    /// What it shows the others that claim the session at `place`.
    #[must_use]
    pub fn shown(&self, place: &Place) -> Shown {
        Shown::of(self.own_ledger(), &self.desired, self.is_unable(), place)
    }

    /// Whether with `ledger` the object would own another session than the copy shows, or the
    /// same one elsewhere: ownership, clock and permits there are not known yet.
    #[must_use]
    pub(crate) fn goes_on_elsewhere(&self, ledger: &Ledger) -> bool {
        self.with(Some(ledger)) != self.with(self.ledger())
    }

    fn with<'a>(&'a self, ledger: Option<&'a Ledger>) -> (&'a Arc<str>, &'a SessionId) {
        match ledger {
            Some(Ledger { target: Some(target), records, journal, .. })
                if !records.is_empty() || journal.is_some() =>
            {
                (&target.endpoint, &target.session)
            }
            _ => (&self.desired.endpoint, &self.desired.session),
        }
    }

    /// What can be read of the ledger, whosever it is.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        match &self.status.ledger {
            LedgerState::Current(ledger) | LedgerState::Lost { remains: ledger, .. } => {
                Some(ledger)
            }
            LedgerState::New => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Operation;
    use crate::fixtures::{NOW, desired, ids, journal, ledger, view};
    use crate::ledger::record::Failure;

    /// An object whose ledger is about session 1 and whose spec is about session 2, at another
    /// endpoint.
    fn on_the_move(ledger: Ledger) -> View {
        View {
            desired: Desired { endpoint: "elsewhere".into(), ..desired("2", &[]) },
            ..view(ledger, &[])
        }
    }

    fn place(endpoint: &str, session: &str) -> Place {
        Place { endpoint: endpoint.into(), session: SessionId::parse(session).unwrap() }
    }

    #[test]
    fn an_object_owns_the_session_of_its_ledger_until_that_is_empty() {
        let held = ledger(&[("a", Record::attached())]);
        let moving = on_the_move(held.clone());
        assert_eq!(
            (&**moving.endpoint(), moving.place()),
            ("gs.tencentcloudapi.com", place("gs.tencentcloudapi.com", "1"))
        );
        assert!(moving.goes_on_elsewhere(&ledger(&[])) && !moving.goes_on_elsewhere(&held));

        assert_eq!(moving.foreign_service().map(|it| &**it), Some("gs.tencentcloudapi.com"));

        let moved = on_the_move(ledger(&[]));
        assert_eq!(moved.foreign_service(), None);
        assert_eq!((&**moved.endpoint(), moved.place()), ("elsewhere", place("elsewhere", "2")));
        assert!(!moved.goes_on_elsewhere(&Ledger::default()));

        let lost = LedgerState::Lost { why: "a copy".into(), remains: held };
        let lost =
            View { status: Status { ledger: lost, ..moved.status.clone() }, ..moved.clone() };
        assert_eq!(lost.place(), moving.place());
        let new = View {
            status: Status { ledger: LedgerState::New, ..moved.status.clone() },
            ..moved.clone()
        };
        assert_eq!(new.place(), moved.place());
    }

    fn at_rest() -> View {
        let mut object = view(ledger(&[("a", Record::attached())]), &["a"]);
        object.status.conditions = Some(Conditions {
            mode: Mode::Ready,
            reason: Reason::UpToDate,
            message: String::new(),
        });
        object
    }

    #[test]
    fn an_object_at_rest_is_converged_until_anything_is_to_be_done() {
        type Change = fn(&mut View);
        assert!(at_rest().is_converged());
        let changes: [(&str, Change); 11] = [
            ("an edit", |it| it.desired.generation = 2),
            ("a deletion", |it| it.desired.deleting = true),
            ("another session", |it| it.desired.session = desired("2", &[]).session),
            ("another region", |it| it.desired.region = Some("south".into())),
            ("one more", |it| it.desired.instances = ids(&["a", "b"])),
            ("one less", |it| it.desired.instances = ids(&[])),
            ("no finalizer", |it| it.finalizer = false),
            ("not Ready", |it| it.status.conditions.as_mut().unwrap().mode = Mode::Reconciling),
            ("never told", |it| it.status.conditions = None),
            ("a new ledger", |it| it.status.ledger = LedgerState::New),
            ("an annotation", |it| {
                let (value, instances) = ("b".into(), ids(&["b"]));
                it.asked.adopt = Some(Request { value, instances });
            }),
        ];
        for (what, change) in changes {
            let mut object = at_rest();
            change(&mut object);
            assert!(!object.is_converged(), "{what}");
        }
    }

    #[test]
    fn an_object_whose_ledger_is_open_is_not_converged_and_an_empty_one_needs_no_finalizer() {
        let open = |ledger: Ledger| {
            let mut object = at_rest();
            object.status.ledger = LedgerState::Current(ledger);
            object.is_converged()
        };
        let attached = ledger(&[("a", Record::attached())]);
        let doubt = Record { detach_until: Some(NOW), ..Record::attached() };
        assert!(!open(ledger(&[("a", doubt)])));
        assert!(!open(Ledger { journal: Some(journal(Operation::Attach, &["a"])), ..attached }));
        let mut empty = at_rest();
        (empty.desired.instances, empty.finalizer) = (ids(&[]), false);
        empty.status.ledger = LedgerState::Current(Ledger::default());
        assert!(empty.is_converged());
    }

    #[test]
    fn an_annotation_that_was_handled_is_done_and_a_new_value_is_not() {
        let asked = |value: &str| Some(Request { value: value.into(), instances: ids(&["b"]) });
        let mut object = at_rest();
        object.asked = Asked { forget: asked("b"), adopt: asked("c") };
        object.status.handled = Handled { forget: Some("b".into()), adopt: Some("c".into()) };
        assert!(object.is_converged());
        object.status.handled.forget = Some("earlier".into());
        assert!(!object.is_converged());
    }

    /// The claims: session, attached, leaving.
    fn claims(object: &View) -> Vec<(String, bool, bool)> {
        let told =
            |claim: &Claim| (claim.place.session.to_string(), claim.has_attached, claim.leaving);
        object.claimant().claims.iter().map(told).collect()
    }

    #[test]
    fn an_object_claims_its_session_and_until_it_has_left_it_the_one_before() {
        let new = view(Ledger::default(), &["a"]);
        assert_eq!(claims(&new), [("1".into(), false, false)]);
        assert_eq!(claims(&at_rest()), [("1".into(), true, false)]);
        let mut moving = at_rest();
        moving.desired.session = desired("2", &[]).session;
        let two = [("1".into(), true, true), ("2".into(), false, false)];
        assert_eq!(claims(&moving), two);
        moving.desired.deleting = true;
        assert_eq!(claims(&moving), [("1".into(), true, true)], "it wants nothing there");
        moving.desired.deleting = false;
        moving.status.ledger = LedgerState::Current(Ledger { records: [].into(), ..ledger(&[]) });
        assert_eq!(claims(&moving), [("2".into(), false, false)], "it has left the other");
    }

    #[test]
    fn who_wants_nothing_and_holds_nothing_claims_nothing() {
        let mut empty = view(Ledger::default(), &[]);
        assert_eq!(claims(&empty), []);
        empty.desired.instances = ids(&["a"]);
        assert_eq!(claims(&empty).len(), 1);
        empty.desired.deleting = true;
        assert_eq!(claims(&empty), []);
        empty.status.ledger =
            LedgerState::Lost { why: "no ledger".into(), remains: Ledger::default() };
        assert_eq!(claims(&empty).len(), 1, "nobody knows what it holds");
    }

    #[test]
    fn what_is_open_or_in_doubt_or_only_assumed_is_no_attached_instance() {
        let of = |ledger: Ledger| claims(&view(ledger, &["a"])).remove(0);
        let open = Ledger { journal: Some(journal(Operation::Attach, &["a"])), ..ledger(&[]) };
        assert_eq!(of(open), ("1".into(), false, false));
        let doubt = Record { attach_until: Some(NOW), ..Record::default() };
        assert_eq!(of(ledger(&[("a", doubt)])), ("1".into(), false, false));
        assert_eq!(of(ledger(&[("a", Record::assumed(NOW))])), ("1".into(), false, false));
    }

    #[test]
    fn what_another_objects_ledger_holds_is_no_evidence_but_its_session_is_claimed() {
        let open = Ledger { journal: Some(journal(Operation::Attach, &["a"])), ..ledger(&[]) };
        let mut copied = view(Ledger::default(), &["a"]);
        copied.status.ledger = LedgerState::Lost { why: "a copy".into(), remains: open };
        copied.desired.session = desired("2", &[]).session;
        let two = [("1".into(), false, true), ("2".into(), false, false)];
        assert_eq!(claims(&copied), two);
    }

    #[test]
    fn an_object_that_can_do_nothing_says_so_in_its_claim() {
        for (reason, unable) in [
            (Reason::CredentialsNotFound, true),
            (Reason::CredentialsRejected, true),
            (Reason::ActionUnavailable, true),
            (Reason::InvariantViolated, true),
            (Reason::SessionNotFound, false),
        ] {
            let mut object = at_rest();
            object.status.conditions.as_mut().unwrap().reason = reason;
            let claimant = object.claimant();
            assert_eq!((&*claimant.uid, claimant.is_unable), ("u", unable));
        }
        assert!(!view(Ledger::default(), &[]).claimant().is_unable);
        assert!(on_the_move(ledger(&[("a", Record::attached())])).claimant().is_unable);
    }

    #[test]
    fn whose_attach_was_refused_waits_for_it_if_it_is_wanted() {
        let failed = |reason| Record {
            last_failure: Some(Failure {
                operation: Operation::Attach,
                reason,
                code: String::new(),
                attempts: 1,
                time: NOW,
                generation: 1,
            }),
            ..Record::default()
        };
        let records = [
            ("refused", failed(FailureReason::Refused)),
            ("unclear", failed(FailureReason::Unclear)),
            ("unanswered", failed(FailureReason::Unanswered)),
            ("gone", failed(FailureReason::SessionGone)),
            ("unwanted", failed(FailureReason::Refused)),
            ("attached", Record::attached()),
        ];
        let wanted = ["refused", "unclear", "unanswered", "gone", "attached", "new"];
        let object = view(ledger(&records), &wanted);
        assert_eq!(object.failed_attaches(), ids(&["refused", "unclear"]));
    }
}
