//! A Kubernetes operator that keeps the slave cloud phones of Tencent Cloud GS multi-stream
//! sessions as declared.
//!
//! ```text
//!   main ─▶ cli ─▶ operator        arguments, composition: these alone know everything
//!                     │
//!                     ▼
//!                 controller       the shell: performs what the scheduler and a reconcile ask for
//!              ┌──────┼───────┐
//!              ▼      ▼       ▼
//!             api    gs   telemetry   the resource │ the service │ logs, metrics, the admin server
//!              └──┬───┴───────┘
//!                 ▼
//!         streamsession-core       all decisions, pure: what is due, when, and what people are told
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`api`] | the CRD's types, and the way between the object's status and the ledger |
//! | [`gs`] | the service's client: signing, wire format, answers, clock, credentials |
//! | [`controller`] | the watch, the commands of the scheduler, the effects of a reconcile, events |
//! | [`operator`] | settings become clients and tasks |
//! | [`telemetry`] | logs, metrics, readiness, the admin server |
//! | [`cli`] | `run`, `crd`, `switch` |
//!
//! Arrows point downwards, without a circle. Start with [`streamsession_core`]: its map says where
//! each decision is made. `docs/architecture.md` follows one edit through all of it.

pub mod api;
pub mod cli;
pub mod controller;
pub mod gs;
pub mod operator;
pub mod telemetry;
