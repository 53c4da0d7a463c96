//! Of several objects that name one session, one drives it: the claims on sessions and who comes
//! first (design 3.8).
//!
//! An object claims its spec's session and, until its ledger is empty, the one that the ledger is
//! about. The rule looks at what all of them show, so that every look of every process comes to the
//! same owner:
//!
//! | first comes | because |
//! | --- | --- |
//! | who has credentials | another one can do nothing |
//! | then who holds something there, or has a call under way or in doubt | what it called must not hit a successor unawares |
//! | then who is there to stay, not deleted or on the move | it would have to be relieved soon |
//! | then the older, then the smaller uid | somebody must |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use crate::ids::SessionId;

/// A session at an endpoint. The account is not asked: ids are unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The endpoint, as a target spells it.
    pub endpoint: Arc<str>,
    /// The session.
    pub session: SessionId,
}

/// What an object has at one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stake {
    /// Where.
    pub place: Place,
    /// Its ledger holds something there that is not merely assumed: an instance, a call under way,
    /// a doubt.
    pub holds: bool,
    /// It has a call under way or in doubt there.
    pub stirs: bool,
    /// It is deleted, or moves to another session.
    pub leaving: bool,
}

/// The claim of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Which object.
    pub uid: Arc<str>,
    /// When it was created, in seconds.
    pub created: i64,
    /// It is Stalled for its credentials.
    pub hindered: bool,
    /// One place, or two while it moves.
    pub stakes: Vec<Stake>,
}

/// How an object stands at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// No other object is in sight there.
    #[default]
    Alone,
    /// It drives the session; this is another one that would.
    First(Arc<str>),
    /// This one drives it.
    Behind(Arc<str>),
}

/// The claims of all objects in sight.
#[derive(Clone, Debug)]
pub struct Claims<K> {
    of: BTreeMap<K, Claim>,
    places: BTreeMap<Place, BTreeSet<K>>,
    changed: BTreeSet<K>,
    displaced: BTreeSet<K>,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self {
            of: BTreeMap::new(),
            places: BTreeMap::new(),
            changed: BTreeSet::new(),
            displaced: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone + Display> Claims<K> {
    /// The object claims this now, and nothing else.
    pub fn set(&mut self, name: &K, claim: Claim) {
        if self.of.get(name) != Some(&claim) {
            self.replace(name, Some(claim));
        }
    }

    /// The object is gone.
    pub fn remove(&mut self, name: &K) {
        self.replace(name, None);
        self.changed.remove(name);
        self.displaced.remove(name);
    }

    /// The objects that stand otherwise than before somewhere, since the last time that this was
    /// asked.
    pub fn take_changed(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.changed)
    }

    /// Whether another one drove the object's session, be it for a moment, since it was reinstated:
    /// what the service told it before is worth nothing.
    #[must_use]
    pub fn was_displaced(&self, name: &K) -> bool {
        self.displaced.contains(name)
    }

    /// The object's status says that it trusts nothing that the service told it before.
    pub fn reinstate(&mut self, name: &K) {
        self.displaced.remove(name);
    }

    /// How the object stands at `place`.
    #[must_use]
    pub fn standing(&self, name: &K, place: &Place) -> Standing {
        let Some(names) = self.places.get(place) else { return Standing::Alone };
        let Some(other) = names.iter().find(|other| *other != name) else { return Standing::Alone };
        match self.owner(place) {
            Some(owner) if owner != name => Standing::Behind(owner.to_string().into()),
            _ => Standing::First(other.to_string().into()),
        }
    }

    /// Whether another object drives a session that this one claims.
    #[must_use]
    pub fn is_behind(&self, name: &K) -> bool {
        let stakes = self.of.get(name).map(|claim| claim.stakes.as_slice()).unwrap_or_default();
        stakes.iter().any(|stake| self.owner(&stake.place).is_some_and(|owner| owner != name))
    }

    /// Who drives the session.
    #[must_use]
    pub fn owner(&self, place: &Place) -> Option<&K> {
        let rank = |name: &&K| {
            let claim = self.of.get(*name)?;
            let stake = claim.stakes.iter().find(|stake| stake.place == *place)?;
            Some((
                claim.hindered,
                !stake.holds,
                stake.leaving,
                claim.created,
                Arc::clone(&claim.uid),
            ))
        };
        self.places.get(place)?.iter().min_by_key(rank)
    }

    fn replace(&mut self, name: &K, claim: Option<Claim>) {
        let before = self.of.get(name).map(|claim| claim.stakes.clone()).unwrap_or_default();
        let after = claim.as_ref().map(|claim| claim.stakes.clone()).unwrap_or_default();
        let places: BTreeSet<_> =
            before.into_iter().chain(after.iter().cloned()).map(|stake| stake.place).collect();
        let stood: Vec<_> = places
            .into_iter()
            .map(|place| {
                (self.owner(&place).cloned(), self.crowd(&place), self.is_disturbed(&place), place)
            })
            .collect();
        match claim {
            Some(claim) => self.of.insert(name.clone(), claim),
            None => self.of.remove(name),
        };
        for (owner, crowd, was_disturbed, place) in stood {
            let names = self.places.entry(place.clone()).or_default();
            if after.iter().any(|stake| stake.place == place) {
                names.insert(name.clone())
            } else {
                names.remove(name)
            };
            if names.is_empty() {
                self.places.remove(&place);
                continue;
            }
            if let Some(before) = owner.as_ref().filter(|before| {
                self.owner(&place) != Some(before) && self.crowd(&place).contains(before)
            }) {
                self.displaced.insert(before.clone());
            }
            if was_disturbed
                && !self.is_disturbed(&place)
                && let Some(owner) = self.owner(&place).cloned()
            {
                // What another one had under way may have hit the owner's instances; from now on it
                // can't any more.
                self.displaced.insert(owner.clone());
                self.changed.insert(owner);
            }
            let same = self.crowd(&place) == crowd && self.owner(&place) == owner.as_ref();
            // The first one there concerns nobody else.
            if !same && !crowd.is_empty() {
                self.changed.extend(self.crowd(&place));
            }
        }
    }

    /// Whether one that does not drive the session has a call under way or in doubt there.
    fn is_disturbed(&self, place: &Place) -> bool {
        let owner = self.owner(place);
        let others =
            self.places.get(place).into_iter().flatten().filter(|name| Some(*name) != owner);
        others
            .filter_map(|name| self.of.get(name))
            .flat_map(|claim| &claim.stakes)
            .any(|stake| stake.place == *place && stake.stirs)
    }

    fn crowd(&self, place: &Place) -> BTreeSet<K> {
        self.places.get(place).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(session: &str) -> Place {
        Place {
            endpoint: "gs.tencentcloudapi.com".into(),
            session: SessionId::parse(session).unwrap(),
        }
    }

    fn claim(uid: &str, created: i64, holds: bool) -> Claim {
        let stake = Stake { place: place("1"), holds, stirs: false, leaving: false };
        Claim { uid: uid.into(), created, hindered: false, stakes: vec![stake] }
    }

    fn claims(all: &[(&'static str, Claim)]) -> Claims<&'static str> {
        let mut claims = Claims::default();
        for (name, claim) in all {
            claims.set(name, claim.clone());
        }
        claims
    }

    #[test]
    fn a_lone_claimant_has_nobody_beside_it_and_changes_nothing_for_anybody() {
        let mut claims = claims(&[("a", claim("1", 5, false))]);
        assert_eq!(claims.standing(&"a", &place("1")), Standing::Alone);
        assert_eq!(claims.standing(&"a", &place("2")), Standing::Alone);
        assert_eq!(claims.take_changed(), [].into());
    }

    #[test]
    fn the_older_comes_first_and_of_one_age_the_smaller_uid() {
        let old = claims(&[("a", claim("2", 6, false)), ("b", claim("1", 7, false))]);
        assert_eq!(old.owner(&place("1")), Some(&"a"));
        let twins = claims(&[("a", claim("2", 6, false)), ("b", claim("1", 6, false))]);
        assert_eq!(twins.owner(&place("1")), Some(&"b"));
        assert_eq!(twins.standing(&"a", &place("1")), Standing::Behind("b".into()));
        assert_eq!(twins.standing(&"b", &place("1")), Standing::First("a".into()));
        assert!(twins.is_behind(&"a") && !twins.is_behind(&"b"));
    }

    #[test]
    fn who_holds_something_comes_before_age_and_who_has_credentials_before_both() {
        let holding = claims(&[("a", claim("1", 5, false)), ("b", claim("2", 9, true))]);
        assert_eq!(holding.owner(&place("1")), Some(&"b"));
        let hindered = Claim { hindered: true, ..claim("2", 9, true) };
        assert_eq!(
            claims(&[("a", claim("1", 5, false)), ("b", hindered)]).owner(&place("1")),
            Some(&"a")
        );
    }

    #[test]
    fn one_that_leaves_gives_way_unless_it_holds_something() {
        let leaving = |holds| {
            let mut claim = claim("1", 5, holds);
            claim.stakes[0].leaving = true;
            claim
        };
        assert_eq!(
            claims(&[("a", leaving(false)), ("b", claim("2", 9, false))]).owner(&place("1")),
            Some(&"b")
        );
        assert_eq!(
            claims(&[("a", leaving(true)), ("b", claim("2", 9, false))]).owner(&place("1")),
            Some(&"a")
        );
    }

    #[test]
    fn one_that_was_displaced_for_a_moment_is_known_until_it_is_reinstated() {
        let mut claims = claims(&[("a", claim("1", 5, true)), ("b", claim("2", 6, false))]);
        assert!(!claims.was_displaced(&"a"));
        claims.set(&"a", Claim { hindered: true, ..claim("1", 5, true) });
        claims.set(&"a", claim("1", 5, true));
        assert!(claims.was_displaced(&"a") && claims.was_displaced(&"b"));
        claims.reinstate(&"a");
        assert!(!claims.was_displaced(&"a"));
    }

    #[test]
    fn an_owner_trusts_nothing_once_no_call_of_another_one_can_arrive_any_more() {
        let mut stirring = claim("2", 6, true);
        stirring.stakes[0].stirs = true;
        let mut claims = claims(&[("a", claim("1", 5, true)), ("b", stirring)]);
        claims.reinstate(&"a");
        claims.take_changed();

        claims.set(&"b", claim("2", 6, true));

        assert!(claims.was_displaced(&"a"));
        assert_eq!(claims.take_changed(), ["a"].into());
    }

    #[test]
    fn all_that_stand_otherwise_are_told_once() {
        let mut claims = claims(&[("a", claim("1", 5, false)), ("b", claim("2", 6, false))]);
        assert_eq!(claims.take_changed(), ["a", "b"].into());
        assert_eq!(claims.take_changed(), [].into());

        claims.set(&"a", claim("1", 5, true));
        assert_eq!(claims.take_changed(), [].into(), "the owner is the same");

        let mut moving = claim("1", 5, true);
        moving.stakes.push(Stake { place: place("2"), holds: false, stirs: false, leaving: false });
        claims.set(&"a", moving.clone());
        assert_eq!(claims.take_changed(), [].into(), "nobody else is there");

        moving.stakes.remove(0);
        claims.set(&"a", moving);
        assert_eq!(claims.take_changed(), ["b"].into());
        assert_eq!(claims.standing(&"b", &place("1")), Standing::Alone);

        claims.set(&"c", claim("3", 1, false));
        claims.take_changed();
        claims.remove(&"c");
        assert_eq!(claims.take_changed(), ["b"].into());
    }
}
