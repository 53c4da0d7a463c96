//! The words between a round and the controller: the copy of the object, the effect that is due, the response to it.

use std::time::Duration;

use crate::answer::Answer;
use crate::conditions::{Conditions, Counts};
use crate::ledger::{Desired, Ledger};
use crate::plan::Urgency;
use crate::step::Journalled;
use crate::time::ServiceTime;

/// The ledger as the object's copy shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a round holds one or two, and they are nearly always Ours")]
pub enum Found {
    /// The object has none and never had one.
    New,
    /// It is lost, or another object's; the text names the evidence. Nothing is touched.
    Lost(String),
    /// Ours.
    Ours(Ledger),
}

/// The status that the operator writes, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The generation that it speaks of; negative before the first.
    pub observed_generation: i64,
    /// The conditions; none before the first.
    pub conditions: Option<Conditions>,
    /// How many.
    pub counts: Counts,
    /// The ledger.
    pub found: Found,
}

/// A copy of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Which object of that name.
    pub uid: String,
    /// Of the spec; deletion raises it too.
    pub generation: i64,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// What it asks for.
    pub desired: Desired,
    /// What stands in its status.
    pub status: Status,
}

impl View {
    /// The endpoint whose clock and permits count: that of the ledger, or where a new one would be bound.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        match &self.status.found {
            Found::Ours(Ledger { target: Some(target), records, journal, .. }) if !records.is_empty() || journal.is_some() => {
                &target.endpoint
            }
            _ => &self.desired.endpoint,
        }
    }
}

/// What the controller is to do next.
#[derive(Debug)]
pub enum Effect {
    /// Read the object fresh: [`Response::Object`] or [`Response::Failed`].
    Read,
    /// Find the credentials: [`Response::Credentials`].
    Credentials,
    /// Ask the service for its time: [`Response::Time`].
    AskTime,
    /// Take a permit for this endpoint if one is at hand; never wait: [`Response::Permit`].
    Permit,
    /// Write the status, whole, if the object is still the copy that was read: [`Response::Object`], [`Response::Conflict`] or [`Response::Failed`].
    WriteStatus(Box<Status>),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Debug)]
pub enum Response {
    /// Nothing yet: the round begins.
    Started,
    /// The object's copy, or that it does not exist. `None` after [`Effect::RemoveFinalizer`] too, if that was the last one.
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
}

/// The moment of a step.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The lower bound of the service's clock at the round's endpoint; none if it is not known, or known too badly.
    pub service: Option<ServiceTime>,
    /// Monotonic time since the start of the process.
    pub elapsed: Duration,
    /// Random: the name of a journal that is written now.
    pub nonce: u128,
}
