//! What the operator tells of itself: logs, metrics, readiness, and the admin server that shows
//! them.

pub mod admin;
pub mod logs;
pub mod metrics;
pub mod readiness;
