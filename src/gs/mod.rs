//! The service: Tencent Cloud GS, and its one action `SwitchCloudPhoneMultipleStreamSessionSlaves`.
//!
//! ```text
//! Switch ──> wire (body) ──> sign ──> exchange (HTTP) ──> wire (envelope) ──> answer ──> Answer
//!   │                                     │
//!   └── credentials (Secret, environment) └── Date ──> clock ──> the next journal's startTime
//! ```
//!
//! `sign`, `wire`, `answer` and `endpoint` are pure: texts in, texts out. `exchange` decides
//! whether a byte can have left this machine; `client` puts all of it together. Whatever happens, a
//! call has an [`Answer`](streamsession_core::answer::Answer), and is sent once.

pub mod answer;
pub mod client;
pub mod clock;
pub mod credentials;
pub mod endpoint;
mod error_chain;
mod exchange;
mod headers;
mod identity;
pub mod sign;
mod single_flight;
pub mod wire;

pub use client::{AskTimeError, Client, HIDDEN, Prepared, Settings, Switch};
pub use credentials::{
    CredentialStore, Credentials, CredentialsError, OwnSettings, PermittedNamespaces, Source,
};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use error_chain::error_chain;
pub use exchange::HttpUnavailable;
pub use identity::Identities;
