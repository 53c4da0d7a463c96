//! The account behind a key, asked of STS (`GetCallerIdentity`) once for each key.
//!
//! Two keys of one account are one identity, so that a rotated key loses nothing. Where STS can't be
//! asked, a key is itself and nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde::Deserialize;
use streamsession_core::identity::Identity;
use tracing::debug;

use super::credentials::{Credentials, Source};
use super::endpoint::Endpoint;
use super::exchange::{Http, HttpUnavailable};
use super::headers::Action;
use super::single_flight::SingleFlight;

const DEADLINE: Duration = Duration::from_secs(2);
/// An STS that can't be reached must not delay each call.
const FAILURE_KEPT: Duration = Duration::from_mins(1);
/// Keys remembered. Far more than anyone has; beyond that, all are asked anew.
const KEYS_MAX: usize = 4_096;

const BODY: &[u8] = b"{}";
/// It has to be some region; the answer is the same in all.
const REGION: &str = "ap-guangzhou";

/// Who has which key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Identities(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: Http,
    sts: Endpoint,
    salt: RandomState,
    known: Mutex<HashMap<u64, Known>>,
    asking: SingleFlight<u64, Option<Caller>>,
}

/// Who is behind a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Caller {
    account: Arc<str>,
    /// The sub-account, or the account itself; none if STS does not tell.
    user: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Known {
    caller: Option<Caller>,
    /// A failure is asked for again then.
    until: Option<Instant>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    response: CallerIdentity,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CallerIdentity {
    account_id: Option<String>,
    user_id: Option<String>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    code: String,
}

impl Identities {
    /// Asks the STS at this endpoint. Fails if no TLS roots can be loaded at all, or not those of
    /// the CA file.
    pub fn new(sts: Endpoint, ca_file: Option<&Path>) -> Result<Self, HttpUnavailable> {
        let http = Http::new(DEADLINE, ca_file)?;
        let (salt, known, asking) = (RandomState::new(), Mutex::default(), SingleFlight::default());
        Ok(Self(Arc::new(Inner { http, sts, salt, known, asking })))
    }

    /// Whose credentials these are; `timestamp`: Unix seconds to sign with.
    pub async fn of(&self, credentials: &Credentials, timestamp: i64) -> Identity {
        let credential = credentials.name();
        let key = match &credentials.source {
            // Its keys come and go, and nobody else can have it.
            Source::PodIdentity { .. } | Source::NodeRole { .. } => Identity::from(credential).key,
            Source::Environment | Source::Secret { .. } | Source::Profile { .. } => {
                let pair = (&credentials.secret_id, credentials.secret_key.expose_secret());
                self.0.salt.hash_one(pair)
            }
        };
        let caller = self.caller(key, credentials, timestamp).await;
        let (account, user) = caller.map(|caller| (caller.account, caller.user)).unzip();
        Identity { credential: credential.into(), key, account, user: user.flatten() }
    }

    async fn caller(&self, key: u64, credentials: &Credentials, timestamp: i64) -> Option<Caller> {
        if let Some(known) = self.0.known.lock().get(&key)
            && known.until.is_none_or(|until| Instant::now() < until)
        {
            return known.caller.clone();
        }
        let (inner, credentials) = (Arc::clone(&self.0), credentials.clone());
        let ask = || async move {
            let caller = match inner.ask(&credentials, timestamp).await {
                Ok(caller) => Some(caller),
                Err(reason) => {
                    let (credential, sts) = (credentials.name(), &inner.sts);
                    debug!(credential, %sts, reason, "the account behind a key is not known");
                    None
                }
            };
            let until = caller.is_none().then(|| Instant::now() + FAILURE_KEPT);
            let mut known = inner.known.lock();
            if known.len() >= KEYS_MAX {
                known.clear();
            }
            known.insert(key, Known { caller: caller.clone(), until });
            caller
        };
        self.0.asking.join(key, ask).await
    }
}

impl Inner {
    async fn ask(&self, credentials: &Credentials, timestamp: i64) -> Result<Caller, String> {
        let action = Action {
            endpoint: &self.sts,
            service: "sts",
            name: "GetCallerIdentity",
            version: "2018-08-13",
            content_type: "application/json",
        };
        let headers = action.signed(BODY, timestamp, Some(REGION), credentials)?;
        let exchange = self.http.post(&self.sts, headers, BODY.to_vec()).await;
        let exchange = exchange.map_err(|answer| format!("{}: {}", answer.code, answer.message))?;
        caller(&exchange.body)
    }
}

fn caller(body: &[u8]) -> Result<Caller, String> {
    let unreadable = || "STS gave an answer that can't be read".to_owned();
    let Envelope { response } = serde_json::from_slice(body).map_err(|_| unreadable())?;
    match response {
        CallerIdentity { error: Some(error), .. } => Err(format!("STS answered {}", error.code)),
        CallerIdentity { account_id: Some(account), user_id, .. } if !account.is_empty() => {
            let user = user_id.filter(|user| !user.is_empty()).map(Into::into);
            Ok(Caller { account: account.into(), user })
        }
        CallerIdentity { .. } => Err(unreadable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_in_the_answer_or_a_reason_why_not() {
        let read = |body: &str| caller(body.as_bytes());
        let of =
            |user: Option<&str>| Ok(Caller { account: "100".into(), user: user.map(Into::into) });
        let known = r#"{"Response":{"AccountId":"100","UserId":"7","RequestId":"r"}}"#;
        assert_eq!(read(known), of(Some("7")));
        assert_eq!(read(r#"{"Response":{"AccountId":"100","UserId":""}}"#), of(None));
        let refused = r#"{"Response":{"Error":{"Code":"AuthFailure","Message":"m"}}}"#;
        assert_eq!(read(refused), Err("STS answered AuthFailure".to_owned()));
        for body in ["", "{}", r#"{"Response":{}}"#, r#"{"Response":{"AccountId":""}}"#] {
            assert_eq!(read(body), Err("STS gave an answer that can't be read".to_owned()));
        }
    }
}
