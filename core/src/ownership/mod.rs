//! Of several objects that name one session, one owns it: who claims what ([`claims`]), and what
//! an object does while another one owns its session ([`hand_over`]).

pub mod claims;
pub mod hand_over;
