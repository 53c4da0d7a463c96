//! What shall go wrong, and where.

use std::collections::BTreeMap;

use serde_json::Value;

/// A kind of request, told apart by what the operator wants with it; or a watch event on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    GetObject,
    /// A status that records a new call, and no call was recorded before.
    Journal,
    /// A status that takes a recorded call away, whether it records the next one or not.
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
    /// Somebody edits the object just before.
    Edited,
    /// Somebody deletes the object just before, whatever its finalizers, and creates another one of
    /// that name.
    Recreated,
    /// Nothing is done; the connection breaks.
    Unreachable,
    /// Nothing is done, and nobody answers.
    Silent,
    /// Done, but the connection breaks before the answer.
    Lost,
    /// Done, but nobody answers.
    LostSilently,
    /// Nobody answers, and it is done right before the next write to that object.
    Late,
    /// Done, but the answer is cut off.
    CutOff,
    /// Nothing is done; something in between answers 200 with a page.
    Page,
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

/// A fault at a site: after `skip` undisturbed ones, the next `times`.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    pub site: Site,
    pub skip: usize,
    pub times: usize,
    pub fault: Fault,
}

#[derive(Debug, Default)]
struct Plan {
    traps: Vec<Trap>,
    /// Whether each of them was met.
    met: Vec<bool>,
}

impl Plan {
    fn add(&mut self, trap: Trap) {
        self.traps.push(trap);
        self.met.push(false);
    }

    fn spring(&mut self, site: Site) -> Option<Fault> {
        for (trap, met) in
            self.traps.iter_mut().zip(&mut self.met).filter(|(trap, _)| trap.site == site)
        {
            if trap.skip > 0 {
                trap.skip -= 1;
            } else if trap.times > 0 {
                trap.times -= 1;
                *met = true;
                return Some(trap.fault);
            }
        }
        None
    }

    fn is_met(&self) -> bool {
        self.met.iter().all(|met| *met)
    }
}

/// What a `PUT …/status` is for.
pub fn status_site(stored: Option<&Value>, body: &Value) -> Site {
    let call = |object: &Value| object["status"]["pendingCall"]["id"].as_str().map(str::to_owned);
    match (stored.and_then(call), call(body)) {
        (None, Some(_)) => Site::Journal,
        (Some(before), after) if after.as_ref() != Some(&before) => Site::Settle,
        _ => Site::Condition,
    }
}

/// The faults of each namespace, and, under no name, of what is about all of them.
#[derive(Debug, Default)]
pub struct Plans {
    of: BTreeMap<String, Plan>,
}

impl Plans {
    pub fn add(&mut self, namespace: &str, trap: Trap) {
        let namespace = if trap.site.is_of_all() { "" } else { namespace };
        self.of.entry(namespace.to_owned()).or_default().add(trap);
    }

    pub fn spring(&mut self, namespace: &str, site: Site) -> Option<Fault> {
        self.of.get_mut(namespace)?.spring(site)
    }

    /// Whether each fault of the namespace, and of all, was met at least once; some can't be met
    /// again, as when a write took effect.
    pub fn are_met(&self, namespace: &str) -> bool {
        [namespace, ""].iter().all(|name| self.of.get(*name).is_none_or(Plan::is_met))
    }
}
