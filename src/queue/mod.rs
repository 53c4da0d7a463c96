//! Who may call the service next: the limiter of design 4.
//!
//! [`Permits`] is the schedule of one quota, pure; [`Limiter`] holds one for each quota that the service counts and lets tasks
//! wait for the next grant. Objects wait as keys: nobody holds a worker or an object while waiting.

mod limiter;
mod permits;

pub use limiter::{Bucket, Limiter, Permit};
pub use permits::{Permits, WINDOW};
