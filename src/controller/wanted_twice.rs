//! Instances whose attach fails because another object of another session wants them, too: who they
//! are is found out by reading all objects once, page by page, and both are told by an Event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt};
use streamsession_core::ids::InstanceId;
use streamsession_core::object::Scope;
use tokio::time::timeout;
use tracing::debug;

use super::context::{Context, scopes};
use super::watch::{PAGE, PAGE_DEADLINES};
use crate::api::v1alpha1::StreamSession;

/// An object that wants some of the instances that were asked for.
struct Wanter {
    object: StreamSession,
    ids: BTreeSet<InstanceId>,
}

/// Tells the objects of different sessions that want the same of these instances. Best effort: what
/// can't be read is told at the next failure.
pub(super) async fn tell(context: Arc<Context>, ids: BTreeSet<InstanceId>) {
    let mut wanters = Vec::new();
    for scope in scopes(&context.namespaces) {
        match find(&context, &scope, &ids).await {
            Ok(found) => wanters.extend(found),
            Err(error) => {
                debug!(error, "who else wants an instance could not be found out");
                return;
            }
        }
    }
    for (wanter, note) in notes(&wanters) {
        context.events.wanted_twice(&wanter.object, &note);
    }
}

/// The objects of that scope that want some of `ids`.
async fn find(
    context: &Context,
    scope: &Scope,
    ids: &BTreeSet<InstanceId>,
) -> Result<Vec<Wanter>, String> {
    let client = context.client.clone();
    let api: Api<DeserializeGuard<StreamSession>> = match scope {
        Scope::All => Api::all(client),
        Scope::Namespace(namespace) => Api::namespaced(client, namespace),
    };
    let mut parameters = ListParams::default().limit(PAGE);
    let mut wanters = Vec::new();
    loop {
        let page = timeout(context.kube_deadline * PAGE_DEADLINES, api.list(&parameters)).await;
        let page = page.map_err(|late| late.to_string())?.map_err(|error| error.to_string())?;
        wanters.extend(page.items.into_iter().filter_map(|object| wanter(object.0.ok()?, ids)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(wanters),
        }
    }
}

fn wanter(object: StreamSession, ids: &BTreeSet<InstanceId>) -> Option<Wanter> {
    let wanted = object.spec.slave_instance_ids.iter().filter_map(|id| InstanceId::parse(id).ok());
    let wanted: BTreeSet<_> = wanted.filter(|id| ids.contains(id)).collect();
    let is_one = !wanted.is_empty() && object.metadata.deletion_timestamp.is_none();
    is_one.then_some(Wanter { object, ids: wanted })
}

/// What is told to whom. Of an object in another namespace nothing is told but that it is there.
fn notes(wanters: &[Wanter]) -> Vec<(&Wanter, String)> {
    let mut notes = Vec::new();
    for wanter in wanters {
        let mut twice = BTreeMap::<String, BTreeSet<&InstanceId>>::new();
        for other in wanters.iter().filter(|other| is_of_another_session(wanter, other)) {
            let mut shared = wanter.ids.intersection(&other.ids).peekable();
            if shared.peek().is_some() {
                twice.entry(name_of(wanter, other)).or_default().extend(shared);
            }
        }
        for (other, ids) in twice {
            let names = streamsession_core::conditions::names(&Vec::from_iter(ids));
            notes.push((
                wanter,
                format!(
                    "{other} wants {names}, too, in another session, and an attach of one of the two has failed. Name each instance in one session."
                ),
            ));
        }
    }
    notes
}

fn is_of_another_session(wanter: &Wanter, other: &Wanter) -> bool {
    wanter.object.spec.session_id != other.object.spec.session_id
}

fn name_of(wanter: &Wanter, other: &Wanter) -> String {
    if wanter.object.namespace() == other.object.namespace() {
        format!("StreamSession {}", other.object.name_any())
    } else {
        "A StreamSession of another namespace".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn object(namespace: &str, name: &str, session: &str, ids: &[&str]) -> StreamSession {
        let object = json!({
            "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"sessionId": session, "slaveInstanceIds": ids},
        });
        serde_json::from_value(object).unwrap()
    }

    /// What is told, after the name of whom it is told to, of `a` and `b`.
    fn told(objects: Vec<StreamSession>) -> Vec<String> {
        let ids = ["a", "b"].map(|id| InstanceId::parse(id).unwrap()).into();
        let wanters: Vec<_> =
            objects.into_iter().filter_map(|object| wanter(object, &ids)).collect();
        let notes = notes(&wanters).into_iter();
        notes.map(|(wanter, note)| format!("{}: {note}", wanter.object.name_any())).collect()
    }

    #[test]
    fn both_are_told_whose_sessions_differ() {
        let told = told(vec![
            object("x", "one", "1", &["a", "b", "c"]),
            object("x", "two", "2", &["a", "b"]),
            object("x", "same", "1", &["c"]),
        ]);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("one: StreamSession two wants a, b, too"), "{told:?}");
        assert!(told[1].starts_with("two: StreamSession one wants a, b, too"), "{told:?}");
    }

    #[test]
    fn nobody_is_told_of_a_contender_one_that_goes_or_what_nobody_asked_for() {
        let mut goes = object("x", "goes", "2", &["a"]);
        goes.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(
            told(vec![
                object("x", "one", "1", &["a", "c"]),
                object("x", "same", "1", &["a"]),
                object("x", "other", "2", &["c"]),
                goes,
            ]),
            [""; 0]
        );
    }

    #[test]
    fn no_name_of_another_namespace_is_told() {
        let told = told(vec![
            object("x", "one", "1", &["a"]),
            object("y", "secret", "2", &["a"]),
            object("y", "hidden", "3", &["a"]),
        ]);
        assert!(
            told[0].starts_with("one: A StreamSession of another namespace wants a, too"),
            "{told:?}"
        );
    }
}
