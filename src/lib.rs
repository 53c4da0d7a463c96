//! A Kubernetes operator that keeps the slave cloud phones of Tencent Cloud GS multi-stream
//! sessions as declared.
//!
//! ```text
//!   main ─▶ cli ─▶ operator            arguments, composition: these alone know everything
//!                     │
//!                     ▼
//!                controller            the shell: watch, agenda, reconciles; performs the effects of `step`
//!              ┌──────┼───────┐
//!              ▼      ▼       ▼
//!             api    gs     queue      the resource │ the service │ permits to call it
//!              └──┬───┘
//!                 ▼
//!        streamsession-core        the ledger and its rules, pure: what is due, what an answer means, what people are told
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`api`] | the CRD's types, and the way between the object's status and the ledger |
//! | [`gs`] | the service's client: signing, wire format, answers, clock, credentials |
//! | [`queue`] | the rate limit: permits that come back, and who waits for one |
//! | [`controller`] | one watch of digests, an agenda, one reconcile at a time for each object |
//! | [`operator`] | settings become clients and tasks |
//! | [`telemetry`] | logs, metrics, the admin server |
//! | [`cli`] | `run`, `crd` |
//!
//! Dependencies point downwards. `api`, `gs::{sign, wire, answer, endpoint}`, `queue`'s schedule
//! and the controller's agenda import no tokio, kube client, reqwest or clock; `tests/it/layers.rs`
//! holds them to it, and Cargo the protocol.

pub mod api;
pub mod cli;
pub mod controller;
pub mod gs;
pub mod operator;
pub mod queue;
pub mod telemetry;
