//! The enums of the schema and those of the core have the same names, and stand for each other.

use streamsession_core::answer::{CallResult, Operation};
use streamsession_core::ledger::record::{FailureReason, State};

use super::v1alpha1 as api;

macro_rules! same {
    ($stored:ty, $core:ty: $($name:ident),+) => {
        impl From<$stored> for $core {
            fn from(stored: $stored) -> Self {
                match stored {
                    $(<$stored>::$name => Self::$name,)+
                }
            }
        }

        impl From<$core> for $stored {
            fn from(core: $core) -> Self {
                match core {
                    $(<$core>::$name => Self::$name,)+
                }
            }
        }
    };
}

same!(api::Operation, Operation: Attach, Detach);
same!(api::InstanceState, State: Attached, Detached, Unknown);
same!(api::FailureReason, FailureReason: Refused, Unclear, Unanswered, SessionGone);
same!(
    api::CallResult, CallResult:
    Processed, Throttled, CredentialsRejected, SignatureExpired, ActionUnavailable, TooLarge, NotSent,
    SessionGone, Rejected, Unclear, Unanswered
);
