//! The switching protocol of a StreamSession: pure, with `now` as an argument. Cargo itself keeps
//! I/O and clocks out.
//!
//! ```text
//!            ┌────────────────────── step: one round, response in, effect out ─────────────────────┐
//!            ▼                     ▼                              ▼                                ▼
//!   plan: what is due      ledger: what is held        conditions: what people are told    retry, split: when again
//!            └──────────┬──────────┘
//!                       ▼
//!   record: the rule for one id      answer: what the service said      desired: what is asked for      time, ids: the words
//! ```
//!
//! `effect` has the words between `step` and the controller. Start with [`record`]: its two tables
//! are the protocol. Then [`step`]: when they are applied.
pub mod answer;
pub mod claims;
pub mod conditions;
pub mod desired;
pub mod effect;
pub mod ids;
pub mod invariants;
pub mod ledger;
mod memory;
pub mod plan;
pub mod record;
mod rescue;
pub mod retry;
pub mod rival;
pub mod split;
pub mod step;
#[cfg(test)]
mod testing;
pub mod time;
