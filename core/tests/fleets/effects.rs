//! The effects of a reconcile on their way: what leaves, what arrives and when, what comes back.

use std::collections::BTreeSet;

use streamsession_core::answer::Answer;
use streamsession_core::object::ObjectKey;
use streamsession_core::reconcile::{Effect, Journalled, Notice, Response};
use streamsession_core::scheduler::Facts;
use streamsession_testkit::fixtures::error;
use streamsession_testkit::service::{CallFault, Request, Served};

use crate::api::{Change, Name, Object, Written};
use crate::calls::{SentCall, caller};
use crate::operator::{API_DEADLINE_MS, CALL_DEADLINE_MS};
use crate::scenario::Fault;
use crate::world::{Event, RunId, World, second};

pub enum Payload {
    Read(Name),
    ReadClaimant(ObjectKey),
    Write {
        name: Name,
        uid: String,
        version: u64,
        change: Change,
        notices: Vec<Notice>,
    },
    /// By how much the clock there is ahead.
    AskTime {
        ahead_ms: u64,
    },
    /// The number of the call, what goes wrong with it, the second at which it was let in, and by how
    /// much the clock there is ahead.
    Call {
        number: u64,
        fault: Option<CallFault>,
        let_in: i64,
        ahead_ms: u64,
    },
}

/// A request on its route.
pub struct InFlight {
    pub payload: Payload,
    /// For whom its answer is and how long that takes; none if nobody will see it.
    pub reply: Option<(RunId, u64)>,
}

/// What comes back to a reconcile.
pub enum Reply {
    /// The object's copy, after a read.
    Copy(Option<Box<Object>>),
    /// Likewise, after a write.
    Written(Option<Box<Object>>),
    Claimant(ObjectKey, Option<Box<Object>>),
    /// The service's answer, and its date if it was one of the service.
    Answer(Answer, Option<i64>),
    Time(i64),
    Other(Response),
}

/// When a request arrives, and what becomes of its answer.
struct Route {
    arrives: Option<u64>,
    /// How long the answer takes, if it is seen.
    back: Option<u64>,
    /// What is seen instead, and when.
    instead: Option<(u64, Failed)>,
}

#[derive(Clone, Copy)]
enum Failed {
    NoAnswer,
    NotSent,
    Internal,
}

impl World {
    /// An effect that somebody else performs is on its route.
    pub fn send(&mut self, run_id: RunId, name: Name, effect: Effect, facts: Facts) {
        let count = self.effects.entry(name).or_default();
        *count += 1;
        let fault = if self.faults_are_over {
            None
        } else {
            self.scenario.faults.get(&(name, *count)).copied()
        };
        if fault.is_some() {
            self.trace.log(self.now_ms, || format!("      {fault:?}"));
        }
        if fault == Some(Fault::CrashBefore) {
            self.crash(run_id.operator);
            return;
        }
        let is_call = matches!(effect, Effect::Call(_));
        let call_fault = if let Some(Fault::Call(fault)) = fault { Some(fault) } else { None };
        let deadline = if is_call { CALL_DEADLINE_MS } else { API_DEADLINE_MS };
        let route = self.route(name, fault, deadline);
        if let Some(Fault::FreezeBefore(wait) | Fault::FreezeAfter(wait)) = fault {
            self.operators[run_id.operator].frozen_until_ms = self.now_ms + wait;
        }
        let Some(running) = self.operators[run_id.operator].running.get(&run_id.run) else {
            return;
        };
        let copy = running.copy.as_ref().map(|(version, view)| (*version, view.uid.to_string()));
        let write = |change, notices| {
            let (version, uid) = copy.clone().unwrap();
            Payload::Write { name, uid, version, change, notices }
        };
        let mut slow = 0;
        let ahead_ms = self.clock_ahead_ms(run_id.operator);
        let instead = route.instead.map(|(at, failed)| (at, instead(&effect, failed)));
        let payload = match effect {
            Effect::Read => Payload::Read(name),
            Effect::ReadClaimant(key) => Payload::ReadClaimant(key),
            Effect::WriteStatus(status, notices) => {
                self.check_notices(name, &notices);
                write(Change::Status(status), notices)
            }
            Effect::AddFinalizer => write(Change::Finalizer(true), Vec::new()),
            Effect::RemoveFinalizer => write(Change::Finalizer(false), Vec::new()),
            Effect::AskTime => Payload::AskTime { ahead_ms },
            Effect::Call(call) => {
                let call = self.sent_call(run_id, name, &call);
                self.check_call(run_id, &call, facts);
                let number = self.next_number();
                // The service lets a request in and may take its time for the work.
                slow = if self.delay(name) > 60 && matches!(fault, Some(Fault::Late(_))) {
                    900
                } else {
                    0
                };
                let let_in = route.arrives.map_or(0, |arrives| second(arrives + ahead_ms));
                if route.arrives.is_some() || !matches!(fault, Some(Fault::NotSent)) {
                    self.sent_calls.insert(number, call);
                    self.needs_check = true;
                }
                Payload::Call { number, fault: call_fault, let_in, ahead_ms }
            }
            Effect::Permit(_) | Effect::Credentials | Effect::Done(_) => return,
        };
        if let Some(at) = route.arrives {
            let reply = route.back.map(|back| (run_id, back));
            self.schedule(at + slow, Event::Arrive(Box::new(InFlight { payload, reply })));
        }
        if let Some((at, reply)) = instead {
            self.schedule(at, Event::Respond(run_id, Box::new(reply)));
        }
        if fault == Some(Fault::CrashAfter) {
            self.crash(run_id.operator);
        }
    }

    fn route(&mut self, name: Name, fault: Option<Fault>, deadline: u64) -> Route {
        let (mut out, back) = (self.delay(name), self.delay(name));
        let leaves =
            self.now_ms + if let Some(Fault::FreezeBefore(wait)) = fault { wait } else { 0 };
        let mut route = Route { arrives: Some(leaves + out), back: Some(back), instead: None };
        match fault {
            Some(Fault::Late(wait)) => {
                out = wait;
                route.arrives = Some(leaves + wait);
            }
            Some(Fault::Lost) => {
                route.arrives = None;
                route.instead = Some((leaves + deadline, Failed::NoAnswer));
            }
            Some(Fault::AnswerLost) => {
                route.instead = Some((leaves + out + back, Failed::NoAnswer));
            }
            Some(Fault::NotSent) => {
                route.arrives = None;
                route.instead = Some((leaves + out, Failed::NotSent));
            }
            Some(Fault::Internal(late)) => {
                route.arrives = late.map(|late| leaves + late);
                route.instead = Some((leaves + out + back, Failed::Internal));
            }
            _ => {}
        }
        if route.instead.is_none() && out + back > deadline {
            route.instead = Some((leaves + deadline, Failed::NoAnswer));
        }
        if route.instead.is_some() {
            route.back = None;
        }
        route
    }

    fn sent_call(&self, run_id: RunId, name: Name, call: &Journalled) -> SentCall {
        let (journal, target) = (call.journal(), call.target());
        let running = &self.operators[run_id.operator].running[&run_id.run];
        let credential = running.key.clone().unwrap_or_default();
        let request = Request {
            operation: journal.operation,
            instances: journal.instances.clone(),
            session: target.session.clone(),
            region: target.region.clone(),
            start_time: journal.start_time.0,
            caller: caller(&credential),
        };
        let uid = running.copy.as_ref().unwrap().1.uid.to_string();
        let mut call = SentCall {
            request,
            resync: journal.resync,
            credential,
            name,
            uid,
            excused: BTreeSet::new(),
        };
        call.excused = self.excuse_of(run_id, &call);
        call
    }

    /// A request arrives.
    pub fn arrive(&mut self, in_flight: InFlight) {
        let reply = match in_flight.payload {
            Payload::Read(name) => Reply::Copy(self.api.objects.get(&name).cloned().map(Box::new)),
            Payload::ReadClaimant(key) => {
                let object = self.api.objects.get(&Name::of(&key)).cloned();
                Reply::Claimant(key, object.map(Box::new))
            }
            Payload::AskTime { ahead_ms } => Reply::Time(second(self.now_ms + ahead_ms)),
            Payload::Write { name, uid, version, change, notices } => {
                let before = self.api.objects.get(&name).cloned();
                match self.api.write(name, &uid, version, change) {
                    Written::Copy(copy) => {
                        if before.as_ref().is_none_or(|before| before.version != copy.version) {
                            self.writes += 1;
                            if !self.is_for_resync(before.as_ref(), name) {
                                self.note_action();
                            }
                            self.note_write(name, before.as_ref(), &notices);
                        }
                        Reply::Written(Some(copy))
                    }
                    Written::Conflict => {
                        self.trace.log(self.now_ms, || {
                            format!("{name}: a write on version {version} meets a conflict")
                        });
                        Reply::Other(Response::Conflict)
                    }
                    Written::Gone => Reply::Written(None),
                }
            }
            Payload::Call { number, fault, let_in, ahead_ms } => {
                let date = Some(second(self.now_ms + ahead_ms));
                Reply::Answer(self.serve(number, fault, let_in), date)
            }
        };
        if let Some((run_id, back)) = in_flight.reply {
            self.schedule(self.now_ms + back, Event::Respond(run_id, Box::new(reply)));
        }
    }

    fn serve(&mut self, number: u64, fault: Option<CallFault>, let_in: i64) -> Answer {
        let Some(call) = self.sent_calls.remove(&number) else {
            return error("AuthFailure.SignatureExpire");
        };
        self.calls += 1;
        self.needs_check = true;
        let Served { done, reply } = self.service.call(&call, fault, let_in);
        let answer = reply.answer(|ids| ids);
        self.trace.log(self.now_ms, || crate::trace::served(&call, &answer, &done));
        self.note_served(&call, &done);
        self.note_outage(&call, &done);
        if call.resync {
            self.note("a resync");
        } else {
            self.note_action();
        }
        answer
    }

    /// An answer, or that there is none, comes to the reconcile.
    pub fn respond(&mut self, run_id: RunId, reply: Reply) {
        let now_ms = self.now_ms;
        let operator = &mut self.operators[run_id.operator];
        let Some(running) = operator.running.get_mut(&run_id.run) else { return };
        let response = match reply {
            Reply::Copy(None) | Reply::Written(None) => Response::Object(None),
            Reply::Copy(Some(object)) | Reply::Written(Some(object)) => {
                let view = Box::new(object.view());
                running.copy = Some((object.version, view.clone()));
                Response::Object(Some(view))
            }
            Reply::Claimant(key, object) => {
                Response::Claimant(key, object.map(|object| Box::new(object.view())))
            }
            Reply::Time(date) => {
                operator.learn_time(date, now_ms);
                Response::Time(Ok(()))
            }
            Reply::Answer(answer, date) => {
                if let Some(date) = date {
                    operator.learn_time(date, now_ms);
                }
                self.forget_refused_secret(run_id, &answer);
                Response::Answer(answer)
            }
            Reply::Other(response) => response,
        };
        self.step(run_id, response);
    }

    /// What was refused is read again the next time.
    fn forget_refused_secret(&mut self, run_id: RunId, answer: &Answer) {
        let operator = &mut self.operators[run_id.operator];
        let Some(running) = operator.running.get_mut(&run_id.run) else { return };
        let namespace = running.name.namespace;
        if answer.code.starts_with("AuthFailure") && answer.code != "AuthFailure.SignatureExpire" {
            operator.secrets.remove(&namespace);
        }
    }
}

/// What a reconcile gets instead of an answer.
fn instead(effect: &Effect, failed: Failed) -> Reply {
    match (effect, failed) {
        (Effect::Call(_), Failed::NoAnswer) => {
            Reply::Answer(Answer::unanswered("NoAnswer", ""), None)
        }
        (Effect::Call(_), Failed::NotSent) => {
            Reply::Answer(Answer::not_sent("ConnectFailed", ""), None)
        }
        (Effect::Call(_), Failed::Internal) => Reply::Answer(error("InternalError"), None),
        (Effect::AskTime, _) => {
            Reply::Other(Response::Time(Err("the service can't be reached".into())))
        }
        (Effect::ReadClaimant(key), _) => Reply::Claimant(key.clone(), None),
        _ => Reply::Other(Response::Failed),
    }
}
