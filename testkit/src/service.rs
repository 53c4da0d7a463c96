//! A service in memory: sessions, who is in them, and what goes wrong with a call.
//!
//! What it does for one id is [`UnspecifiedBehaviour::does`], what a fault makes of a call is
//! [`serve`]. Whatever keeps its members, in sets of ids or in bits, goes by these two.

use std::collections::{BTreeMap, BTreeSet};

use streamsession_core::answer::{Answer, Operation, Verdict};
use streamsession_core::ids::{InstanceId, SessionId};

use crate::fixtures::{answer, error};

/// What nobody published: whether adding a member, and removing one that is none, is a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnspecifiedBehaviour {
    /// An attach of a member succeeds.
    pub add_present_ok: bool,
    /// A detach of one that is no member succeeds.
    pub remove_absent_ok: bool,
}

impl UnspecifiedBehaviour {
    /// Each service that there may be.
    pub const ALL: [Self; 4] = [
        Self { add_present_ok: true, remove_absent_ok: true },
        Self { add_present_ok: true, remove_absent_ok: false },
        Self { add_present_ok: false, remove_absent_ok: true },
        Self { add_present_ok: false, remove_absent_ok: false },
    ];

    /// Whether the service does it for an id. Then that is a member after an attach, and none after
    /// a detach; if not, nothing changes for it and it is refused.
    #[must_use]
    #[inline]
    pub fn does(self, operation: Operation, is_member: bool) -> bool {
        match (operation, is_member) {
            (Operation::Attach, false) | (Operation::Detach, true) => true,
            (Operation::Attach, true) => self.add_present_ok,
            (Operation::Detach, false) => self.remove_absent_ok,
        }
    }
}

/// What goes wrong with one call. Ids are meant by their place in the call: bit `n` is the id `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// It is refused for the rate.
    Throttle,
    /// The gateway knows no such call.
    Unavailable,
    /// It is rejected as a whole, whoever is in.
    Rejected,
    /// The answer is an error that says nothing, and this part of the call was done.
    Unclear {
        /// The part.
        done: u8,
    },
    /// These are refused, though it could be done.
    Refuse(u8),
    /// It is done, and the answer does not name these.
    Omit(u8),
}

/// What comes of a call; `S` is a set of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<S> {
    /// For whom it was done: they are members after an attach, and none after a detach.
    pub done: S,
    /// What the answer says.
    pub reply: Reply<S>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<S> {
    /// Each id is told for itself.
    Processed {
        /// For whom it was done.
        succeeded: S,
        /// For whom it was not.
        refused: S,
    },
    /// An error code speaks of the call as a whole.
    Error(&'static str),
}

impl<S> Reply<S> {
    /// The answer as the core reads it; `ids` are the ids of a set.
    pub fn answer(self, ids: impl Fn(S) -> BTreeSet<InstanceId>) -> Answer {
        match self {
            Self::Error(code) => error(code),
            Self::Processed { succeeded, refused } => {
                answer(Verdict::Processed { succeeded: ids(succeeded), refused: ids(refused) })
            }
        }
    }
}

impl<S: Default> Served<S> {
    /// Nothing was done, for this reason.
    #[must_use]
    pub fn nothing(code: &'static str) -> Self {
        Self { done: S::default(), reply: Reply::Error(code) }
    }
}

fn has(bits: u8, place: usize) -> bool {
    bits >> (place % 8) & 1 == 1
}

/// Serves a call of these ids, each with whether the service does it if nothing goes wrong.
pub fn serve<I, S>(ids: impl IntoIterator<Item = (I, bool)>, fault: Option<CallFault>) -> Served<S>
where
    I: Clone,
    S: Default + Extend<I>,
{
    let (part, refuse, omit) = match fault {
        Some(CallFault::Throttle) => return Served::nothing("RequestLimitExceeded"),
        Some(CallFault::Unavailable) => return Served::nothing("InvalidAction"),
        Some(CallFault::Rejected) => return Served::nothing("InvalidParameterValue"),
        Some(CallFault::Unclear { done }) => (done, 0, 0),
        Some(CallFault::Refuse(ids)) => (u8::MAX, ids, 0),
        Some(CallFault::Omit(ids)) => (u8::MAX, 0, ids),
        None => (u8::MAX, 0, 0),
    };
    let (mut done, mut succeeded, mut refused) = (S::default(), S::default(), S::default());
    for (place, (id, does)) in ids.into_iter().enumerate() {
        let does = does && has(part, place) && !has(refuse, place);
        if does {
            done.extend([id.clone()]);
        }
        if !has(omit, place) {
            if does { succeeded.extend([id]) } else { refused.extend([id]) }
        }
    }
    let reply = match fault {
        Some(CallFault::Unclear { .. }) => Reply::Error("FailedOperation"),
        _ => Reply::Processed { succeeded, refused },
    };
    Served { done, reply }
}

/// A call as it arrives.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it does.
    pub operation: Operation,
    /// To whom.
    pub instances: Vec<InstanceId>,
    /// Where.
    pub session: SessionId,
    /// `X-TC-Region`, if it is sent.
    pub region: Option<String>,
    /// The second with which it is signed.
    pub start_time: i64,
    /// Who has signed it.
    pub caller: Caller,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The account that owns the sessions.
    Owner,
    /// Another account: it sees none of them.
    OtherAccount,
    /// Nobody whom the service knows.
    Unknown,
}

/// A session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Who is in it.
    pub members: BTreeSet<InstanceId>,
    /// Where it is found; without one, from everywhere.
    pub region: Option<String>,
}

/// How many ids a call may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimit {
    /// So many.
    pub ids: usize,
    /// It is the answer that is too large: the call was done.
    pub is_of_answer: bool,
}

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Which of the four services it is.
    pub behaviour: UnspecifiedBehaviour,
    /// All sessions.
    pub sessions: BTreeMap<SessionId, Session>,
    /// For how long it takes a signature.
    pub signature_seconds: i64,
    /// Ids that make a whole call invalid.
    pub poisoned: BTreeSet<InstanceId>,
    /// Ids that it will not let in.
    pub unwelcome: BTreeSet<InstanceId>,
    /// Larger calls fail.
    pub size_limit: Option<SizeLimit>,
}

impl Service {
    /// A service without sessions.
    #[must_use]
    pub fn new(behaviour: UnspecifiedBehaviour, signature_seconds: i64) -> Self {
        Self {
            behaviour,
            sessions: BTreeMap::new(),
            signature_seconds,
            poisoned: BTreeSet::new(),
            unwelcome: BTreeSet::new(),
            size_limit: None,
        }
    }

    /// Whether it takes the request's signature in its second `now`.
    #[must_use]
    pub fn takes(&self, request: &Request, now: i64) -> bool {
        now.saturating_sub(request.start_time) <= self.signature_seconds
    }

    /// Whether it finds the session of a request: for whom it is not, it does not exist.
    #[must_use]
    pub fn finds(&self, request: &Request) -> bool {
        request.caller == Caller::Owner
            && self
                .sessions
                .get(&request.session)
                .is_some_and(|session| session.region.is_none() || session.region == request.region)
    }

    /// Serves a request that arrives in the service's second `now`.
    pub fn call(
        &mut self,
        request: &Request,
        fault: Option<CallFault>,
        now: i64,
    ) -> Served<BTreeSet<InstanceId>> {
        if request.caller == Caller::Unknown {
            return Served::nothing("AuthFailure.SecretIdNotFound");
        }
        if !self.takes(request, now) {
            return Served::nothing("AuthFailure.SignatureExpire");
        }
        match fault {
            Some(CallFault::Throttle) => return Served::nothing("RequestLimitExceeded"),
            Some(CallFault::Unavailable) => return Served::nothing("InvalidAction"),
            Some(CallFault::Unclear { done: 0 }) => return Served::nothing("FailedOperation"),
            _ => {}
        }
        if !self.finds(request) {
            return Served::nothing("ResourceNotFound.SessionNotFound");
        }
        let too_large = self.size_limit.filter(|limit| request.instances.len() > limit.ids);
        if too_large.is_some_and(|limit| !limit.is_of_answer) {
            return Served::nothing("RequestSizeLimitExceeded");
        }
        if request.instances.iter().any(|id| self.poisoned.contains(id)) {
            return Served::nothing("InvalidParameterValue");
        }
        let mut served = self.serve(request, fault);
        if too_large.is_some() {
            served.reply = Reply::Error("ResponseSizeLimitExceeded");
        }
        served
    }

    fn serve(
        &mut self,
        request: &Request,
        fault: Option<CallFault>,
    ) -> Served<BTreeSet<InstanceId>> {
        let operation = request.operation;
        let session = self.sessions.entry(request.session.clone()).or_default();
        let does = |id: &InstanceId| {
            let is_welcome = operation == Operation::Detach || !self.unwelcome.contains(id);
            is_welcome && self.behaviour.does(operation, session.members.contains(id))
        };
        let ids = request.instances.iter().map(|id| (id.clone(), does(id)));
        let served: Served<BTreeSet<_>> = serve(ids, fault);
        for id in &served.done {
            match operation {
                Operation::Attach => session.members.insert(id.clone()),
                Operation::Detach => session.members.remove(id),
            };
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{id, ids, processed, session};
    use Operation::{Attach, Detach};

    const STRICT: UnspecifiedBehaviour = UnspecifiedBehaviour::ALL[3];

    /// A service in whose session 1 these are.
    fn service(behaviour: UnspecifiedBehaviour, members: &[&str]) -> Service {
        let mut service = Service::new(behaviour, 10);
        service.sessions.insert(session("1"), Session { members: ids(members), region: None });
        service
    }

    fn request(operation: Operation, instances: &[&str]) -> Request {
        Request {
            operation,
            instances: instances.iter().map(|text| id(text)).collect(),
            session: session("1"),
            region: None,
            start_time: 100,
            caller: Caller::Owner,
        }
    }

    /// What the service answers, and who is in the session then.
    fn call(
        service: &mut Service,
        request: &Request,
        fault: Option<CallFault>,
    ) -> (Answer, String) {
        let answer = service.call(request, fault, 105).reply.answer(|ids| ids);
        let members = &service.sessions[&session("1")].members;
        (answer, members.iter().map(InstanceId::as_str).collect())
    }

    #[test]
    fn what_nobody_published_is_a_success_or_a_refusal_and_the_rest_is_a_success() {
        for behaviour in UnspecifiedBehaviour::ALL {
            for (operation, present, absent) in [
                (Attach, behaviour.add_present_ok, true),
                (Detach, true, behaviour.remove_absent_ok),
            ] {
                let mut service = service(behaviour, &["a"]);
                let verdict = |id: &str, ok| {
                    if ok { processed(&[id], &[]) } else { processed(&[], &[id]) }
                };
                let after = |id| call(&mut service.clone(), &request(operation, &[id]), None).0;
                assert_eq!(after("a").verdict, verdict("a", present));
                assert_eq!(after("b").verdict, verdict("b", absent));

                let members = call(&mut service, &request(operation, &["a", "b"]), None).1;
                assert_eq!(members, if operation == Attach { "ab" } else { "" });
            }
        }
    }

    #[test]
    fn a_fault_changes_what_is_done_or_what_is_said_of_it() {
        let after = |fault| {
            let mut service = service(STRICT, &[]);
            let (answer, members) = call(&mut service, &request(Attach, &["a", "b"]), Some(fault));
            (answer.verdict, answer.code, members)
        };
        let error = |code: &str, members: &str| {
            (Verdict::of_code(code, &[]), code.to_owned(), members.to_owned())
        };
        assert_eq!(after(CallFault::Throttle), error("RequestLimitExceeded", ""));
        assert_eq!(after(CallFault::Unavailable), error("InvalidAction", ""));
        assert_eq!(after(CallFault::Rejected), error("InvalidParameterValue", ""));
        assert_eq!(after(CallFault::Unclear { done: 0b10 }), error("FailedOperation", "b"));
        let told = |succeeded: &[&str], refused: &[&str], members: &str| {
            (processed(succeeded, refused), String::new(), members.to_owned())
        };
        assert_eq!(after(CallFault::Refuse(0b01)), told(&["b"], &["a"], "b"));
        assert_eq!(after(CallFault::Omit(0b01)), told(&["b"], &[], "ab"));
    }

    #[test]
    fn a_call_that_can_not_be_served_is_answered_with_its_reason() {
        let refused = |change: fn(&mut Service, &mut Request)| {
            let mut service = service(STRICT, &["m"]);
            let mut request = request(Attach, &["a", "b"]);
            change(&mut service, &mut request);
            let (answer, members) = call(&mut service, &request, None);
            assert_eq!(members, "m");
            answer.code
        };
        assert_eq!(
            [
                refused(|_, request| request.caller = Caller::Unknown),
                refused(|_, request| request.caller = Caller::OtherAccount),
                refused(|_, request| request.start_time = 94),
                refused(|_, request| request.session = session("2")),
                refused(|service, _| {
                    service.sessions.get_mut("1").unwrap().region = Some("east".into());
                }),
                refused(|service, _| _ = service.poisoned.insert(id("b"))),
            ],
            [
                "AuthFailure.SecretIdNotFound",
                "ResourceNotFound.SessionNotFound",
                "AuthFailure.SignatureExpire",
                "ResourceNotFound.SessionNotFound",
                "ResourceNotFound.SessionNotFound",
                "InvalidParameterValue",
            ]
        );
        for (is_of_answer, code) in
            [(false, "RequestSizeLimitExceeded"), (true, "ResponseSizeLimitExceeded")]
        {
            let size_limit = Some(SizeLimit { ids: 1, is_of_answer });
            let mut service = Service { size_limit, ..service(STRICT, &[]) };
            let (answer, members) = call(&mut service, &request(Attach, &["a", "b"]), None);
            assert_eq!((answer.code.as_str(), members.is_empty()), (code, !is_of_answer));
            assert_eq!(call(&mut service, &request(Attach, &["c"]), None).0.code, "");
        }
    }

    #[test]
    fn who_is_unwelcome_is_not_let_in_and_let_out() {
        let mut service = service(STRICT, &["a"]);
        service.unwelcome = ids(&["a", "b"]);

        assert_eq!(call(&mut service, &request(Attach, &["b"]), None).1, "a");
        assert_eq!(call(&mut service, &request(Detach, &["a"]), None).1, "");
    }
}
