//! The objects of the faked API server: revisions, preconditions, the status subresource,
//! finalizers and the history, as the real one keeps them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

pub type Answer = Result<Value, Refusal>;

/// A `Status` that says no.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

fn refused(code: u16, reason: &'static str, message: impl Into<String>) -> Answer {
    Err(Refusal { code, reason, message: message.into() })
}

/// The name of an object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// One change: what a watch sends.
#[derive(Clone, Debug)]
pub struct Revision {
    pub number: u64,
    pub key: Key,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub change: &'static str,
    pub object: Value,
}

/// Every object, and its history.
#[derive(Debug, Default)]
pub struct Store {
    objects: BTreeMap<Key, Value>,
    history: Vec<Revision>,
    /// What is before is compacted: a request for it gets 410.
    compacted: u64,
}

impl Store {
    pub fn revision(&self) -> u64 {
        self.history.last().map_or(0, |last| last.number)
    }

    /// Forgets the history: a watch from before answers 410.
    pub fn compact(&mut self) {
        self.compacted = self.revision();
    }

    pub fn is_compacted(&self, revision: u64) -> bool {
        revision < self.compacted
    }

    /// What happened after that revision.
    pub fn since(&self, revision: u64) -> &[Revision] {
        &self.history[self.history.partition_point(|entry| entry.number <= revision)..]
    }

    pub fn peek(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// The objects of one kind in one namespace.
    pub fn within<'a>(
        &'a self,
        resource: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        let from = Key::new(resource, namespace, "");
        let objects = self
            .objects
            .range(from..)
            .take_while(move |(key, _)| key.resource == resource && key.namespace == namespace);
        objects.map(|(_, object)| object)
    }

    /// The objects as they were at that revision, by name.
    pub fn at(
        &self,
        revision: u64,
        resource: &str,
        namespace: Option<&str>,
    ) -> BTreeMap<Key, Value> {
        let mut objects = BTreeMap::new();
        let until = self.history.partition_point(|entry| entry.number <= revision);
        for entry in &self.history[..until] {
            if entry.key.resource != resource
                || namespace.is_some_and(|namespace| namespace != entry.key.namespace)
            {
                continue;
            }
            if entry.change == "DELETED" {
                objects.remove(&entry.key);
            } else {
                objects.insert(entry.key.clone(), entry.object.clone());
            }
        }
        objects
    }

    pub fn get(&self, key: &Key) -> Answer {
        self.objects.get(key).cloned().map_or_else(|| not_found(key), Ok)
    }

    pub fn create(&mut self, key: &Key, mut object: Value) -> Answer {
        if self.objects.contains_key(key) {
            return refused(
                409,
                "AlreadyExists",
                format!("{} {:?} already exists", key.resource, key.name),
            );
        }
        object["metadata"]["name"] = json!(key.name);
        object["metadata"]["namespace"] = json!(key.namespace);
        object["metadata"]["uid"] = json!(Uuid::new_v4().to_string());
        object["metadata"]["creationTimestamp"] =
            json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        if key.resource == "streamsessions" {
            object["metadata"]["generation"] = json!(1);
            // The schema's default; what the creator says of the status is ignored.
            object["status"] = json!({"observedGeneration": -1});
        }
        Ok(self.commit(key, "ADDED", object))
    }

    /// `PUT …/status`.
    pub fn replace_status(&mut self, key: &Key, body: &Value) -> Answer {
        let stored = self.get(key)?;
        if !body["metadata"]["resourceVersion"].is_string() {
            return refused(
                422,
                "Invalid",
                "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
            );
        }
        if is_other(&body["metadata"]["uid"], &stored["metadata"]["uid"]) {
            return refused(
                409,
                "Conflict",
                "Precondition failed: UID in precondition differs from UID in object meta",
            );
        }
        same_version(body, &stored)?;
        let mut object = stored.clone();
        object["status"] = body["status"].clone();
        Ok(if object == stored { stored } else { self.commit(key, "MODIFIED", object) })
    }

    /// A merge patch of the object itself: of its status nothing is taken.
    pub fn patch(&mut self, key: &Key, body: &Value) -> Answer {
        let stored = self.get(key)?;
        if is_other(&body["metadata"]["uid"], &stored["metadata"]["uid"]) {
            return refused(422, "Invalid", "metadata.uid: Invalid value: field is immutable");
        }
        same_version(body, &stored)?;
        let mut object = stored.clone();
        merge(&mut object, body);
        object["status"] = stored["status"].clone();
        let terminating = !stored["metadata"]["deletionTimestamp"].is_null();
        let added = finalizers(&object).any(|name| finalizers(&stored).all(|known| known != name));
        if terminating && added {
            return refused(
                422,
                "Invalid",
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
                 being deleted",
            );
        }
        if object["spec"] != stored["spec"] {
            raise_generation(&mut object);
        }
        if terminating && finalizers(&object).next().is_none() {
            return Ok(self.commit(key, "DELETED", object));
        }
        Ok(if object == stored { stored } else { self.commit(key, "MODIFIED", object) })
    }

    pub fn delete(&mut self, key: &Key) -> Answer {
        let mut object = self.get(key)?;
        if finalizers(&object).next().is_none() {
            return Ok(self.commit(key, "DELETED", object));
        }
        if !object["metadata"]["deletionTimestamp"].is_null() {
            return Ok(object);
        }
        object["metadata"]["deletionTimestamp"] =
            json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        raise_generation(&mut object);
        Ok(self.commit(key, "MODIFIED", object))
    }

    /// A person removes the finalizers and deletes the object.
    pub fn delete_by_force(&mut self, key: &Key) -> Answer {
        let stripped = self.patch(key, &json!({"metadata": {"finalizers": null}}))?;
        if self.objects.contains_key(key) { self.delete(key) } else { Ok(stripped) }
    }

    fn commit(&mut self, key: &Key, change: &'static str, mut object: Value) -> Value {
        let number = self.revision() + 1;
        object["metadata"]["resourceVersion"] = json!(number.to_string());
        if change == "DELETED" {
            self.objects.remove(key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        self.history.push(Revision { number, key: key.clone(), change, object: object.clone() });
        object
    }
}

fn not_found(key: &Key) -> Answer {
    refused(404, "NotFound", format!("{} {:?} not found", key.resource, key.name))
}

fn same_version(body: &Value, stored: &Value) -> Result<(), Refusal> {
    if is_other(&body["metadata"]["resourceVersion"], &stored["metadata"]["resourceVersion"]) {
        let message = "Operation cannot be fulfilled: the object has been modified; please apply \
                       your changes to the latest version and try again";
        return Err(Refusal { code: 409, reason: "Conflict", message: message.into() });
    }
    Ok(())
}

/// Whether a precondition is given and does not hold.
fn is_other(wanted: &Value, stored: &Value) -> bool {
    !wanted.is_null() && wanted != stored
}

fn finalizers(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten()
}

fn raise_generation(object: &mut Value) {
    object["metadata"]["generation"] =
        json!(object["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, value) in patch {
        match target.as_object_mut() {
            Some(target) if value.is_null() => drop(target.remove(field)),
            _ => merge(&mut target[field], value),
        }
    }
}
