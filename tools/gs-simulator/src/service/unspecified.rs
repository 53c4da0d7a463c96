//! What the service does where its documentation is silent: a client must cope with every
//! combination (`docs/tencent.md` lists the questions).

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::api_error::ApiError;
use super::switch::Switch;

/// How this service behaves where nothing is specified. A new value replaces all of an old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UnspecifiedBehaviour {
    /// Adding a phone that is in the session.
    pub add_present: NoOpAnswer,
    /// Removing a phone that is not in the session.
    pub remove_absent: NoOpAnswer,
    /// The code for a session that does not exist.
    pub gone_code: String,
    /// A call with more ids answers [`Self::max_batch_code`]. None: the body's size is the only
    /// limit.
    pub max_batch: Option<usize>,
    /// The code for a call with more than [`Self::max_batch`] ids.
    pub max_batch_code: String,
    /// A call that names one of these ids answers `InvalidParameterValue` as a whole.
    pub invalid_instances: BTreeSet<String>,
    /// The answer has no `SuccessInstanceIds` or `FailureInstanceIds` if it would be empty, as in
    /// the published sample. False: an empty list stands there.
    pub omit_empty_failures: bool,
    /// The answer's `SessionId` is empty, as in the published sample. False: it is the request's.
    pub empty_session_echo: bool,
}

impl Default for UnspecifiedBehaviour {
    fn default() -> Self {
        Self {
            add_present: NoOpAnswer::default(),
            remove_absent: NoOpAnswer::default(),
            gone_code: "ResourceNotFound.SessionNotFound".to_owned(),
            max_batch: None,
            max_batch_code: "InvalidParameterValue".to_owned(),
            invalid_instances: BTreeSet::new(),
            omit_empty_failures: true,
            empty_session_echo: true,
        }
    }
}

impl UnspecifiedBehaviour {
    /// The limits on a call's ids, which are checked before anything is looked up.
    pub(crate) fn check(&self, switch: &Switch) -> Result<(), ApiError> {
        let count = switch.instance_ids.len();
        if let Some(most) = self.max_batch.filter(|&most| count > most) {
            let message = format!(
                "The parameter `SlaveInstanceIds` has {count} ids, \
                 more than the {most} that are allowed."
            );
            return Err(ApiError::new(&self.max_batch_code, message));
        }
        if switch.instance_ids.iter().any(|id| self.invalid_instances.contains(id)) {
            // It does not name the id: clients must not parse the real service's messages, so they
            // can't learn it here.
            return Err(ApiError::new(
                "InvalidParameterValue",
                "The parameter `SlaveInstanceIds` has an id that is not valid.",
            ));
        }
        Ok(())
    }
}

/// What the service answers to an operation that has nothing to change. In JSON and on the command
/// line `success`, `failure` or `error:CODE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(try_from = "String", into = "String")]
#[strum(serialize_all = "lowercase")]
pub enum NoOpAnswer {
    /// The id is listed as a success.
    #[default]
    Success,
    /// The id is listed as a failure.
    Failure,
    /// The whole call answers this code, and changes nothing.
    #[strum(to_string = "error:{0}")]
    Error(String),
}

/// A word that is no [`NoOpAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of `success`, `failure` and `error:CODE`")]
pub struct InvalidNoOpAnswer(String);

impl FromStr for NoOpAnswer {
    type Err = InvalidNoOpAnswer;

    fn from_str(text: &str) -> Result<Self, InvalidNoOpAnswer> {
        match (text, text.strip_prefix("error:")) {
            ("success", _) => Ok(Self::Success),
            ("failure", _) => Ok(Self::Failure),
            (_, Some(code)) if !code.is_empty() => Ok(Self::Error(code.to_owned())),
            _ => Err(InvalidNoOpAnswer(text.to_owned())),
        }
    }
}

impl TryFrom<String> for NoOpAnswer {
    type Error = InvalidNoOpAnswer;

    fn try_from(text: String) -> Result<Self, InvalidNoOpAnswer> {
        text.parse()
    }
}

impl From<NoOpAnswer> for String {
    fn from(answer: NoOpAnswer) -> Self {
        answer.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::switch::Operation;

    #[test]
    fn every_field_of_the_json_may_be_left_out_and_none_misspelt() {
        assert_eq!(
            serde_json::from_str::<UnspecifiedBehaviour>("{}").unwrap(),
            UnspecifiedBehaviour::default()
        );
        let behaviour: UnspecifiedBehaviour =
            serde_json::from_str(r#"{"addPresent":"error:FailedOperation","maxBatch":3}"#).unwrap();
        assert_eq!(
            (behaviour.add_present, behaviour.max_batch),
            (NoOpAnswer::Error("FailedOperation".to_owned()), Some(3))
        );
        assert!(serde_json::from_str::<UnspecifiedBehaviour>(r#"{"goneCodes":""}"#).is_err());
    }

    #[test]
    fn a_no_op_answer_is_one_of_three_words() {
        for word in ["success", "failure", "error:ResourceInUse"] {
            assert_eq!(word.parse::<NoOpAnswer>().unwrap().to_string(), word);
        }
        for word in ["", "error", "error:", "Success"] {
            assert!(word.parse::<NoOpAnswer>().is_err(), "{word}");
        }
    }

    #[test]
    fn the_ids_of_a_call_are_limited_in_number_and_by_name() {
        let behaviour = UnspecifiedBehaviour {
            max_batch: Some(2),
            max_batch_code: "LimitExceeded".to_owned(),
            invalid_instances: BTreeSet::from(["bad".to_owned()]),
            ..UnspecifiedBehaviour::default()
        };
        let code = |ids: &[&str]| {
            let instance_ids = ids.iter().map(|&id| id.to_owned()).collect();
            let switch =
                Switch { session_id: "s".to_owned(), operation: Operation::Detach, instance_ids };
            behaviour.check(&switch).map_err(|error| error.code)
        };
        assert_eq!(code(&["a", "b"]), Ok(()));
        assert_eq!(code(&["a", "b", "c"]), Err("LimitExceeded".to_owned()));
        assert_eq!(code(&["a", "bad"]), Err("InvalidParameterValue".to_owned()));
    }
}
