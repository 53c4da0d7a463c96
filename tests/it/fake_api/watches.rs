//! Watches of the faked API server: what each watcher is sent, in the order of the revisions, and
//! what goes wrong on the way.

use std::collections::VecDeque;
use std::io;

use axum::body::{Body, Bytes};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Log;
use super::faults::{Fault, Injector, Site};
use super::store::{Revision, Store};

/// A line of a watch, or the end of its connection by an error.
type Line = io::Result<Bytes>;

struct Watcher {
    number: u64,
    resource: String,
    namespace: Option<String>,
    sender: mpsc::UnboundedSender<Line>,
    /// It is delayed; these lines wait.
    held: Option<VecDeque<Line>>,
}

impl Watcher {
    /// False if the watcher is gone.
    fn send(&mut self, line: Line) -> bool {
        match &mut self.held {
            Some(held) => {
                held.push_back(line);
                true
            }
            None => self.sender.send(line).is_ok(),
        }
    }

    fn covers(&self, revision: &Revision) -> bool {
        self.resource == revision.key.resource
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == revision.key.namespace)
    }
}

/// What a watcher asks for.
pub struct Wanted {
    pub resource: String,
    pub namespace: Option<String>,
    /// Everything that there is, first.
    pub initial: bool,
    pub revision: u64,
}

/// All watches.
#[derive(Default)]
pub struct Watches {
    watchers: Vec<Watcher>,
    opened: u64,
    /// Changes up to here were sent.
    sent: u64,
    /// How many revisions the next initial state is old.
    stale: u64,
    /// Whether an ERROR event, not the answer's status, says that a revision is compacted.
    pub expired_by_event: bool,
    /// Watchers that are delayed, and to be released after a while.
    pub to_release: Vec<u64>,
}

impl Watches {
    /// A new watch; the body of its answer.
    pub fn open(&mut self, store: &Store, wanted: Wanted) -> Body {
        let (sender, mut lines) = mpsc::unbounded_channel();
        self.opened += 1;
        let mut watcher = Watcher {
            number: self.opened,
            resource: wanted.resource,
            namespace: wanted.namespace,
            sender,
            held: None,
        };
        let mut from = wanted.revision;
        if wanted.initial {
            let lag = std::mem::take(&mut self.stale);
            from = store.revision().saturating_sub(lag);
            for object in store.at(from, &watcher.resource, watcher.namespace.as_deref()).values() {
                watcher.send(Ok(line("ADDED", object)));
            }
            watcher.send(Ok(bookmark(from, true)));
            if lag > 0 {
                watcher.held = Some(VecDeque::new());
                self.to_release.push(watcher.number);
            }
        }
        for revision in store.since(from) {
            // What was not delivered yet comes by `deliver`.
            if revision.number <= self.sent && watcher.covers(revision) {
                watcher.send(Ok(line(revision.change, &revision.object)));
            }
        }
        self.watchers.push(watcher);
        let lines = futures::stream::poll_fn(move |context| lines.poll_recv(context));
        Body::from_stream(lines)
    }

    /// Sends what a delayed watcher waits for.
    pub fn release(&mut self, number: u64) {
        if let Some(watcher) = self.watchers.iter_mut().find(|watcher| watcher.number == number) {
            for line in watcher.held.take().into_iter().flatten() {
                watcher.send(line);
            }
        }
    }

    /// Sends what happened since the last time.
    pub fn deliver(&mut self, store: &mut Store, injector: &mut Injector, log: &mut Log) {
        let news = store.since(self.sent).to_vec();
        self.sent = store.revision();
        for revision in news {
            let mut watchers = std::mem::take(&mut self.watchers);
            watchers.retain_mut(|watcher| {
                !watcher.covers(&revision) || self.send(watcher, &revision, store, injector, log)
            });
            self.watchers = watchers;
        }
    }

    /// Sends a change to a watcher; false if its watch ends there.
    fn send(
        &mut self,
        watcher: &mut Watcher,
        revision: &Revision,
        store: &mut Store,
        injector: &mut Injector,
        log: &mut Log,
    ) -> bool {
        let fault = injector.next(&revision.key.namespace, Site::Delivery);
        let fault_text = fault.map_or_else(String::new, |fault| format!(" {fault:?}"));
        log.add(
            &revision.key.namespace,
            format!(
                "  watch {} {} {}{fault_text}",
                watcher.number, revision.change, revision.number
            ),
        );
        let news = || line(revision.change, &revision.object);
        match fault {
            Some(Fault::Ended) => {
                watcher.send(Ok(bookmark(revision.number - 1, false)));
                return false;
            }
            Some(Fault::Broken) => {
                watcher.send(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
                return false;
            }
            Some(Fault::CutLine) => {
                watcher.send(Ok(news().slice(..news().len() / 2)));
                return false;
            }
            Some(Fault::Compacted | Fault::CompactedByEvent | Fault::CompactedAndStale(_)) => {
                store.compact();
                self.expired_by_event = fault != Some(Fault::Compacted);
                if let Some(Fault::CompactedAndStale(lag)) = fault {
                    self.stale = lag;
                }
                return false;
            }
            Some(Fault::Garbled) => return watcher.send(Ok(Bytes::from_static(b"<html>\n"))),
            Some(Fault::ErrorEvent(code)) => {
                watcher.send(Ok(error_event(code)));
                return false;
            }
            Some(Fault::Twice) => {
                watcher.send(Ok(news()));
            }
            Some(Fault::Older) => {
                watcher.send(Ok(news()));
                let earlier = store
                    .since(0)
                    .iter()
                    .rfind(|entry| entry.key == revision.key && entry.number < revision.number);
                if let Some(earlier) = earlier.filter(|earlier| earlier.change != "DELETED") {
                    watcher.send(Ok(line("MODIFIED", &earlier.object)));
                }
            }
            Some(Fault::Delayed) if watcher.held.is_none() => {
                watcher.held = Some(VecDeque::new());
                self.to_release.push(watcher.number);
            }
            _ => {}
        }
        watcher.send(Ok(news()))
    }
}

fn line(change: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": change, "object": object})))
}

fn bookmark(revision: u64, ends_initial_events: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if ends_initial_events {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = json!({
        "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession", "metadata": metadata,
    });
    line("BOOKMARK", &object)
}

/// An ERROR event of a watch.
pub fn error_event(code: u16) -> Bytes {
    line("ERROR", &super::status(code, "Error", "an error event of the test"))
}
