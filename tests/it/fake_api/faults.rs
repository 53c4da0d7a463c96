//! What goes wrong at the faked API server, and where.

use std::collections::BTreeMap;

use serde_json::Value;

/// A kind of request, told apart by what the operator wants with it; or a watch event on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    GetObject,
    /// A status with a journal, and there was none before.
    Journal,
    /// A status that ends a journal, whether it begins the next one or not.
    Settle,
    /// Any other status.
    Condition,
    FinalizerOn,
    FinalizerOff,
    GetSecret,
    /// A watch that begins with everything that there is.
    WatchStart,
    /// A watch that goes on from a revision.
    WatchResume,
    List,
    Event,
    /// A change of a StreamSession on its way to a watcher.
    Delivery,
}

impl Site {
    /// Of the watch of all namespaces, and so of no object's namespace.
    pub fn is_of_all(self) -> bool {
        matches!(self, Self::WatchStart | Self::WatchResume | Self::List)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; the answer is an error of that code.
    Status(u16),
    /// A person edits the object just before.
    Edited,
    /// A person deletes the object just before, whatever its finalizers, and creates another one of
    /// that name.
    Recreated,
    /// Nothing is done; the connection breaks.
    Unreachable,
    /// Nothing is done, and no answer comes.
    Silent,
    /// Done, but the connection breaks before the answer.
    Lost,
    /// Done, but no answer comes.
    LostSilently,
    /// No answer comes, and it is done right before the next write to that object.
    Late,
    /// Done, but the answer is cut off.
    CutOff,
    /// Nothing is done; a proxy answers 200 with a page.
    HtmlPage,
    /// A watch that begins with an ERROR event of that code, and ends.
    ErrorEvent(u16),
    /// The watch ends before the event.
    Ended,
    /// The connection of the watch breaks before the event.
    Broken,
    /// The watch ends in the middle of the event.
    CutLine,
    /// The event can't be read, and the watch goes on.
    Garbled,
    /// The event comes twice.
    Twice,
    /// The watch stands still for a while.
    Delayed,
    /// Twice, with the state before it in between, as from a server that lags.
    Older,
    /// The watch ends and can't go on: the history is compacted, which the answer's status says.
    Compacted,
    /// Likewise, but an ERROR event says it.
    CompactedByEvent,
    /// Likewise, and the list that the watcher then gets is so many revisions old.
    CompactedAndStale(u64),
}

/// A fault at a site: not in the first `skip` passes, but in the next `times`.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    pub site: Site,
    pub skip: usize,
    pub times: usize,
    pub fault: Fault,
}

/// What a `PUT …/status` does to the journal.
pub fn status_site(stored: Option<&Value>, body: &Value) -> Site {
    let call = |object: &Value| object["status"]["pendingCall"]["id"].as_str().map(str::to_owned);
    match (stored.and_then(call), call(body)) {
        (None, Some(_)) => Site::Journal,
        (Some(before), after) if after.as_ref() != Some(&before) => Site::Settle,
        _ => Site::Condition,
    }
}

/// An injection, and whether it has happened at least once.
type Injected = (Injection, bool);

/// Injects the faults of each namespace, and, under no name, those of requests about all of them.
#[derive(Debug, Default)]
pub struct Injector {
    injections: BTreeMap<String, Vec<Injected>>,
}

impl Injector {
    pub fn add(&mut self, namespace: &str, injection: Injection) {
        let namespace = if injection.site.is_of_all() { "" } else { namespace };
        self.injections.entry(namespace.to_owned()).or_default().push((injection, false));
    }

    /// What goes wrong at the next pass of that site.
    pub fn next(&mut self, namespace: &str, site: Site) -> Option<Fault> {
        let injections = self.injections.get_mut(namespace)?.iter_mut();
        for (injection, happened) in injections.filter(|(injection, _)| injection.site == site) {
            if injection.skip > 0 {
                injection.skip -= 1;
            } else if injection.times > 0 {
                injection.times -= 1;
                *happened = true;
                return Some(injection.fault);
            }
        }
        None
    }

    /// Whether each fault of the namespace, and of all, has happened at least once; some can't
    /// happen again, as when a write took effect.
    pub fn is_done(&self, namespace: &str) -> bool {
        let mut injections =
            ["", namespace].into_iter().filter_map(|name| self.injections.get(name));
        injections.all(|injections| injections.iter().all(|(_, happened)| *happened))
    }
}
