//! The table of errors in `docs/tencent.md`, section 3, in classes: what each code means to the
//! client, and what the operator then does and reports.

use std::collections::BTreeSet;

use gs_simulator::{Faults, Simulator};
use serde_json::json;
use streamsession_core::answer::{NothingDone, Outcome, Verdict};
use streamsession_core::ids::InstanceId;
use streamsession_operator::api::v1alpha1::{FailureReason, StreamSession};
use streamsession_operator::gs::{Client, Settings};

use crate::harness::{Lab, SESSION, attach_call, errors, eventually, install_crypto, ready, set};

/// A row of the table, or the part of one that means the same to the ledger.
struct Row {
    class: &'static str,
    /// Between spaces.
    codes: &'static str,
    verdict: Verdict,
    /// What it says about a lone instance, and about one of two.
    outcomes: [Outcome; 2],
}

/// Every code of the table; where it has a family, with a suffix and without. A family ends at a
/// dot. `AuthFailure.InvalidAuthorization` is of the class Invalid; to the ledger it is what all of
/// `AuthFailure` is.
fn table() -> Vec<Row> {
    let row = |class, verdict, outcomes, codes| Row { class, codes, verdict, outcomes };
    let nothing = [Outcome::NothingDone; 2];
    let unclear = [Outcome::Unclear; 2];
    let rejected = [Outcome::Rejected; 2];
    vec![
        row(
            "Throttled",
            Verdict::NothingDone(NothingDone::Throttled),
            nothing,
            "RequestLimitExceeded RequestLimitExceeded.IPLimitExceeded \
             RequestLimitExceeded.UinLimitExceeded \
             RequestLimitExceeded.GlobalRegionUinLimitExceeded RequestLimitExceeded.New \
             FailedOperation.SlowDown FailedOperation.SlowDown.New \
             FailedOperation.TooFrequently",
        ),
        row(
            "Transient and Ambiguous",
            Verdict::Unanswered,
            [Outcome::Unanswered; 2],
            "InternalError InternalError.DbError ServiceUnavailable ServiceUnavailable.New \
             FailedOperation.Timeout FailedOperation.ProcessTimeout FailedOperation.LockTimeout",
        ),
        row(
            "Transient, answered: it can't arrive later",
            Verdict::Unclear,
            unclear,
            "ResourceInUse ResourceInUse.New ResourceUnavailable ResourceUnavailable.New",
        ),
        row(
            "Credentials",
            Verdict::NothingDone(NothingDone::Credentials),
            nothing,
            "AuthFailure AuthFailure.InvalidSecretId AuthFailure.SecretIdNotFound \
             AuthFailure.SignatureFailure AuthFailure.MFAFailure \
             AuthFailure.TokenFailure AuthFailure.UnauthorizedOperation AuthFailure.New \
             UnauthorizedOperation UnauthorizedOperation.CamNoAuth \
             AuthFailure.InvalidAuthorization",
        ),
        row(
            "Late: it says nothing of the key",
            Verdict::NothingDone(NothingDone::SignatureExpired),
            nothing,
            "AuthFailure.SignatureExpire",
        ),
        row(
            "Gateway: no product has seen the call",
            Verdict::NothingDone(NothingDone::ActionUnavailable),
            nothing,
            "InvalidAction NoSuchProduct NoSuchVersion UnsupportedRegion UnsupportedProtocol \
             ActionOffline IpInBlacklist IpNotInWhitelist",
        ),
        row(
            "Rejected: one id may be to blame, and nothing is proven of any",
            Verdict::Rejected,
            rejected,
            "InvalidParameter InvalidParameter.New InvalidParameterValue \
             InvalidParameterValue.SlaveInstanceIds MissingParameter MissingParameter.New \
             UnknownParameter ResourceNotFound ResourceNotFound.InstanceNotFound \
             ResourceNotFound.SessionNotFound.New",
        ),
        row(
            "TooLarge",
            Verdict::NothingDone(NothingDone::TooLarge),
            [Outcome::Rejected, Outcome::NothingDone],
            "RequestSizeLimitExceeded RequestSizeLimitExceeded.New",
        ),
        row("TooLarge, but the answer", Verdict::Unclear, unclear, "ResponseSizeLimitExceeded"),
        row("SessionGone", Verdict::SessionGone, unclear, "ResourceNotFound.SessionNotFound"),
        row(
            "Quota",
            Verdict::Unclear,
            unclear,
            "LimitExceeded LimitExceeded.New ResourceInsufficient ResourceInsufficient.New",
        ),
        row(
            "Unclear",
            Verdict::Unclear,
            unclear,
            "FailedOperation FailedOperation.New OperationDenied OperationDenied.New \
             UnsupportedOperation UnsupportedOperation.New InvalidRequest InvalidAction.New \
             UnsupportedRegion.New Anything RequestLimitExceededNew \
             AuthFailureNew InvalidParameterNew InternalErrorNew ResourceNotFoundNew",
        ),
    ]
}

#[tokio::test]
async fn each_code_of_the_table_has_its_verdict_its_outcomes_and_its_request_id_and_is_sent_once() {
    // Without a quota that this test could meet.
    let options = gs_simulator::Options { qps: 1000, ..gs_simulator::Options::default() };
    let simulator = Simulator::start(options).await.expect("a simulator");
    install_crypto();
    let client = Client::new(Settings::default()).expect("a client");
    let instance = InstanceId::parse("a").expect("an id");
    let mut request_ids = BTreeSet::new();

    for Row { class, codes, verdict, outcomes } in table() {
        for code in codes.split_whitespace() {
            let sent = simulator.calls().len();
            simulator.set_faults(errors(&[(code, 1)]));

            let call = attach_call(&simulator.url(), &["a", "b"], simulator.now());
            let answer = client.switch(&call).await;

            assert_eq!(answer.verdict, verdict, "{code}, {class}");
            let found = [1, 2].map(|instances| answer.outcome(&instance, instances));
            assert_eq!(found, outcomes, "{code}, {class}");
            assert_eq!(
                (answer.code.as_str(), answer.message.as_str()),
                (code, "The simulator was told to answer this.")
            );
            assert!(
                request_ids.insert(answer.request_id.clone()) && !answer.request_id.is_empty(),
                "{code}: {answer:?}"
            );
            assert_eq!(simulator.calls().len(), sent + 1, "{code}");
        }
    }
    assert_eq!(simulator.members(SESSION), BTreeSet::new());
}

/// What the operator reports of a code.
struct Expected {
    reason: &'static str,
    stalled: bool,
    /// None: there is no record at all, as if the call had never been made.
    failure: Option<FailureReason>,
    /// Whether the attach may still arrive.
    in_doubt: bool,
}

const RETRIED: Expected =
    Expected { reason: "ProgressingWithRetry", stalled: false, failure: None, in_doubt: false };

fn calls_of(lab: &Lab, session: &str) -> Vec<gs_simulator::Call> {
    lab.calls().into_iter().filter(|call| call.session_id.as_deref() == Some(session)).collect()
}

/// Gives every call of a new session of one instance this code: it is tried again after a pause,
/// the status is as expected, and the object recovers by itself.
async fn assert_retried(lab: &Lab, code: &str, expected: &Expected) {
    let name = code.to_lowercase();
    lab.simulator.set_faults(errors(&[(code, u32::MAX)]));

    lab.create_apart(&name, &["a"]).await;

    let calls = eventually(&format!("{code}: it is tried again"), async || {
        let calls = calls_of(lab, &name);
        if calls.len() >= 2 { Ok(calls) } else { Err(format!("{calls:?}")) }
    })
    .await;
    // The first pause is the lab's 200 ms, less a quarter at most.
    let pause = calls[1].arrival_ms - calls[0].arrival_ms;
    assert!(pause >= 149.0, "{code}: no pause between {:?}", &calls[..2]);
    let object = lab
        .until_status(&name, &format!("{code} is reported"), |status| {
            status.pending_call.is_none()
                && status.last_call.as_ref().is_some_and(|call| call.code == code)
        })
        .await;
    assert_reported(&object, code, expected);

    lab.simulator.set_faults(Faults::default());

    let object = lab.until_condition_ready(&name).await;
    assert_eq!(lab.simulator.members(&name), set(&["a"]), "{code}");
    let open = object.status.expect("a status").unsettled_instances;
    assert!(expected.in_doubt || open.is_empty(), "{code} has left {open:?}");
}

/// In the conditions, and in the record of `a`.
fn assert_reported(object: &StreamSession, code: &str, expected: &Expected) {
    let (status, (_, reason, message)) = (object.status.clone().unwrap(), ready(object));
    let condition = |kind: &str| {
        status.conditions.iter().any(|found| found.type_ == kind && found.status == "True")
    };
    assert_eq!(reason, expected.reason, "{code}: {message}");
    assert_eq!(
        (condition("Stalled"), condition("Reconciling")),
        (expected.stalled, !expected.stalled),
        "{code}: {status:?}"
    );
    let request_id = &status.last_call.as_ref().expect("a last call").request_id;
    assert!(!request_id.is_empty() && !message.contains(request_id), "{code}: {message}");
    assert!(message.contains(code), "{code} is not named: {message}");

    let failures: Vec<_> = status
        .unsettled_instances
        .iter()
        .map(|record| {
            let failure = record.last_failure.as_ref().expect("a failure");
            assert_eq!((record.instance_id.as_str(), failure.code.as_str()), ("a", code));
            assert_eq!(record.attach_may_arrive_until.is_some(), expected.in_doubt, "{record:?}");
            assert_eq!(record.detach_may_arrive_until, None, "{code}");
            failure.reason
        })
        .collect();
    assert_eq!(failures, Vec::from_iter(expected.failure));
    assert_eq!(
        (status.failed_instances, status.attached_instances),
        (Some(i32::from(expected.failure.is_some())), Some(0)),
        "{code}"
    );
}

#[tokio::test]
async fn a_throttled_call_is_tried_again_as_if_it_had_never_been_made() {
    let lab = Lab::start().await;
    for code in ["RequestLimitExceeded.UinLimitExceeded", "FailedOperation.SlowDown"] {
        assert_retried(&lab, code, &RETRIED).await;
    }
}

#[tokio::test]
async fn a_transient_error_is_tried_again_and_may_still_arrive() {
    let lab = Lab::start().await;
    let expected = Expected { failure: Some(FailureReason::Unanswered), in_doubt: true, ..RETRIED };
    for code in ["InternalError", "ServiceUnavailable", "FailedOperation.LockTimeout"] {
        assert_retried(&lab, code, &expected).await;
    }
}

#[tokio::test]
async fn an_outage_that_lasts_is_not_reported_as_a_refusal_of_the_instance() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(errors(&[("InternalError", u32::MAX)]));

    lab.create("lobby", &["a"], json!({})).await;

    let object = lab
        .until_status("lobby", "it was tried six times", |status| {
            let attempts = status
                .unsettled_instances
                .first()
                .and_then(|record| record.last_failure.as_ref())
                .map(|failure| failure.attempts);
            status.pending_call.is_none() && attempts >= Some(6)
        })
        .await;
    let (_, reason, message) = ready(&object);
    assert!(
        reason != "InstancesRefused" && message.contains("InternalError"),
        "{reason}: {message}"
    );
}

#[tokio::test]
async fn refused_credentials_stall_the_object_and_are_tried_again_within_a_short_time() {
    let lab = Lab::start().await;
    let expected = Expected { reason: "CredentialsRejected", stalled: true, ..RETRIED };
    for code in ["AuthFailure.SecretIdNotFound", "UnauthorizedOperation.CamNoAuth"] {
        assert_retried(&lab, code, &expected).await;
    }
}

#[tokio::test]
async fn a_signature_that_came_too_late_says_nothing_of_the_key() {
    let lab = Lab::start().await;
    assert_retried(&lab, "AuthFailure.SignatureExpire", &RETRIED).await;
}

#[tokio::test]
async fn a_call_that_may_not_be_made_names_the_action_that_a_policy_has_to_allow() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(errors(&[("UnauthorizedOperation.CamNoAuth", u32::MAX)]));
    lab.create("lobby", &["a"], json!({})).await;
    let message = lab.until_reason("lobby", "CredentialsRejected").await;
    assert!(message.contains("gs:SwitchCloudPhoneMultipleStreamSessionSlaves"), "{message}");
}

/// The API is offered to some accounts only: many first tries meet this.
#[tokio::test]
async fn an_action_that_is_not_offered_did_nothing_is_tried_slowly_and_blocks_no_deletion() {
    let lab = Lab::start().await;
    for code in ["InvalidAction", "UnsupportedRegion", "IpNotInWhitelist"] {
        let expected = Expected { reason: "ActionUnavailable", stalled: true, ..RETRIED };
        assert_retried(&lab, code, &expected).await;

        lab.simulator.set_faults(errors(&[(code, u32::MAX)]));
        let name = format!("gone-{}", code.to_lowercase());
        let calls = lab.calls().len();
        lab.create_apart(&name, &["b", "c"]).await;
        let message = lab.until_reason(&name, "ActionUnavailable").await;
        assert!(message.contains(code), "{message}");
        lab.delete(&name).await;
        lab.until_gone(&name).await;
        let sizes: Vec<_> =
            lab.calls()[calls..].iter().map(|call| call.instance_ids.len()).collect();
        assert!(sizes.iter().all(|size| *size == 2), "no batch is split for it: {sizes:?}");
        lab.simulator.set_faults(Faults::default());
    }
}

#[tokio::test]
async fn a_rejected_lone_instance_is_refused() {
    let lab = Lab::start().await;
    let expected = Expected { failure: Some(FailureReason::Refused), ..RETRIED };
    for code in [
        "InvalidParameterValue.SlaveInstanceIds",
        "InvalidParameter",
        "ResourceNotFound.InstanceNotFound",
        "MissingParameter",
    ] {
        assert_retried(&lab, code, &expected).await;
    }
}

#[tokio::test]
async fn a_quota_and_any_other_error_are_unclear() {
    let lab = Lab::start().await;
    let expected = Expected { failure: Some(FailureReason::Unclear), ..RETRIED };
    for code in
        ["LimitExceeded.New", "ResourceInsufficient", "OperationDenied.New", "FailedOperation"]
    {
        assert_retried(&lab, code, &expected).await;
    }
}

#[tokio::test]
async fn a_session_that_is_gone_is_reported_and_asked_for_again() {
    let lab = Lab::start().await;
    let expected = Expected {
        reason: "SessionNotFound",
        stalled: true,
        failure: Some(FailureReason::SessionGone),
        ..RETRIED
    };
    assert_retried(&lab, "ResourceNotFound.SessionNotFound", &expected).await;
}

/// Attaches four instances of a session; answers how many each call named.
async fn sizes_for_four(lab: &Lab, session: &str) -> Vec<usize> {
    lab.create_apart(session, &["a", "b", "c", "d"]).await;
    let object = lab.until_attached(session, &["a", "b", "c", "d"]).await;
    assert_eq!(object.status.expect("a status").unsettled_instances, []);
    calls_of(lab, session).iter().map(|call| call.instance_ids.len()).collect()
}

#[tokio::test]
async fn a_call_that_is_too_large_is_halved_at_once_and_those_that_follow_too() {
    for code in
        ["RequestSizeLimitExceeded", "RequestSizeLimitExceeded.New", "ResponseSizeLimitExceeded"]
    {
        let lab = Lab::start().await;
        lab.simulator.set_faults(errors(&[(code, 1)]));

        assert_eq!(sizes_for_four(&lab, "first").await, [4, 2, 2], "{code}");
        assert_eq!(sizes_for_four(&lab, "second").await, [2, 2], "{code}");
    }
}

#[tokio::test]
async fn a_lone_instance_that_is_too_large_halves_no_batch() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(errors(&[("ResponseSizeLimitExceeded", 1)]));
    lab.create_apart("lone", &["a"]).await;
    lab.until_attached("lone", &["a"]).await;

    assert_eq!(sizes_for_four(&lab, "lobby").await, [4]);
}
