//! The whole rule of the protocol, for one instance.
//!
//! Nobody published what adding a present slave or removing an absent one answers, so the rule
//! converges whatever it is: success or a refusal, for each of the two. [`Record::next`] is the
//! first table, [`Record::after`] the second.
//!
//! | the spec wants it | state | then |
//! | --- | --- | --- |
//! | in | Detached, Unknown | attach; after three refusals, with no detach on its way: detach once, *to know where it stands* |
//! | in | Attached | done; if a detach may still arrive: once it can't, attach again |
//! | out | Attached, Unknown | detach |
//! | out | Detached | done; if an attach may still arrive: once it can't, detach again |
//!
//! | outcome | record |
//! | --- | --- |
//! | done | Attached / Detached, no refusals; the *opposite* deadline goes if it was over when the journal was written |
//! | refused | an attach with a deadline, or of an Attached one: Unknown; a detach of an Attached one that a detach may still hit: Unknown; else as it was |
//! | rejected | as it was, Attached and Unknown too; counts like a refusal, but not while its batch is bisected |
//! | unclear | Unknown; counts like a refusal, but not while its batch is bisected |
//! | unanswered | Unknown; the operation's own deadline: when the journal's signature ends |
//! | nothing done | as it was |
//!
//! A refusal counts if it is of what is wanted, and no opposite operation may still arrive. Which
//! outcome an answer is for an instance is said in [`settle`](crate::ledger::settle).
//!
//! A resync attaches again what is attached. Its success is one like any other; unanswered, it adds
//! its deadline, so that a late arrival can't outlive an edit; whatever else it is answered says
//! nothing, and the record stays as it was.

use crate::answer::{Operation, Outcome};
use crate::ledger::record::{Failure, FailureReason, Record, Refusals, State, Want};
use crate::time::{ServiceTime, Validity, over};

/// Refused attaches before one detach finds out where the instance stands: two may be a hiccup, the
/// cycle costs a call and a gap.
pub const REFUSALS_BEFORE_FINDING_OUT: u32 = 3;

/// What is due for one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Done,
    /// Nothing before then: the opposite operation may still arrive.
    Wait(ServiceTime),
    /// This call.
    Send(Operation),
}

/// A call that has come to its end: what [`Record::after`] needs to know of it.
#[derive(Clone, Copy, Debug)]
pub struct FinishedCall<'a> {
    /// What it did.
    pub operation: Operation,
    /// The journal's time, with which it was signed. "Over" is judged at this time, not at the
    /// answer's.
    pub start_time: ServiceTime,
    /// The service's code, if it failed.
    pub code: &'a str,
    /// How long it may still take effect if nobody answered.
    pub validity: Validity,
    /// The spec that counts now.
    pub generation: i64,
    /// It attached again what is attached.
    pub resync: bool,
}

impl Record {
    /// The first table: what is due.
    ///
    /// ```
    /// use streamsession_core::answer::{Operation, Outcome};
    /// use streamsession_core::ledger::record::{Record, State, Want};
    /// use streamsession_core::ledger::rule::{FinishedCall, Next};
    /// use streamsession_core::time::{ServiceTime, Validity};
    ///
    /// let now = ServiceTime(1_000);
    /// let new = Record::default();
    /// assert_eq!(new.next(Want::In, Some(now)), Next::Send(Operation::Attach));
    ///
    /// // Nobody answered: the attach may still take effect for 305 seconds.
    /// let call = FinishedCall {
    ///     operation: Operation::Attach,
    ///     start_time: now,
    ///     code: "",
    ///     validity: Validity::default(),
    ///     generation: 1,
    ///     resync: false,
    /// };
    /// let doubt = new.after(call, Outcome::Unanswered, Want::In);
    /// assert_eq!((doubt.state, doubt.attach_until), (State::Unknown, Some(ServiceTime(1_305))));
    ///
    /// // The spec turns. Once a detach has succeeded, it is confirmed after the deadline.
    /// let out = doubt.after(FinishedCall { operation: Operation::Detach, ..call }, Outcome::Done, Want::Out);
    /// assert_eq!(out.next(Want::Out, Some(now)), Next::Wait(ServiceTime(1_305)));
    /// ```
    #[must_use]
    pub fn next(&self, want: Want, now: Option<ServiceTime>) -> Next {
        match (want, self.state) {
            (Want::In, State::Attached) => {
                Self::once_over(self.detach_until, Operation::Attach, now)
            }
            (Want::In, State::Detached | State::Unknown) => {
                let find_out = self.refused(Operation::Attach) >= REFUSALS_BEFORE_FINDING_OUT
                    && over(self.detach_until, now);
                Next::Send(if find_out { Operation::Detach } else { Operation::Attach })
            }
            (Want::Out, State::Detached) => {
                Self::once_over(self.attach_until, Operation::Detach, now)
            }
            (Want::Out, State::Attached | State::Unknown) => Next::Send(Operation::Detach),
        }
    }

    fn once_over(
        opposite: Option<ServiceTime>,
        confirm: Operation,
        now: Option<ServiceTime>,
    ) -> Next {
        match opposite {
            None => Next::Done,
            Some(until) if !over(opposite, now) => Next::Wait(until),
            Some(_) => Next::Send(confirm),
        }
    }

    /// The second table: the record after a call that named this instance. `want` is what the spec
    /// wants now, not when the journal was written.
    #[must_use]
    pub fn after(mut self, call: FinishedCall<'_>, outcome: Outcome, want: Want) -> Self {
        let opposite_was_over = over(self.opposite(call.operation), Some(call.start_time));
        // Somebody may have changed the record meanwhile.
        let resync = call.resync && self.state == State::Attached;
        match outcome {
            Outcome::NothingDone => {}
            Outcome::Unanswered if resync => self.may_arrive(call),
            Outcome::Refused | Outcome::Rejected | Outcome::Unclear | Outcome::Suspect
                if resync => {}
            Outcome::Done => {
                self.state = match call.operation {
                    Operation::Attach => State::Attached,
                    Operation::Detach => State::Detached,
                };
                self.refusals = None;
                self.assumed = false;
                if opposite_was_over {
                    *self.opposite_mut(call.operation) = None;
                }
                // The detach that finds out is no success of the attach that is wanted: what people
                // see goes on counting.
                if call.operation == want.operation() || self.failure(want).is_none() {
                    self.last_failure = None;
                }
            }
            Outcome::Refused => {
                self.state = match (call.operation, self.state) {
                    (Operation::Attach, State::Attached) => State::Unknown,
                    (Operation::Attach, _)
                        if self.attach_until.is_some() || self.detach_until.is_some() =>
                    {
                        State::Unknown
                    }
                    (Operation::Detach, State::Attached) if self.detach_until.is_some() => {
                        State::Unknown
                    }
                    (_, state) => state,
                };
                self.count_refusal(call, opposite_was_over, want);
                self.note_failure(call, FailureReason::Refused, want);
            }
            Outcome::Rejected => {
                self.count_refusal(call, opposite_was_over, want);
                self.note_failure(call, FailureReason::Refused, want);
            }
            Outcome::Unclear => {
                self.state = State::Unknown;
                self.count_refusal(call, opposite_was_over, want);
                self.note_failure(call, FailureReason::Unclear, want);
            }
            Outcome::Suspect => self.state = State::Unknown,
            Outcome::Unanswered => {
                self.state = State::Unknown;
                self.may_arrive(call);
                self.note_failure(call, FailureReason::Unanswered, want);
            }
        }
        self
    }

    fn may_arrive(&mut self, call: FinishedCall<'_>) {
        let until = call.validity.end(call.start_time);
        let own = self.own_mut(call.operation);
        *own = (*own).max(Some(until));
    }

    /// The count rises only for a quiet refusal of the wanted operation: while the opposite may
    /// still arrive, a refusal proves nothing.
    fn count_refusal(&mut self, call: FinishedCall<'_>, opposite_was_over: bool, want: Want) {
        if call.operation != want.operation() {
            self.refusals = None;
        } else if opposite_was_over {
            let before = self.refusals.filter(|refusals| refusals.operation == call.operation);
            let count = before.map_or(0, |refusals| refusals.count).saturating_add(1);
            let since = before.map_or(call.start_time, |refusals| refusals.since);
            self.refusals = Some(Refusals { operation: call.operation, count, since });
        }
    }

    pub(crate) fn note_failure(
        &mut self,
        call: FinishedCall<'_>,
        reason: FailureReason,
        want: Want,
    ) {
        if call.operation == want.operation() {
            let attempts =
                self.failure(want).map_or(0, |failure| failure.attempts).saturating_add(1);
            self.last_failure = Some(Failure {
                operation: call.operation,
                reason,
                code: call.code.to_owned(),
                attempts,
                time: call.start_time,
                generation: call.generation,
            });
        }
    }

    /// Drops what can't matter any more: what was refused before the spec turned, and a deadline of
    /// the wanted operation, once it is over and the wanted state is reached.
    pub fn tidy(&mut self, want: Want, now: Option<ServiceTime>) {
        self.refusals.take_if(|refusals| refusals.operation != want.operation());
        self.last_failure.take_if(|failure| failure.operation != want.operation());
        let reached = match want {
            Want::In => self.state == State::Attached,
            Want::Out => self.state == State::Detached,
        };
        if reached {
            let own = self.own_mut(want.operation());
            if over(*own, now) {
                *own = None;
            }
        }
    }

    fn refused(&self, operation: Operation) -> u32 {
        self.refusals
            .filter(|refusals| refusals.operation == operation)
            .map_or(0, |refusals| refusals.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::VALIDITY;
    use Operation::{Attach, Detach};
    use State::{Attached, Detached, Unknown};

    const NOW: ServiceTime = ServiceTime(10_000);
    const SOON: Deadline = Some(ServiceTime(10_100));
    const PAST: Deadline = Some(ServiceTime(9_900));

    type Deadline = Option<ServiceTime>;

    fn record(state: State, attach_until: Deadline, detach_until: Deadline) -> Record {
        Record { state, attach_until, detach_until, ..Record::default() }
    }

    fn refused(record: Record, operation: Operation, count: u32) -> Record {
        Record { refusals: Some(Refusals { operation, count, since: ServiceTime(0) }), ..record }
    }

    fn next(record: &Record, want: Want) -> Next {
        record.next(want, Some(NOW))
    }

    fn after(record: Record, operation: Operation, outcome: Outcome, want: Want) -> Record {
        let call = FinishedCall {
            operation,
            start_time: NOW,
            code: "",
            validity: VALIDITY,
            generation: 1,
            resync: false,
        };
        record.after(call, outcome, want)
    }

    fn tidied(mut record: Record, want: Want) -> Record {
        record.tidy(want, Some(NOW));
        record
    }

    fn count(record: &Record) -> u32 {
        record.refusals.map_or(0, |refusals| refusals.count)
    }

    #[test]
    fn wanted_in_and_not_attached_is_attached_and_after_three_refusals_looked_for() {
        for state in [Detached, Unknown] {
            let record = record(state, None, None);
            assert_eq!(next(&record, Want::In), Next::Send(Attach));
            assert_eq!(next(&refused(record.clone(), Attach, 2), Want::In), Next::Send(Attach));
            assert_eq!(next(&refused(record.clone(), Attach, 3), Want::In), Next::Send(Detach));
            assert_eq!(
                next(&refused(record, Detach, 9), Want::In),
                Next::Send(Attach),
                "refusals of the other operation count for nothing"
            );
        }
    }

    #[test]
    fn it_is_not_looked_for_while_a_detach_may_still_arrive() {
        assert_eq!(
            next(&refused(record(Unknown, None, SOON), Attach, 3), Want::In),
            Next::Send(Attach)
        );
        assert_eq!(
            next(&refused(record(Unknown, None, PAST), Attach, 3), Want::In),
            Next::Send(Detach)
        );
    }

    #[test]
    fn wanted_in_and_attached_is_done_unless_a_detach_may_have_come() {
        assert_eq!(
            next(&record(Attached, SOON, None), Want::In),
            Next::Done,
            "a deadline of the wanted operation holds nothing back"
        );
        assert_eq!(next(&record(Attached, None, SOON), Want::In), Next::Wait(ServiceTime(10_100)));
        assert_eq!(next(&record(Attached, None, PAST), Want::In), Next::Send(Attach));
    }

    #[test]
    fn wanted_out_and_not_detached_is_detached() {
        assert_eq!(next(&record(Attached, None, None), Want::Out), Next::Send(Detach));
        assert_eq!(next(&record(Unknown, SOON, SOON), Want::Out), Next::Send(Detach));
    }

    #[test]
    fn wanted_out_and_detached_is_done_unless_an_attach_may_have_come() {
        assert_eq!(next(&record(Detached, None, SOON), Want::Out), Next::Done);
        assert_eq!(next(&record(Detached, SOON, None), Want::Out), Next::Wait(ServiceTime(10_100)));
        assert_eq!(next(&record(Detached, PAST, None), Want::Out), Next::Send(Detach));
    }

    #[test]
    fn a_success_sets_the_state_and_drops_the_opposite_doubt_only_if_it_was_over() {
        let certain =
            after(refused(record(Unknown, None, PAST), Attach, 2), Attach, Outcome::Done, Want::In);
        assert_eq!(certain, record(Attached, None, None));
        assert_eq!(
            after(record(Unknown, None, SOON), Attach, Outcome::Done, Want::In),
            record(Attached, None, SOON)
        );
        let own = after(record(Unknown, SOON, None), Attach, Outcome::Done, Want::In);
        assert_eq!(own, record(Attached, SOON, None), "its own deadline stays until it is over");
        assert_eq!(
            after(record(Attached, SOON, None), Detach, Outcome::Done, Want::Out),
            record(Detached, SOON, None)
        );
    }

    #[test]
    fn a_refused_attach_proves_nothing_where_an_earlier_call_is_open() {
        for (before, state) in [
            (record(Detached, None, None), Detached),
            (record(Detached, SOON, None), Unknown),
            (record(Detached, None, PAST), Unknown),
            (record(Attached, None, PAST), Unknown),
            (record(Attached, None, None), Unknown),
        ] {
            assert_eq!(after(before, Attach, Outcome::Refused, Want::In).state, state);
        }
    }

    #[test]
    fn a_refused_detach_leaves_the_state_unless_a_detach_may_have_come() {
        for (before, state) in [
            (record(Attached, None, None), Attached),
            (record(Attached, None, SOON), Unknown),
            (record(Unknown, None, None), Unknown),
        ] {
            assert_eq!(after(before, Detach, Outcome::Refused, Want::Out).state, state);
        }
    }

    #[test]
    fn only_quiet_refusals_of_the_wanted_operation_count() {
        let two = refused(record(Unknown, None, None), Attach, 2);
        let counted = |record: Record, operation, want| {
            count(&after(record, operation, Outcome::Refused, want))
        };
        assert_eq!(counted(two.clone(), Attach, Want::In), 3);
        let loud = Record { detach_until: SOON, ..two.clone() };
        assert_eq!(counted(loud, Attach, Want::In), 2, "a detach may still arrive");
        let quiet = Record { detach_until: PAST, ..two.clone() };
        assert_eq!(counted(quiet, Attach, Want::In), 3);
        let found_out = counted(two.clone(), Detach, Want::In);
        assert_eq!(found_out, 0, "the detach that finds out starts the count again");
        assert_eq!(counted(two, Attach, Want::Out), 0, "the spec has turned");
    }

    #[test]
    fn an_unclear_answer_leaves_doubt_without_a_deadline_and_counts() {
        let unclear = after(record(Attached, None, None), Detach, Outcome::Unclear, Want::Out);
        assert_eq!(
            (unclear.state, unclear.attach_until, unclear.detach_until, count(&unclear)),
            (Unknown, None, None, 1)
        );
    }

    #[test]
    fn an_unanswered_call_may_take_effect_until_its_signature_ends() {
        let lost = after(record(Detached, None, None), Attach, Outcome::Unanswered, Want::In);
        assert_eq!(
            (lost.state, lost.attach_until, lost.detach_until),
            (Unknown, Some(ServiceTime(10_305)), None)
        );
        let later = Some(ServiceTime(10_400));
        assert_eq!(
            after(record(Unknown, later, None), Attach, Outcome::Unanswered, Want::In).attach_until,
            later
        );
    }

    #[test]
    fn a_call_that_was_never_made_changes_nothing() {
        let before = refused(record(Unknown, SOON, PAST), Detach, 1);
        assert_eq!(after(before.clone(), Detach, Outcome::NothingDone, Want::Out), before);
    }

    #[test]
    fn an_instance_cannot_leave_after_five_refusals_over_two_validities_and_no_attach_on_its_way() {
        let since = |record: Record, seconds: i64| Record {
            refusals: Some(Refusals {
                operation: Detach,
                count: 5,
                since: ServiceTime(NOW.0 - seconds),
            }),
            ..record
        };
        assert!(since(record(Attached, None, None), 600).cannot_leave(Some(NOW), VALIDITY));
        assert!(!since(record(Attached, None, None), 599).cannot_leave(Some(NOW), VALIDITY));
        assert!(!since(record(Attached, SOON, None), 600).cannot_leave(Some(NOW), VALIDITY));
        assert!(
            !refused(record(Attached, None, None), Detach, 4).cannot_leave(Some(NOW), VALIDITY)
        );
        assert!(
            !refused(record(Attached, None, None), Attach, 9).cannot_leave(Some(NOW), VALIDITY)
        );
    }

    #[test]
    fn what_cannot_matter_any_more_is_dropped() {
        assert_eq!(tidied(record(Attached, PAST, None), Want::In), Record::attached());
        assert_eq!(tidied(record(Attached, SOON, None), Want::In), record(Attached, SOON, None));
        assert_eq!(
            tidied(record(Unknown, PAST, None), Want::In),
            record(Unknown, PAST, None),
            "the wanted state is not reached"
        );
        assert_eq!(
            tidied(record(Attached, None, PAST), Want::In),
            record(Attached, None, PAST),
            "the opposite doubt needs a call"
        );
        assert_eq!(
            tidied(refused(record(Attached, None, None), Detach, 4), Want::In),
            Record::attached(),
            "the spec has turned"
        );
        assert!(tidied(record(Detached, None, PAST), Want::Out).is_void(Want::Out));
        let failed = after(record(Detached, None, None), Attach, Outcome::Refused, Want::In);
        for told in
            [Record { refusals: None, ..failed.clone() }, Record { last_failure: None, ..failed }]
        {
            assert_eq!(
                (told.is_void(Want::In), told.is_void(Want::Out)),
                (false, true),
                "people are told why: {told:?}"
            );
        }
    }
}
