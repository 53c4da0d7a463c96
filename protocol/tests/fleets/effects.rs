//! The effects of a round on their way: what leaves, what arrives and when, what comes back.

use std::collections::BTreeSet;

use streamsession_protocol::answer::{Answer, NothingDone, Verdict};
use streamsession_protocol::step::{Effect, Journalled, Moment, Notice, Response};

use crate::api::{Change, Name, Object, Written};
use crate::operator::{API_DEADLINE_MS, CALL_DEADLINE_MS};
use crate::plan::Fault;
use crate::service::{Request, Trick, of_code};
use crate::world::{Event, Ticket, World, second};

pub enum Payload {
    Read(Name),
    ReadOwner(Name),
    Write {
        name: Name,
        uid: String,
        version: u64,
        change: Change,
        notices: Vec<Notice>,
    },
    AskTime,
    /// The number of the request, what the service does besides, and the second at which the
    /// request was let in.
    Call {
        number: u64,
        trick: Option<Trick>,
        let_in: i64,
    },
}

/// A request on its way.
pub struct Flight {
    pub payload: Payload,
    /// For whom its answer is and how long that takes; none if nobody will see it.
    pub reply: Option<(Ticket, u64)>,
}

/// What comes back to a round.
pub enum What {
    /// The object's copy, after a read.
    Copy(Option<Box<Object>>),
    /// Likewise, after a write.
    Written(Option<Box<Object>>),
    Owner(Option<Box<Object>>),
    /// The service's answer, and its date if it was one of the service.
    Answer(Answer, Option<i64>),
    Time(i64),
    Other(Response),
}

/// When a request leaves and arrives, and what becomes of its answer.
struct Way {
    leaves: u64,
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
    /// An effect that somebody else performs is on its way.
    pub fn send(&mut self, ticket: Ticket, name: Name, effect: Effect, moment: &Moment) {
        let count = self.effects.entry(name).or_default();
        *count += 1;
        let fault =
            if self.is_calm { None } else { self.plan.faults.get(&(name, *count)).copied() };
        if fault.is_some() {
            self.story.tell(self.now_ms, || format!("      {fault:?}"));
        }
        if fault == Some(Fault::CrashBefore) {
            self.crash(ticket.operator);
            return;
        }
        let is_call = matches!(effect, Effect::Call(_));
        let trick = match fault {
            Some(Fault::Trick(trick)) => Some(trick),
            _ => None,
        };
        let way = self.way(name, fault, if is_call { CALL_DEADLINE_MS } else { API_DEADLINE_MS });
        if let Some(Fault::FreezeBefore(wait) | Fault::FreezeAfter(wait)) = fault {
            self.operators[ticket.operator].frozen_until_ms = self.now_ms + wait;
        }
        let Some(running) = self.operators[ticket.operator].running.get(&ticket.round) else {
            return;
        };
        let copy = running.copy.as_ref().map(|(version, view)| (*version, view.uid.clone()));
        let write = |change, notices| {
            let (version, uid) = copy.clone().unwrap();
            Payload::Write { name, uid, version, change, notices }
        };
        let mut slow = 0;
        let instead = way.instead.map(|(at, failed)| (at, instead(&effect, failed)));
        let payload = match effect {
            Effect::Read => Payload::Read(name),
            Effect::ReadOwner(owner) => Payload::ReadOwner(Name::parse(&owner)),
            Effect::WriteStatus(status, notices) => {
                self.heard(name, &notices);
                write(Change::Status(status), notices)
            }
            Effect::AddFinalizer => write(Change::Finalizer(true), Vec::new()),
            Effect::RemoveFinalizer => write(Change::Finalizer(false), Vec::new()),
            Effect::AskTime => Payload::AskTime,
            Effect::Call(call) => {
                let request = self.request(ticket, name, &call);
                self.sends(ticket, &request, moment);
                let number = self.ticket();
                // The service lets a request in and may take its time for the work.
                slow = if self.delay(name) > 60 && matches!(fault, Some(Fault::Late(_))) {
                    900
                } else {
                    0
                };
                let let_in = way.arrives.map_or(0, second);
                if way.arrives.is_some() || !matches!(fault, Some(Fault::NotSent)) {
                    self.requests.insert(number, request);
                    self.is_dirty = true;
                }
                Payload::Call { number, trick, let_in }
            }
            Effect::Permit | Effect::Credentials | Effect::End(_) => return,
        };
        if let Some(at) = way.arrives {
            let reply = way.back.map(|back| (ticket, back));
            self.at(at + slow, Event::Arrive(Box::new(Flight { payload, reply })));
        }
        if let Some((at, what)) = instead {
            self.at(at, Event::Respond(ticket, Box::new(what)));
        }
        debug_assert!(way.leaves >= self.now_ms);
        if fault == Some(Fault::CrashAfter) {
            self.crash(ticket.operator);
        }
    }

    fn way(&mut self, name: Name, fault: Option<Fault>, deadline: u64) -> Way {
        let (mut out, back) = (self.delay(name), self.delay(name));
        let leaves =
            self.now_ms + if let Some(Fault::FreezeBefore(wait)) = fault { wait } else { 0 };
        let mut way = Way { leaves, arrives: Some(leaves + out), back: Some(back), instead: None };
        match fault {
            Some(Fault::Late(wait)) => {
                out = wait;
                way.arrives = Some(leaves + wait);
            }
            Some(Fault::Lost) => {
                way.arrives = None;
                way.instead = Some((leaves + deadline, Failed::NoAnswer));
            }
            Some(Fault::AnswerLost) => way.instead = Some((leaves + out + back, Failed::NoAnswer)),
            Some(Fault::NotSent) => {
                way.arrives = None;
                way.instead = Some((leaves + out, Failed::NotSent));
            }
            Some(Fault::Internal(late)) => {
                way.arrives = late.map(|late| leaves + late);
                way.instead = Some((leaves + out + back, Failed::Internal));
            }
            _ => {}
        }
        if way.instead.is_none() && out + back > deadline {
            way.instead = Some((leaves + deadline, Failed::NoAnswer));
        }
        if way.instead.is_some() {
            way.back = None;
        }
        way
    }

    fn request(&self, ticket: Ticket, name: Name, call: &Journalled) -> Request {
        let (journal, target) = (call.journal(), call.target());
        let running = &self.operators[ticket.operator].running[&ticket.round];
        let uid = running.copy.as_ref().unwrap().1.uid.clone();
        let mut request = Request {
            operation: journal.operation,
            instances: journal.instances.clone(),
            session: target.session.clone(),
            region: target.region.clone(),
            start_time: journal.start_time.0,
            credential: running.key.clone().unwrap_or_default(),
            name,
            uid,
            excused: BTreeSet::new(),
        };
        request.excused = self.excuse_of(ticket, &request);
        request
    }

    /// A request arrives.
    pub fn arrive(&mut self, flight: Flight) {
        let what = match flight.payload {
            Payload::Read(name) => What::Copy(self.api.objects.get(&name).cloned().map(Box::new)),
            Payload::ReadOwner(name) => {
                What::Owner(self.api.objects.get(&name).cloned().map(Box::new))
            }
            Payload::AskTime => What::Time(self.second()),
            Payload::Write { name, uid, version, change, notices } => {
                let before = self.api.objects.get(&name).cloned();
                match self.api.write(name, &uid, version, change) {
                    Written::Copy(copy) => {
                        if before.as_ref().is_none_or(|before| before.version != copy.version) {
                            self.writes += 1;
                            self.wrote(name, before.as_ref(), &notices);
                        }
                        What::Written(Some(copy))
                    }
                    Written::Conflict => {
                        self.story.tell(self.now_ms, || {
                            format!("{name}: a write on version {version} meets a conflict")
                        });
                        What::Other(Response::Conflict)
                    }
                    Written::Gone => What::Written(None),
                }
            }
            Payload::Call { number, trick, let_in } => self.serve(number, trick, let_in),
        };
        if let Some((ticket, back)) = flight.reply {
            self.at(self.now_ms + back, Event::Respond(ticket, Box::new(what)));
        }
    }

    fn serve(&mut self, number: u64, trick: Option<Trick>, let_in: i64) -> What {
        let Some(request) = self.requests.remove(&number) else {
            return What::Answer(of_code("AuthFailure.SignatureExpire"), Some(self.second()));
        };
        self.calls += 1;
        self.is_dirty = true;
        let (answer, served) = self.service.serve(&request, trick, let_in);
        self.story.tell(self.now_ms, || crate::story::served(&request, &answer, &served));
        self.served(&request, &served);
        What::Answer(answer, Some(self.second()))
    }

    /// An answer, or that there is none, comes to the round.
    pub fn respond(&mut self, ticket: Ticket, what: What) {
        let now_ms = self.now_ms;
        let operator = &mut self.operators[ticket.operator];
        let Some(running) = operator.running.get_mut(&ticket.round) else { return };
        let is_write = matches!(what, What::Written(_));
        let response = match what {
            What::Copy(None) | What::Written(None) => Response::Object(None),
            What::Copy(Some(object)) | What::Written(Some(object)) => {
                let view = Box::new(object.view());
                if is_write {
                    running.versions.push(object.version);
                    let has_said = running
                        .copy
                        .as_ref()
                        .is_some_and(|(_, before)| before.status != view.status);
                    if has_said && running.displaced {
                        operator.agenda.claims.reinstate(&running.name);
                    }
                }
                running.copy = Some((object.version, view.clone()));
                Response::Object(Some(view))
            }
            What::Owner(object) => Response::Owner(object.map(|object| Box::new(object.view()))),
            What::Time(date) => {
                operator.was_told(date, now_ms);
                Response::Time(Ok(()))
            }
            What::Answer(answer, date) => {
                if let Some(date) = date {
                    operator.was_told(date, now_ms);
                }
                self.answered(ticket, &answer);
                Response::Answer(answer)
            }
            What::Other(response) => response,
        };
        self.go_on(ticket, response);
    }

    fn answered(&mut self, ticket: Ticket, answer: &Answer) {
        let now_ms = self.now_ms;
        let operator = &mut self.operators[ticket.operator];
        let Some(running) = operator.running.get_mut(&ticket.round) else { return };
        let namespace = running.name.namespace;
        if let Some((key, permit)) = running.permit.take() {
            let throttled = answer.verdict == Verdict::NothingDone(NothingDone::Throttled);
            operator.spent(&key, permit, now_ms, throttled);
        }
        // What was refused is read again the next time.
        if answer.code.starts_with("AuthFailure") && answer.code != "AuthFailure.SignatureExpire" {
            operator.secrets.remove(&namespace);
        }
        self.pump(ticket.operator);
    }
}

/// What a round gets instead of an answer.
fn instead(effect: &Effect, failed: Failed) -> What {
    match (effect, failed) {
        (Effect::Call(_), Failed::NoAnswer) => {
            What::Answer(Answer::unanswered("NoAnswer", ""), None)
        }
        (Effect::Call(_), Failed::NotSent) => {
            What::Answer(Answer::not_sent("ConnectFailed", ""), None)
        }
        (Effect::Call(_), Failed::Internal) => What::Answer(of_code("InternalError"), None),
        (Effect::AskTime, _) => {
            What::Other(Response::Time(Err("the service can't be reached".into())))
        }
        (Effect::ReadOwner(_), _) => What::Owner(None),
        _ => What::Other(Response::Failed),
    }
}
