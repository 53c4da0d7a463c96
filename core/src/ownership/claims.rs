//! Who owns a session: the claims on it, and who comes first.
//!
//! An object claims its spec's session and, until its ledger is empty, the one that the ledger is
//! about. The rule looks at what all of them show, so that every look of every process comes to the
//! same owner:
//!
//! | first comes | because |
//! | --- | --- |
//! | who is able: its credentials serve, the action is offered | another one can do nothing |
//! | then who has members there, or a call in flight | its calls must not hit a successor unawares |
//! | then who is there to stay, not deleted or on the move | it would have to be relieved soon |
//! | then the older, then the smaller uid | somebody must |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::SessionId;
use crate::object::ObjectKey;

/// A session at an endpoint. The account is not asked: ids are unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The endpoint, as a target spells it.
    pub endpoint: Arc<str>,
    /// The session.
    pub session: SessionId,
}

/// The claim of one object on one session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Where.
    pub place: Place,
    /// Its ledger tracks something there that is not merely assumed: an instance, or a call in
    /// flight.
    pub has_members: bool,
    /// It has a call there that is open or in doubt.
    pub has_inflight_call: bool,
    /// It is deleted, or moves to another session.
    pub leaving: bool,
}

/// An object, and all that it claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claimant {
    /// Which object.
    pub uid: Arc<str>,
    /// When it was created, in seconds.
    pub created: i64,
    /// It can't make a call: its credentials do not serve, or the action is not offered to it.
    pub is_unable: bool,
    /// One claim, or two while it moves.
    pub claims: Vec<Claim>,
}

/// Who owns the session of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// It does; no other object in sight claims the session.
    #[default]
    Uncontested,
    /// It does; this is another one that would.
    Owner(ObjectKey),
    /// This other one does.
    Contender(ObjectKey),
}

/// The claims of all objects in sight.
///
/// ```
/// use streamsession_core::ownership::claims::{Claims, Ownership};
/// use streamsession_testkit::fixtures::{key, ledger, view};
///
/// let older = view(ledger(&[]), &["a"]);
/// let mut newer = older.clone();
/// newer.uid = "v".into();
/// newer.created = older.created + 1;
/// let mut claims = Claims::default();
/// claims.set(&key("older"), older.claimant());
/// claims.set(&key("newer"), newer.claimant());
/// let place = older.place();
/// assert_eq!(claims.ownership(&key("older"), &place), Ownership::Owner(key("newer")));
/// assert_eq!(claims.ownership(&key("newer"), &place), Ownership::Contender(key("older")));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Claims {
    claimants: BTreeMap<ObjectKey, Claimant>,
    places: BTreeMap<Place, BTreeSet<ObjectKey>>,
    changed: BTreeSet<ObjectKey>,
    lost: BTreeSet<ObjectKey>,
}

impl Claims {
    /// The object claims this now, and nothing else.
    pub fn set(&mut self, key: &ObjectKey, claimant: Claimant) {
        if self.claimants.get(key) != Some(&claimant) {
            self.replace(key, Some(claimant));
        }
    }

    /// The object is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.replace(key, None);
        self.changed.remove(key);
        self.lost.remove(key);
    }

    /// The objects for which the ownership of some session changed, since the last time that this
    /// was asked.
    pub fn take_changed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.changed)
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether another one drove the object's session, be it for a moment, since it regained it:
    /// what the service told it before is worth nothing.
    #[must_use]
    pub fn lost_ownership(&self, key: &ObjectKey) -> bool {
        self.lost.contains(key)
    }

    /// The object's status says that it trusts nothing that the service told it before.
    pub fn regained(&mut self, key: &ObjectKey) {
        self.lost.remove(key);
    }

    /// Who owns the session at `place`, as the object `key` sees it.
    #[must_use]
    pub fn ownership(&self, key: &ObjectKey, place: &Place) -> Ownership {
        let claimants = self.claimants_of(place);
        let Some(other) = claimants.into_iter().flatten().find(|other| *other != key) else {
            return Ownership::Uncontested;
        };
        match self.owner(place) {
            Some(owner) if owner != key => Ownership::Contender(owner.clone()),
            _ => Ownership::Owner(other.clone()),
        }
    }

    /// Whether another object owns a session that this one claims.
    #[must_use]
    pub fn is_contender(&self, key: &ObjectKey) -> bool {
        let claims = self.claimants.get(key).into_iter().flat_map(|claimant| &claimant.claims);
        claims.into_iter().any(|claim| self.owner(&claim.place).is_some_and(|owner| owner != key))
    }

    /// Who owns the session.
    #[must_use]
    pub fn owner(&self, place: &Place) -> Option<&ObjectKey> {
        let rank = |key: &&ObjectKey| {
            let claimant = self.claimants.get(*key)?;
            let claim = claimant.claims.iter().find(|claim| claim.place == *place)?;
            let uid = Arc::clone(&claimant.uid);
            Some((claimant.is_unable, !claim.has_members, claim.leaving, claimant.created, uid))
        };
        self.claimants_of(place)?.iter().min_by_key(rank)
    }

    fn claimants_of(&self, place: &Place) -> Option<&BTreeSet<ObjectKey>> {
        self.places.get(place)
    }

    fn replace(&mut self, key: &ObjectKey, claimant: Option<Claimant>) {
        let places_of = |claimant: Option<&Claimant>| -> BTreeSet<Place> {
            let claims = claimant.into_iter().flat_map(|claimant| &claimant.claims);
            claims.map(|claim| claim.place.clone()).collect()
        };
        let after = places_of(claimant.as_ref());
        let places = &places_of(self.claimants.get(key)) | &after;
        let before: Vec<_> = places
            .into_iter()
            .map(|place| {
                let claimants = self.claimants_of(&place).cloned().unwrap_or_default();
                let inflight = self.has_others_inflight(&place);
                (self.owner(&place).cloned(), claimants, inflight, place)
            })
            .collect();
        match claimant {
            Some(claimant) => self.claimants.insert(key.clone(), claimant),
            None => self.claimants.remove(key),
        };
        for (owner_before, claimants_before, had_inflight, place) in before {
            let claimants = self.places.entry(place.clone()).or_default();
            if after.contains(&place) {
                claimants.insert(key.clone());
            } else {
                claimants.remove(key);
            }
            if claimants.is_empty() {
                self.places.remove(&place);
                continue;
            }
            let claimants = claimants.clone();
            let owner = self.owner(&place).cloned();
            if let Some(before) = &owner_before
                && owner_before != owner
                && claimants.contains(before)
            {
                self.lost.insert(before.clone());
            }
            if had_inflight
                && !self.has_others_inflight(&place)
                && let Some(owner) = &owner
            {
                // What another one had in flight may have hit the owner's instances; from now on it
                // can't any more.
                self.lost.insert(owner.clone());
                self.changed.insert(owner.clone());
            }
            let same = claimants == claimants_before && owner == owner_before;
            // The first one there concerns nobody else.
            if !same && !claimants_before.is_empty() {
                self.changed.extend(claimants);
            }
        }
    }

    /// Whether one that does not own the session has a call in flight there.
    fn has_others_inflight(&self, place: &Place) -> bool {
        let owner = self.owner(place);
        let others = self.claimants_of(place).into_iter().flatten();
        others
            .filter(|key| Some(*key) != owner)
            .filter_map(|key| self.claimants.get(key))
            .flat_map(|claimant| &claimant.claims)
            .any(|claim| claim.place == *place && claim.has_inflight_call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::key;

    fn place(session: &str) -> Place {
        Place {
            endpoint: "gs.tencentcloudapi.com".into(),
            session: SessionId::parse(session).unwrap(),
        }
    }

    fn claimant(uid: &str, created: i64, has_members: bool) -> Claimant {
        let claim =
            Claim { place: place("1"), has_members, has_inflight_call: false, leaving: false };
        Claimant { uid: uid.into(), created, is_unable: false, claims: vec![claim] }
    }

    fn claims(all: &[(&str, Claimant)]) -> Claims {
        let mut claims = Claims::default();
        for (name, claimant) in all {
            claims.set(&key(name), claimant.clone());
        }
        claims
    }

    fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
        names.iter().map(|name| key(name)).collect()
    }

    #[test]
    fn a_lone_claimant_has_nobody_beside_it_and_changes_nothing_for_anybody() {
        let mut claims = claims(&[("a", claimant("1", 5, false))]);
        assert_eq!(claims.ownership(&key("a"), &place("1")), Ownership::Uncontested);
        assert_eq!(claims.ownership(&key("a"), &place("2")), Ownership::Uncontested);
        assert_eq!(claims.take_changed(), keys(&[]));
    }

    #[test]
    fn the_older_comes_first_and_of_one_age_the_smaller_uid() {
        let old = claims(&[("a", claimant("2", 6, false)), ("b", claimant("1", 7, false))]);
        assert_eq!(old.owner(&place("1")), Some(&key("a")));
        let twins = claims(&[("a", claimant("2", 6, false)), ("b", claimant("1", 6, false))]);
        assert_eq!(twins.owner(&place("1")), Some(&key("b")));
        assert_eq!(twins.ownership(&key("a"), &place("1")), Ownership::Contender(key("b")));
        assert_eq!(twins.ownership(&key("b"), &place("1")), Ownership::Owner(key("a")));
        assert!(twins.is_contender(&key("a")) && !twins.is_contender(&key("b")));
    }

    #[test]
    fn who_holds_something_comes_before_age_and_who_is_able_before_both() {
        let holding = claims(&[("a", claimant("1", 5, false)), ("b", claimant("2", 9, true))]);
        assert_eq!(holding.owner(&place("1")), Some(&key("b")));
        let unable = Claimant { is_unable: true, ..claimant("2", 9, true) };
        assert_eq!(
            claims(&[("a", claimant("1", 5, false)), ("b", unable)]).owner(&place("1")),
            Some(&key("a"))
        );
    }

    #[test]
    fn one_that_leaves_gives_way_unless_it_holds_something() {
        let leaving = |has_members| {
            let mut claimant = claimant("1", 5, has_members);
            claimant.claims[0].leaving = true;
            claimant
        };
        assert_eq!(
            claims(&[("a", leaving(false)), ("b", claimant("2", 9, false))]).owner(&place("1")),
            Some(&key("b"))
        );
        assert_eq!(
            claims(&[("a", leaving(true)), ("b", claimant("2", 9, false))]).owner(&place("1")),
            Some(&key("a"))
        );
    }

    #[test]
    fn one_that_lost_ownership_for_a_moment_is_known_until_it_is_regained() {
        let mut claims = claims(&[("a", claimant("1", 5, true)), ("b", claimant("2", 6, false))]);
        assert!(!claims.lost_ownership(&key("a")));
        claims.set(&key("a"), Claimant { is_unable: true, ..claimant("1", 5, true) });
        claims.set(&key("a"), claimant("1", 5, true));
        assert!(claims.lost_ownership(&key("a")) && claims.lost_ownership(&key("b")));
        claims.regained(&key("a"));
        assert!(!claims.lost_ownership(&key("a")));
    }

    #[test]
    fn an_owner_trusts_nothing_once_no_call_of_another_one_can_arrive_any_more() {
        let mut in_flight = claimant("2", 6, true);
        in_flight.claims[0].has_inflight_call = true;
        let mut claims = claims(&[("a", claimant("1", 5, true)), ("b", in_flight)]);
        claims.regained(&key("a"));
        claims.take_changed();

        claims.set(&key("b"), claimant("2", 6, true));

        assert!(claims.lost_ownership(&key("a")));
        assert_eq!(claims.take_changed(), keys(&["a"]));
    }

    #[test]
    fn a_change_of_ownership_is_told_once() {
        let mut claims = claims(&[("a", claimant("1", 5, false)), ("b", claimant("2", 6, false))]);
        assert_eq!(claims.take_changed(), keys(&["a", "b"]));
        assert_eq!(claims.take_changed(), keys(&[]));

        claims.set(&key("a"), claimant("1", 5, true));
        assert_eq!(claims.take_changed(), keys(&[]), "the owner is the same");

        let mut moving = claimant("1", 5, true);
        moving.claims.push(Claim {
            place: place("2"),
            has_members: false,
            has_inflight_call: false,
            leaving: false,
        });
        claims.set(&key("a"), moving.clone());
        assert_eq!(claims.take_changed(), keys(&[]), "nobody else is there");

        moving.claims.remove(0);
        claims.set(&key("a"), moving);
        assert_eq!(claims.take_changed(), keys(&["b"]));
        assert_eq!(claims.ownership(&key("b"), &place("1")), Ownership::Uncontested);

        claims.set(&key("c"), claimant("3", 1, false));
        claims.take_changed();
        claims.remove(&key("c"));
        assert_eq!(claims.take_changed(), keys(&["b"]));
    }
}
