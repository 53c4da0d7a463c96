//! The sessions and their slave phones. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::{Operation, Switch};
use crate::world::{Repeated, World};

/// The ids of a call, sorted by what became of them. Every id is in exactly one list, once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Switched {
    pub(crate) succeeded: Vec<String>,
    pub(crate) failed: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unchanged {
    /// No such session.
    NotFound,
    /// The world answers this code for the whole call, because of this id.
    Repeated { code: String, id: String },
}

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

    /// Carries out a call. Ids for which `refuses` is true fail.
    pub(crate) fn switch(
        &mut self,
        switch: &Switch,
        world: &World,
        mut refuses: impl FnMut(&str) -> bool,
    ) -> Result<Switched, Unchanged> {
        let comes_to_life = self.known.is_empty() && !self.ended.contains(&switch.session_id);
        if comes_to_life {
            self.members.entry(switch.session_id.clone()).or_default();
        }
        let members = self.members.get_mut(&switch.session_id).ok_or(Unchanged::NotFound)?;
        let repeated = match switch.operation {
            Operation::Attach => &world.add_present,
            Operation::Detach => &world.remove_absent,
        };
        let idle = |id: &&String| members.contains(*id) == (switch.operation == Operation::Attach);
        if let Repeated::Error(code) = repeated
            && let Some(id) = switch.instance_ids.iter().find(idle)
        {
            return Err(Unchanged::Repeated { code: code.clone(), id: id.clone() });
        }
        let mut switched = Switched::default();
        let mut seen = BTreeSet::new();
        for id in &switch.instance_ids {
            if !seen.insert(id) {
                continue;
            }
            let mut change = || match switch.operation {
                Operation::Attach => members.insert(id.clone()),
                Operation::Detach => members.remove(id),
            };
            let succeeds = !refuses(id) && (change() || *repeated == Repeated::Success);
            if succeeds { &mut switched.succeeded } else { &mut switched.failed }.push(id.clone());
        }
        Ok(switched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, ids: &[&str]) -> Switch {
        Switch {
            session_id: "s".to_owned(),
            operation,
            instance_ids: ids.iter().map(|&id| id.to_owned()).collect(),
        }
    }

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn a_session_exists_from_its_first_use() {
        let mut sessions = Sessions::new(BTreeSet::new());
        let switched = sessions
            .switch(&call(Operation::Attach, &["b", "a", "b"]), &World::default(), |_| false)
            .unwrap();
        assert_eq!(
            switched,
            Switched { succeeded: vec!["b".to_owned(), "a".to_owned()], failed: vec![] }
        );
        assert_eq!(sessions.all()["s"], set(&["a", "b"]));
    }

    #[test]
    fn with_known_sessions_no_other_comes_to_life() {
        let mut sessions = Sessions::new(set(&["other"]));
        assert_eq!(
            sessions.switch(&call(Operation::Attach, &["a"]), &World::default(), |_| false),
            Err(Unchanged::NotFound)
        );
        assert_eq!(sessions.all().keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn an_ended_session_stays_gone_until_it_is_set_or_all_is_forgotten() {
        let mut sessions = Sessions::new(BTreeSet::new());
        let attach = call(Operation::Attach, &["a"]);
        sessions.end("s");
        assert_eq!(
            sessions.switch(&attach, &World::default(), |_| false),
            Err(Unchanged::NotFound)
        );

        sessions.set("s", set(&["z"]));
        assert!(sessions.switch(&attach, &World::default(), |_| false).is_ok());
        assert_eq!(sessions.all()["s"], set(&["a", "z"]));

        sessions.end("s");
        sessions.forget();
        assert!(sessions.switch(&attach, &World::default(), |_| false).is_ok());
    }

    #[test]
    fn the_world_decides_what_an_operation_without_work_answers() {
        for (repeated, attached, detached) in [(Repeated::Success, 1, 1), (Repeated::Failure, 0, 0)]
        {
            let world = World {
                add_present: repeated.clone(),
                remove_absent: repeated.clone(),
                ..World::default()
            };
            let mut sessions = Sessions::new(BTreeSet::new());
            sessions.set("s", set(&["in"]));

            let attach =
                sessions.switch(&call(Operation::Attach, &["in"]), &world, |_| false).unwrap();
            let detach =
                sessions.switch(&call(Operation::Detach, &["out"]), &world, |_| false).unwrap();

            assert_eq!(
                (attach.succeeded.len(), detach.succeeded.len()),
                (attached, detached),
                "{repeated:?}"
            );
            assert_eq!(sessions.all()["s"], set(&["in"]));
        }
    }

    #[test]
    fn a_refusing_phone_fails_to_attach_and_its_neighbours_do_not() {
        let mut sessions = Sessions::new(BTreeSet::new());

        let attach = sessions
            .switch(&call(Operation::Attach, &["bad", "good"]), &World::default(), |id| id == "bad")
            .unwrap();
        let detach = sessions
            .switch(&call(Operation::Detach, &["bad", "good"]), &World::default(), |id| {
                id == "good"
            })
            .unwrap();

        assert_eq!(
            (attach.succeeded, attach.failed),
            (vec!["good".to_owned()], vec!["bad".to_owned()])
        );
        assert_eq!(
            (detach.succeeded, detach.failed),
            (vec!["bad".to_owned()], vec!["good".to_owned()])
        );
        assert_eq!(sessions.all()["s"], set(&["good"]));
    }

    #[test]
    fn a_world_that_refuses_the_whole_call_changes_nothing() {
        let error = Repeated::Error("ResourceInUse".to_owned());
        let world = World { add_present: error.clone(), remove_absent: error, ..World::default() };
        let mut sessions = Sessions::new(BTreeSet::new());
        sessions.set("s", set(&["in"]));

        let refusal = |id: &str| {
            Err(Unchanged::Repeated { code: "ResourceInUse".to_owned(), id: id.to_owned() })
        };
        assert_eq!(
            sessions.switch(&call(Operation::Attach, &["new", "in"]), &world, |_| false),
            refusal("in")
        );
        assert_eq!(
            sessions.switch(&call(Operation::Detach, &["in", "out"]), &world, |_| false),
            refusal("out")
        );
        assert_eq!(sessions.all()["s"], set(&["in"]));

        assert!(
            sessions.switch(&call(Operation::Attach, &["new", "new"]), &world, |_| false).is_ok()
        );
    }
}
