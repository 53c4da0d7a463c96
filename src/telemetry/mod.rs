//! What the operator tells of itself: logs, metrics, and the admin server that shows them.

pub mod admin;
pub mod logs;
pub mod metrics;
