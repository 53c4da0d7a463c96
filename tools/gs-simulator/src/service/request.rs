//! A request as it came, and the parameters that any action reads from it.

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::api_error::ApiError;

/// The service takes bodies of up to 10 MB.
pub(crate) const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// A `POST /` as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) headers: HeaderMap,
    /// None: longer than [`BODY_BYTES_MAX`].
    pub(crate) body: Option<Bytes>,
}

impl Request {
    #[cfg(test)]
    pub(crate) fn new(headers: &[(&str, &str)], body: &str) -> Self {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Self { headers: headers.collect(), body: Some(body.to_owned().into()) }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    /// The body's fields. An error if it is no JSON object.
    pub(crate) fn parameters(&self) -> Result<Parameters, ApiError> {
        let Some(body) = &self.body else {
            return Err(ApiError::new(
                "RequestSizeLimitExceeded",
                format!("The body is longer than {BODY_BYTES_MAX} bytes."),
            ));
        };
        let media_type = self.header("content-type").unwrap_or_default();
        if media_type.split(';').next().map(str::trim) != Some("application/json") {
            return Err(ApiError::new(
                "InvalidRequest",
                format!("Content-Type must be application/json, not {media_type:?}."),
            ));
        }
        serde_json::from_slice(body).map(Parameters).map_err(|error| {
            ApiError::new("InvalidRequest", format!("The body is not a JSON object: {error}."))
        })
    }

    /// A common parameter, which TC3 puts into a header.
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.header(name).ok_or_else(|| ApiError::missing_parameter(name))
    }

    pub(crate) fn check_action(&self, known: &str, known_version: &str) -> Result<(), ApiError> {
        let action = self.required("X-TC-Action")?;
        if action != known {
            return Err(ApiError::new(
                "InvalidAction",
                format!("X-TC-Action {action:?} is not known here, only {known}."),
            ));
        }
        let version = self.required("X-TC-Version")?;
        if version != known_version {
            return Err(ApiError::new(
                "NoSuchVersion",
                format!("X-TC-Version {version:?} does not exist, only {known_version}."),
            ));
        }
        Ok(())
    }
}

/// The body's fields, not yet checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Parameters(Map<String, Value>);

impl Parameters {
    /// An error if there is any other than these.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(ApiError::new(
                "UnknownParameter",
                format!("The parameter `{unknown}` is not recognized."),
            )),
            None => Ok(()),
        }
    }

    /// A string that must be there and not be empty.
    pub(crate) fn text(&self, name: &str) -> Result<&str, ApiError> {
        match self.required(name)?.as_str() {
            Some("") => Err(ApiError::new(
                "InvalidParameterValue",
                format!("The parameter `{name}` must not be empty."),
            )),
            Some(text) => Ok(text),
            None => Err(ApiError::invalid_parameter(name, "a string")),
        }
    }

    /// A null is no value.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&Value, ApiError> {
        self.get(name).ok_or_else(|| ApiError::missing_parameter(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [(&str, &str); 3] =
        [("content-type", "application/json"), ("x-tc-action", "Act"), ("x-tc-version", "1")];

    #[test]
    fn a_body_that_is_too_long_or_no_json_by_its_type_is_refused() {
        let too_long = Request { body: None, ..Request::new(&HEADERS, "{}") };
        assert_eq!(too_long.parameters().unwrap_err().code, "RequestSizeLimitExceeded");

        let mut form = Request::new(&HEADERS, "{}");
        form.headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        assert_eq!(form.parameters().unwrap_err().code, "InvalidRequest");
    }

    #[test]
    fn another_action_or_version_is_named_in_the_error() {
        for (header, value, expected) in [
            ("x-tc-action", Some("DescribeInstancesCount"), "InvalidAction"),
            ("x-tc-action", None, "MissingParameter"),
            ("x-tc-version", Some("2017-03-12"), "NoSuchVersion"),
            ("x-tc-version", None, "MissingParameter"),
        ] {
            let mut request = Request::new(&HEADERS, "{}");
            request.headers.remove(header);
            if let Some(value) = value {
                request.headers.insert(header, value.parse().unwrap());
            }
            assert_eq!(
                request.check_action("Act", "1").unwrap_err().code,
                expected,
                "{header} {value:?}"
            );
        }
    }
}
