//! The wire format of `SwitchCloudPhoneMultipleStreamSessionSlaves` (reference, section 1). Pure.
//!
//! The request is written as the service's samples have it; the response is read as tolerantly as
//! one sample without `FailureInstanceIds` and an undocumented rest ask for.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use streamsession_core::answer::Operation;
use streamsession_core::ids::{InstanceId, SessionId};

/// `X-TC-Action`.
pub const ACTION: &str = "SwitchCloudPhoneMultipleStreamSessionSlaves";
/// `X-TC-Version`.
pub const VERSION: &str = "2019-11-18";
/// The product in the signature's scope.
pub const SERVICE: &str = "gs";
/// Signed exactly as sent, so without a charset, as the SDKs do (reference, section 2).
pub const CONTENT_TYPE: &str = "application/json";

/// Distinct ids kept of one list. A call has at most a thousand; what a broken answer lists beyond
/// costs no memory.
const LISTED_IDS_MAX: usize = 10_000;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    session_id: &'a str,
    r#type: u8,
    slave_instance_ids: Vec<&'a str>,
}

/// The body of a call: `SessionId`, `Type`, `SlaveInstanceIds`, in this order.
pub fn body(
    session: &SessionId,
    operation: Operation,
    instances: &[InstanceId],
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Body {
        session_id: session.as_str(),
        r#type: match operation {
            Operation::Attach => 1,
            Operation::Detach => 2,
        },
        slave_instance_ids: instances.iter().map(InstanceId::as_str).collect(),
    })
}

/// What stands in `Response`. `SessionId` is not read: the only published sample answers `""`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Present if the call failed as a whole.
    pub error: Option<ErrorBody>,
    /// Empty when absent, null or no list.
    pub success_instance_ids: Listed,
    /// Empty when absent, null or no list.
    pub failure_instance_ids: Listed,
    /// For support tickets; empty when there is none.
    pub request_id: String,
}

/// `Response.Error`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// Matched whole or up to a dot.
    pub code: String,
    /// Never parsed.
    pub message: String,
}

/// A list of ids: those that can be ids at all, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listed(BTreeSet<InstanceId>);

impl Listed {
    /// Those of the list that were asked for: nobody knows what any other id has to do with the
    /// call.
    #[must_use]
    pub fn among(mut self, asked: &BTreeSet<InstanceId>) -> BTreeSet<InstanceId> {
        self.0.retain(|id| asked.contains(id));
        self.0
    }
}

/// Reads an answer's body; `None` if it is no JSON object with an object `Response`, without which
/// it is nobody's answer.
#[must_use]
pub fn response(body: &[u8]) -> Option<Response> {
    let Loose(Envelope(response)) = serde_json::from_slice(body).ok()?;
    response
}

#[derive(Default)]
struct Envelope(Option<Response>);

/// A value of whatever JSON type: what is not as expected is the default, so that one odd field
/// can't hide the rest of an answer. Nothing is buffered on the way: an answer may have 50 MB.
struct Loose<T>(T);

/// How a [`Loose`] value is made of the JSON types that it expects.
trait FromLoose: Default {
    /// A number or a boolean.
    fn scalar() -> Self {
        Self::default()
    }
    fn text(_: String) -> Self {
        Self::default()
    }
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
    /// Reads the value of `key` into itself, or ignores it.
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        _key: &str,
        object: &mut A,
    ) -> Result<(), A::Error> {
        object.next_value::<IgnoredAny>().map(drop)
    }
    /// What an object is before its first field.
    fn object() -> Self {
        Self::default()
    }
}

impl FromLoose for String {
    fn text(text: String) -> Self {
        text
    }
}

impl FromLoose for Listed {
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut ids = BTreeSet::new();
        while let Some(Loose(text)) = list.next_element::<Loose<String>>()? {
            if ids.len() < LISTED_IDS_MAX {
                ids.extend(InstanceId::parse(&text).ok());
            }
        }
        Ok(Self(ids))
    }
}

impl FromLoose for Envelope {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        if key == "Response" {
            Loose(self.0) = object.next_value()?;
            return Ok(());
        }
        object.next_value::<IgnoredAny>().map(drop)
    }
}

impl FromLoose for Option<Response> {
    fn object() -> Self {
        Some(Response::default())
    }

    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        let response = self.get_or_insert_default();
        match key {
            "Error" => Loose(response.error) = object.next_value()?,
            "SuccessInstanceIds" => Loose(response.success_instance_ids) = object.next_value()?,
            "FailureInstanceIds" => Loose(response.failure_instance_ids) = object.next_value()?,
            "RequestId" => Loose(response.request_id) = object.next_value()?,
            _ => drop(object.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// Null is no error. Anything else is one, if need be without a code: a failure must not pass for a
/// success.
impl FromLoose for Option<ErrorBody> {
    fn scalar() -> Self {
        Self::object()
    }

    fn text(message: String) -> Self {
        Some(ErrorBody { code: String::new(), message })
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::object())
    }

    fn object() -> Self {
        Some(ErrorBody::default())
    }

    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        let error = self.get_or_insert_default();
        match key {
            "Code" => Loose(error.code) = object.next_value()?,
            "Message" => Loose(error.message) = object.next_value()?,
            _ => drop(object.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de, T: FromLoose> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData)).map(Loose)
    }
}

struct LooseVisitor<T>(PhantomData<T>);

impl<'de, T: FromLoose> Visitor<'de> for LooseVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<T, A::Error> {
        let mut value = T::object();
        while let Some(key) = object.next_key::<String>()? {
            value.field(&key, &mut object)?;
        }
        Ok(value)
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::scalar())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::scalar())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::scalar())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::scalar())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn ids(texts: &[&str]) -> BTreeSet<InstanceId> {
        texts.iter().map(|text| id(text)).collect()
    }

    fn listed(json: &str) -> Listed {
        let body = format!(r#"{{"Response":{{"SuccessInstanceIds":{json}}}}}"#);
        response(body.as_bytes()).unwrap().success_instance_ids
    }

    #[test]
    fn the_body_has_the_services_key_order_and_no_space() {
        let session = SessionId::parse("1326515201117065216").unwrap();
        let body = |operation| {
            String::from_utf8(body(&session, operation, &[id("b"), id("a")]).unwrap()).unwrap()
        };

        assert_eq!(
            body(Operation::Attach),
            r#"{"SessionId":"1326515201117065216","Type":1,"SlaveInstanceIds":["b","a"]}"#
        );
        assert_eq!(
            body(Operation::Detach),
            r#"{"SessionId":"1326515201117065216","Type":2,"SlaveInstanceIds":["b","a"]}"#
        );
    }

    #[test]
    fn the_published_sample_without_failures_is_read() {
        let sample =
            br#"{"Response":{"SessionId":"","SuccessInstanceIds":["a"],"RequestId":"r-1"}}"#;

        let response = response(sample).unwrap();

        assert_eq!(response.success_instance_ids, Listed(ids(&["a"])));
        assert_eq!(response.failure_instance_ids, Listed::default());
        assert_eq!(response.request_id, "r-1");
        assert_eq!(response.error, None);
    }

    #[test]
    fn lists_may_be_null_empty_or_something_else() {
        for json in ["null", "[]", "{}", "\"a\"", "1", "-1", "1.5", "true", r#"{"a":["b"]}"#] {
            assert_eq!(listed(json), Listed::default(), "{json}");
        }
    }

    #[test]
    fn what_can_not_be_an_id_does_not_hide_its_neighbours() {
        assert_eq!(
            listed(r#"["a", null, 7, "", "two words", ["b"], {"c":1}, "d", "d"]"#),
            Listed(ids(&["a", "d"]))
        );
    }

    #[test]
    fn ids_that_were_not_asked_for_are_ignored() {
        assert_eq!(listed(r#"["a","x"]"#).among(&ids(&["a", "b"])), ids(&["a"]));
    }

    #[test]
    fn a_list_without_end_costs_bounded_memory() {
        let many: Vec<String> = (0..2 * LISTED_IDS_MAX).map(|n| format!("\"i{n}\"")).collect();

        assert_eq!(listed(&format!("[{}]", many.join(","))).0.len(), LISTED_IDS_MAX);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let body = br#"{"Extra":1,"Response":{"New":{"a":[1]},"Error":{"Code":"X","Message":"m","Detail":[1]},"RequestId":"r"}}"#;

        assert_eq!(
            response(body).unwrap().error,
            Some(ErrorBody { code: "X".into(), message: "m".into() })
        );
    }

    #[test]
    fn a_null_error_is_none_and_a_shapeless_one_is_an_error_without_a_code() {
        let error = |json: &str| {
            response(format!(r#"{{"Response":{{"Error":{json}}}}}"#).as_bytes()).unwrap().error
        };

        assert_eq!(error("null"), None);
        for json in ["{}", "[]", "7", "false", r#"{"Code":null}"#, r#"{"Code":["X"]}"#] {
            assert_eq!(error(json), Some(ErrorBody::default()), "{json}");
        }
    }

    #[test]
    fn a_body_without_a_response_object_is_unreadable() {
        for body in [
            "",
            "{}",
            "null",
            "[]",
            r#"{"Response":null}"#,
            r#"{"Response":"x"}"#,
            r#"{"Response":[]}"#,
            r#"[{"Response":{}}]"#,
            r#"{"Response":{}"#,
            "<html>",
            r#"{"response":{}}"#,
        ] {
            assert_eq!(response(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn nesting_without_end_is_an_error_and_no_overflow() {
        let body = format!(r#"{{"Response":{{"X":{}"#, "[".repeat(1_000_000));

        assert_eq!(response(body.as_bytes()), None);
    }
}
