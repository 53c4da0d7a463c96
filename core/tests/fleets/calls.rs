//! The calls that operators send, and who signs them.

use std::collections::BTreeSet;
use std::ops::Deref;

use streamsession_core::identity::Identity;
use streamsession_core::ids::InstanceId;
use streamsession_testkit::service::{Caller, Request};

use crate::api::Name;

/// The service's own word for how long a signature is good.
pub const SIGNATURE_SECONDS: i64 = 20;
/// How long it may take to work on a request that it has let in.
pub const MARGIN_SECONDS: i64 = 2;

/// Who calls. Two keys of the account that owns the sessions, one of another account, and one that
/// is none.
pub const KEYS: [&str; 4] = ["AKID-a", "AKID-b", "AKID-other", "AKID-bad"];

/// Whose key that is.
pub fn caller(key: &str) -> Caller {
    match key {
        "AKID-other" => Caller::OtherAccount,
        "AKID-bad" => Caller::Unknown,
        _ => Caller::Owner,
    }
}

/// What STS says of that key: it does not know the last one.
pub fn identity(key: &str) -> Identity {
    let account = match caller(key) {
        Caller::Owner => Some("owner".into()),
        Caller::OtherAccount => Some("other".into()),
        Caller::Unknown => None,
    };
    // Both keys of an account are of one sub-account.
    Identity { user: account.clone(), account, ..key.into() }
}

/// A call that an operator has sent, or is about to.
#[derive(Clone, Debug)]
pub struct SentCall {
    pub request: Request,
    /// It attaches again what is attached.
    pub resync: bool,
    pub credential: String,
    /// For whom, so that the checks can say whose fault it is.
    pub name: Name,
    pub uid: String,
    /// Ids that the object has legitimately lost meanwhile.
    pub excused: BTreeSet<InstanceId>,
}

impl Deref for SentCall {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

impl SentCall {
    /// Whether every id is excused.
    pub fn is_excused(&self) -> bool {
        self.instances.iter().all(|id| self.excused.contains(id))
    }

    /// Excuses all of it.
    pub fn excuse(&mut self) {
        self.excused = self.request.instances.iter().cloned().collect();
    }
}
