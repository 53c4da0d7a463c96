//! An error with its causes, on one line.

use std::error::Error;

/// The message and those of its causes that it does not repeat already: the texts of kube and
/// reqwest stop short of the reason.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<Told>>);

    fn told(message: &'static str, cause: Told) -> Told {
        Told(message, Some(Box::new(cause)))
    }

    #[test]
    fn each_cause_follows_what_it_caused() {
        let error = told("no answer", told("no connection", Told("refused", None)));

        assert_eq!(error_chain(&error), "no answer: no connection: refused");
    }

    #[test]
    fn a_cause_that_the_message_repeats_stands_once() {
        let error = told("no answer: no connection", told("no connection", Told("refused", None)));

        assert_eq!(error_chain(&error), "no answer: no connection: refused");
    }
}
