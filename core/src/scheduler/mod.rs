//! Which object is reconciled when, and who may call the service next. Pure, and simulated as it
//! runs: the controller and the simulated fleets drive the very same [`Scheduler`].
//!
//! ```text
//!  Event ──▶ commands: Scheduler ──▶ Command (start this run, wake me then)
//!              │                        │
//!              ├─ work_queue            run: one reconcile under way, with its permit
//!              ├─ digest                 │
//!              └─ shared ◀──────────────┘  what the runs under way share:
//!                   ├─ claims (ownership)
//!                   ├─ freed            who waits for a phone that another object holds
//!                   ├─ resync           when members are attached again
//!                   └─ buckets ──▶ permits ──▶ quota, fair_queue
//! ```

pub mod buckets;
pub mod commands;
pub mod digest;
pub mod fair_queue;
pub mod freed;
pub mod permits;
pub mod quota;
pub mod resync;
pub mod run;
pub mod shared;
pub mod work_queue;

pub use commands::{Command, Event, Limits, Scheduler};
pub use digest::Digest;
pub use run::{Facts, Run};
pub use shared::{Access, Shared};
