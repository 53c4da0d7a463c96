//! One round of one object: performs what [`step`](streamsession_protocol::step) asks for and feeds
//! the response back, until it says End.

use std::sync::Arc;
use std::time::{Duration, Instant};

use streamsession_protocol::answer::{Answer, NothingDone, Verdict, is_too_large};
use streamsession_protocol::claims::Standing;
use streamsession_protocol::ids::InstanceId;
use streamsession_protocol::step::{
    Effect, End, Journalled, Memory, Moment, Notice, Response, Round, Status,
};
use streamsession_protocol::time::ServiceTime;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::context::Context;
use super::digest;
#[cfg(debug_assertions)]
use super::failpoint;
use super::key::ObjectKey;
use super::object::{Object, Outcome};
use crate::api::ledger;
use crate::api::v1alpha1::StreamSession;
use crate::gs::{Credentials, Endpoint, InvalidEndpoint, Switch};
use crate::queue::{self, Bucket, WINDOW};

/// The right to make one call.
pub type Permit = queue::Permit<ObjectKey>;

/// An object that can't be read is looked at again after this time, besides at each change.
const UNREADABLE_RETRY: Duration = Duration::from_mins(5);

/// What a round hands back.
pub struct Finished {
    /// When the object is due again.
    pub end: End,
    /// What to remember until then.
    pub memory: Box<Memory>,
    /// The resource versions that the round wrote.
    pub versions: Vec<String>,
    /// Where to wait for a permit, if that is what it ended for.
    pub bucket: Option<Bucket>,
}

/// What the effects of a round work on.
struct Shell {
    context: Arc<Context>,
    object: Object,
    key: ObjectKey,
    copy: Option<Box<StreamSession>>,
    credentials: Option<Credentials>,
    permit: Option<Permit>,
    versions: Vec<String>,
    /// What was decided last trusts nothing that the service said before.
    displaced: bool,
    stopping: CancellationToken,
}

/// Performs a round.
pub async fn round(
    context: Arc<Context>,
    key: ObjectKey,
    memory: Option<Box<Memory>>,
    permit: Option<Permit>,
    stopping: CancellationToken,
) -> Finished {
    let span = info_span!("round", object = %key);
    let settings = context.settings.clone();
    let memory = memory.map_or_else(|| Memory::new(&settings), |memory| *memory);
    let mut shell = Shell {
        object: Object::new(context.client.clone(), key.clone(), context.kube_deadline),
        context,
        key,
        copy: None,
        credentials: None,
        permit,
        versions: Vec::new(),
        displaced: false,
        stopping,
    };
    async move {
        let mut round = Round::new(&settings, memory, shell.permit.is_some());
        let mut response = Response::Started;
        let end = loop {
            if shell.stopping.is_cancelled() && shell.permit.take().is_some() {
                round.lose_permit();
            }
            let moment = shell.moment(&round, &response);
            let effect = round.step(response, &moment);
            shell.displaced = moment.displaced;
            debug!(effect = name(&effect), "next");
            #[cfg(debug_assertions)]
            let failpoint = failpoint::before(&effect, shell.copy.as_deref());
            response = match effect {
                Effect::Read => match shell.read().await {
                    Ok(response) => response,
                    Err(error) => {
                        warn!(%error, "this StreamSession is left alone until it is edited");
                        break End::After(UNREADABLE_RETRY);
                    }
                },
                Effect::Credentials => shell.credentials(&mut round).await,
                Effect::AskTime => shell.ask_time(&round).await,
                Effect::Permit => Response::Permit(shell.take_permit(&round)),
                Effect::ReadOwner(owner) => shell.read_owner(&owner).await,
                Effect::WriteStatus(status, notices) => shell.write_status(&status, notices).await,
                Effect::AddFinalizer => shell.write_finalizer(true).await,
                Effect::RemoveFinalizer => shell.write_finalizer(false).await,
                Effect::Call(call) => {
                    let answer = shell.call(&call).await;
                    shell.limit_batches(&mut round);
                    Response::Answer(answer)
                }
                Effect::End(end) => break end,
            };
            #[cfg(debug_assertions)]
            failpoint::after(failpoint);
        };
        let bucket = shell.bucket(&round);
        shell.context.metrics.reconcile(end);
        let memory = round.into_memory();
        let open = memory.open_instances();
        if end == End::Gone && !open.is_empty() {
            // Somebody took the finalizer off, or the API server raced with a deletion
            // (kubernetes/kubernetes#77988): nobody remembers them now.
            let ids: Vec<_> = open.into_iter().map(InstanceId::as_str).collect();
            warn!(
                ?ids,
                "the object is gone while a call for these instances was under way: look in the console whether they are in the session"
            );
        }
        Finished { end, memory: Box::new(memory), versions: shell.versions, bucket }
    }
    .instrument(span)
    .await
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::Credentials => "credentials",
        Effect::AskTime => "ask time",
        Effect::Permit => "permit",
        Effect::ReadOwner(_) => "read owner",
        Effect::WriteStatus(..) => "write status",
        Effect::AddFinalizer => "add finalizer",
        Effect::RemoveFinalizer => "remove finalizer",
        Effect::Call(_) => "call",
        Effect::End(_) => "end",
    }
}

impl Shell {
    fn moment(&self, round: &Round<'_>, response: &Response) -> Moment {
        let text = match response {
            Response::Object(Some(view)) => Some(view.endpoint()),
            _ => round.endpoint(),
        };
        let endpoint = text.and_then(|text| self.endpoint(text).ok());
        let service = endpoint.and_then(|endpoint| self.context.gs.now(&endpoint)).map(ServiceTime);
        let place = match response {
            Response::Object(Some(view)) => Some(view.place()),
            _ => round.place(),
        };
        Moment {
            service,
            elapsed: self.context.started.elapsed(),
            nonce: uuid::Uuid::new_v4().as_u128(),
            standing: place
                .map_or(Standing::Alone, |place| self.context.claims().standing(&self.key, &place)),
            displaced: self.context.claims().was_displaced(&self.key),
            may_act: self.context.fence.is_open(),
        }
    }

    fn endpoint(&self, text: &str) -> Result<Endpoint, InvalidEndpoint> {
        Endpoint::from_target(text, self.context.allow_insecure_endpoint)
    }

    fn bucket(&self, round: &Round<'_>) -> Option<Bucket> {
        Some(Bucket {
            account: self.credentials.as_ref()?.name().to_owned(),
            endpoint: round.endpoint()?.to_owned(),
        })
    }

    async fn read(&mut self) -> Result<Response, ledger::Unreadable> {
        let outcome = self.object.read().await;
        self.respond(outcome)
    }

    fn respond(&mut self, outcome: Outcome) -> Result<Response, ledger::Unreadable> {
        Ok(match outcome {
            Outcome::Copy(copy) => {
                let view = ledger::view(&copy, &self.context.defaults)?;
                self.context
                    .claims()
                    .set(&self.key, digest::claim(&copy, &self.context.defaults.endpoint));
                self.copy = Some(copy);
                Response::Object(Some(Box::new(view)))
            }
            Outcome::Gone => Response::Object(None),
            Outcome::Conflict => Response::Conflict,
            Outcome::Failed => Response::Failed,
        })
    }

    fn wrote(&mut self, outcome: Outcome) -> Response {
        let result = match &outcome {
            Outcome::Copy(_) => "written",
            Outcome::Gone => "gone",
            Outcome::Conflict => "conflict",
            Outcome::Failed => "failed",
        };
        self.context.metrics.write(result);
        let response = self.respond(outcome).unwrap_or(Response::Failed);
        if let (Response::Object(Some(_)), Some(copy)) = (&response, &self.copy) {
            self.versions.extend(copy.metadata.resource_version.clone());
        }
        response
    }

    /// The object that drives the session; none if it can't be read now.
    async fn read_owner(&self, owner: &str) -> Response {
        let Some((namespace, name)) = owner.split_once('/') else { return Response::Owner(None) };
        let key = ObjectKey { namespace: namespace.into(), name: name.into() };
        let outcome =
            Object::new(self.context.client.clone(), key, self.context.kube_deadline).read().await;
        let Outcome::Copy(copy) = outcome else { return Response::Owner(None) };
        Response::Owner(ledger::view(&copy, &self.context.defaults).ok().map(Box::new))
    }

    async fn write_status(&mut self, status: &Status, notices: Vec<Notice>) -> Response {
        let Some(copy) = &self.copy else { return Response::Failed };
        let before = copy.status.as_ref().and_then(ledger::said);
        let outcome = self.object.write_status(copy, status).await;
        if let (Outcome::Copy(written), Some(after)) = (&outcome, &status.conditions) {
            self.context.events.transition(written, before.as_ref(), after);
            if self.displaced {
                self.context.claims().reinstate(&self.key);
            }
            for notice in notices {
                self.context.metrics.notice(&notice);
                self.context.events.notice(copy, written, &notice);
            }
        }
        self.wrote(outcome)
    }

    async fn write_finalizer(&mut self, present: bool) -> Response {
        let Some(copy) = &self.copy else { return Response::Failed };
        let outcome = self.object.write_finalizer(copy, present).await;
        self.wrote(outcome)
    }

    async fn credentials(&mut self, round: &mut Round<'_>) -> Response {
        let Some(copy) = &self.copy else { return Response::Failed };
        let secret = copy.spec.credentials_ref.as_ref().map(|reference| reference.name.as_str());
        let store = &self.context.credentials;
        let found = match store.get(&self.context.client, &self.key.namespace, secret).await {
            // A namespace that is deleted may lose its Secret before its sessions.
            Err(error) if copy.metadata.deletion_timestamp.is_some() => {
                secret.and_then(|secret| store.last_good(&self.key.namespace, secret)).ok_or(error)
            }
            found => found,
        };
        match found {
            Ok(credentials) => {
                let account = credentials.name().to_owned();
                self.credentials = Some(credentials);
                if let Some(permit) = &self.permit
                    && Some(permit.bucket()) != self.bucket(round).as_ref()
                {
                    // Granted for another account: the spec or the Secret changed while it waited.
                    self.permit = None;
                    round.lose_permit();
                }
                self.limit_batches(round);
                Response::Credentials(Ok(account))
            }
            Err(error) => Response::Credentials(Err(error.to_string())),
        }
    }

    fn limit_batches(&self, round: &mut Round<'_>) {
        if let Some(credentials) = &self.credentials {
            round.limit_batches(self.context.batch_size_max(credentials.name()));
        }
    }

    async fn ask_time(&self, round: &Round<'_>) -> Response {
        let answer = match round.endpoint().map(|text| self.endpoint(text)) {
            Some(Ok(endpoint)) => self
                .context
                .gs
                .ask_time(&endpoint)
                .await
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the endpoint is not known".to_owned()),
        };
        if let Err(error) = &answer {
            debug!(%error, "the service can't be asked for its time; trying again");
        }
        Response::Time(answer)
    }

    /// A stop lets the call that is under way settle, and starts no other.
    fn take_permit(&mut self, round: &Round<'_>) -> bool {
        if !self.stopping.is_cancelled() && self.permit.is_none() {
            self.permit =
                self.bucket(round).and_then(|bucket| self.context.limiter.try_take(&bucket));
        }
        self.permit.is_some()
    }

    async fn call(&mut self, call: &Journalled) -> Answer {
        let (journal, target) = (call.journal(), call.target());
        let (Some(credentials), Some(mut permit)) = (self.credentials.clone(), self.permit.take())
        else {
            return Answer::not_sent("NotReady", "the call lost its permit or its credentials");
        };
        let endpoint = match self.endpoint(&target.endpoint) {
            Ok(endpoint) => endpoint,
            Err(error) => return Answer::not_sent("InvalidEndpoint", &error.to_string()),
        };
        permit.spent_until(Instant::now() + self.context.call_deadline + WINDOW);
        let request = Switch {
            endpoint,
            region: target.region.clone(),
            session: target.session.clone(),
            operation: journal.operation,
            instances: journal.instances.clone(),
            timestamp: journal.start_time.0,
            credentials,
        };
        let answer = self.context.gs.switch(&request).await;
        self.context
            .metrics
            .clock_ahead
            .set(self.context.gs.node_is_ahead_seconds(&request.endpoint));
        if answer.verdict != Verdict::Unanswered {
            permit.spent_until(Instant::now() + WINDOW);
        }
        if answer.verdict == Verdict::NothingDone(NothingDone::Throttled)
            && let Some(quota) = permit.throttled()
        {
            warn!(
                calls_per_second = quota,
                "the service limits the rate: others draw on the same quota; slowing down"
            );
        }
        drop(permit);
        if is_too_large(&answer.code) {
            self.context.too_large(request.credentials.name(), journal.instances.len());
        }
        // A key that is good but may not make the call, or a signature that came too late, is no
        // reason to read the key again.
        if answer.code.starts_with("AuthFailure") && answer.code != "AuthFailure.SignatureExpire" {
            self.context.credentials.invalidate(&request.credentials);
        }
        self.report(call, &answer);
        answer
    }

    fn report(&self, call: &Journalled, answer: &Answer) {
        let journal = call.journal();
        self.context.metrics.call(journal, answer);
        let ids = journal.instances.len();
        let session = call.target().session.as_str();
        let request_id = &answer.request_id;
        if let Verdict::Processed { succeeded, .. } = &answer.verdict {
            info!(operation = ?journal.operation, session, ids, succeeded = succeeded.len(), request_id, "called");
        } else {
            let (code, message) = (&answer.code, &answer.message);
            warn!(operation = ?journal.operation, session, ids, code, message, request_id, "called, and it failed");
        }
    }
}
