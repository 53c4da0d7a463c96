//! Attaching again what is attached: nothing reads the membership back, so only that tells what
//! somebody took out, and that the session has ended.

use crate::answer::Operation;
use crate::ids::InstanceId;
use crate::ledger::Ledger;
use crate::ledger::desired::Desired;
use crate::ledger::plan::{Allowed, Batch, Priority};
use crate::ledger::record::{State, Want};

impl Ledger {
    /// The next confirmed members to attach again: those behind `after`, in ascending order, at
    /// most `batch_size_max`. One that a detach of ours may still hit is none of them.
    ///
    /// ```
    /// use streamsession_core::ledger::plan::Allowed;
    /// use streamsession_core::ledger::record::Record;
    /// use streamsession_testkit::fixtures::{desired, id, ids, ledger};
    ///
    /// let ledger = ledger(&[("a", Record::attached()), ("b", Record::attached())]);
    /// let wanted = desired("1", &["a", "b", "c"]);
    /// let batch = ledger.resync(&wanted, Some(&id("a")), 100, Allowed::All).unwrap();
    /// assert!(batch.instances.iter().eq(&ids(&["b"])), "a had its turn, c is not attached");
    /// ```
    #[must_use]
    pub fn resync(
        &self,
        desired: &Desired,
        after: Option<&InstanceId>,
        batch_size_max: usize,
        allowed: Allowed<'_>,
    ) -> Option<Batch> {
        let members = desired.at(self.target.as_ref());
        let confirmed = self.records.iter().filter(|(id, record)| {
            record.state == State::Attached
                && record.detach_until.is_none()
                && members.want(id) == Want::In
                && allowed.allows(id, Operation::Attach)
        });
        let next = confirmed.map(|(id, _)| id).filter(|id| after.is_none_or(|after| *id > after));
        let instances: Vec<_> = next.take(batch_size_max.max(1)).cloned().collect();
        (!instances.is_empty()).then_some(Batch {
            operation: Operation::Attach,
            instances,
            priority: Priority::Resync,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NOW, desired, id, ids, ledger};
    use crate::ledger::record::Record;

    fn next(ledger: &Ledger, after: Option<&str>, allowed: Allowed<'_>) -> Vec<InstanceId> {
        let wanted = desired("1", &["a", "b", "c", "d"]);
        let after = after.map(id);
        let batch = ledger.resync(&wanted, after.as_ref(), 2, allowed);
        batch.map_or(vec![], |batch| batch.instances)
    }

    #[test]
    fn confirmed_members_are_attached_again_in_turn() {
        let all = ["a", "b", "c", "d"].map(|text| (text, Record::attached()));
        let ledger = ledger(&all);
        assert_eq!(next(&ledger, None, Allowed::All), [id("a"), id("b")]);
        assert_eq!(next(&ledger, Some("b"), Allowed::All), [id("c"), id("d")]);
        assert_eq!(next(&ledger, Some("d"), Allowed::All), []);
        let theirs = ids(&["a"]);
        assert_eq!(next(&ledger, None, Allowed::AllBut(&theirs)), [id("b"), id("c")]);
        assert_eq!(next(&ledger, None, Allowed::Only(&theirs)), []);
    }

    #[test]
    fn nobody_else_is() {
        let open = Record { detach_until: Some(NOW), ..Record::attached() };
        let unknown = Record { state: State::Unknown, ..Record::default() };
        let records = [
            ("a", open),
            ("b", unknown),
            ("c", Record::default()),
            ("unwanted", Record::attached()),
        ];
        assert_eq!(next(&ledger(&records), None, Allowed::All), []);
        let late = Record { attach_until: Some(NOW), ..Record::attached() };
        assert_eq!(next(&ledger(&[("a", late)]), None, Allowed::All), [id("a")]);
    }
}
