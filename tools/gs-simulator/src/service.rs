//! The service: in which order a request is judged, and what then changes. Pure: it is told what
//! time it is.
//!
//! ```text
//! request ─ lost? late? gateway? ─ shape ─ rate ─ action, version ─ signature ─ throttled? error? ─ parameters ─ session ─ applied
//!           (faults, of signed calls only)                                       (faults)                                    └─ lost? garbled?
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::answer::Answer;
use crate::calls::{Call, History, Outcome, Stats};
use crate::faults::Faults;
use crate::identity::{self, Identity, Issuer, RoleKeys};
use crate::mischief::{Mischief, Return, Way};
use crate::rate::{Quota, RateWindow};
use crate::sessions::{Sessions, Switched, Unchanged};
use crate::tc3::{self, AuthError, Keys};
use crate::wire::{self, Refusal, Request, RequestIds, Switch};
use crate::world::World;

/// How the counts call all keys that were issued.
const ISSUED_KEYS: &str = "issued";

/// What does not change while the service runs, but for keys that it issues.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) keys: Keys,
    pub(crate) signature_validity: Duration,
    pub(crate) qps: u32,
    pub(crate) rate_window: RateWindow,
}

/// The moment at which a request arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// By the service's clock: judges signatures.
    pub(crate) now: Timestamp,
    /// By a clock that nothing sets back: counts the rate.
    pub(crate) since_start: Duration,
}

/// What the shell must do with the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Send this.
    Answer(Answer),
    /// Close it without an answer.
    HangUp,
    /// Close it without an answer; give the request to [`Service::receive_late`] after the delay.
    Hold { request_id: String, delay: Duration },
}

#[derive(Debug)]
pub(crate) struct Service {
    rules: Rules,
    pub(crate) world: World,
    pub(crate) sessions: Sessions,
    pub(crate) mischief: Mischief,
    quota: Quota,
    pub(crate) issuer: Issuer,
    history: History,
    request_ids: RequestIds,
}

impl Service {
    pub(crate) fn new(
        rules: Rules,
        world: World,
        known_sessions: BTreeSet<String>,
        faults: Faults,
        seed: u64,
    ) -> Self {
        let quota = Quota::new(rules.qps, rules.rate_window);
        Self {
            rules,
            world,
            sessions: Sessions::new(known_sessions),
            mischief: Mischief::new(faults),
            quota,
            issuer: Issuer::new(Identity::default(), seed),
            history: History::default(),
            request_ids: RequestIds::new(seed),
        }
    }

    /// A request comes in.
    pub(crate) fn receive(&mut self, request: &Request, at: Arrival) -> Reaction {
        let request_id = self.request_ids.next();
        if request.header("x-tc-action") == Some(identity::ACTION) {
            return self.assume_role(request, at, request_id);
        }
        let strange = self.verify(request, at).is_err();
        let way = if strange { Way::Clear } else { self.mischief.way() };
        let (outcome, switched, reaction) = match way {
            Way::Lost => (Outcome::Dropped, Switched::default(), Reaction::HangUp),
            Way::Late(delay) => (
                Outcome::Held,
                Switched::default(),
                Reaction::Hold { request_id: request_id.clone(), delay },
            ),
            Way::Gateway(kind) => {
                let answer =
                    Answer::garbled(kind, "", &Switched::default(), &self.world, &request_id);
                (Outcome::Gateway, Switched::default(), self.send(answer))
            }
            Way::Clear => match self.carry_out(request, at) {
                Ok((switch, switched)) => self.answer(&switch, switched, &request_id),
                Err(refusal) => {
                    let answer = Answer::of_the_service(wire::failure(&refusal, &request_id));
                    let reaction =
                        if strange { Reaction::Answer(answer) } else { self.send(answer) };
                    (Outcome::Refused(refusal.code), Switched::default(), reaction)
                }
            },
        };
        self.history.add(call(request, at, request_id, outcome, switched));
        reaction
    }

    /// STS, for short: unsigned, so it meets no faults but those of [`Identity`].
    fn assume_role(&mut self, request: &Request, at: Arrival, request_id: String) -> Reaction {
        let (outcome, body) =
            match self.issuer.assume_role(request, &mut self.rules.keys, at.now, &request_id) {
                Ok(body) => (Outcome::Applied, body),
                Err(refusal) => {
                    let body = wire::failure(&refusal, &request_id);
                    (Outcome::Refused(refusal.code), body)
                }
            };
        self.history.add(call(request, at, request_id, outcome, Switched::default()));
        Reaction::Answer(Answer {
            delay: self.issuer.identity.delay(),
            ..Answer::of_the_service(body)
        })
    }

    /// The metadata service's keys. None: the machine has no such role.
    pub(crate) fn role_keys(&mut self, role: &str, now: Timestamp) -> Option<RoleKeys> {
        self.issuer.role_keys(role, &mut self.rules.keys, now)
    }

    pub(crate) fn expire_issued_keys(&mut self, now: Timestamp) {
        self.issuer.expire_all(&mut self.rules.keys, now);
    }

    fn answer(
        &mut self,
        switch: &Switch,
        switched: Switched,
        request_id: &str,
    ) -> (Outcome, Switched, Reaction) {
        let (outcome, answer) = match self.mischief.back() {
            Return::Lost => return (Outcome::AppliedUnanswered, switched, Reaction::HangUp),
            Return::Garbled(kind) => (
                Outcome::AppliedGarbled,
                Answer::garbled(kind, &switch.session_id, &switched, &self.world, request_id),
            ),
            Return::Clear => (
                Outcome::Applied,
                Answer::of_the_service(wire::success(
                    &switch.session_id,
                    &switched,
                    &self.world,
                    request_id,
                )),
            ),
        };
        (outcome, switched, self.send(answer))
    }

    /// As fast as the faults let it. Strangers meet none.
    fn send(&mut self, answer: Answer) -> Reaction {
        Reaction::Answer(Answer {
            delay: self.mischief.delay(),
            drip: self.mischief.drip(),
            ..answer
        })
    }

    /// A held request arrives after all. Nobody waits for the answer.
    pub(crate) fn receive_late(&mut self, request: &Request, request_id: String, at: Arrival) {
        let (outcome, switched) = match self.carry_out(request, at) {
            Ok((_, switched)) => (Outcome::LateApplied, switched),
            Err(refusal) => (Outcome::LateRefused(refusal.code), Switched::default()),
        };
        self.history.add(call(request, at, request_id, outcome, switched));
    }

    /// The history, oldest first.
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

    /// Forgets sessions, calls and counts, the current second's quota included. The world and the
    /// faults stay.
    pub(crate) fn reset(&mut self) {
        self.sessions.forget();
        self.quota.forget();
        self.history = History::default();
    }

    fn carry_out(&mut self, request: &Request, at: Arrival) -> Result<(Switch, Switched), Refusal> {
        let parameters = request.parameters()?;
        self.count(request, at)?;
        request.check_action(wire::ACTION, wire::VERSION)?;
        self.verify(request, at)?;
        if self.mischief.throttles() {
            self.quota.throttle(self.account(request).unwrap_or_default());
            return Err(over_limit(self.quota.limit().saturating_add(1), self.quota.limit()));
        }
        if let Some(code) = self.mischief.error() {
            return Err(Refusal::new(code, "The simulator was told to answer this."));
        }
        let switch = parameters.switch()?;
        self.world.check(&switch)?;
        let switched = self.apply(&switch)?;
        Ok((switch, switched))
    }

    /// Whose quota a request draws on: its key's, and one quota for all issued keys, as they belong
    /// to one account. None without a known key: it counts for nobody, its refusal comes with the
    /// signature.
    fn account<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let secret_id = tc3::claimed_secret_id(&request.headers)
            .filter(|&id| self.rules.keys.contains_key(id))?;
        Some(if self.issuer.issued(secret_id) { ISSUED_KEYS } else { secret_id })
    }

    fn count(&mut self, request: &Request, at: Arrival) -> Result<(), Refusal> {
        let Some(account) = self.account(request) else { return Ok(()) };
        self.quota
            .arrive(account, at.since_start)
            .map_err(|over| over_limit(over.arrived, self.quota.limit()))
    }

    fn verify(&self, request: &Request, at: Arrival) -> Result<(), AuthError> {
        tc3::verify(
            &request.headers,
            request.bytes(),
            &self.rules.keys,
            at.now,
            self.rules.signature_validity,
        )
    }

    fn apply(&mut self, switch: &Switch) -> Result<Switched, Refusal> {
        let refuses = |id: &str| self.mischief.refuses(switch.operation, id);
        self.sessions.switch(switch, &self.world, refuses).map_err(|unchanged| match unchanged {
            Unchanged::NotFound => Refusal::new(
                &self.world.gone_code,
                format!("The session {} does not exist.", switch.session_id),
            ),
            Unchanged::Repeated { code, id } => {
                Refusal::new(code, format!("The instance {id} has nothing to change."))
            }
        })
    }
}

fn over_limit(arrived: usize, limit: usize) -> Refusal {
    Refusal::new(
        "RequestLimitExceeded",
        format!(
            "Your current request times equals to `{arrived}` in a second, which exceeds the frequency limit `{limit}` for a second. \
             Please reduce the frequency of calls."
        ),
    )
}

fn call(
    request: &Request,
    at: Arrival,
    request_id: String,
    outcome: Outcome,
    switched: Switched,
) -> Call {
    // Read once more, with no regard to the verdict: also a refused call is worth reading in the
    // history.
    let switch = request.parameters().and_then(|parameters| parameters.switch()).ok();
    let (operation, session_id, instance_ids) = match switch {
        Some(switch) => (Some(switch.operation), Some(switch.session_id), switch.instance_ids),
        None => (None, None, Vec::new()),
    };
    Call {
        time: at.now,
        arrival_ms: at.since_start.as_secs_f64() * 1000.0,
        secret_id: tc3::claimed_secret_id(&request.headers).map(str::to_owned),
        action: request.header("x-tc-action").map(str::to_owned),
        region: request.header("x-tc-region").map(str::to_owned),
        operation,
        session_id,
        instance_ids,
        outcome,
        succeeded: switched.succeeded,
        failed: switched.failed,
        request_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Garbling;
    use crate::faults::{AnswerFault, ErrorFault};
    use crate::tc3::Key;

    const ATTACH: &str = r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a","b"]}"#;
    const DETACH: &str = r#"{"SessionId":"s","Type":2,"SlaveInstanceIds":["a"]}"#;

    fn service(faults: Faults) -> Service {
        let keys = Keys::from([("ID".to_owned(), Key::long_term("SECRET"))]);
        let rules = Rules {
            keys,
            signature_validity: Duration::from_mins(5),
            qps: 20,
            rate_window: RateWindow::Sliding,
        };
        Service::new(rules, World::default(), BTreeSet::new(), faults, 1)
    }

    fn after(ms: u64) -> Arrival {
        let since_start = Duration::from_millis(ms);
        Arrival { now: Timestamp::from_second(1_736_312_400).unwrap() + since_start, since_start }
    }

    fn unsigned(body: &str) -> Request {
        let headers = [
            ("content-type", "application/json"),
            ("host", "localhost"),
            ("x-tc-action", wire::ACTION),
            ("x-tc-version", wire::VERSION),
            ("x-tc-region", "ap-guangzhou"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
        Request { headers, body: Some(body.to_owned().into()) }
    }

    fn signed(body: &str) -> Request {
        let mut request = unsigned(body);
        let now = after(0).now;
        let authorization = tc3::sign(&request.headers, body.as_bytes(), "ID", "SECRET", now);
        request.headers.insert("x-tc-timestamp", now.as_second().into());
        request.headers.insert("authorization", authorization.parse().unwrap());
        request
    }

    fn outcomes(service: &Service) -> Vec<String> {
        service.calls().map(|call| call.outcome.to_string()).collect()
    }

    fn members(service: &Service) -> Vec<&str> {
        service.sessions.all().get("s").into_iter().flatten().map(String::as_str).collect()
    }

    #[test]
    fn a_signed_call_changes_the_session_and_is_remembered() {
        let mut service = service(Faults::default());

        let reaction = service.receive(&signed(ATTACH), after(250));
        service.receive(&signed(DETACH), after(300));

        let Reaction::Answer(Answer { body, delay: Duration::ZERO, .. }) = reaction else {
            panic!("{reaction:?}")
        };
        assert!(body.contains(r#""SuccessInstanceIds":["a","b"]"#), "{body}");
        assert_eq!(members(&service), ["b"]);
        let call = service.calls().next().unwrap();
        assert_eq!(
            serde_json::to_value(call).unwrap(),
            serde_json::json!({
                "time": "2025-01-08T05:00:00.250Z", "arrivalMs": 250.0, "secretId": "ID", "action": wire::ACTION, "region": "ap-guangzhou",
                "operation": "Attach", "sessionId": "s", "instanceIds": ["a", "b"], "outcome": "applied", "succeeded": ["a", "b"],
                "failed": [], "requestId": call.request_id,
            })
        );
    }

    #[test]
    fn an_unsigned_request_is_refused_and_counts_for_nobodys_rate() {
        let mut service = service(Faults { drop_requests: 1, delay_ms: 9, ..Faults::default() });
        for _ in 0..30 {
            assert!(matches!(
                service.receive(&unsigned(ATTACH), after(0)),
                Reaction::Answer(Answer { delay: Duration::ZERO, .. })
            ));
        }
        assert!(
            outcomes(&service)
                .iter()
                .all(|outcome| outcome == "refused:AuthFailure.InvalidAuthorization")
        );
        assert_eq!(service.stats(), Stats { calls: 30, ..Stats::default() });
    }

    #[test]
    fn the_rate_is_judged_before_the_signature() {
        let mut service = service(Faults::default());
        let mut forged = signed(ATTACH);
        forged.headers.insert("host", "elsewhere".parse().unwrap());
        for _ in 0..20 {
            service.receive(&forged, after(0));
        }

        let reaction = service.receive(&signed(ATTACH), after(999));

        let Reaction::Answer(Answer { body, .. }) = reaction else { panic!("{reaction:?}") };
        assert!(body.contains("Your current request times equals to `21` in a second, which exceeds the frequency limit `20`"), "{body}");
        assert_eq!(outcomes(&service).last().unwrap(), "refused:RequestLimitExceeded");
        let stats = service.stats();
        assert_eq!(
            (
                stats.calls,
                stats.throttled,
                stats.max_accepted_in_one_second,
                stats.by_key["ID"].arrivals
            ),
            (21, 1, 20, 21)
        );
        service.receive(&signed(ATTACH), after(1000));
        assert_eq!(outcomes(&service).last().unwrap(), "applied");
    }

    #[test]
    fn the_signature_is_judged_before_the_parameters() {
        let mut service = service(Faults::default());
        service.receive(&unsigned("{}"), after(0));
        service.receive(&signed("{}"), after(0));
        service.receive(&signed("no json"), after(0));
        assert_eq!(
            outcomes(&service),
            [
                "refused:AuthFailure.InvalidAuthorization",
                "refused:MissingParameter",
                "refused:InvalidRequest"
            ]
        );
    }

    #[test]
    fn a_lost_answer_belongs_to_an_applied_call() {
        let mut service = service(Faults { drop_answers: 1, ..Faults::default() });

        service.receive(&signed("{}"), after(0));
        let reaction = service.receive(&signed(ATTACH), after(0));

        assert_eq!(reaction, Reaction::HangUp);
        assert_eq!(outcomes(&service), ["refused:MissingParameter", "applied-unanswered"]);
        assert_eq!(members(&service), ["a", "b"]);
    }

    #[test]
    fn a_lost_request_changes_and_counts_nothing() {
        let mut service = service(Faults { drop_requests: 1, ..Faults::default() });
        assert_eq!(service.receive(&signed(ATTACH), after(0)), Reaction::HangUp);
        assert_eq!(outcomes(&service), ["dropped"]);
        assert_eq!(members(&service), <[&str; 0]>::default());
        assert_eq!(service.stats().max_arrivals_in_one_second, 0);
    }

    #[test]
    fn an_error_fault_answers_for_the_whole_call_and_is_used_up() {
        let errors = vec![ErrorFault { code: "InternalError".to_owned(), times: 1 }];
        let mut service = service(Faults { errors, ..Faults::default() });
        service.receive(&signed(ATTACH), after(0));
        assert_eq!(members(&service), <[&str; 0]>::default());
        service.receive(&signed(ATTACH), after(0));
        assert_eq!(outcomes(&service), ["refused:InternalError", "applied"]);
    }

    #[test]
    fn a_gateways_answer_changes_nothing_and_a_garbled_one_belongs_to_an_applied_call() {
        let fault = |kind| vec![AnswerFault { kind, times: 1 }];
        let faults = Faults {
            gateways: fault(Garbling::Html502),
            garbled_answers: fault(Garbling::NotJson),
            ..Faults::default()
        };
        let mut service = service(faults);

        let first = service.receive(&signed(ATTACH), after(0));
        assert!(matches!(first, Reaction::Answer(Answer { status: 502, .. })), "{first:?}");
        assert_eq!(members(&service), <[&str; 0]>::default());
        service.receive(&signed(ATTACH), after(0));

        assert_eq!(outcomes(&service), ["gateway", "applied-garbled"]);
        assert_eq!(members(&service), ["a", "b"]);
    }

    #[test]
    fn a_throttled_call_changes_nothing_whatever_the_rate() {
        let mut service = service(Faults { throttle: 1, ..Faults::default() });
        service.receive(&signed(ATTACH), after(0));
        service.receive(&signed(ATTACH), after(0));
        assert_eq!(outcomes(&service), ["refused:RequestLimitExceeded", "applied"]);
        assert_eq!(service.stats().throttled, 1);
    }

    #[test]
    fn a_held_request_takes_effect_when_it_arrives() {
        let mut service =
            service(Faults { late_arrivals: 1, late_arrival_ms: 300_000, ..Faults::default() });

        let reaction = service.receive(&signed(ATTACH), after(0));
        let Reaction::Hold { request_id, delay } = reaction else { panic!("{reaction:?}") };
        service.receive(&signed(DETACH), after(10));
        service.receive_late(&signed(ATTACH), request_id.clone(), after(300_000));

        assert_eq!(delay, Duration::from_mins(5));
        assert_eq!(outcomes(&service), ["held", "applied", "late-applied"]);
        assert_eq!(service.calls().last().unwrap().request_id, request_id);
        assert_eq!(members(&service), ["a", "b"]);
    }

    #[test]
    fn a_held_request_whose_signature_expired_on_the_way_changes_nothing() {
        let mut service = service(Faults { late_arrivals: 1, ..Faults::default() });
        service.receive(&signed(ATTACH), after(0));
        service.receive_late(&signed(ATTACH), "r".to_owned(), after(300_001));
        assert_eq!(outcomes(&service), ["held", "late-refused:AuthFailure.SignatureExpire"]);
        assert_eq!(members(&service), <[&str; 0]>::default());
    }

    #[test]
    fn an_ended_session_is_not_found() {
        let mut service = service(Faults::default());
        service.sessions.end("s");
        service.receive(&signed(ATTACH), after(0));
        service.world.gone_code = "ResourceNotFound".to_owned();
        service.receive(&signed(ATTACH), after(0));
        assert_eq!(
            outcomes(&service),
            ["refused:ResourceNotFound.SessionNotFound", "refused:ResourceNotFound"]
        );
    }

    #[test]
    fn the_worlds_limits_hold_before_anything_is_looked_up() {
        let mut service = service(Faults::default());
        service.world.max_batch = Some(1);
        service.sessions.end("s");
        service.receive(&signed(ATTACH), after(0));
        service.receive(&signed(DETACH), after(0));
        assert_eq!(
            outcomes(&service),
            ["refused:InvalidParameterValue", "refused:ResourceNotFound.SessionNotFound"]
        );
    }

    #[test]
    fn a_reset_forgets_all_but_the_faults() {
        let mut service = service(Faults {
            fail_instances: BTreeSet::from(["a".to_owned()]),
            ..Faults::default()
        });
        service.receive(&signed(ATTACH), after(0));
        service.reset();
        assert_eq!(
            (members(&service).len(), service.calls().count(), service.stats()),
            (0, 0, Stats::default())
        );
        assert_eq!(service.mischief.faults().fail_instances.len(), 1);
    }
}
