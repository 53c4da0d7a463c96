//! What must be true whenever something changed, told from outside: by what the API server stores
//! and what the service holds.

use streamsession_core::answer::Operation;
use streamsession_core::ids::SessionId;
use streamsession_core::ledger::record::Want;
use streamsession_core::ownership::claims::{Claims, Ownership, Place};
use streamsession_core::reconcile::Notice;
use streamsession_core::scheduler::Facts;

use crate::api::{ENDPOINT, Name, session_of};
use crate::calls::{SentCall, identity};
use crate::world::{RunId, World};

/// A promise that was broken: which one, and how.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: &'static str,
    pub text: String,
}

type Complaint = Option<(&'static str, String)>;

/// The session, where all objects mean it.
pub fn place(session: &SessionId) -> Place {
    Place { endpoint: ENDPOINT.into(), session: session.clone() }
}

impl World {
    pub fn fail(&mut self, kind: &'static str, text: String) {
        if self.failure.is_none() {
            self.trace.log(self.now_ms, || format!("FAILURE {kind}: {text}"));
            self.failure = Some(Failure { kind, text });
        }
    }

    /// The promises that hold at any time.
    pub fn check(&mut self) {
        self.expire();
        if let Some((kind, text)) = self.leak().or_else(|| self.false_ready()) {
            self.fail(kind, text);
        }
    }

    /// What a reconcile has to tell users.
    pub fn check_notices(&mut self, name: Name, notices: &[Notice]) {
        for notice in notices {
            if let Notice::Violated(text) = notice {
                self.fail("violated", format!("{name}: {text}"));
            }
        }
    }

    /// A call is being sent.
    pub fn check_call(&mut self, run_id: RunId, call: &SentCall, facts: Facts) {
        if let Some((kind, text)) = self.call_complaint(run_id, call, facts) {
            self.fail(kind, text);
        }
    }

    fn call_complaint(&self, run_id: RunId, call: &SentCall, facts: Facts) -> Complaint {
        let SentCall { name, uid, .. } = call;
        let operator = &self.operators[run_id.operator];
        if !facts.may_act {
            return Some(("fence", format!("{name} calls and may not act")));
        }
        if operator.is_stopping {
            return Some(("stop", format!("{name} calls, and its operator stops")));
        }
        let claims = &operator.scheduler.shared().claims;
        let ownership = claims.ownership(&name.key(), &place(&call.session));
        if call.operation == Operation::Attach && matches!(ownership, Ownership::Contender(_)) {
            return Some(("I5", format!("{name} attaches and is {ownership:?}")));
        }
        let view = &operator.running[&run_id.run].copy.as_ref().unwrap().1;
        let members = view.desired.at(view.own_ledger().and_then(|ledger| ledger.target.as_ref()));
        call.instances.iter().find_map(|id| match call.operation {
            Operation::Attach if members.want(id) == Want::Out => {
                Some(("I6", format!("{id} is attached, and the copy does not want it")))
            }
            Operation::Detach if !self.oracle.was_attempted(uid, &call.session, id) => {
                Some(("I4", format!("{id} is detached, and {name} never tried to attach it")))
            }
            _ => None,
        })
    }

    /// I1.
    fn leak(&self) -> Complaint {
        let members = self.service.sessions.iter().flat_map(|(session, state)| {
            state.members.iter().map(move |id| (session, id, "is in"))
        });
        let coming = self
            .sent_calls
            .values()
            .filter(|call| call.operation == Operation::Attach && self.service.finds(call))
            .flat_map(|call| {
                let ids = call.instances.iter().filter(|id| !call.excused.contains(*id));
                ids.map(move |id| (&call.session, id, "may come into"))
            });
        members.chain(coming).find_map(|(session, id, how)| {
            let member = (session.clone(), id.clone());
            let is_of_lost_ledger = || {
                let mut lost = self.api.objects.values().filter(|object| object.is_lost());
                lost.any(|object| self.oracle.is_of_lost_ledger(&object.uid, &member))
            };
            let is_fine = self.is_tracked(&member)
                || self.oracle.is_excused(session, id)
                || is_of_lost_ledger();
            (!is_fine).then(|| ("I1", format!("{id} {how} {session}, and nobody remembers it")))
        })
    }

    /// The claims as they really are.
    pub fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        for (name, object) in &self.api.objects {
            let view = object.view();
            claims.set(&name.key(), &view.version, view.claimant());
            claims.identify(&name.key(), self.key_of(name.namespace).map(identity));
        }
        claims
    }

    /// Two operators, one of which does not see yet what the other sees, may let two objects of one
    /// session disturb each other (ADR 7): a detach of the one that is a contender by then may take
    /// the owner's instance out.
    pub fn views_differ(&self, call: &SentCall) -> bool {
        let (key, place) = (call.name.key(), place(&call.session));
        let truth = self.claims().ownership(&key, &place);
        let mut running = self.operators.iter().filter(|operator| operator.is_up);
        self.operators.len() > 1
            && running
                .any(|operator| operator.scheduler.shared().claims.ownership(&key, &place) != truth)
    }

    fn false_ready(&self) -> Complaint {
        self.api.objects.keys().find_map(|name| self.false_ready_of(*name))
    }

    fn false_ready_of(&self, name: Name) -> Complaint {
        let object = &self.api.objects[&name];
        let session = &object.spec.session;
        // What a copied status says, nobody of us has said.
        if !object.is_ready()
            || object.is_lost()
            || object.deleting
            || object.spec.instances.is_empty()
            || self.oracle.ended.contains(session)
        {
            return None;
        }
        let false_ready = |text| Some(("false Ready", text));
        if object.ledger().and_then(session_of) != Some(session) {
            return false_ready(format!(
                "{name} is Ready, and its ledger is about another session than {session}"
            ));
        }
        let members = &self.service.sessions[session].members;
        let is_missing =
            |id: &_| !members.contains(id) && !self.oracle.is_detached_unnoticed(session, id);
        if let Some(id) = object.spec.instances.iter().find(|id| is_missing(id)) {
            return false_ready(format!("{name} is Ready, and {id} is not in {session}"));
        }
        let mut detaches = self.sent_calls.values().filter(|call| {
            call.operation == Operation::Detach
                && call.session == *session
                && self.service.finds(call)
        });
        detaches.find_map(|call| {
            let is_threatened =
                |id: &&_| object.spec.instances.contains(*id) && !call.excused.contains(*id);
            let id = call.instances.iter().find(is_threatened)?;
            let kind = if call.uid == object.uid {
                "threatened Ready"
            } else {
                "Ready threatened by a contender"
            };
            Some((
                kind,
                format!("{name} is Ready, and a detach of {id} by {} may arrive", call.name),
            ))
        })
    }
}
