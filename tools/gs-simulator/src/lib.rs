//! A Tencent Cloud GS server for laptops and tests.
//!
//! It answers `SwitchCloudPhoneMultipleStreamSessionSlaves` over HTTP or HTTPS, verifies signatures
//! as the service does, counts the rate, keeps sessions in memory, and injects faults on request.
//! It shares no code with the operator that it tests.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use gs_simulator::{Faults, Options, Simulator};
//!
//! let simulator = Simulator::start(Options::default()).await?;
//! simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
//! // … let a client call simulator.url() …
//! assert!(simulator.members("1326515201117065216").contains("phone-1"));
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! Each file uses those below it only. From `service` on, all is pure: no clock, no socket; the time
//! is an argument.
//!
//! ```text
//! bin/gs-simulator    the command line
//! simulator           Options, Simulator
//! server              connections, the API's route, answers that never come
//!   tls               certificates
//!   admin             admin routes: JSON for people
//!   metadata          the metadata service: keys of a machine's role
//!   throttled_body    slow answers
//!   shared_service    the service behind a lock, with clocks
//! service             the order in which a request is checked
//!   rate              the quota
//!   calls             the history
//!   identity          STS, temporary keys
//!   tc3, keys         signatures
//!   fault_injector    which fault a call meets
//!   answer            what is sent, as it should be or garbled
//!   sessions          sessions and their members
//!   unspecified       what the documentation leaves open
//!   faults, rng       faults as people write them, randomness
//!   switch            the action: its parameters and its result
//!   request           what any action reads; api_error, request_ids
//! ```

mod server;
mod service;
mod simulator;
#[cfg(test)]
mod tests;

pub use server::tls::Tls;
pub use service::calls::{Call, KeyStats, Outcome, Stats};
pub use service::faults::{AnswerFault, Chances, ErrorFault, Faults, GarbledAnswer, InstanceFault};
pub use service::identity::Identity;
pub use service::keys::{Key, Keys};
pub use service::rate::RateWindow;
pub use service::rng::{InvalidProbability, Probability};
pub use service::switch::Operation;
pub use service::unspecified::{InvalidNoOpAnswer, NoOpAnswer, UnspecifiedBehaviour};
pub use simulator::{EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Options, Simulator};
