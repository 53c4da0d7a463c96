//! The service in memory: sessions and who is in them, in each of the four worlds that nobody
//! published (design 3.3).

use std::collections::{BTreeMap, BTreeSet};

use streamsession_core::answer::{Answer, NothingDone, Operation, Verdict};
use streamsession_core::ids::{InstanceId, SessionId};

use crate::api::Name;

/// The service's own word for how long a signature is good.
pub const SIGNATURE_SECONDS: i64 = 20;
/// How long it may take to work on a request that it has let in.
pub const MARGIN_SECONDS: i64 = 2;

/// Who calls. Two keys of the account that owns the sessions, one of another account, and one that
/// is none.
pub const KEYS: [&str; 4] = ["AKID-a", "AKID-b", "AKID-other", "AKID-bad"];

/// A request that an operator has sent, or is about to.
#[derive(Clone, Debug)]
pub struct Request {
    pub operation: Operation,
    pub instances: Vec<InstanceId>,
    pub session: SessionId,
    pub region: Option<String>,
    pub start_time: i64,
    pub credential: String,
    /// For whom, so that the checks can say whose fault it is.
    pub name: Name,
    pub uid: String,
    /// Ids for which the object has legitimately lost its memory meanwhile.
    pub excused: BTreeSet<InstanceId>,
}

/// What the service does besides, or instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceFault {
    /// It refuses for the rate.
    Throttle,
    /// It answers an error that says nothing; whether it did something is the flag.
    Unclear(bool),
    /// It refuses each id whose bit is set, by its place in the call, though it could do it.
    Refuse(u8),
    /// It answers without naming the ids whose bit is set, which it has served.
    Silent(u8),
}

#[derive(Clone, Debug, Default)]
pub struct Session {
    pub members: BTreeSet<InstanceId>,
    pub region: Option<String>,
}

pub struct Service {
    pub sessions: BTreeMap<SessionId, Session>,
    pub add_present_ok: bool,
    pub remove_absent_ok: bool,
    /// Ids that spoil a whole call.
    pub poisoned: BTreeSet<InstanceId>,
    /// Ids that it will not let in.
    pub unwelcome: BTreeSet<InstanceId>,
    /// Accepts signatures of any age: so that the checks are seen to fail.
    pub broken: bool,
}

fn error(verdict: Verdict, code: &str) -> Answer {
    Answer { verdict, code: code.into(), message: String::new(), request_id: "r".into() }
}

/// What an operator makes of an error code.
pub fn of_code(code: &str) -> Answer {
    error(Verdict::of_code(code, &[]), code)
}

fn has_bit(bits: u8, place: usize) -> bool {
    bits >> (place % 8) & 1 == 1
}

impl Service {
    pub fn new(add_present_ok: bool, remove_absent_ok: bool) -> Self {
        Self {
            sessions: BTreeMap::new(),
            add_present_ok,
            remove_absent_ok,
            poisoned: BTreeSet::new(),
            unwelcome: BTreeSet::new(),
            broken: false,
        }
    }

    /// Whether a request may still take effect at the service's second `now`.
    pub fn takes(&self, request: &Request, now: i64) -> bool {
        self.broken || now - request.start_time <= SIGNATURE_SECONDS
    }

    /// Whether it finds the session of a request: for whom it is not, it does not exist.
    pub fn finds(&self, request: &Request) -> bool {
        let session = self
            .sessions
            .get(&request.session)
            .filter(|session| session.region.is_none() || session.region == request.region);
        session.is_some() && request.credential != KEYS[2] && request.credential != KEYS[3]
    }

    /// Serves a request that arrives at the service's second `now`. Answers who is in or out
    /// because of it, too.
    pub fn serve(
        &mut self,
        request: &Request,
        service_fault: Option<ServiceFault>,
        now: i64,
    ) -> (Answer, Vec<InstanceId>) {
        let nothing = |code: &str| (of_code(code), Vec::new());
        if request.credential == KEYS[3] {
            return nothing("AuthFailure.SecretIdNotFound");
        }
        if !self.takes(request, now) {
            return nothing("AuthFailure.SignatureExpire");
        }
        match service_fault {
            Some(ServiceFault::Throttle) => {
                return (
                    error(Verdict::NothingDone(NothingDone::Throttled), "RequestLimitExceeded"),
                    Vec::new(),
                );
            }
            Some(ServiceFault::Unclear(false)) => return nothing("FailedOperation"),
            _ => {}
        }
        if !self.finds(request) {
            return nothing("ResourceNotFound.SessionNotFound");
        }
        let Some(session) = self.sessions.get_mut(&request.session) else {
            return nothing("ResourceNotFound.SessionNotFound");
        };
        if request.instances.iter().any(|id| self.poisoned.contains(id)) {
            return nothing("InvalidParameterValue");
        }
        let (mut succeeded, mut refused, mut served) =
            (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (place, id) in request.instances.iter().enumerate() {
            let present = session.members.contains(id);
            let ok = match request.operation {
                Operation::Attach => {
                    (!present || self.add_present_ok) && !self.unwelcome.contains(id)
                }
                Operation::Detach => present || self.remove_absent_ok,
            };
            if !ok
                || matches!(service_fault, Some(ServiceFault::Refuse(bits)) if has_bit(bits, place))
            {
                refused.insert(id.clone());
                continue;
            }
            match request.operation {
                Operation::Attach => session.members.insert(id.clone()),
                Operation::Detach => session.members.remove(id),
            };
            served.push(id.clone());
            if !matches!(service_fault, Some(ServiceFault::Silent(bits)) if has_bit(bits, place)) {
                succeeded.insert(id.clone());
            }
        }
        let answer = match service_fault {
            Some(ServiceFault::Unclear(true)) => of_code("FailedOperation"),
            _ => error(Verdict::Processed { succeeded, refused }, ""),
        };
        (answer, served)
    }
}
