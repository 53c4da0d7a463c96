//! Who owns a session: the claims on it, and who comes first.
//!
//! An object claims its spec's session and, until its ledger is empty, the one that the ledger is
//! about. The rule looks at what all of them show, so that every look of every process comes to the
//! same owner:
//!
//! | first comes | because |
//! | --- | --- |
//! | who is there to stay, not deleted or on the move | it would have to be relieved soon |
//! | then who is able: its credentials serve, the action is offered | another one can do nothing |
//! | then whose ledger says Attached of an instance there | nothing has to change hands |
//! | then the older, then the smaller uid | somebody must |
//!
//! Within a namespace a claim is believed. Of another namespace it is believed only of an object
//! with the same key, or one of the same account: what somebody writes there without such a key
//! concerns nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::identity::Identity;
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
    /// Its ledger says Attached of an instance there.
    pub has_attached: bool,
    /// Its ledger names something there, or is lost.
    pub holds: bool,
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
    /// Nobody knows yet: whose keys this one of another namespace has is being found out.
    Unresolved(ObjectKey),
}

/// Whether an object believes the claim of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    Believed,
    Ignored,
    /// Whose keys one of the two has is not known yet.
    Unresolved,
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
/// claims.set(&key("older"), "7", older.claimant());
/// claims.set(&key("newer"), "8", newer.claimant());
/// let place = older.place();
/// assert_eq!(claims.ownership(&key("older"), &place), Ownership::Owner(key("newer")));
/// assert_eq!(claims.ownership(&key("newer"), &place), Ownership::Contender(key("older")));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Claims {
    claimants: BTreeMap<ObjectKey, Claimant>,
    /// The resource versions that show them, as numbers.
    versions: BTreeMap<ObjectKey, u64>,
    /// Whose keys they have; none: they have none. Only those are known whose session somebody of
    /// another namespace claims, and those that looked for their keys by themselves.
    identities: BTreeMap<ObjectKey, Option<Identity>>,
    places: BTreeMap<Place, BTreeSet<ObjectKey>>,
    changed: BTreeSet<ObjectKey>,
}

impl Claims {
    /// In this resource version, the object claims this and nothing else. A version that is older
    /// than what is known is no news: the watch lags behind what a reconcile read or wrote.
    pub fn set(&mut self, key: &ObjectKey, version: &str, claimant: Claimant) {
        if let Ok(version) = version.parse() {
            let known = self.versions.entry(key.clone()).or_default();
            if version < *known {
                return;
            }
            *known = version;
        }
        if self.claimants.get(key).is_some_and(|known| known.uid != claimant.uid) {
            // Another object of that name, which may be another tenant's.
            self.identities.remove(key);
        }
        if self.claimants.get(key) != Some(&claimant) {
            self.replace(key, Some(claimant));
        }
    }

    /// Whether anything is known of the object.
    #[must_use]
    pub fn is_in_sight(&self, key: &ObjectKey) -> bool {
        self.claimants.contains_key(key)
    }

    /// The object is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.replace(key, None);
        self.changed.remove(key);
        self.versions.remove(key);
        self.identities.remove(key);
    }

    /// The object has these keys, or none.
    pub fn identify(&mut self, key: &ObjectKey, identity: Option<Identity>) {
        if self.identities.get(key) == Some(&identity) {
            return;
        }
        self.identities.insert(key.clone(), identity);
        let others: Vec<_> = self.foreign_claimants(key).cloned().collect();
        self.changed.extend(others);
    }

    /// Whether it has to be found out anew whose keys the object has: another namespace claims a
    /// session of it, too. Keys come, change and go.
    #[must_use]
    pub fn must_identify(&self, key: &ObjectKey) -> bool {
        self.foreign_claimants(key).next().is_some()
    }

    /// Objects of other namespaces that claim a session which the object claims.
    fn foreign_claimants<'a>(&'a self, key: &'a ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        let claims = self.claimants.get(key).into_iter().flat_map(|claimant| &claimant.claims);
        claims
            .filter_map(|claim| self.places.get(&claim.place))
            .flatten()
            .filter(|other| other.namespace != key.namespace)
    }

    fn belief(&self, key: &ObjectKey, other: &ObjectKey, place: &Place) -> Belief {
        if key.namespace == other.namespace {
            return Belief::Believed;
        }
        let claim = self.claimants.get(other).and_then(|claimant| claimant.claim(place));
        let holds = claim.is_some_and(|claim| claim.holds);
        match (self.identities.get(key), self.identities.get(other)) {
            (Some(Some(own)), Some(Some(theirs))) if own.is_same(theirs) => Belief::Believed,
            (Some(Some(_)), Some(Some(_))) | (Some(None), _) | (_, Some(None)) => Belief::Ignored,
            // It calls nobody before it is known, and reads the others then.
            (Some(_), None) if !holds => Belief::Ignored,
            (None, _) | (_, None) => Belief::Unresolved,
        }
    }

    /// The objects that share a session with another one whose claim changed since the last time
    /// that this was asked.
    pub fn take_changed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.changed)
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Who owns the session at `place`, as the object `key` sees it.
    #[must_use]
    pub fn ownership(&self, key: &ObjectKey, place: &Place) -> Ownership {
        // Who claims nothing there need not know.
        let claims_it = self.claimants.get(key).is_some_and(|it| it.claim(place).is_some());
        let unresolved =
            |other: &&ObjectKey| claims_it && self.belief(key, other, place) == Belief::Unresolved;
        if let Some(other) = self.claimants_beside(key, place).find(unresolved) {
            return Ownership::Unresolved(other.clone());
        }
        let Some(other) = self.others(key, place).next() else { return Ownership::Uncontested };
        match self.owner(key, place) {
            Some(owner) if owner != key => Ownership::Contender(owner.clone()),
            _ => Ownership::Owner(other.clone()),
        }
    }

    /// Who claims the session at `place`, besides the object `key` and as it believes.
    pub fn others<'a>(
        &'a self,
        key: &'a ObjectKey,
        place: &'a Place,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        let others = self.claimants_beside(key, place);
        others.filter(move |other| self.belief(key, other, place) == Belief::Believed)
    }

    fn claimants_beside<'a>(
        &'a self,
        key: &'a ObjectKey,
        place: &Place,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        self.places.get(place).into_iter().flatten().filter(move |other| *other != key)
    }

    /// Whether another object owns a session that this one claims.
    #[must_use]
    pub fn is_contender(&self, key: &ObjectKey) -> bool {
        let claims = self.claimants.get(key).into_iter().flat_map(|claimant| &claimant.claims);
        claims
            .into_iter()
            .any(|claim| self.owner(key, &claim.place).is_some_and(|owner| owner != key))
    }

    /// Who owns the session, of the object `key` and those that it believes.
    #[must_use]
    pub fn owner<'a>(&'a self, key: &'a ObjectKey, place: &'a Place) -> Option<&'a ObjectKey> {
        let rank = |key: &&ObjectKey| {
            let claimant = self.claimants.get(*key)?;
            let claim = claimant.claim(place)?;
            let (unable, uid) = (claimant.is_unable, Arc::clone(&claimant.uid));
            Some((claim.leaving, unable, !claim.has_attached, claimant.created, uid))
        };
        let claims_it = |key: &&ObjectKey| rank(key).is_some();
        self.others(key, place).chain(Some(key).filter(claims_it)).min_by_key(rank)
    }

    fn replace(&mut self, key: &ObjectKey, after: Option<Claimant>) {
        let before = self.claimants.remove(key);
        let places_of = |claimant: &Option<Claimant>| -> BTreeSet<Place> {
            let claims = claimant.iter().flat_map(|claimant| &claimant.claims);
            claims.map(|claim| claim.place.clone()).collect()
        };
        let places_after = places_of(&after);
        for place in &places_of(&before) | &places_after {
            let claim = |claimant: &Option<Claimant>| {
                claimant.as_ref().map(|it| (it.is_unable, it.claim(&place).cloned()))
            };
            let is_news = claim(&before) != claim(&after);
            let claimants = self.places.entry(place.clone()).or_default();
            claimants.remove(key);
            if is_news {
                self.changed.extend(claimants.iter().cloned());
            }
            if places_after.contains(&place) {
                claimants.insert(key.clone());
            } else if claimants.is_empty() {
                self.places.remove(&place);
            }
        }
        if let Some(claimant) = after {
            self.claimants.insert(key.clone(), claimant);
        }
    }
}

impl Claimant {
    fn claim(&self, place: &Place) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.place == *place)
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

    fn claimant(uid: &str, created: i64, has_attached: bool) -> Claimant {
        let (place, holds) = (place("1"), has_attached);
        let claim = Claim { place, has_attached, holds, leaving: false };
        Claimant { uid: uid.into(), created, is_unable: false, claims: vec![claim] }
    }

    fn claims(all: &[(&str, Claimant)]) -> Claims {
        let mut claims = Claims::default();
        for (name, claimant) in all {
            claims.set(&key(name), "1", claimant.clone());
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
        assert_eq!(old.owner(&key("a"), &place("1")), Some(&key("a")));
        let twins = claims(&[("a", claimant("2", 6, false)), ("b", claimant("1", 6, false))]);
        assert_eq!(twins.owner(&key("a"), &place("1")), Some(&key("b")));
        assert_eq!(twins.ownership(&key("a"), &place("1")), Ownership::Contender(key("b")));
        assert_eq!(twins.ownership(&key("b"), &place("1")), Ownership::Owner(key("a")));
        assert!(twins.is_contender(&key("a")) && !twins.is_contender(&key("b")));
    }

    #[test]
    fn who_stays_comes_before_who_is_able_then_who_has_some_in_then_age() {
        let leaves = |mut claimant: Claimant| {
            claimant.claims[0].leaving = true;
            claimant
        };
        let unable = |claimant| Claimant { is_unable: true, ..claimant };
        let (old, new) = (claimant("1", 5, false), claimant("2", 9, false));
        let (old_in, new_in) = (claimant("1", 5, true), claimant("2", 9, true));
        for (why, old, new, owner) in [
            ("the older", old.clone(), new.clone(), "old"),
            ("has some in", old.clone(), new_in.clone(), "new"),
            ("is able", unable(old_in.clone()), new.clone(), "new"),
            ("stays", leaves(old_in), unable(new), "new"),
            ("has some in, of two that leave", leaves(old), leaves(new_in), "new"),
        ] {
            let claims = claims(&[("old", old), ("new", new)]);
            assert_eq!(claims.owner(&key("old"), &place("1")), Some(&key(owner)), "{why}");
        }
    }

    #[test]
    fn the_others_are_all_that_claim_the_session_too() {
        let all = ["a", "b", "c"].map(|name| (name, claimant(name, 5, false)));
        let claims = claims(&all);
        let others = |name| claims.others(&key(name), &place("1")).cloned().collect();
        assert_eq!(keys(&["a", "c"]), others("b"));
        assert_eq!(claims.others(&key("a"), &place("2")).count(), 0);
    }

    fn of_namespace(namespace: &str) -> ObjectKey {
        ObjectKey { namespace: namespace.into(), name: "x".into() }
    }

    fn with_key(key: u64, account: Option<&str>) -> Identity {
        Identity { key, account: account.map(Into::into), .."AKID".into() }
    }

    #[test]
    fn of_another_namespace_only_one_with_a_key_of_the_same_account_is_believed() {
        let (mine, theirs) = (of_namespace("mine"), of_namespace("theirs"));
        let here = place("1");
        let mut claims = Claims::default();
        claims.set(&theirs, "1", claimant("1", 5, true));
        assert!(!claims.must_identify(&theirs), "it is alone");
        claims.set(&mine, "1", claimant("2", 6, false));
        assert!(claims.must_identify(&theirs) && claims.must_identify(&mine));
        let unresolved = Ownership::Unresolved(theirs.clone());
        assert_eq!(claims.ownership(&mine, &here), unresolved);

        claims.identify(&mine, Some(with_key(1, None)));
        claims.take_changed();
        assert_eq!(claims.ownership(&mine, &here), unresolved);
        assert!(claims.must_identify(&theirs) && claims.must_identify(&mine));
        for (identity, believed) in [
            (None, false),
            (Some(with_key(1, None)), true),
            (Some(with_key(2, None)), false),
            (Some(with_key(2, Some("100"))), false),
        ] {
            claims.identify(&theirs, identity.clone());
            assert_eq!(claims.take_changed(), [mine.clone()].into(), "{identity:?}");
            let (expected, owner) = if believed {
                (Ownership::Contender(theirs.clone()), &theirs)
            } else {
                (Ownership::Uncontested, &mine)
            };
            assert_eq!(claims.ownership(&mine, &here), expected, "{identity:?}");
            assert_eq!(claims.owner(&mine, &here), Some(owner));
            assert_eq!(claims.is_contender(&mine), believed);
            assert_eq!(claims.others(&mine, &here).count(), usize::from(believed));
        }
        claims.identify(&theirs, Some(with_key(2, Some("100"))));
        assert_eq!(claims.take_changed(), BTreeSet::new(), "nothing has changed");
        claims.identify(&mine, Some(with_key(1, Some("100"))));
        assert_eq!(claims.ownership(&mine, &here), Ownership::Contender(theirs.clone()));
        claims.identify(&mine, None);
        assert_eq!(claims.ownership(&mine, &here), Ownership::Uncontested, "it believes nobody");
        assert!(claims.must_identify(&mine), "it may find some");

        claims.remove(&mine);
        assert_eq!(claims.ownership(&mine, &here), Ownership::Uncontested, "it claims nothing");
        claims.set(&mine, "1", claimant("3", 7, false));
        assert!(claims.must_identify(&mine), "another object of that name");
    }

    #[test]
    fn one_of_another_namespace_that_holds_nothing_is_waited_for_by_nobody() {
        let (mine, theirs) = (of_namespace("mine"), of_namespace("theirs"));
        let here = place("1");
        let mut claims = Claims::default();
        claims.set(&theirs, "1", claimant("1", 5, false));
        claims.set(&mine, "1", claimant("2", 6, false));
        let unresolved = Ownership::Unresolved(theirs.clone());
        assert_eq!(claims.ownership(&mine, &here), unresolved, "its own keys are not known");
        claims.identify(&mine, Some(with_key(1, None)));
        assert_eq!(claims.ownership(&mine, &here), Ownership::Uncontested);

        claims.set(&theirs, "2", claimant("1", 5, true));
        assert_eq!(claims.ownership(&mine, &here), unresolved);
        claims.identify(&theirs, Some(with_key(1, None)));
        assert_eq!(claims.ownership(&mine, &here), Ownership::Contender(theirs.clone()));
        claims.set(&theirs, "3", claimant("3", 5, true));
        assert_eq!(claims.ownership(&mine, &here), unresolved, "another object of that name");
    }

    #[test]
    fn an_older_version_is_no_news() {
        let mut claims = Claims::default();
        let owner = |claims: &Claims| claims.owner(&key("a"), &place("1")).is_some();
        let nothing = || Claimant { claims: vec![], ..claimant("1", 5, false) };
        claims.set(&key("a"), "10", claimant("1", 5, false));
        claims.set(&key("a"), "9", nothing());
        assert!(owner(&claims));
        claims.set(&key("a"), "11", nothing());
        assert!(!owner(&claims));
        claims.set(&key("a"), "of another kind", claimant("1", 5, false));
        assert!(owner(&claims), "no number says which is older");

        claims.remove(&key("a"));
        assert!(!claims.is_in_sight(&key("a")));
        claims.set(&key("a"), "1", claimant("2", 6, false));
        assert!(claims.is_in_sight(&key("a")));
        assert!(owner(&claims), "another object of that name");
    }

    #[test]
    fn a_change_of_a_claim_is_told_to_the_others_once() {
        let mut claims = claims(&[("a", claimant("1", 5, false)), ("b", claimant("2", 6, false))]);
        assert!(claims.has_changed());
        assert_eq!(claims.take_changed(), keys(&["a"]));
        assert!(!claims.has_changed());

        claims.set(&key("a"), "1", claimant("1", 5, false));
        assert_eq!(claims.take_changed(), keys(&[]), "nothing has changed");
        claims.set(&key("a"), "1", claimant("1", 5, true));
        assert_eq!(claims.take_changed(), keys(&["b"]));
        claims.set(&key("a"), "1", Claimant { is_unable: true, ..claimant("1", 5, true) });
        assert_eq!(claims.take_changed(), keys(&["b"]));

        let mut moving = Claimant { is_unable: true, ..claimant("1", 5, true) };
        moving.claims.push(Claim {
            place: place("2"),
            has_attached: false,
            holds: false,
            leaving: false,
        });
        claims.set(&key("a"), "1", moving.clone());
        assert_eq!(claims.take_changed(), keys(&[]), "nobody else is there");

        moving.claims.remove(0);
        claims.set(&key("a"), "1", moving);
        assert_eq!(claims.take_changed(), keys(&["b"]));
        assert_eq!(claims.ownership(&key("b"), &place("1")), Ownership::Uncontested);

        claims.set(&key("c"), "1", claimant("3", 1, false));
        claims.take_changed();
        claims.remove(&key("c"));
        assert_eq!(claims.take_changed(), keys(&["b"]));
    }
}
