//! The service's one action: what it is asked for, and what came of it.

use serde::{Deserialize, Serialize};

use super::api_error::ApiError;
use super::request::Parameters;

pub(crate) const ACTION: &str = "SwitchCloudPhoneMultipleStreamSessionSlaves";
pub(crate) const VERSION: &str = "2019-11-18";

const PARAMETERS: [&str; 3] = ["SessionId", "Type", "SlaveInstanceIds"];

/// `Type` of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    /// Type 1: add slaves.
    Attach,
    /// Type 2: remove slaves.
    Detach,
}

/// A call whose parameters are well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) session_id: String,
    pub(crate) operation: Operation,
    pub(crate) instance_ids: Vec<String>,
}

impl Switch {
    pub(crate) fn parse(parameters: &Parameters) -> Result<Self, ApiError> {
        parameters.only(&PARAMETERS)?;
        let session_id = parameters.text("SessionId")?.to_owned();
        let operation = match parameters.required("Type")?.as_i64() {
            Some(1) => Operation::Attach,
            Some(2) => Operation::Detach,
            Some(other) => {
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    format!("The parameter `Type` must be 1 or 2, not {other}."),
                ));
            }
            None => return Err(ApiError::invalid_parameter("Type", "an integer")),
        };
        let instance_ids = parameters
            .required("SlaveInstanceIds")?
            .as_array()
            .and_then(|ids| {
                ids.iter()
                    .map(|id| id.as_str().filter(|id| !id.is_empty()).map(str::to_owned))
                    .collect::<Option<Vec<_>>>()
            })
            .filter(|ids| !ids.is_empty())
            .ok_or_else(|| {
                let must_be = "a list of one or more strings, none of them empty";
                ApiError::invalid_parameter("SlaveInstanceIds", must_be)
            })?;
        Ok(Self { session_id, operation, instance_ids })
    }
}

/// The ids of a call, sorted by what became of them. Every id is in exactly one list, once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SwitchResult {
    pub(crate) succeeded: Vec<String>,
    pub(crate) failed: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::request::Request;

    fn parse(body: &str) -> Result<Switch, ApiError> {
        let request = Request::new(&[("content-type", "application/json")], body);
        request.parameters().and_then(|parameters| Switch::parse(&parameters))
    }

    #[test]
    fn the_published_sample_is_a_detach_of_two_phones() {
        let switch =
            parse(r#"{"SessionId":"1326515201117065216","Type":2,"SlaveInstanceIds":["a","b"]}"#)
                .unwrap();
        assert_eq!(
            (switch.session_id.as_str(), switch.operation, switch.instance_ids.len()),
            ("1326515201117065216", Operation::Detach, 2)
        );
    }

    #[test]
    fn each_mistake_has_its_code() {
        for (body, expected) in [
            ("", "InvalidRequest"),
            ("[]", "InvalidRequest"),
            ("{", "InvalidRequest"),
            ("{}", "MissingParameter"),
            (r#"{"SessionId":null,"Type":1,"SlaveInstanceIds":["a"]}"#, "MissingParameter"),
            (
                r#"{"SessionId":1326515201117065216,"Type":1,"SlaveInstanceIds":["a"]}"#,
                "InvalidParameter",
            ),
            (r#"{"SessionId":"","Type":1,"SlaveInstanceIds":["a"]}"#, "InvalidParameterValue"),
            (r#"{"SessionId":"s","SlaveInstanceIds":["a"]}"#, "MissingParameter"),
            (r#"{"SessionId":"s","Type":"1","SlaveInstanceIds":["a"]}"#, "InvalidParameter"),
            (r#"{"SessionId":"s","Type":3,"SlaveInstanceIds":["a"]}"#, "InvalidParameterValue"),
            (r#"{"SessionId":"s","Type":1}"#, "MissingParameter"),
            (r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":[]}"#, "InvalidParameter"),
            (r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":"a"}"#, "InvalidParameter"),
            (r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a",1]}"#, "InvalidParameter"),
            (
                r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a"],"Slaves":1}"#,
                "UnknownParameter",
            ),
            (r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a"]}"#, "accepted"),
        ] {
            let code = parse(body).map_or_else(|error| error.code, |_| "accepted".to_owned());
            assert_eq!(code, expected, "{body}");
        }
    }
}
