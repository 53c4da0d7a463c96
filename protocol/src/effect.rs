//! The words between a round and the controller: the copy of the object, the effect that is due,
//! the response to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::claims::{Place, Standing};
use crate::conditions::{Conditions, Counts};
use crate::desired::Desired;
use crate::ids::{InstanceId, SessionId};
use crate::ledger::Ledger;
use crate::plan::Urgency;
use crate::step::Journalled;
use crate::time::ServiceTime;

/// The ledger as the object's copy shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// The object has none and never had one.
    New,
    /// It is lost, or another object's.
    Lost {
        /// The evidence, for people.
        why: String,
        /// What can be read of what is there: ids that may be in.
        remains: Ledger,
    },
    /// Ours.
    Ours(Ledger),
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
    /// Let go of these: `gs.tencentcloud.dev/forget-instances`.
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
    pub found: Found,
}

/// A copy of the object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Which object of that name.
    pub uid: String,
    /// Of the spec; deletion raises it too.
    pub generation: i64,
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
    pub fn endpoint(&self) -> &str {
        self.with(self.ledger()).0
    }

    /// The session that the object drives, or would: that of the ledger until it is empty, then
    /// that of the spec.
    #[must_use]
    pub fn place(&self) -> Place {
        let (endpoint, session) = self.with(self.ledger());
        Place { endpoint: endpoint.into(), session: session.clone() }
    }

    /// Whether with `ledger` the object would drive another session than the copy shows, or the
    /// same one elsewhere: standing, clock and permits there are not known yet.
    #[must_use]
    pub(crate) fn goes_on_elsewhere(&self, ledger: &Ledger) -> bool {
        self.with(Some(ledger)) != self.with(self.ledger())
    }

    fn with<'a>(&'a self, ledger: Option<&'a Ledger>) -> (&'a str, &'a SessionId) {
        match ledger {
            Some(Ledger { target: Some(target), records, journal, .. })
                if !records.is_empty() || journal.is_some() =>
            {
                (&target.endpoint, &target.session)
            }
            _ => (&self.desired.endpoint, &self.desired.session),
        }
    }

    fn ledger(&self) -> Option<&Ledger> {
        match &self.status.found {
            Found::Ours(ledger) | Found::Lost { remains: ledger, .. } => Some(ledger),
            Found::New => None,
        }
    }
}

/// What people are told besides the conditions, once the write has succeeded that it came with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The ledger was rebuilt from what can be known, and why.
    Rebuilt(String),
    /// Let go of though the service never said that they are out: by the policy or by a person's
    /// word.
    Forgotten(Vec<InstanceId>),
    /// Let go of to the object that drives the session.
    HandedOver(Vec<InstanceId>),
    /// Let go of without evidence that they ever were in.
    Doubtful(Vec<InstanceId>),
    /// Left in a session that the object has left, since its deletion policy is Orphan.
    Orphaned(Vec<InstanceId>),
    /// A promise would have been broken: the work on the object stops.
    Violated(String),
}

impl Notice {
    /// The instances that it is about, if it is about some by name.
    #[must_use]
    pub fn instances(&self) -> &[InstanceId] {
        match self {
            Self::Forgotten(ids)
            | Self::HandedOver(ids)
            | Self::Doubtful(ids)
            | Self::Orphaned(ids) => ids,
            Self::Rebuilt(_) | Self::Violated(_) => &[],
        }
    }
}

/// What the controller is to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Read the object fresh: [`Response::Object`] or [`Response::Failed`].
    Read,
    /// Find the credentials: [`Response::Credentials`].
    Credentials,
    /// Ask the service for its time: [`Response::Time`].
    AskTime,
    /// Take a permit for this endpoint if one is at hand; never wait: [`Response::Permit`].
    Permit,
    /// Read the object of that name, which drives the session: [`Response::Owner`].
    ReadOwner(Arc<str>),
    /// Write the status, whole, if the object is still the copy that was read:
    /// [`Response::Object`], [`Response::Conflict`] or [`Response::Failed`]. The notices are for
    /// people, once it is written.
    WriteStatus(Box<Status>, Vec<Notice>),
    /// Put the finalizer on, likewise.
    AddFinalizer,
    /// Take the finalizer off, likewise.
    RemoveFinalizer,
    /// Make the call, with the permit: [`Response::Answer`].
    Call(Box<Journalled>),
    /// The round is over.
    End(End),
}

/// When the object is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Never: it is gone, or no business of ours.
    Gone,
    /// When it changes.
    OnChange,
    /// After that time, or when it changes.
    After(Duration),
    /// When a permit is granted.
    AwaitPermit(Urgency),
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing yet: the round begins.
    Started,
    /// The object's copy, or that it does not exist. `None` after [`Effect::RemoveFinalizer`] too,
    /// if that was the last one.
    Object(Option<Box<View>>),
    /// The object is not the copy any more; nothing was written.
    Conflict,
    /// The API server did not answer, or not well: a write may have happened.
    Failed,
    /// Who pays, by name, or why nobody does.
    Credentials(Result<String, String>),
    /// Whether the service's time is known now, or why not.
    Time(Result<(), String>),
    /// Whether there is a permit.
    Permit(bool),
    /// The service's answer.
    Answer(Answer),
    /// The object that drives the session; none if it is gone, or could not be read.
    Owner(Option<Box<View>>),
}

/// The moment of a step.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The lower bound of the service's clock at the round's endpoint; none if it is not known, or
    /// known too badly.
    pub service: Option<ServiceTime>,
    /// Monotonic time since the start of the process.
    pub elapsed: Duration,
    /// Random: the name of a journal that is written now.
    pub nonce: u128,
    /// How the object stands at [`View::place`].
    pub standing: Standing,
    /// Whether it stood otherwise for a while, and the status does not say so yet (see
    /// [`Claims::was_displaced`](crate::claims::Claims)).
    pub displaced: bool,
    /// Whether this process may still act. It saves calls; no promise rests on it.
    pub may_act: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::testing::{desired, id, ledger, view};

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
    fn an_object_drives_the_session_of_its_ledger_until_that_is_empty() {
        let held = ledger(&[("a", Record::attached())]);
        let moving = on_the_move(held.clone());
        assert_eq!(
            (moving.endpoint(), moving.place()),
            ("gs.tencentcloudapi.com", place("gs.tencentcloudapi.com", "1"))
        );
        assert!(moving.goes_on_elsewhere(&ledger(&[])) && !moving.goes_on_elsewhere(&held));

        let moved = on_the_move(ledger(&[]));
        assert_eq!((moved.endpoint(), moved.place()), ("elsewhere", place("elsewhere", "2")));
        assert!(!moved.goes_on_elsewhere(&Ledger::default()));

        let lost = Found::Lost { why: "a copy".into(), remains: held };
        let lost = View { status: Status { found: lost, ..moved.status.clone() }, ..moved.clone() };
        assert_eq!(lost.place(), moving.place());
        let new =
            View { status: Status { found: Found::New, ..moved.status.clone() }, ..moved.clone() };
        assert_eq!(new.place(), moved.place());
    }

    #[test]
    fn a_notice_names_whom_it_is_about() {
        let ids = vec![id("a")];
        for notice in [Notice::Forgotten, Notice::HandedOver, Notice::Doubtful, Notice::Orphaned] {
            assert_eq!(notice(ids.clone()).instances(), ids);
        }
        assert!(Notice::Rebuilt("lost".into()).instances().is_empty());
    }
}
