//! The service: in which order a request is checked, and what then changes.
//!
//! All below here is pure: no clock and no socket; the time is an argument.
//!
//! ```text
//! request
//!   1 lost, late, or answered by a gateway (faults, of correctly signed requests only)
//!   2 the body is a JSON object
//!   3 rate
//!   4 action and version
//!   5 signature
//!   6 throttled, or another error (faults)
//!   7 parameters
//!   8 session: applied
//!   9 the answer is lost or garbled (faults)
//! ```

pub(crate) mod answer;
mod api_error;
pub(crate) mod calls;
mod fault_injector;
pub(crate) mod faults;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod rate;
pub(crate) mod request;
mod request_ids;
pub(crate) mod rng;
mod sessions;
pub(crate) mod switch;
pub(crate) mod tc3;
pub(crate) mod unspecified;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use answer::Answer;
use api_error::ApiError;
use calls::{Arrival, Call, History, Outcome, Stats};
use fault_injector::{FaultInjector, ReplyFault, RequestFault};
use faults::Faults;
use identity::{Identity, Issuer, RoleKeys};
use keys::Keys;
use rate::{Quota, RateWindow};
use request::Request;
use request_ids::RequestIds;
use sessions::{Sessions, SwitchError};
use switch::{Switch, SwitchResult};
use tc3::AuthError;
use unspecified::UnspecifiedBehaviour;

/// How the counts call all keys that were issued.
const ISSUED_KEYS: &str = "issued";

/// How to start a [`Service`].
#[derive(Debug)]
pub(crate) struct ServiceOptions {
    pub(crate) keys: Keys,
    pub(crate) signature_validity: Duration,
    pub(crate) qps: u32,
    pub(crate) rate_window: RateWindow,
    pub(crate) known_sessions: BTreeSet<String>,
    pub(crate) unspecified_behaviour: UnspecifiedBehaviour,
    pub(crate) identity: Identity,
    pub(crate) faults: Faults,
    /// Request ids and issued keys follow from it.
    pub(crate) seed: u64,
}

/// What the server does with the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Send this.
    Answer(Answer),
    /// Close it without an answer.
    Close,
    /// Close it without an answer; pass the request to [`Service::receive_late`] after the delay.
    DeliverLate { request_id: String, delay: Duration },
}

#[derive(Debug)]
pub(crate) struct Service {
    keys: Keys,
    signature_validity: Duration,
    pub(crate) unspecified_behaviour: UnspecifiedBehaviour,
    pub(crate) sessions: Sessions,
    fault_injector: FaultInjector,
    quota: Quota,
    pub(crate) issuer: Issuer,
    history: History,
    request_ids: RequestIds,
}

impl Service {
    pub(crate) fn new(options: ServiceOptions) -> Self {
        Self {
            keys: options.keys,
            signature_validity: options.signature_validity,
            unspecified_behaviour: options.unspecified_behaviour,
            sessions: Sessions::new(options.known_sessions),
            fault_injector: FaultInjector::new(options.faults),
            quota: Quota::new(options.qps, options.rate_window),
            issuer: Issuer::new(options.identity, options.seed),
            history: History::default(),
            request_ids: RequestIds::new(options.seed),
        }
    }

    /// A request comes in.
    pub(crate) fn receive(&mut self, request: &Request, at: Arrival) -> Reply {
        let request_id = self.request_ids.next();
        if request.header("x-tc-action") == Some(identity::ACTION) {
            return self.assume_role(request, at, request_id);
        }
        if request.header("x-tc-action") == Some(identity::CALLER_ACTION) {
            return self.caller_identity(request, at, &request_id);
        }
        let is_verified = self.verify(request, at).is_ok();
        let fault = if is_verified { self.fault_injector.request_fault() } else { None };
        let nothing = SwitchResult::default();
        let (outcome, result, reply) = match fault {
            Some(RequestFault::Lost) => (Outcome::Dropped, nothing, Reply::Close),
            Some(RequestFault::Late(delay)) => {
                let request_id = request_id.clone();
                (Outcome::Held, nothing, Reply::DeliverLate { request_id, delay })
            }
            Some(RequestFault::Gateway(kind)) => {
                let behaviour = &self.unspecified_behaviour;
                let answer = Answer::garbled(kind, "", &nothing, behaviour, &request_id);
                (Outcome::Gateway, nothing, self.send(answer))
            }
            None => match self.carry_out(request, at) {
                Ok((switch, result)) => self.answer(&switch, result, &request_id),
                Err(error) => {
                    let answer = Answer::error(&error, &request_id);
                    let reply = if is_verified { self.send(answer) } else { Reply::Answer(answer) };
                    (Outcome::Refused(error.code), nothing, reply)
                }
            },
        };
        self.history.add(Call::new(request, at, request_id, outcome, result));
        reply
    }

    /// STS is unsigned, so it meets no faults but those of [`Identity`].
    fn assume_role(&mut self, request: &Request, at: Arrival, request_id: String) -> Reply {
        let keys = self.issuer.assume_role(request, &mut self.keys, at.now, &request_id);
        let (outcome, answer) = match keys {
            Ok(keys) => (Outcome::Applied, Answer::ok(keys)),
            Err(error) => {
                let answer = Answer::error(&error, &request_id);
                (Outcome::Refused(error.code), answer)
            }
        };
        self.history.add(Call::new(request, at, request_id, outcome, SwitchResult::default()));
        Reply::Answer(Answer { delay: self.issuer.identity.delay(), ..answer })
    }

    /// STS says whose the key is. That changes nothing, so it is no part of the history.
    fn caller_identity(&self, request: &Request, at: Arrival, request_id: &str) -> Reply {
        let key = tc3::claimed_secret_id(&request.headers).and_then(|id| self.keys.get(id));
        let account = key.map_or("", |key| &key.account);
        let answer = match self.verify(request, at) {
            Ok(()) => self.issuer.caller(request, account, request_id),
            Err(error) => Err(error.into()),
        };
        let answer = answer.map_or_else(|error| Answer::error(&error, request_id), Answer::ok);
        Reply::Answer(Answer { delay: self.issuer.identity.delay(), ..answer })
    }

    /// The metadata service's keys. None: the machine has no such role.
    pub(crate) fn role_keys(&mut self, role: &str, now: Timestamp) -> Option<RoleKeys> {
        self.issuer.role_keys(role, &mut self.keys, now)
    }

    pub(crate) fn expire_issued_keys(&mut self, now: Timestamp) {
        self.issuer.expire_all(&mut self.keys, now);
    }

    fn answer(
        &mut self,
        switch: &Switch,
        result: SwitchResult,
        request_id: &str,
    ) -> (Outcome, SwitchResult, Reply) {
        let behaviour = &self.unspecified_behaviour;
        let (outcome, answer) = match self.fault_injector.reply_fault() {
            Some(ReplyFault::Lost) => return (Outcome::AppliedUnanswered, result, Reply::Close),
            Some(ReplyFault::Garbled(kind)) => (
                Outcome::AppliedGarbled,
                Answer::garbled(kind, &switch.session_id, &result, behaviour, request_id),
            ),
            None => (
                Outcome::Applied,
                Answer::success(&switch.session_id, &result, behaviour, request_id),
            ),
        };
        (outcome, result, self.send(answer))
    }

    /// As fast as the faults let it.
    fn send(&mut self, answer: Answer) -> Reply {
        Reply::Answer(Answer {
            delay: self.fault_injector.delay(),
            body_throttle: self.fault_injector.body_throttle(),
            ..answer
        })
    }

    /// A held request arrives. Nobody waits for the answer.
    pub(crate) fn receive_late(&mut self, request: &Request, request_id: String, at: Arrival) {
        let (outcome, result) = match self.carry_out(request, at) {
            Ok((_, result)) => (Outcome::LateApplied, result),
            Err(error) => (Outcome::LateRefused(error.code), SwitchResult::default()),
        };
        self.history.add(Call::new(request, at, request_id, outcome, result));
    }

    /// The newest calls, oldest first.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.history.all()
    }

    /// The newest of [`Self::calls`].
    pub(crate) fn last_call(&self) -> Option<&Call> {
        self.history.last()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            calls: self.history.count(),
            keys_issued: self.issuer.count(),
            ..self.quota.stats()
        }
    }

    /// The faults that are left.
    pub(crate) fn faults(&self) -> &Faults {
        self.fault_injector.faults()
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.fault_injector = FaultInjector::new(faults);
    }

    /// Forgets sessions, calls and counts, the current second's quota included. The faults and the
    /// unspecified behaviour stay.
    pub(crate) fn reset(&mut self) {
        self.sessions.reset();
        self.quota.reset();
        self.history = History::default();
    }

    fn carry_out(
        &mut self,
        request: &Request,
        at: Arrival,
    ) -> Result<(Switch, SwitchResult), ApiError> {
        let parameters = request.parameters()?;
        if let Some(account) = self.account(request) {
            self.quota.arrive(account, at.since_start)?;
        }
        request.check_action(switch::ACTION, switch::VERSION)?;
        self.verify(request, at)?;
        if self.fault_injector.throttles() {
            return Err(self.quota.throttle(self.account(request).unwrap_or_default()).into());
        }
        if let Some(code) = self.fault_injector.error() {
            return Err(ApiError::injected(code));
        }
        let switch = Switch::parse(&parameters)?;
        self.unspecified_behaviour.check(&switch)?;
        let result = self.apply(&switch)?;
        Ok((switch, result))
    }

    /// Whose quota a request draws on: its key's, and one quota for all issued keys, as they belong
    /// to one account. None without a known key: its error comes with the signature.
    fn account<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let secret_id =
            tc3::claimed_secret_id(&request.headers).filter(|&id| self.keys.contains_key(id))?;
        Some(if self.issuer.issued(secret_id) { ISSUED_KEYS } else { secret_id })
    }

    fn verify(&self, request: &Request, at: Arrival) -> Result<(), AuthError> {
        let Request { headers, .. } = request;
        tc3::verify(headers, request.bytes(), &self.keys, at.now, self.signature_validity)
    }

    fn apply(&mut self, switch: &Switch) -> Result<SwitchResult, ApiError> {
        let behaviour = &self.unspecified_behaviour;
        let fails = |id: &str| self.fault_injector.fails(switch.operation, id);
        self.sessions.switch(switch, behaviour, fails).map_err(|error| match error {
            SwitchError::NotFound => ApiError::new(
                &behaviour.gone_code,
                format!("The session {} does not exist.", switch.session_id),
            ),
            SwitchError::NoOp { code, id } => {
                ApiError::new(code, format!("The instance {id} has nothing to change."))
            }
        })
    }
}

#[cfg(test)]
mod tests;
