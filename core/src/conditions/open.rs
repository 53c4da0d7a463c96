//! What is still to be done for an object, as far as people are told.

use crate::conditions::types::ConditionInputs;
use crate::ids::InstanceId;
use crate::ledger::record::{Failure, FailureReason, Want};
use crate::ledger::rule::Next;
use crate::time::ServiceTime;

/// What is still to be done.
#[derive(Default)]
pub(super) struct Open<'a> {
    pub(super) attach: usize,
    pub(super) detach: usize,
    /// One that waits for a deadline, and for which one: the latest.
    pub(super) waiting: Option<(&'a InstanceId, Want, ServiceTime)>,
    pub(super) failing: Vec<(&'a InstanceId, &'a Failure)>,
    /// The service keeps refusing to attach them.
    pub(super) stuck_outside: Vec<&'a InstanceId>,
    /// What the service answered for one of them, if it refused the whole call.
    pub(super) stuck_code: Option<&'a str>,
    /// The service keeps refusing to detach them.
    pub(super) stuck_inside: Vec<&'a InstanceId>,
    /// Until when an earlier detach may take effect.
    pub(super) detach_until: Option<ServiceTime>,
    pub(super) assumed: Vec<&'a InstanceId>,
}

impl<'a> Open<'a> {
    pub(super) fn of(inputs: &ConditionInputs<'a>) -> Self {
        let ConditionInputs { desired, ledger, now, rules, .. } = *inputs;
        let mut open = Self::default();
        let members = desired.at(ledger.target.as_ref());
        let mut wanted = members.in_order();
        for (id, record) in &ledger.records {
            let want = wanted(id);
            if record.assumed {
                open.assumed.push(id);
            }
            open.detach_until = open.detach_until.max(record.detach_until);
            let failure = record.failure(want);
            match record.next(want, now) {
                Next::Wait(until) if open.waiting.is_none_or(|(_, _, latest)| latest < until) => {
                    open.waiting = Some((id, want, until));
                }
                Next::Done | Next::Wait(_) => {}
                Next::Send(_) if want == Want::Out && record.cannot_leave(now, rules.validity) => {
                    open.stuck_inside.push(id);
                }
                Next::Send(_) if want == Want::In && failure.is_some_and(Failure::is_stuck) => {
                    open.stuck_outside.push(id);
                    let code = failure.map(|failure| failure.code.as_str());
                    open.stuck_code = code.filter(|code| !code.is_empty());
                }
                Next::Send(_) => match failure {
                    Some(failure) if failure.reason != FailureReason::SessionGone => {
                        open.failing.push((id, failure));
                    }
                    _ if want == Want::In => open.attach += 1,
                    _ => open.detach += 1,
                },
            }
        }
        open.attach += ledger.missing(members).count();
        open
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_nothing_but_stuck() && self.stuck_inside.is_empty() && self.stuck_outside.is_empty()
    }

    pub(super) fn is_nothing_but_stuck(&self) -> bool {
        self.is_nothing_but_waiting() && self.waiting.is_none()
    }

    pub(super) fn is_nothing_but_waiting(&self) -> bool {
        self.attach == 0 && self.detach == 0 && self.failing.is_empty()
    }

    pub(super) fn is_nothing_but_attaches(&self) -> bool {
        self.detach == 0 && self.waiting.is_none() && self.failing.is_empty()
    }
}
