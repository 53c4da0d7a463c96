//! Instances whose attach fails because another object of another session wants them, too: who they
//! are is found out by reading all objects once, page by page, and both are told by an Event. Of
//! another namespace nobody is told anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Resource, ResourceExt};
use streamsession_core::ids::InstanceId;
use streamsession_core::object::Scope;
use tokio::time::timeout;
use tracing::debug;

use super::context::{Context, scopes};
use super::watch::{PAGE, PAGE_DEADLINES};
use crate::api::v1alpha1::StreamSession;

/// For all objects of a scope.
const DEADLINE: Duration = Duration::from_mins(5);
/// Objects that are told at one time; the others meet their failure all the same.
const TOLD_MAX: usize = 100;
/// Names in a note.
const NAMED_MAX: usize = 5;

/// An object that wants some of the instances that were asked for.
struct Wanter {
    reference: ObjectReference,
    namespace: String,
    name: String,
    session: String,
    ids: BTreeSet<InstanceId>,
}

/// Tells the objects of different sessions that want the same of these instances. Best effort: what
/// can't be read is not told.
pub(super) async fn tell(context: Arc<Context>, ids: BTreeSet<InstanceId>) {
    let mut wanters = Vec::new();
    for scope in scopes(&context.namespaces) {
        let found = timeout(DEADLINE, find(&context, &scope, &ids)).await;
        match found.unwrap_or_else(|late| Err(late.to_string())) {
            Ok(found) => wanters.extend(found),
            Err(error) => {
                debug!(error, "who else wants an instance could not be found out");
                return;
            }
        }
    }
    for (wanter, note) in notes(&wanters).into_iter().take(TOLD_MAX) {
        context.events.wanted_twice(wanter.reference.clone(), &note);
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
        wanters.extend(page.items.into_iter().filter_map(|object| wanter(&object.0.ok()?, ids)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(wanters),
        }
    }
}

fn wanter(object: &StreamSession, ids: &BTreeSet<InstanceId>) -> Option<Wanter> {
    let wanted = object.spec.slave_instance_ids.iter().filter_map(|id| InstanceId::parse(id).ok());
    let wanted: BTreeSet<_> = wanted.filter(|id| ids.contains(id)).collect();
    let is_one = !wanted.is_empty() && object.metadata.deletion_timestamp.is_none();
    is_one.then(|| Wanter {
        reference: object.object_ref(&()),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        session: object.spec.session_id.clone(),
        ids: wanted,
    })
}

/// What is told to whom.
fn notes(wanters: &[Wanter]) -> Vec<(&Wanter, String)> {
    let mut of_id = BTreeMap::<(&str, &InstanceId), Vec<&Wanter>>::new();
    for wanter in wanters {
        for id in &wanter.ids {
            of_id.entry((&wanter.namespace, id)).or_default().push(wanter);
        }
    }
    let note = |wanter: &Wanter| {
        let Wanter { namespace, session, ids, .. } = wanter;
        let (mut twice, mut others) = (Vec::new(), BTreeSet::new());
        for id in ids {
            let known = of_id.get(&(namespace.as_str(), id)).into_iter().flatten();
            let mut rivals = known.filter(|other| other.session != *session).peekable();
            if rivals.peek().is_some() {
                twice.push(id);
            }
            others.extend(rivals.take(NAMED_MAX).map(|other| other.name.as_str()));
        }
        let others: Vec<_> = others.into_iter().take(NAMED_MAX).collect();
        (!twice.is_empty()).then(|| {
            let (ids, others) = (streamsession_core::conditions::names(&twice), others.join(", "));
            let note = format!(
                "Another session of this namespace wants some of these instances, too (StreamSession {others}): {ids}. An attach has failed. Name each instance in one session."
            );
            note
        })
    };
    wanters.iter().filter_map(|wanter| Some((wanter, note(wanter)?))).collect()
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
    fn told(objects: &[StreamSession]) -> Vec<String> {
        let ids = ["a", "b"].map(|id| InstanceId::parse(id).unwrap()).into();
        let wanters: Vec<_> = objects.iter().filter_map(|object| wanter(object, &ids)).collect();
        notes(&wanters).iter().map(|(wanter, note)| format!("{}: {note}", wanter.name)).collect()
    }

    #[test]
    fn both_are_told_whose_sessions_differ() {
        let told = told(&[
            object("x", "one", "1", &["a", "b", "c"]),
            object("x", "two", "2", &["a", "b"]),
            object("x", "same", "1", &["c"]),
        ]);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("one: ") && told[0].contains("(StreamSession two): a, b."));
        assert!(told[1].starts_with("two: ") && told[1].contains("(StreamSession one): a, b."));
    }

    #[test]
    fn nobody_is_told_of_a_contender_one_that_goes_or_what_nobody_asked_for() {
        let mut goes = object("x", "goes", "2", &["a"]);
        goes.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let objects = [
            object("x", "one", "1", &["a", "c"]),
            object("x", "same", "1", &["a"]),
            object("x", "other", "2", &["c"]),
            goes,
        ];
        assert_eq!(told(&objects), [""; 0]);
    }

    #[test]
    fn nothing_of_another_namespace_is_told() {
        let objects = [object("x", "one", "1", &["a"]), object("y", "secret", "2", &["a"])];
        assert_eq!(told(&objects), [""; 0]);
    }

    #[test]
    fn a_note_names_few() {
        let many: Vec<_> = (0..500)
            .map(|number| object("x", &format!("o{number:03}"), &number.to_string(), &["a"]))
            .collect();
        let told = told(&many);
        assert_eq!(told.len(), 500);
        assert!(
            told[0].contains("(StreamSession o001, o002, o003, o004, o005): a."),
            "{}",
            told[0]
        );
    }
}
