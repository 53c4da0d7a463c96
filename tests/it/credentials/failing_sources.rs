//! Sources of the operator's own credentials that have none, or can't be read.

use super::*;

#[tokio::test]
async fn without_any_source_each_is_named_with_its_reason() {
    let lab = lab_with(node_with_a_role()).await;
    let scratch = Scratch::of(&lab);
    let unset = [("NODE_ROLE_CREDENTIALS", "false")];
    let _process = Process::start(&lab, &scratch, &unset, &[]);

    create(&lab, "lobby", &["a"]).await;

    let home = scratch.0.join(".tencentcloud/credentials");
    let profile = format!("there is no profile ({}, /etc", home.display());
    let each = [
        "TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY are not set in the operator's environment",
        &profile,
        "TKE_ROLE_ARN in the pod's identity is not set",
        "the node's role",
        "name a Secret in spec.credentialsRef",
    ];
    lab.until_reason("lobby", "CredentialsNotFound").await;
    until_message(&lab, "lobby", &each).await;
    assert_eq!((lab.history(), lab.simulator.stats().keys_issued), (Vec::new(), 0));
}

#[tokio::test]
async fn what_sts_says_and_a_token_that_can_not_be_read_are_told() {
    let lab = lab_with(Identity {
        sts_error: Some("AuthFailure.OIDCRefused".into()),
        ..Identity::default()
    })
    .await;
    let scratch = Scratch::of(&lab);
    let token_file = scratch.0.join("token").to_str().expect("UTF-8").to_owned();
    let _process = Process::start(&lab, &scratch, &pod_identity(&token_file), &[]);
    create(&lab, "lobby", &["a"]).await;
    until_message(&lab, "lobby", &[ROLE_ARN, &token_file, "No such file"]).await;

    scratch.write("token", WEB_IDENTITY_TOKEN);

    until_message(&lab, "lobby", &[ROLE_ARN, "AuthFailure.OIDCRefused"]).await;
    lab.simulator.set_identity(Identity::default());
    assert_eq!(credential(&lab, &["a"]).await, ROLE_ARN);
}
