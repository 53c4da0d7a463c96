//! The service in bits, so that a state is cheap to copy and to compare: who is in the session, and
//! the requests that are still on their way to it. What it does, and what a fault makes of a call,
//! is the testkit's.

use std::collections::BTreeSet;

use streamsession_core::answer::Operation;
use streamsession_core::ids::InstanceId;
use streamsession_testkit::service::{CallFault, Served, UnspecifiedBehaviour, serve};

use crate::setting::{LIFE, Setting};

/// A set of instances: bit `n` is the setting's instance `n`.
pub type Ids = u8;

/// A request that was sent and not served yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub operation: Operation,
    pub ids: Ids,
    /// Signed with this time.
    pub start: i64,
}

impl Request {
    /// Whether it can still take effect. The service lets it in as long as its signature is valid
    /// and may work on it for the margin.
    pub fn is_alive(&self, now: i64) -> bool {
        now - self.start < LIFE
    }

    /// The numbers of its instances, in the order of their places in the call.
    fn numbers(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |number| self.ids & (1 << number) != 0)
    }

    /// All sets of places in the call, but the empty one.
    pub fn parts(self) -> impl Iterator<Item = u8> + Clone {
        1..1 << self.ids.count_ones()
    }

    /// The places in the call of those of `ids` that it names.
    pub fn places(self, ids: Ids) -> u8 {
        self.numbers()
            .enumerate()
            .filter(|(_, number)| ids & (1 << number) != 0)
            .fold(0, |places, (place, _)| places | 1 << place)
    }
}

/// What is known of [`UnspecifiedBehaviour`]. One service behaves in the same way for ever; which
/// one it is shows when it is asked first, so that one search visits all four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    pub add_present_ok: Option<bool>,
    pub remove_absent_ok: Option<bool>,
}

/// What a service was not asked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    AddPresent,
    RemoveAbsent,
}

impl Service {
    /// What it has to be asked first, to serve that.
    pub fn asks(self, members: Ids, request: &Request) -> Option<Question> {
        match request.operation {
            Operation::Attach if request.ids & members != 0 && self.add_present_ok.is_none() => {
                Some(Question::AddPresent)
            }
            Operation::Detach if request.ids & !members != 0 && self.remove_absent_ok.is_none() => {
                Some(Question::RemoveAbsent)
            }
            _ => None,
        }
    }

    pub fn answers(self, question: Question, ok: bool) -> Self {
        match question {
            Question::AddPresent => Self { add_present_ok: Some(ok), ..self },
            Question::RemoveAbsent => Self { remove_absent_ok: Some(ok), ..self },
        }
    }

    /// Whether it may be that one.
    pub fn may_be(self, behaviour: UnspecifiedBehaviour) -> bool {
        self.add_present_ok.is_none_or(|ok| ok == behaviour.add_present_ok)
            && self.remove_absent_ok.is_none_or(|ok| ok == behaviour.remove_absent_ok)
    }

    /// Serves a request for which it need not be asked anything. Answers the members after it, too.
    pub fn serve(
        self,
        members: Ids,
        request: &Request,
        fault: Option<CallFault>,
    ) -> (Ids, Served<Bits>) {
        let behaviour = UnspecifiedBehaviour {
            add_present_ok: self.add_present_ok == Some(true),
            remove_absent_ok: self.remove_absent_ok == Some(true),
        };
        let does = |number: u8| behaviour.does(request.operation, members & 1 << number != 0);
        let served: Served<Bits> =
            serve(request.numbers().map(|number| (number, does(number))), fault);
        let members = match request.operation {
            Operation::Attach => members | served.done.0,
            Operation::Detach => members & !served.done.0,
        };
        (members, served)
    }
}

/// Instances as the testkit hands them back: one by one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bits(pub Ids);

impl Extend<u8> for Bits {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, numbers: T) {
        numbers.into_iter().for_each(|number| self.0 |= 1 << number);
    }
}

/// What becomes of a call whose caller lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It is served, or goes wrong in that way, and is answered.
    Answered(Option<CallFault>),
    /// Nobody answers in time; the request is on its way (it may be served at once, later or
    /// never).
    Unanswered,
}

impl Setting {
    /// The instances of these bits.
    pub fn set(&self, bits: Ids) -> BTreeSet<InstanceId> {
        self.ids
            .iter()
            .enumerate()
            .filter(|(n, _)| bits & (1 << n) != 0)
            .map(|(_, id)| id.clone())
            .collect()
    }

    /// The bits of these instances.
    pub fn bits<'a>(&self, ids: impl IntoIterator<Item = &'a InstanceId>) -> Ids {
        ids.into_iter()
            .filter_map(|id| self.ids.iter().position(|known| known == id))
            .fold(0, |bits, n| bits | (1 << n))
    }
}
