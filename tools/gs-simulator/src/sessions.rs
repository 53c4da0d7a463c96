//! The sessions and their slave phones, and what the service answers where its documentation is silent. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::{Operation, Switch};

/// What the service answers to an operation that has nothing to do. Published nowhere, so a client must live with both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Repeated {
    /// The id is listed as a success.
    #[default]
    Success,
    /// The id is listed as a failure.
    Failure,
}

/// Which of the possible services this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Adding a phone that is in the session.
    pub add_present: Repeated,
    /// Removing a phone that is not in the session.
    pub remove_absent: Repeated,
}

/// The ids of a call, sorted by what became of them. Every id is in exactly one list, once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Switched {
    pub(crate) succeeded: Vec<String>,
    pub(crate) failed: Vec<String>,
}

/// No such session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotFound;

/// Every session with its members.
#[derive(Debug)]
pub(crate) struct Sessions {
    members: BTreeMap<String, BTreeSet<String>>,
    /// With known sessions, no others come to life by being used.
    known: BTreeSet<String>,
    /// Sessions that were ended: without this, the next call would bring them back.
    ended: BTreeSet<String>,
}

impl Sessions {
    /// With no known session, each exists from its first use on.
    pub(crate) fn new(known: BTreeSet<String>) -> Self {
        let members = known.iter().map(|session| (session.clone(), BTreeSet::new())).collect();
        Self { members, known, ended: BTreeSet::new() }
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.members
    }

    /// Brings the session to life with exactly these members.
    pub(crate) fn set(&mut self, session: &str, members: BTreeSet<String>) {
        self.ended.remove(session);
        self.members.insert(session.to_owned(), members);
    }

    /// Ends the session: its members are forgotten and later calls do not find it.
    pub(crate) fn end(&mut self, session: &str) {
        self.members.remove(session);
        self.ended.insert(session.to_owned());
    }

    /// Back to the start.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(std::mem::take(&mut self.known));
    }

    /// Carries out a call. Ids in `refusing` fail to attach.
    pub(crate) fn switch(&mut self, switch: &Switch, world: World, refusing: &BTreeSet<String>) -> Result<Switched, NotFound> {
        let comes_to_life = self.known.is_empty() && !self.ended.contains(&switch.session_id);
        if comes_to_life {
            self.members.entry(switch.session_id.clone()).or_default();
        }
        let members = self.members.get_mut(&switch.session_id).ok_or(NotFound)?;
        let mut switched = Switched::default();
        let mut seen = BTreeSet::new();
        for id in &switch.instance_ids {
            if !seen.insert(id) {
                continue;
            }
            let succeeds = match switch.operation {
                Operation::Attach => !refusing.contains(id) && (members.insert(id.clone()) || world.add_present == Repeated::Success),
                Operation::Detach => members.remove(id) || world.remove_absent == Repeated::Success,
            };
            if succeeds { &mut switched.succeeded } else { &mut switched.failed }.push(id.clone());
        }
        Ok(switched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, ids: &[&str]) -> Switch {
        Switch { session_id: "s".to_owned(), operation, instance_ids: ids.iter().map(|&id| id.to_owned()).collect() }
    }

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn a_session_exists_from_its_first_use() {
        let mut sessions = Sessions::new(BTreeSet::new());
        let switched = sessions.switch(&call(Operation::Attach, &["b", "a", "b"]), World::default(), &BTreeSet::new()).unwrap();
        assert_eq!(switched, Switched { succeeded: vec!["b".to_owned(), "a".to_owned()], failed: vec![] });
        assert_eq!(sessions.all()["s"], set(&["a", "b"]));
    }

    #[test]
    fn with_known_sessions_no_other_comes_to_life() {
        let mut sessions = Sessions::new(set(&["other"]));
        assert_eq!(sessions.switch(&call(Operation::Attach, &["a"]), World::default(), &BTreeSet::new()), Err(NotFound));
        assert_eq!(sessions.all().keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn an_ended_session_stays_gone_until_it_is_set_or_all_is_forgotten() {
        let mut sessions = Sessions::new(BTreeSet::new());
        let attach = call(Operation::Attach, &["a"]);
        sessions.end("s");
        assert_eq!(sessions.switch(&attach, World::default(), &BTreeSet::new()), Err(NotFound));

        sessions.set("s", set(&["z"]));
        assert!(sessions.switch(&attach, World::default(), &BTreeSet::new()).is_ok());
        assert_eq!(sessions.all()["s"], set(&["a", "z"]));

        sessions.end("s");
        sessions.forget();
        assert!(sessions.switch(&attach, World::default(), &BTreeSet::new()).is_ok());
    }

    #[test]
    fn the_world_decides_what_an_operation_without_work_answers() {
        for (repeated, attached, detached) in [(Repeated::Success, 1, 1), (Repeated::Failure, 0, 0)] {
            let world = World { add_present: repeated, remove_absent: repeated };
            let mut sessions = Sessions::new(BTreeSet::new());
            sessions.set("s", set(&["in"]));

            let attach = sessions.switch(&call(Operation::Attach, &["in"]), world, &BTreeSet::new()).unwrap();
            let detach = sessions.switch(&call(Operation::Detach, &["out"]), world, &BTreeSet::new()).unwrap();

            assert_eq!((attach.succeeded.len(), detach.succeeded.len()), (attached, detached), "{repeated:?}");
            assert_eq!(sessions.all()["s"], set(&["in"]));
        }
    }

    #[test]
    fn a_refusing_phone_fails_to_attach_and_its_neighbours_do_not() {
        let mut sessions = Sessions::new(BTreeSet::new());
        let refusing = set(&["bad"]);

        let attach = sessions.switch(&call(Operation::Attach, &["bad", "good"]), World::default(), &refusing).unwrap();
        let detach = sessions.switch(&call(Operation::Detach, &["bad"]), World::default(), &refusing).unwrap();

        assert_eq!((attach.succeeded, attach.failed), (vec!["good".to_owned()], vec!["bad".to_owned()]));
        assert_eq!(detach.failed, Vec::<String>::new());
        assert_eq!(sessions.all()["s"], set(&["good"]));
    }
}
