//! What goes wrong, for how many calls. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The faults in force. A new value replaces all of an old one; the default is none.
///
/// Only correctly signed calls meet faults: a client that asks for the time without a signature is not disturbed.
/// Of several, a call meets the first of: lost request, late arrival, error, lost answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// These ids fail to attach.
    pub fail_instances: BTreeSet<String>,
    /// So many calls are lost on their way here: the connection closes, nothing is applied or counted.
    pub drop_requests: u32,
    /// So many calls take a detour: the connection closes at once, the request arrives [`Self::late_arrival_ms`] later.
    pub late_arrivals: u32,
    /// How long a detour takes. The signature is judged at the late arrival.
    pub late_arrival_ms: u64,
    /// Whole-call errors, in this order. Nothing is applied.
    pub errors: Vec<ErrorFault>,
    /// The answers of so many calls are lost: the call is applied, then the connection closes.
    pub drop_answers: u32,
    /// Every answer to a signed call leaves so much later than the call took effect.
    pub delay_ms: u64,
}

/// An error code for the next calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorFault {
    /// For example `InternalError`.
    pub code: String,
    /// For how many calls.
    pub times: u32,
}

/// What becomes of a request before the service sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Clear,
    Lost,
    Late(Duration),
}

impl Faults {
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// Uses up a fault of the network.
    pub(crate) fn take_way(&mut self) -> Way {
        if take(&mut self.drop_requests) {
            Way::Lost
        } else if take(&mut self.late_arrivals) {
            Way::Late(Duration::from_millis(self.late_arrival_ms))
        } else {
            Way::Clear
        }
    }

    /// Uses up an error.
    pub(crate) fn take_error(&mut self) -> Option<String> {
        self.errors.retain(|error| error.times > 0);
        let error = self.errors.first_mut()?;
        take(&mut error.times).then(|| error.code.clone())
    }

    /// Uses up a lost answer.
    pub(crate) fn take_lost_answer(&mut self) -> bool {
        take(&mut self.drop_answers)
    }
}

fn take(left: &mut u32) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_json_may_be_left_out_and_none_misspelt() {
        assert_eq!(serde_json::from_str::<Faults>("{}").unwrap(), Faults::default());
        assert_eq!(serde_json::from_str::<Faults>(r#"{"dropAnswers":2}"#).unwrap(), Faults { drop_answers: 2, ..Faults::default() });
        assert!(serde_json::from_str::<Faults>(r#"{"dropAnswer":2}"#).is_err());
    }

    #[test]
    fn errors_are_used_up_in_their_order() {
        let error = |code: &str, times| ErrorFault { code: code.to_owned(), times };
        let mut faults = Faults { errors: vec![error("A", 2), error("None", 0), error("B", 1)], ..Faults::default() };
        let met: Vec<_> = std::iter::from_fn(|| faults.take_error()).collect();
        assert_eq!(met, ["A", "A", "B"]);
    }

    #[test]
    fn a_request_is_lost_before_it_can_be_late() {
        let mut faults = Faults { drop_requests: 1, late_arrivals: 1, late_arrival_ms: 7, ..Faults::default() };
        let met = [faults.take_way(), faults.take_way(), faults.take_way()];
        assert_eq!(met, [Way::Lost, Way::Late(Duration::from_millis(7)), Way::Clear]);
    }
}
