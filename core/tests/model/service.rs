//! The service: who is in the session, and the requests that are still on their way to it.

use std::collections::BTreeSet;

use streamsession_core::answer::{Answer, NothingDone, Operation, Verdict};
use streamsession_core::ids::InstanceId;

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
}

/// What nobody published: whether an attach of a member, and a detach of somebody else, is a
/// success. One service answers the same for ever; which one it is shows when it is asked first, so
/// that one search visits all four.
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
    pub fn may_be(self, add_present_ok: bool, remove_absent_ok: bool) -> bool {
        self.add_present_ok.is_none_or(|ok| ok == add_present_ok)
            && self.remove_absent_ok.is_none_or(|ok| ok == remove_absent_ok)
    }
}

/// What becomes of a call whose caller lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Served and answered; these are refused for no reason.
    Served { spite: Ids },
    /// Nobody answers in time; the request is on its way (it may be served at once, later or
    /// never).
    Unanswered,
    /// An error that says nothing, though these were served.
    Unclear { served: Ids },
    /// Served, but the answer names nobody.
    Silent,
    /// Nothing was done.
    Throttled,
    /// `InvalidParameter` to the whole call.
    Invalid,
}

pub fn answer(verdict: Verdict, code: &str) -> Answer {
    Answer { verdict, code: code.into(), message: String::new(), request_id: String::new() }
}

pub fn expired() -> Answer {
    answer(Verdict::NothingDone(NothingDone::Credentials), "AuthFailure.SignatureExpire")
}

/// Serves a request: the members after it, who succeeded, who was refused.
pub fn serve(service: Service, members: Ids, request: &Request, spite: Ids) -> (Ids, Ids, Ids) {
    let (wanted, willing) = match request.operation {
        Operation::Attach => (!members, service.add_present_ok),
        Operation::Detach => (members, service.remove_absent_ok),
    };
    let can = if willing == Some(true) { request.ids } else { request.ids & wanted };
    let succeeded = can & !spite;
    let members = match request.operation {
        Operation::Attach => members | succeeded,
        Operation::Detach => members & !succeeded,
    };
    (members, succeeded, request.ids & !succeeded)
}

/// The members after a call, and what its caller is answered.
pub fn call(
    setting: &Setting,
    service: Service,
    members: Ids,
    request: &Request,
    how: How,
) -> (Ids, Answer) {
    let code = match how {
        How::Unclear { .. } => "FailedOperation",
        How::Throttled => "RequestLimitExceeded",
        How::Invalid => "InvalidParameterValue",
        How::Unanswered => "Timeout",
        How::Served { .. } | How::Silent => "",
    };
    match how {
        How::Served { spite } => {
            let (members, succeeded, refused) = serve(service, members, request, spite);
            (
                members,
                answer(
                    Verdict::Processed {
                        succeeded: setting.set(succeeded),
                        refused: setting.set(refused),
                    },
                    code,
                ),
            )
        }
        How::Silent => {
            let (members, ..) = serve(service, members, request, 0);
            (
                members,
                answer(
                    Verdict::Processed { succeeded: BTreeSet::new(), refused: BTreeSet::new() },
                    code,
                ),
            )
        }
        How::Unclear { served } => {
            let part = Request { ids: request.ids & served, ..*request };
            (serve(service, members, &part, 0).0, answer(Verdict::Unclear, code))
        }
        How::Throttled => (members, answer(Verdict::NothingDone(NothingDone::Throttled), code)),
        How::Invalid => (members, answer(Verdict::Invalid, code)),
        How::Unanswered => (members, answer(Verdict::Unanswered, code)),
    }
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
