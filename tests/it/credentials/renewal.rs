//! Temporary keys that the service refuses before their time.

use super::recording_proxy::RecordingProxy;
use super::*;

#[tokio::test]
async fn keys_that_expired_early_are_renewed_once_with_the_token_that_the_kubelet_has_rotated() {
    let lab = lab_with(Identity {
        web_identity_tokens: [WEB_IDENTITY_TOKEN.to_owned()].into(),
        ..Identity::default()
    })
    .await;
    let scratch = Scratch::of(&lab);
    let token_file = scratch.write("token", WEB_IDENTITY_TOKEN);
    let _process = Process::start(&lab, &scratch, &pod_identity(&token_file), &[]);
    create(&lab, "lobby", &["a"]).await;
    lab.until_ready("lobby", &["a"]).await;
    scratch.write("token", "rotated");
    lab.simulator.set_identity(Identity {
        web_identity_tokens: ["rotated".to_owned()].into(),
        ..Identity::default()
    });

    lab.simulator.expire_issued_keys();
    lab.edit_ids("lobby", &["a", "b"]).await;

    assert_eq!(credential(&lab, &["a", "b"]).await, ROLE_ARN);
    let refused: Vec<_> = refusals(&lab).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(refused, [Outcome::Refused("AuthFailure.TokenFailure".into())]);
    assert_eq!(lab.simulator.stats().keys_issued, 2);
}

#[tokio::test]
async fn keys_that_expired_early_are_renewed_once_for_a_fleet_that_is_refused_together() {
    let lab = lab_with(node_with_a_role()).await;
    let scratch = Scratch::of(&lab);
    let _process = Process::start(&lab, &scratch, &[], &[]);
    let names: Vec<_> = (0..8).map(|number| format!("wall-{number}")).collect();
    let all_hold = async |id: &str| {
        for name in &names {
            lab.until_status(name, "is attached", |status| status.attached_instance_ids == [id])
                .await;
        }
    };
    for name in &names {
        lab.create(name, &["a"], json!({"credentialsRef": null, "sessionId": name})).await;
    }
    all_hold("a").await;

    lab.simulator.expire_issued_keys();
    for name in &names {
        lab.edit_ids(name, &["b"]).await;
    }

    all_hold("b").await;
    assert_eq!(lab.simulator.stats().keys_issued, 2, "{:?}", lab.history());
}

#[tokio::test]
async fn a_late_refusal_of_the_old_keys_does_not_renew_the_new_ones() {
    let lab = lab_with(node_with_a_role()).await;
    let (scratch, proxy) = (Scratch::of(&lab), RecordingProxy::before(&lab.simulator).await);
    let _process =
        Process::start(&lab, &scratch, &[("GS_ENDPOINT", &proxy.url), ("GS_TIMEOUT", "60")], &[]);
    create(&lab, "lobby", &["a"]).await;
    lab.create("late", &["a"], json!({"credentialsRef": null, "sessionId": "late"})).await;
    lab.until_ready("lobby", &["a"]).await;
    lab.until_status("late", "is attached", |status| status.attached_instance_ids == ["a"]).await;
    lab.simulator.expire_issued_keys();
    *proxy.kept.held_text.lock().expect("no panic") = Some("AuthFailure.TokenFailure");
    lab.edit_ids("late", &["b"]).await;
    lab.until_calls(3).await;
    lab.edit_ids("lobby", &["b"]).await;
    lab.until_ready("lobby", &["b"]).await;

    proxy.kept.released.notify_one();

    lab.until_status("late", "is attached", |status| status.attached_instance_ids == ["b"]).await;
    assert_eq!(
        (refusals(&lab).len(), lab.simulator.stats().keys_issued),
        (2, 2),
        "{:#?}",
        lab.calls()
    );
}
