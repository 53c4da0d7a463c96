//! What the service answers where its documentation is silent: a client must live with every one of
//! these worlds. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::wire::{Refusal, Switch};

/// Which of the possible services this is. A new value replaces all of an old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct World {
    /// Adding a phone that is in the session.
    pub add_present: Repeated,
    /// Removing a phone that is not in the session.
    pub remove_absent: Repeated,
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

impl Default for World {
    fn default() -> Self {
        Self {
            add_present: Repeated::default(),
            remove_absent: Repeated::default(),
            gone_code: "ResourceNotFound.SessionNotFound".to_owned(),
            max_batch: None,
            max_batch_code: "InvalidParameterValue".to_owned(),
            invalid_instances: BTreeSet::new(),
            omit_empty_failures: true,
            empty_session_echo: true,
        }
    }
}

impl World {
    /// The limits on a call's ids, which are judged before anything is looked up.
    pub(crate) fn check(&self, switch: &Switch) -> Result<(), Refusal> {
        let count = switch.instance_ids.len();
        if let Some(most) = self.max_batch.filter(|&most| count > most) {
            let message = format!(
                "The parameter `SlaveInstanceIds` has {count} ids, more than the {most} that are allowed."
            );
            return Err(Refusal::new(&self.max_batch_code, message));
        }
        match switch.instance_ids.iter().find(|id| self.invalid_instances.contains(*id)) {
            // No id: the real service's messages are not to be parsed, so that a client can't learn
            // it here.
            Some(_) => Err(Refusal::new(
                "InvalidParameterValue",
                "The parameter `SlaveInstanceIds` has an id that is not valid.",
            )),
            None => Ok(()),
        }
    }
}

/// What the service answers to an operation that has nothing to do. In JSON and on the command line
/// `success`, `failure` or `error:CODE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Repeated {
    /// The id is listed as a success.
    #[default]
    Success,
    /// The id is listed as a failure.
    Failure,
    /// The whole call answers this code, and changes nothing.
    Error(String),
}

/// A word that is no [`Repeated`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of `success`, `failure` and `error:CODE`")]
pub struct NotRepeated(String);

impl FromStr for Repeated {
    type Err = NotRepeated;

    fn from_str(text: &str) -> Result<Self, NotRepeated> {
        match (text, text.strip_prefix("error:")) {
            ("success", _) => Ok(Self::Success),
            ("failure", _) => Ok(Self::Failure),
            (_, Some(code)) if !code.is_empty() => Ok(Self::Error(code.to_owned())),
            _ => Err(NotRepeated(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Repeated {
    type Error = NotRepeated;

    fn try_from(text: String) -> Result<Self, NotRepeated> {
        text.parse()
    }
}

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::Failure => f.write_str("failure"),
            Self::Error(code) => write!(f, "error:{code}"),
        }
    }
}

impl From<Repeated> for String {
    fn from(repeated: Repeated) -> Self {
        repeated.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Operation;

    #[test]
    fn every_field_of_the_json_may_be_left_out_and_none_misspelt() {
        assert_eq!(serde_json::from_str::<World>("{}").unwrap(), World::default());
        let world: World =
            serde_json::from_str(r#"{"addPresent":"error:FailedOperation","maxBatch":3}"#).unwrap();
        assert_eq!(
            (world.add_present, world.max_batch),
            (Repeated::Error("FailedOperation".to_owned()), Some(3))
        );
        assert!(serde_json::from_str::<World>(r#"{"goneCodes":""}"#).is_err());
    }

    #[test]
    fn a_repeated_operations_answer_is_one_of_three_words() {
        for word in ["success", "failure", "error:ResourceInUse"] {
            assert_eq!(word.parse::<Repeated>().unwrap().to_string(), word);
        }
        for word in ["", "error", "error:", "Success"] {
            assert!(word.parse::<Repeated>().is_err(), "{word}");
        }
    }

    #[test]
    fn the_ids_of_a_call_are_limited_in_number_and_by_name() {
        let world = World {
            max_batch: Some(2),
            max_batch_code: "LimitExceeded".to_owned(),
            invalid_instances: BTreeSet::from(["bad".to_owned()]),
            ..World::default()
        };
        let code = |ids: &[&str]| {
            let instance_ids = ids.iter().map(|&id| id.to_owned()).collect();
            let switch =
                Switch { session_id: "s".to_owned(), operation: Operation::Detach, instance_ids };
            world.check(&switch).map_err(|refusal| refusal.code)
        };
        assert_eq!(code(&["a", "b"]), Ok(()));
        assert_eq!(code(&["a", "b", "c"]), Err("LimitExceeded".to_owned()));
        assert_eq!(code(&["a", "bad"]), Err("InvalidParameterValue".to_owned()));
    }
}
