//! One reconcile of one object: performs the effects that the core asks for and feeds the responses
//! back, until it is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use streamsession_core::answer::{Answer, Verdict};
use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::Ledger;
use streamsession_core::object::ObjectKey;
use streamsession_core::reconcile::{Effect, Journalled, Notice, Requeue, Response, Status, View};
use streamsession_core::scheduler::run::Lesson;
use streamsession_core::scheduler::{Facts, Run};
use streamsession_core::time::ServiceTime;
use tracing::{Instrument, debug, info, info_span, warn};

use super::context::Context;
#[cfg(debug_assertions)]
use super::failpoint;
use super::object::{Object, RequestResult};
use crate::api::v1alpha1::StreamSession;
use crate::api::{self, Defaults, Unreadable};
use crate::gs::{Credentials, Switch};

/// An object that can't be read is looked at again after this time, besides at each change.
const UNREADABLE_RETRY: Duration = Duration::from_mins(5);

/// A reconcile that is over.
pub struct Finished {
    /// It goes back to the scheduler.
    pub run: Box<Run>,
    /// When the object is due again.
    pub requeue: Requeue,
}

/// What the effects of a reconcile work on.
struct Shell {
    context: Arc<Context>,
    object: Object,
    key: ObjectKey,
    copy: Option<Box<StreamSession>>,
    credentials: Option<Credentials>,
}

/// Drives a run until it is done.
pub async fn drive(context: Arc<Context>, run: Box<Run>) -> Finished {
    let key = run.key().clone();
    let span = info_span!("reconcile", object = %key);
    let object = Object::new(context.client.clone(), key.clone(), context.kube_deadline);
    let shell = Shell { context, object, key, copy: None, credentials: None };
    shell.drive(run).instrument(span).await
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::Credentials => "credentials",
        Effect::AskTime => "ask time",
        Effect::Permit(_) => "permit",
        Effect::ReadClaimant(_) => "read claimant",
        Effect::WriteStatus(..) => "write status",
        Effect::AddFinalizer => "add finalizer",
        Effect::RemoveFinalizer => "remove finalizer",
        Effect::Call(_) => "call",
        Effect::Done(_) => "end",
    }
}

impl Shell {
    async fn drive(mut self, mut run: Box<Run>) -> Finished {
        let mut scheduler = self.context.scheduler.clone();
        let mut response = Response::Started;
        let requeue = loop {
            let facts = self.facts(&run, &response);
            let effect = run.step(&mut scheduler, response, facts);
            debug!(effect = name(&effect), "next");
            #[cfg(debug_assertions)]
            let failpoint = failpoint::before(&effect, self.copy.as_deref());
            let performed = match effect {
                Effect::Read => {
                    let result = self.object.read().await;
                    self.respond(result)
                }
                Effect::Credentials => Ok(self.credentials().await),
                Effect::AskTime => Ok(self.ask_time().await),
                Effect::Permit(_) => Ok(run.take_permit(&mut scheduler, facts.now)),
                Effect::ReadClaimant(key) => Ok(self.read_claimant(key).await),
                Effect::WriteStatus(status, notices) => {
                    Ok(self.write_status(&status, notices).await)
                }
                Effect::AddFinalizer => Ok(self.add_finalizer().await),
                Effect::RemoveFinalizer => Ok(self.remove_finalizer().await),
                Effect::Call(call) => Ok(Response::Answer(self.call(&call).await)),
                Effect::Done(requeue) => break requeue,
            };
            #[cfg(debug_assertions)]
            failpoint::after(failpoint);
            response = match performed {
                Ok(response) => response,
                Err(error) => {
                    warn!(%error, "can't read this StreamSession; trying again in five minutes, or when it is edited");
                    break Requeue::After(UNREADABLE_RETRY);
                }
            };
            for lesson in run.take_lessons() {
                self.report_lesson(lesson);
            }
        };
        if requeue == Requeue::Never {
            report_forgotten(&run.open_instances());
        }
        Finished { run, requeue }
    }

    fn facts(&self, run: &Run, response: &Response) -> Facts {
        // Before it is read, the object may be about another service.
        let service =
            run.endpoint(response).and_then(|_| self.context.gs.now(&self.context.endpoint));
        Facts {
            now: self.context.scheduler.now(),
            service: service.map(ServiceTime),
            nonce: uuid::Uuid::new_v4().as_u128(),
            may_act: self.context.fence.is_open(),
        }
    }

    fn respond(&mut self, result: RequestResult) -> Result<Response, Unreadable> {
        Ok(match result {
            RequestResult::Copy(copy) => {
                let view = api::view(&copy, &self.context.defaults)?;
                self.copy = Some(copy);
                Response::Object(Some(Box::new(view)))
            }
            RequestResult::Gone => Response::Object(None),
            RequestResult::Conflict => Response::Conflict,
            RequestResult::Failed => Response::Failed,
        })
    }

    fn wrote(&mut self, result: RequestResult) -> Response {
        let label = match &result {
            RequestResult::Copy(_) => "written",
            RequestResult::Gone => "gone",
            RequestResult::Conflict => "conflict",
            RequestResult::Failed => "failed",
        };
        self.context.metrics.write(label);
        self.respond(result).unwrap_or(Response::Failed)
    }

    /// Another object that claims the session; none if it can't be read now.
    async fn read_claimant(&self, key: ObjectKey) -> Response {
        let client = self.context.client.clone();
        let other = Object::new(client, key.clone(), self.context.kube_deadline);
        let view = match other.read().await {
            RequestResult::Copy(copy) => api::view(&copy, &self.context.defaults).ok(),
            RequestResult::Gone | RequestResult::Conflict | RequestResult::Failed => None,
        };
        Response::Claimant(key, view.map(Box::new))
    }

    async fn write_status(&mut self, status: &Status, notices: Vec<Notice>) -> Response {
        let Some(copy) = &self.copy else { return Response::Failed };
        let before = copy.status.as_ref().and_then(api::conditions);
        for notice in &notices {
            self.context.events.log(copy, notice);
        }
        let result = self.object.write_status(copy, status).await;
        if let (RequestResult::Copy(written), Some(after)) = (&result, &status.conditions) {
            self.context.events.transition(written, before.as_ref(), after);
            for notice in &notices {
                self.tell(copy, written, notice);
            }
        }
        self.wrote(result)
    }

    fn tell(&self, before: &StreamSession, written: &StreamSession, notice: &Notice) {
        self.context.metrics.notice(notice);
        self.context.events.notice(before, written, notice);
    }

    async fn add_finalizer(&mut self) -> Response {
        let Some(copy) = &self.copy else { return Response::Failed };
        let result = self.object.write_finalizer(copy, true).await;
        self.wrote(result)
    }

    /// The object goes. With `Orphan`, what its ledger still names stays where it is, and is told.
    async fn remove_finalizer(&mut self) -> Response {
        let Some(copy) = &self.copy else { return Response::Failed };
        let left = orphans(copy, &self.context.defaults);
        let notice = (!left.is_empty()).then_some(Notice::Orphaned(left));
        if let Some(notice) = &notice {
            self.context.events.log(copy, notice);
        }
        let result = self.object.write_finalizer(copy, false).await;
        if let (RequestResult::Copy(written), Some(notice)) = (&result, &notice) {
            self.tell(copy, written, notice);
        }
        self.wrote(result)
    }

    async fn credentials(&mut self) -> Response {
        let Some(copy) = &self.copy else { return Response::Failed };
        let secret = copy.spec.credentials_ref.as_ref().map(|reference| reference.name.as_str());
        let (store, uid) = (&self.context.credentials, copy.metadata.uid.as_deref());
        let uid = uid.unwrap_or_default();
        let found = match store.get(&self.context.client, &self.key, uid, secret).await {
            // A namespace that is deleted may lose its Secret before its StreamSessions; and while the
            // API server can't be asked, nothing says that the keys of before are wrong.
            Err(error) if copy.metadata.deletion_timestamp.is_some() || error.is_transient() => {
                secret.and_then(|secret| store.last_good(&self.key, uid, secret)).ok_or(error)
            }
            found => found,
        };
        Response::Credentials(match found {
            Ok(credentials) => {
                let node = || jiff::Timestamp::now().as_second();
                let time = self.context.gs.now(&self.context.endpoint).unwrap_or_else(node);
                let identity = self.context.identities.of(&credentials, time).await;
                self.credentials = Some(credentials);
                Ok(identity)
            }
            Err(error) => Err(error.to_string()),
        })
    }

    async fn ask_time(&self) -> Response {
        let answer = self.context.gs.ask_time(&self.context.endpoint).await;
        let answer = answer.map(|_| ()).map_err(|error| error.to_string());
        if let Err(error) = &answer {
            debug!(%error, "the service can't be asked for its time; trying again");
        }
        Response::Time(answer)
    }

    async fn call(&self, call: &Journalled) -> Answer {
        let (journal, target) = (call.journal(), call.target());
        let Some(credentials) = self.credentials.clone() else {
            return Answer::not_sent("NotReady", "the call lost its credentials");
        };
        let request = Switch {
            endpoint: self.context.endpoint.clone(),
            region: target.region.clone(),
            session: target.session.clone(),
            operation: journal.operation,
            instances: journal.instances.clone(),
            timestamp: journal.start_time.0,
            credentials,
        };
        let answer = self.context.gs.switch(&request).await;
        let clock_ahead = self.context.gs.node_is_ahead_seconds(&request.endpoint);
        self.context.metrics.clock_ahead.set(clock_ahead);
        if answer.rejects_key() {
            // A key that was rotated takes effect at once.
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
            let resync = journal.resync;
            warn!(operation = ?journal.operation, resync, session, ids, code, message, request_id, "called, and it failed");
        }
    }

    /// What the service teaches about the calls to come.
    fn report_lesson(&self, lesson: Lesson) {
        match lesson {
            Lesson::Throttled { calls_per_second } => warn!(
                calls_per_second,
                "the service limits the rate of calls: others use the same quota. Slowing down"
            ),
            Lesson::TooLarge { ids, batch_size } => warn!(
                ids,
                batch_size,
                "the service takes no calls of this size. --batch-size may be set to what it takes"
            ),
            Lesson::ResyncFailed { failure, instances } => {
                self.context.metrics.resync_failures.inc();
                if let Some(copy) = &self.copy {
                    self.context.events.resync_failed(copy, &failure, &instances);
                }
            }
        }
    }
}

/// The instances that the ledger of `copy` still names.
pub(super) fn orphans(copy: &StreamSession, defaults: &Defaults) -> Vec<InstanceId> {
    let ids = |view: View| -> BTreeSet<_> {
        view.ledger().into_iter().flat_map(Ledger::tracked).cloned().collect()
    };
    api::view(copy, defaults).map(ids).unwrap_or_default().into_iter().collect()
}

/// The object is gone. If a call of it is open, somebody took the finalizer off, or the API server
/// raced with a deletion (kubernetes/kubernetes#77988): nobody remembers its instances now.
fn report_forgotten(open: &[&InstanceId]) {
    if !open.is_empty() {
        let ids: Vec<_> = open.iter().map(|id| id.as_str()).collect();
        warn!(
            ?ids,
            "the object is gone while a call for these instances was under way: look in the console \
             whether they are in the session"
        );
    }
}
