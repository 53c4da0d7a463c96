//! One reconcile of one object: responses in, effects out.
//!
//! ```text
//!  step ──▶ open_call ──▶ advance ──▶ machine (the struct) ──▶ state (kept between reconciles)
//!     what a response      no call is           │                  answered, bisection, retry
//!     and an open call     open: what           ▼
//!     mean                 is due        effect, view, settings, invariants
//! ```
//!
//! Start with [`step`]: there is no program counter.

mod advance;
pub mod answered;
pub mod bisection;
mod effect;
pub mod invariants;
mod machine;
mod open_call;
pub mod retry;
mod settings;
mod state;
pub mod step;
mod view;

pub use effect::{Effect, Journalled, Notice, Requeue, Response, Resync, StepContext};
pub use machine::Reconcile;
pub use settings::Settings;
pub use state::ReconcileState;
pub use view::{Asked, Handled, LedgerState, Request, Status, View};
