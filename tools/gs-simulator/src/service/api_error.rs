//! The error that an answer carries.

/// Nothing was changed, and the answer says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    pub(crate) fn missing_parameter(name: &str) -> Self {
        let message = format!("The request is missing a required parameter `{name}`.");
        Self::new("MissingParameter", message)
    }

    pub(crate) fn invalid_parameter(name: &str, must_be: &str) -> Self {
        Self::new("InvalidParameter", format!("The parameter `{name}` must be {must_be}."))
    }

    /// An error that a fault asks for.
    pub(crate) fn injected(code: impl Into<String>) -> Self {
        Self::new(code, "The simulator was told to answer this.")
    }
}
