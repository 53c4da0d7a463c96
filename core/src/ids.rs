//! The ids of instances and sessions, parsed once at the border and trusted after it; and the ids
//! of journals.
//!
//! ```
//! use streamsession_core::ids::{InstanceId, InvalidId};
//!
//! assert_eq!(InstanceId::parse("RK8S37P1402445261").unwrap().as_str(), "RK8S37P1402445261");
//! assert_eq!(InstanceId::parse("two words"), Err(InvalidId::Character));
//! ```

use std::borrow::Borrow;
use std::collections::{BTreeSet, btree_set};
use std::fmt;
use std::iter::Peekable;
use std::sync::Arc;

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidId {
    /// Nothing between the quotes.
    Empty,
    /// More than [`InstanceId::LENGTH_MAX`] characters.
    TooLong,
    /// A space, a control character, or anything outside printable ASCII.
    Character,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty"),
            Self::TooLong => write!(f, "it has more than {} characters", InstanceId::LENGTH_MAX),
            Self::Character => {
                write!(f, "it may hold printable ASCII characters only, and no space")
            }
        }
    }
}

impl std::error::Error for InvalidId {}

fn check(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        Err(InvalidId::Empty)
    } else if text.len() > InstanceId::LENGTH_MAX {
        Err(InvalidId::TooLong)
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err(InvalidId::Character)
    } else {
        Ok(())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text of 1 to [`InstanceId::LENGTH_MAX`] printable ASCII characters without a
            /// space.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The id as the service spells it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// A slave cloud phone, as `RK8S37P1402445261_69f8d3e2-8867-462c-a8cf-7c1d1a527782`.
    InstanceId
}
id! {
    /// A multi-stream session, as `1326515201117065216`. A number that is kept as a text.
    SessionId
}

impl InstanceId {
    /// The longest id that is taken, in characters (the service's own are 54).
    pub const LENGTH_MAX: usize = 128;
}

/// Random and unique: an operator knows its own journal by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JournalId(pub Arc<str>);

/// Looks ids up that come in ascending order: one walk through a set instead of a search for each
/// id.
#[derive(Clone, Debug)]
pub struct InOrder<'a>(Peekable<btree_set::Iter<'a, InstanceId>>);

impl<'a> InOrder<'a> {
    /// Looks into `ids`.
    #[must_use]
    pub fn of(ids: &'a BTreeSet<InstanceId>) -> Self {
        Self(ids.iter().peekable())
    }

    /// Whether `id`, which must not come before the last one that was asked for, is there.
    pub fn has(&mut self, id: &InstanceId) -> bool {
        while self.0.next_if(|next| *next < id).is_some() {}
        self.0.peek().is_some_and(|next| *next == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{id, ids};

    #[test]
    fn an_id_is_printable_and_of_bounded_length() {
        let longest = "x".repeat(InstanceId::LENGTH_MAX);
        assert_eq!(InstanceId::parse(&longest).unwrap().as_str(), longest);
        assert_eq!(InstanceId::parse(&(longest + "x")), Err(InvalidId::TooLong));
        assert_eq!(InstanceId::parse(""), Err(InvalidId::Empty));
        for text in ["a b", "a\n", "\u{e9}"] {
            assert_eq!(SessionId::parse(text), Err(InvalidId::Character), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_text_is_said() {
        assert_eq!(InvalidId::Empty.to_string(), "it is empty");
        assert_eq!(InvalidId::TooLong.to_string(), "it has more than 128 characters");
        assert_eq!(
            InvalidId::Character.to_string(),
            "it may hold printable ASCII characters only, and no space"
        );
    }

    #[test]
    fn ids_are_found_in_their_order() {
        let known = ids(&["b", "c", "e"]);
        let mut known = InOrder::of(&known);
        let found: Vec<_> = ["a", "b", "d", "e", "e", "f"]
            .into_iter()
            .filter(|text| known.has(&id(text)))
            .collect();
        assert_eq!(found, ["b", "e", "e"]);
    }
}
