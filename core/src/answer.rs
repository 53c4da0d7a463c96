//! What an answer of the service says: closed, first match wins.
//!
//! An answer is read in two steps. [`Verdict::of_code`] says what an error code means for the call
//! as a whole; [`Answer::outcome`] what the answer means for one of its ids.

use std::collections::BTreeSet;

use strum::IntoStaticStr;

use crate::ids::{InOrder, InstanceId};

/// What a call does to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `Type` 1: add slaves.
    Attach,
    /// `Type` 2: remove slaves.
    Detach,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NothingDone {
    /// The rate limit: `RequestLimitExceeded` and its kin, HTTP 429.
    Throttled,
    /// The credentials were refused.
    Credentials,
    /// `AuthFailure.SignatureExpire`: it came too late. That says nothing of the key.
    SignatureExpired,
    /// The gateway knows no such action, or not for this account, region or address: no product
    /// has seen the call.
    ActionUnavailable,
    /// `RequestSizeLimitExceeded`: it names too many ids.
    TooLarge,
    /// Not one byte of the request was written: DNS, connect, TLS handshake; or the call was given
    /// up before it was sent.
    NotSent,
}

/// What an answer says of the call as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The call was processed and each id has its own result. An id in neither list, or in both, is
    /// unclear.
    Processed {
        /// `SuccessInstanceIds`.
        succeeded: BTreeSet<InstanceId>,
        /// `FailureInstanceIds`.
        refused: BTreeSet<InstanceId>,
    },
    /// The service did nothing.
    NothingDone(NothingDone),
    /// The session does not exist any more.
    SessionGone,
    /// The request's content was rejected as a whole: `InvalidParameter*`, `MissingParameter`,
    /// `UnknownParameter`, another `ResourceNotFound*`. Nothing was done (an assumption: ADR 6),
    /// and nothing is proven: the phone may be in all the same.
    Rejected,
    /// Any other error that the service answered: nobody says whether it was done, but it can't
    /// arrive later.
    Unclear,
    /// No readable answer: the call may still take effect until its signature expires.
    Unanswered,
}

/// What came of a call as a whole, in one word: the status and the metrics keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum CallResult {
    /// Each id has its own result.
    Processed,
    /// Refused for its rate; nothing was done.
    Throttled,
    /// The credentials were refused; nothing was done.
    CredentialsRejected,
    /// It came too late; nothing was done.
    SignatureExpired,
    /// The call is not offered to this account, region or address; nothing was done.
    ActionUnavailable,
    /// It named too many ids; nothing was done.
    TooLarge,
    /// It never left this machine.
    NotSent,
    /// The session does not exist any more.
    SessionGone,
    /// The request's content was rejected; nothing was done.
    Rejected,
    /// Another error: nobody says whether it was done.
    Unclear,
    /// No readable answer.
    Unanswered,
}

/// An answer, or its absence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// What it says of the call.
    pub verdict: Verdict,
    /// The service's error code, or our word for what went wrong on the way; empty for a success.
    pub code: String,
    /// For people; never parsed, never stored.
    pub message: String,
    /// The service's id of the request; empty if there is none.
    pub request_id: String,
}

/// What an answer says about one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Attached or detached, as the operation says.
    Done,
    /// The service would not.
    Refused,
    /// The call was rejected as a whole: nothing was done, and nothing is proven.
    Rejected,
    /// The service answered, and nobody knows what it did.
    Unclear,
    /// Likewise, of a batch that is being split to find whose fault it is: it counts for nobody
    /// yet.
    Suspect,
    /// Nobody answered: it may happen later.
    Unanswered,
    /// As if never sent.
    NothingDone,
}

const SIGNATURE_EXPIRED: &str = "AuthFailure.SignatureExpire";
const REQUEST_TOO_LARGE: &str = "RequestSizeLimitExceeded";

fn is(code: &str, family: &str) -> bool {
    code.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn any(code: &str, families: &[&str]) -> bool {
    families.iter().any(|family| is(code, family))
}

/// Whether the code says that the call named too many ids. If it is the answer that was too large,
/// what was done is unclear.
#[must_use]
pub fn is_too_large(code: &str) -> bool {
    any(code, &[REQUEST_TOO_LARGE, "ResponseSizeLimitExceeded"])
}

impl Verdict {
    /// It in one word.
    #[must_use]
    pub fn result(&self) -> CallResult {
        match self {
            Self::Processed { .. } => CallResult::Processed,
            Self::NothingDone(NothingDone::Throttled) => CallResult::Throttled,
            Self::NothingDone(NothingDone::Credentials) => CallResult::CredentialsRejected,
            Self::NothingDone(NothingDone::SignatureExpired) => CallResult::SignatureExpired,
            Self::NothingDone(NothingDone::ActionUnavailable) => CallResult::ActionUnavailable,
            Self::NothingDone(NothingDone::TooLarge) => CallResult::TooLarge,
            Self::NothingDone(NothingDone::NotSent) => CallResult::NotSent,
            Self::SessionGone => CallResult::SessionGone,
            Self::Rejected => CallResult::Rejected,
            Self::Unclear => CallResult::Unclear,
            Self::Unanswered => CallResult::Unanswered,
        }
    }

    /// What an error code means. Codes match whole or up to a dot, since products add suffixes
    /// (`docs/tencent.md`); those of the gateway match whole, since one with a suffix comes from a
    /// product. Texts are never parsed.
    ///
    /// ```
    /// use streamsession_core::answer::{NothingDone, Verdict};
    ///
    /// let of = |code| Verdict::of_code(code, &["FailedOperation.SessionClosed".to_owned()]);
    /// assert_eq!(of("RequestLimitExceeded.X"), Verdict::NothingDone(NothingDone::Throttled));
    /// assert_eq!(of("FailedOperation.SessionClosed"), Verdict::SessionGone);
    /// assert_eq!(of("InternalError"), Verdict::Unanswered);
    /// assert_eq!(of("NobodyKnowsThisCode"), Verdict::Unclear);
    /// ```
    #[must_use]
    pub fn of_code(code: &str, session_gone_codes: &[String]) -> Self {
        const THROTTLED: &[&str] =
            &["RequestLimitExceeded", "FailedOperation.SlowDown", "FailedOperation.TooFrequently"];
        const GATEWAY: &[&str] = &[
            "ActionOffline",
            "InvalidAction",
            "IpInBlacklist",
            "IpNotInWhitelist",
            "NoSuchProduct",
            "NoSuchVersion",
            "UnsupportedProtocol",
            "UnsupportedRegion",
        ];
        const REJECTED: &[&str] = &[
            "InvalidParameter",
            "InvalidParameterValue",
            "MissingParameter",
            "ResourceNotFound",
            "UnknownParameter",
        ];
        const UNANSWERED: &[&str] = &[
            "InternalError",
            "ServiceUnavailable",
            "FailedOperation.Timeout",
            "FailedOperation.ProcessTimeout",
            "FailedOperation.LockTimeout",
            "RequestTimeout",
        ];
        if any(code, THROTTLED) {
            Self::NothingDone(NothingDone::Throttled)
        } else if code == SIGNATURE_EXPIRED {
            Self::NothingDone(NothingDone::SignatureExpired)
        } else if any(code, &["AuthFailure", "UnauthorizedOperation"]) {
            Self::NothingDone(NothingDone::Credentials)
        } else if GATEWAY.contains(&code) {
            Self::NothingDone(NothingDone::ActionUnavailable)
        } else if is(code, REQUEST_TOO_LARGE) {
            Self::NothingDone(NothingDone::TooLarge)
        } else if code == "ResourceNotFound.SessionNotFound"
            || session_gone_codes.iter().any(|gone| gone == code)
        {
            Self::SessionGone
        } else if any(code, REJECTED) {
            Self::Rejected
        } else if any(code, UNANSWERED) || code.ends_with("Timeout") {
            Self::Unanswered
        } else {
            Self::Unclear
        }
    }
}

impl Answer {
    /// Whether the key itself was refused: it is worth reading it again. One that is good but may
    /// not make the call is not, nor one whose signature came too late.
    #[must_use]
    pub fn rejects_key(&self) -> bool {
        is(&self.code, "AuthFailure") && self.code != SIGNATURE_EXPIRED
    }

    /// A call that was given up before it was sent.
    #[must_use]
    pub fn not_sent(code: &str, message: &str) -> Self {
        Self {
            verdict: Verdict::NothingDone(NothingDone::NotSent),
            code: code.into(),
            message: message.into(),
            request_id: String::new(),
        }
    }

    /// A call whose answer nobody saw.
    #[must_use]
    pub fn unanswered(code: &str, message: &str) -> Self {
        Self {
            verdict: Verdict::Unanswered,
            code: code.into(),
            message: message.into(),
            request_id: String::new(),
        }
    }

    /// What it says about `id`, one of `ids_in_call` ids. A gone session that is believed is not
    /// asked here: it speaks of every record of the ledger.
    #[must_use]
    pub fn outcome(&self, id: &InstanceId, ids_in_call: usize) -> Outcome {
        let listed = match &self.verdict {
            Verdict::Processed { succeeded, refused } => {
                (succeeded.contains(id), refused.contains(id))
            }
            _ => (false, false),
        };
        self.outcome_of(listed, ids_in_call)
    }

    /// Likewise about all ids of a call, which are in ascending order.
    pub fn outcomes<'a>(
        &'a self,
        ids: &'a [InstanceId],
    ) -> impl Iterator<Item = (&'a InstanceId, Outcome)> {
        let mut lists = match &self.verdict {
            Verdict::Processed { succeeded, refused } => {
                Some((InOrder::of(succeeded), InOrder::of(refused)))
            }
            _ => None,
        };
        ids.iter().map(move |id| {
            let listed = lists.as_mut().map_or((false, false), |(succeeded, refused)| {
                (succeeded.has(id), refused.has(id))
            });
            (id, self.outcome_of(listed, ids.len()))
        })
    }

    /// `listed`: whether the id is among those that succeeded, and among those that were refused.
    fn outcome_of(&self, listed: (bool, bool), ids_in_call: usize) -> Outcome {
        match &self.verdict {
            // A lone id that is too large is to blame.
            Verdict::NothingDone(NothingDone::TooLarge) if ids_in_call == 1 => Outcome::Rejected,
            Verdict::NothingDone(_) => Outcome::NothingDone,
            Verdict::Processed { .. } => match listed {
                (true, false) => Outcome::Done,
                (false, true) => Outcome::Refused,
                (false, false) | (true, true) => Outcome::Unclear,
            },
            Verdict::Rejected => Outcome::Rejected,
            Verdict::SessionGone | Verdict::Unclear => Outcome::Unclear,
            Verdict::Unanswered => Outcome::Unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{answer, id, processed};

    fn verdict(code: &str) -> Verdict {
        Verdict::of_code(code, &["FailedOperation.Closed".to_owned()])
    }

    fn outcome(verdict: Verdict, ids: usize) -> Outcome {
        answer(verdict).outcome(&id("a"), ids)
    }

    #[test]
    fn throttled_and_unauthorised_calls_did_nothing() {
        for code in [
            "RequestLimitExceeded",
            "RequestLimitExceeded.UinLimitExceeded",
            "FailedOperation.SlowDown",
            "FailedOperation.TooFrequently",
        ] {
            assert_eq!(verdict(code), Verdict::NothingDone(NothingDone::Throttled), "{code}");
        }
        for code in [
            "AuthFailure.SignatureFailure",
            "AuthFailure.SignatureExpire.X",
            "UnauthorizedOperation",
            "UnauthorizedOperation.X",
        ] {
            assert_eq!(verdict(code), Verdict::NothingDone(NothingDone::Credentials), "{code}");
        }
        assert_eq!(outcome(Verdict::NothingDone(NothingDone::NotSent), 1), Outcome::NothingDone);
        let expired = Verdict::NothingDone(NothingDone::SignatureExpired);
        assert_eq!(verdict("AuthFailure.SignatureExpire"), expired, "the key may be good");
    }

    #[test]
    fn what_the_gateway_refuses_no_product_has_seen() {
        for code in [
            "ActionOffline",
            "InvalidAction",
            "IpInBlacklist",
            "IpNotInWhitelist",
            "NoSuchProduct",
            "NoSuchVersion",
            "UnsupportedProtocol",
            "UnsupportedRegion",
        ] {
            let unavailable = Verdict::NothingDone(NothingDone::ActionUnavailable);
            assert_eq!(verdict(code), unavailable, "{code}");
            assert_eq!(verdict(&format!("{code}.X")), Verdict::Unclear, "{code}.X: a product's");
        }
    }

    #[test]
    fn each_id_of_a_processed_call_has_its_own_outcome() {
        let of = |succeeded, refused| outcome(processed(&[succeeded], &[refused]), 2);
        assert_eq!(of("a", "b"), Outcome::Done);
        assert_eq!(of("b", "a"), Outcome::Refused);
        assert_eq!(of("b", "b"), Outcome::Unclear, "in neither list");
        assert_eq!(of("a", "a"), Outcome::Unclear, "in both");
    }

    #[test]
    fn only_the_documented_code_and_the_configured_ones_say_that_the_session_is_gone() {
        assert_eq!(verdict("ResourceNotFound.SessionNotFound"), Verdict::SessionGone);
        assert_eq!(verdict("FailedOperation.Closed"), Verdict::SessionGone);
        assert_eq!(verdict("ResourceNotFound.SessionNotFound.X"), Verdict::Rejected);
    }

    #[test]
    fn a_call_whose_content_is_rejected_proves_nothing_about_any_of_its_ids() {
        for code in [
            "InvalidParameter",
            "InvalidParameter.SessionId",
            "InvalidParameterValue",
            "InvalidParameterValue.X",
            "MissingParameter",
            "MissingParameter.X",
            "ResourceNotFound",
            "ResourceNotFound.Instance",
            "UnknownParameter",
        ] {
            assert_eq!(verdict(code), Verdict::Rejected, "{code}");
        }
        for ids in [1, 2] {
            assert_eq!(outcome(Verdict::Rejected, ids), Outcome::Rejected);
        }
        assert_eq!(outcome(Verdict::SessionGone, 1), Outcome::Unclear, "it is not believed");
    }

    #[test]
    fn an_internal_error_may_have_happened_and_may_yet_happen() {
        for code in [
            "InternalError",
            "InternalError.Db",
            "ServiceUnavailable",
            "FailedOperation.Timeout",
            "FailedOperation.LockTimeout",
            "X.YTimeout",
        ] {
            assert_eq!(verdict(code), Verdict::Unanswered, "{code}");
        }
        assert_eq!(outcome(Verdict::Unanswered, 3), Outcome::Unanswered);
    }

    #[test]
    fn any_other_code_is_unclear() {
        for code in [
            "FailedOperation",
            "FailedOperation.Other",
            "LimitExceeded",
            "OperationDenied",
            "RequestLimitExceededX",
            "Other",
        ] {
            assert_eq!(verdict(code), Verdict::Unclear, "{code}");
        }
        assert_eq!(outcome(Verdict::Unclear, 1), Outcome::Unclear);
    }

    #[test]
    fn a_call_that_named_too_many_is_told_from_other_errors() {
        let too_large = || Verdict::NothingDone(NothingDone::TooLarge);
        for (code, means) in [
            ("RequestSizeLimitExceeded", too_large()),
            ("RequestSizeLimitExceeded.X", too_large()),
            ("ResponseSizeLimitExceeded", Verdict::Unclear),
        ] {
            assert!(is_too_large(code), "{code}");
            assert_eq!(verdict(code), means, "{code}");
        }
        assert_eq!(outcome(too_large(), 2), Outcome::NothingDone);
        assert_eq!(outcome(too_large(), 1), Outcome::Rejected, "it is the one");
        assert!(!is_too_large("LimitExceeded"));
    }

    #[test]
    fn a_key_is_read_again_if_it_was_refused_itself() {
        let rejects = |code: &str| Answer::not_sent(code, "").rejects_key();
        assert!(rejects("AuthFailure") && rejects("AuthFailure.SecretIdNotFound"));
        assert!(!rejects("AuthFailure.SignatureExpire"), "it came too late");
        assert!(!rejects("UnauthorizedOperation"), "it is good, and may not do this");
        assert!(!rejects("AuthFailureX"));
    }

    #[test]
    fn a_call_has_one_result() {
        for (verdict, result) in [
            (processed(&[], &[]), "processed"),
            (Verdict::NothingDone(NothingDone::Throttled), "throttled"),
            (Verdict::NothingDone(NothingDone::Credentials), "credentials_rejected"),
            (Verdict::NothingDone(NothingDone::SignatureExpired), "signature_expired"),
            (Verdict::NothingDone(NothingDone::ActionUnavailable), "action_unavailable"),
            (Verdict::NothingDone(NothingDone::TooLarge), "too_large"),
            (Verdict::NothingDone(NothingDone::NotSent), "not_sent"),
            (Verdict::SessionGone, "session_gone"),
            (Verdict::Rejected, "rejected"),
            (Verdict::Unclear, "unclear"),
            (Verdict::Unanswered, "unanswered"),
        ] {
            assert_eq!(<&str>::from(verdict.result()), result);
        }
    }

    #[test]
    fn the_outcomes_of_a_call_are_those_of_its_ids() {
        let all = ["a", "b", "c", "d"].map(id);
        let answer = answer(processed(&["a", "c"], &["b", "c"]));

        let outcomes: Vec<_> = answer.outcomes(&all).collect();

        assert_eq!(outcomes, all.iter().map(|id| (id, answer.outcome(id, 4))).collect::<Vec<_>>());
        assert_eq!(
            outcomes.iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>(),
            [Outcome::Done, Outcome::Refused, Outcome::Unclear, Outcome::Unclear]
        );
    }
}
