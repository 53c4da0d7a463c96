//! Who may call the service next: the limiter of design 4.
//!
//! ```text
//!  Limiter ──bucket──▶ Permits: when may the next call be made? ──▶ Quota: how many a second, just now
//!  (tasks wait here)           └▶ Fair: whose call is it? priority, then namespace in turn, then first come
//! ```
//!
//! [`Permits`] is the schedule of one quota, pure; [`Limiter`] holds one for each quota that the
//! service counts and lets tasks wait for the next grant. Objects wait as keys: nobody holds a
//! worker or an object while waiting.

mod fair;
#[cfg(test)]
mod figures;
mod limiter;
mod permits;
mod quota;

pub use fair::{Key, Priority};
pub use limiter::{Bucket, Limiter, Permit};
pub use permits::{Permits, WINDOW};
