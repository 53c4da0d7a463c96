//! The whole simulator over bare sockets, so that every byte is seen.

mod admin;
mod client;
mod http;
mod simulator;
mod temporary_keys;
mod tls;
