//! What the object asks for, and the session that its ledger is about.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Identity;
use crate::ids::{InOrder, InstanceId, SessionId};
use crate::ledger::record::Want;

/// What becomes of the instances when the object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeletionPolicy {
    /// All are detached before the object goes.
    Delete,
    /// They stay where they are.
    Orphan,
}

/// What the object asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Desired {
    /// Which spec asks for it; deletion raises it too.
    pub generation: i64,
    /// The session.
    pub session: SessionId,
    /// The region, if the object names one.
    pub region: Option<String>,
    /// The region that a new ledger is bound to if the object names none.
    pub default_region: Option<String>,
    /// The endpoint that a new ledger is bound to.
    pub endpoint: Arc<str>,
    /// Who is to be in.
    pub instances: BTreeSet<InstanceId>,
    /// Whether the object is being deleted: then nobody is.
    pub deleting: bool,
    /// What deletion means, and leaving a session for another one.
    pub deletion_policy: DeletionPolicy,
    /// An instance whose removal keeps being refused is released: `detachFailurePolicy: Forget`.
    pub forgets_failures: bool,
    /// So often confirmed members are attached again, if at all.
    pub resync_interval: Option<Duration>,
}

impl Desired {
    /// Whether the spec names another session than `target`. Where it is silent, what is bound
    /// stays: a flag of the operator moves nothing.
    #[must_use]
    pub fn moves_from(&self, target: &Target) -> bool {
        self.session != target.session || (self.region.is_some() && self.region != target.region)
    }

    /// Whether it wants nobody in any session.
    #[must_use]
    pub fn wants_nothing(&self) -> bool {
        self.deleting || self.instances.is_empty()
    }

    /// The target of a ledger that starts now.
    #[must_use]
    pub fn target(&self, identity: Option<&Identity>) -> Target {
        Target {
            session: self.session.clone(),
            region: self.region.clone().or_else(|| self.default_region.clone()),
            endpoint: Arc::clone(&self.endpoint),
            credential: identity.map(|identity| identity.credential.to_string()),
            account: identity.and_then(|identity| identity.account.as_deref()).map(str::to_owned),
            credential_proven: false,
        }
    }

    /// Who is to be in the session that a ledger with this target is about: nobody, if the object
    /// is deleted or moves to another one.
    #[must_use]
    pub fn at(&self, target: Option<&Target>) -> DesiredMembers<'_> {
        let leaves = self.deleting || target.is_some_and(|target| self.moves_from(target));
        DesiredMembers((!leaves).then_some(&self.instances))
    }
}

/// Who is to be in the session that a ledger is about.
#[derive(Clone, Copy, Debug)]
pub struct DesiredMembers<'a>(Option<&'a BTreeSet<InstanceId>>);

impl<'a> DesiredMembers<'a> {
    /// What is wanted of `id`.
    #[must_use]
    pub fn want(self, id: &InstanceId) -> Want {
        if self.0.is_some_and(|wanted| wanted.contains(id)) { Want::In } else { Want::Out }
    }

    /// Likewise, of ids that come in ascending order.
    pub fn in_order(self) -> impl FnMut(&InstanceId) -> Want {
        let mut wanted = self.0.map(InOrder::of);
        move |id| {
            if wanted.as_mut().is_some_and(|wanted| wanted.has(id)) { Want::In } else { Want::Out }
        }
    }

    /// All that are wanted.
    pub fn instances(self) -> impl Iterator<Item = &'a InstanceId> {
        self.0.into_iter().flatten()
    }
}

/// What the ledger is about: one session, as seen by one account at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The session.
    pub session: SessionId,
    /// Sent as `X-TC-Region` if there is one.
    pub region: Option<String>,
    /// `gs.tencentcloudapi.com`, or the whole URL if it is not HTTPS.
    pub endpoint: Arc<str>,
    /// Who we are there: a key id, never a key. None before the first call; empty: several names
    /// were tried and none was proven.
    pub credential: Option<String>,
    /// The account behind it, as STS said.
    pub account: Option<String>,
    /// Whether the service ever did something for that name.
    pub credential_proven: bool,
}

impl Target {
    /// The target of a journal that is written under this identity: a proven one stays, an unproven
    /// one gives way to nobody.
    #[must_use]
    pub fn journalled_by(mut self, identity: &Identity) -> Self {
        if self.credential.is_none() || self.believes(identity) {
            if !self.credential_proven {
                self.credential = Some(identity.credential.to_string());
            }
            self.learn_account(identity);
        } else if !self.credential_proven {
            (self.credential, self.account) = (Some(String::new()), None);
        }
        self
    }

    /// The service has done something for this identity: it is the one.
    pub fn prove(&mut self, identity: &Identity) {
        self.credential = Some(identity.credential.to_string());
        self.credential_proven = true;
        self.learn_account(identity);
    }

    /// STS may not have answered when the target was written.
    fn learn_account(&mut self, identity: &Identity) {
        if let Some(account) = &identity.account {
            self.account = Some(account.to_string());
        }
    }

    /// Whether what the service said to this identity about the session as a whole may empty the
    /// ledger: a wrong key sees no session either. A rotated key of the same account does.
    #[must_use]
    pub fn believes(&self, identity: &Identity) -> bool {
        let same_account =
            self.account.is_some() && self.account.as_deref() == identity.account.as_deref();
        same_account
            || (!identity.credential.is_empty()
                && self.credential.as_deref() == Some(&*identity.credential))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{desired, id};

    fn in_region(desired: Desired, region: Option<&str>) -> Desired {
        Desired { region: region.map(str::to_owned), ..desired }
    }

    #[test]
    fn an_object_moves_when_it_names_another_session_or_another_region() {
        let south = in_region(desired("1", &[]), Some("south")).target(None);
        assert!(desired("2", &[]).moves_from(&south));
        assert!(in_region(desired("1", &[]), Some("north")).moves_from(&south));
        assert!(!in_region(desired("1", &[]), Some("south")).moves_from(&south));
        assert!(
            !desired("1", &[]).moves_from(&south),
            "where the spec is silent, what is bound stays"
        );
    }

    #[test]
    fn nobody_is_wanted_where_the_object_leaves() {
        let here = desired("1", &["a"]);
        let deleted = Desired { deleting: true, ..here.clone() };
        for (desired, want) in
            [(&here, Want::In), (&deleted, Want::Out), (&desired("2", &["a"]), Want::Out)]
        {
            let members = desired.at(Some(&here.target(None)));
            assert_eq!(
                (members.want(&id("a")), members.in_order()(&id("a"))),
                (want, want),
                "{desired:?}"
            );
            assert_eq!(members.instances().count(), usize::from(want == Want::In));
            assert_eq!(members.want(&id("b")), Want::Out);
        }
    }

    fn identity(credential: &str, account: Option<&str>) -> Identity {
        Identity { account: account.map(Into::into), ..credential.into() }
    }

    #[test]
    fn a_journal_binds_the_identity_until_one_is_proven() {
        let a = identity("A", Some("100"));
        let (of_same, other) = (identity("B", Some("100")), identity("C", Some("200")));
        let of = |bound: Option<&Identity>, proven: bool, now: &Identity| {
            let target = desired("1", &[]).target(bound);
            let target = Target { credential_proven: proven, ..target }.journalled_by(now);
            (target.credential.unwrap(), target.account)
        };
        let is = |credential: &str, account: Option<&str>| {
            (credential.to_owned(), account.map(str::to_owned))
        };
        assert_eq!(of(None, false, &a), is("A", Some("100")), "what was adopted has none");
        let unasked = identity("A", None);
        for proven in [false, true] {
            assert_eq!(of(Some(&unasked), proven, &a), is("A", Some("100")), "STS answers now");
            assert_eq!(of(Some(&a), proven, &unasked), is("A", Some("100")), "or does not");
        }
        assert_eq!(of(Some(&a), false, &of_same), is("B", Some("100")));
        assert_eq!(of(Some(&a), true, &of_same), is("A", Some("100")), "it is proven");
        assert_eq!(of(Some(&a), false, &other), is("", None), "which one is it?");
        assert_eq!(of(Some(&a), true, &other), is("A", Some("100")), "it is proven");
    }

    #[test]
    fn an_answer_is_believed_of_the_same_credential_or_the_same_account() {
        let target = desired("1", &[]).target(Some(&identity("A", Some("100"))));
        assert!(target.believes(&identity("A", None)));
        assert!(target.believes(&identity("B", Some("100"))));
        assert!(!target.believes(&identity("B", Some("200"))));
        assert!(!target.believes(&identity("B", None)));
        let without_account = desired("1", &[]).target(Some(&identity("A", None)));
        assert!(!without_account.believes(&identity("B", None)), "two unknown accounts");
        let nobody = Target { credential: Some(String::new()), ..without_account };
        assert!(!nobody.believes(&identity("", None)));
    }

    #[test]
    fn a_success_proves_the_identity_and_keeps_the_account_that_is_known() {
        let mut target = desired("1", &[]).target(Some(&identity("A", Some("100"))));
        target.prove(&identity("B", None));
        assert_eq!(target.credential.as_deref(), Some("B"));
        assert_eq!(target.account.as_deref(), Some("100"));
        assert!(target.credential_proven);
        target.prove(&identity("B", Some("200")));
        assert_eq!(target.account.as_deref(), Some("200"));
    }
}
