//! The sessions and their slave phones.

use std::collections::{BTreeMap, BTreeSet};

use super::switch::{Operation, Switch, SwitchResult};
use super::unspecified::{NoOpAnswer, UnspecifiedBehaviour};

/// Why nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SwitchError {
    /// No such session.
    NotFound,
    /// The operation has nothing to change for this id, and [`NoOpAnswer::Error`] holds.
    NoOp { code: String, id: String },
}

/// Every session with its members.
#[derive(Debug)]
pub(crate) struct Sessions {
    members: BTreeMap<String, BTreeSet<String>>,
    /// If there are any, no other session is created by being used.
    known: BTreeSet<String>,
    /// Without this, the next call would create an ended session anew.
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

    /// Creates the session, or replaces its members.
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
    pub(crate) fn reset(&mut self) {
        *self = Self::new(std::mem::take(&mut self.known));
    }

    /// Carries out a call. Ids for which `fails` is true fail.
    pub(crate) fn switch(
        &mut self,
        switch: &Switch,
        behaviour: &UnspecifiedBehaviour,
        mut fails: impl FnMut(&str) -> bool,
    ) -> Result<SwitchResult, SwitchError> {
        if self.known.is_empty() && !self.ended.contains(&switch.session_id) {
            self.members.entry(switch.session_id.clone()).or_default();
        }
        let members = self.members.get_mut(&switch.session_id).ok_or(SwitchError::NotFound)?;
        let no_op = match switch.operation {
            Operation::Attach => &behaviour.add_present,
            Operation::Detach => &behaviour.remove_absent,
        };
        let is_no_op =
            |id: &&String| members.contains(*id) == (switch.operation == Operation::Attach);
        if let NoOpAnswer::Error(code) = no_op
            && let Some(id) = switch.instance_ids.iter().find(is_no_op)
        {
            return Err(SwitchError::NoOp { code: code.clone(), id: id.clone() });
        }
        let mut result = SwitchResult::default();
        let mut seen = BTreeSet::new();
        for id in switch.instance_ids.iter().filter(|&id| seen.insert(id)) {
            let mut change = || match switch.operation {
                Operation::Attach => members.insert(id.clone()),
                Operation::Detach => members.remove(id),
            };
            let succeeds = !fails(id) && (change() || *no_op == NoOpAnswer::Success);
            if succeeds { &mut result.succeeded } else { &mut result.failed }.push(id.clone());
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    fn set(ids: &[&str]) -> BTreeSet<String> {
        names(ids).into_iter().collect()
    }

    fn call(operation: Operation, ids: &[&str]) -> Switch {
        Switch { session_id: "s".to_owned(), operation, instance_ids: names(ids) }
    }

    fn attach(sessions: &mut Sessions, ids: &[&str]) -> Result<SwitchResult, SwitchError> {
        let call = call(Operation::Attach, ids);
        sessions.switch(&call, &UnspecifiedBehaviour::default(), |_| false)
    }

    fn behaviour(no_op: &NoOpAnswer) -> UnspecifiedBehaviour {
        UnspecifiedBehaviour {
            add_present: no_op.clone(),
            remove_absent: no_op.clone(),
            ..UnspecifiedBehaviour::default()
        }
    }

    #[test]
    fn a_session_exists_from_its_first_use() {
        let mut sessions = Sessions::new(BTreeSet::new());
        let result = attach(&mut sessions, &["b", "a", "b"]).unwrap();
        assert_eq!(result, SwitchResult { succeeded: names(&["b", "a"]), failed: vec![] });
        assert_eq!(sessions.all()["s"], set(&["a", "b"]));
    }

    #[test]
    fn with_known_sessions_no_other_is_created() {
        let mut sessions = Sessions::new(set(&["other"]));
        assert_eq!(attach(&mut sessions, &["a"]), Err(SwitchError::NotFound));
        assert_eq!(sessions.all().keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn an_ended_session_stays_gone_until_it_is_set_or_all_is_reset() {
        let mut sessions = Sessions::new(BTreeSet::new());
        sessions.end("s");
        assert_eq!(attach(&mut sessions, &["a"]), Err(SwitchError::NotFound));

        sessions.set("s", set(&["z"]));
        assert!(attach(&mut sessions, &["a"]).is_ok());
        assert_eq!(sessions.all()["s"], set(&["a", "z"]));

        sessions.end("s");
        sessions.reset();
        assert!(attach(&mut sessions, &["a"]).is_ok());
    }

    #[test]
    fn the_unspecified_behaviour_decides_what_a_no_op_answers() {
        for (no_op, succeeded) in [(NoOpAnswer::Success, 1), (NoOpAnswer::Failure, 0)] {
            let mut sessions = Sessions::new(BTreeSet::new());
            sessions.set("s", set(&["in"]));
            for call in [call(Operation::Attach, &["in"]), call(Operation::Detach, &["out"])] {
                let result = sessions.switch(&call, &behaviour(&no_op), |_| false).unwrap();
                assert_eq!(
                    (result.succeeded.len(), result.failed.len()),
                    (succeeded, 1 - succeeded),
                    "{call:?} {no_op:?}"
                );
            }
            assert_eq!(sessions.all()["s"], set(&["in"]));
        }
    }

    #[test]
    fn a_phone_that_fails_does_not_affect_the_others_of_its_call() {
        let mut sessions = Sessions::new(BTreeSet::new());
        let mut switch = |operation, failing: &str| {
            let call = call(operation, &["bad", "good"]);
            sessions.switch(&call, &UnspecifiedBehaviour::default(), |id| id == failing).unwrap()
        };

        let attach = switch(Operation::Attach, "bad");
        let detach = switch(Operation::Detach, "good");

        assert_eq!((attach.succeeded, attach.failed), (names(&["good"]), names(&["bad"])));
        assert_eq!((detach.succeeded, detach.failed), (names(&["bad"]), names(&["good"])));
        assert_eq!(sessions.all()["s"], set(&["good"]));
    }

    #[test]
    fn a_no_op_that_fails_the_whole_call_changes_nothing() {
        let code = "ResourceInUse".to_owned();
        let behaviour = behaviour(&NoOpAnswer::Error(code.clone()));
        let mut sessions = Sessions::new(BTreeSet::new());
        sessions.set("s", set(&["in"]));

        for (operation, ids, id) in
            [(Operation::Attach, ["new", "in"], "in"), (Operation::Detach, ["in", "out"], "out")]
        {
            assert_eq!(
                sessions.switch(&call(operation, &ids), &behaviour, |_| false),
                Err(SwitchError::NoOp { code: code.clone(), id: id.to_owned() })
            );
        }
        assert_eq!(sessions.all()["s"], set(&["in"]));

        let twice = call(Operation::Attach, &["new", "new"]);
        assert!(sessions.switch(&twice, &behaviour, |_| false).is_ok());
    }
}
