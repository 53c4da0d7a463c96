//! A source of the operator's own credentials that is not set up is left out. One that is set up
//! and fails is told, and nobody signs for another identity instead.

use gs_simulator::Tls;

use super::*;

/// The operator's environment, and what an object says.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

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
        "TKE_ROLE_ARN is not set",
        "the node's role",
        "name a Secret in spec.credentialsRef",
    ];
    lab.until_reason("lobby", "CredentialsNotFound").await;
    until_message(&lab, "lobby", &each).await;
    assert_eq!((lab.history(), lab.simulator.stats().keys_issued), (Vec::new(), 0));
}

#[tokio::test]
async fn a_source_that_is_set_up_and_fails_is_told_and_the_next_one_is_not_used() {
    let lab = lab_with(Identity {
        sts_error: Some("AuthFailure.OIDCRefused".into()),
        ..node_with_a_role()
    })
    .await;
    let scratch = Scratch::of(&lab);
    let (token_file, half) = (
        scratch.write("token", WEB_IDENTITY_TOKEN),
        scratch.write("half", "[default]\nsecret_id = AKID\n"),
    );
    let folder = scratch.0.to_str().expect("UTF-8");
    let file = |path| ("TENCENTCLOUD_CREDENTIALS_FILE", path);
    create(&lab, "lobby", &["a"]).await;

    let id = ("TENCENTCLOUD_SECRET_ID", "AKID");
    let token = ("TENCENTCLOUD_SESSION_TOKEN", "TOKEN");
    let table: [Case<'_>; 7] = [
        (&[id], &["TENCENTCLOUD_SECRET_KEY in the operator's environment is missing", "unset"]),
        (&[token], &["TENCENTCLOUD_SECRET_ID in the operator's environment is missing", "unset"]),
        (&[file(folder)], &["the profile", folder, "Is a directory", "mend"]),
        (&[file("/nonexistent/profile")], &["the profile /nonexistent/profile", "No such file"]),
        (&[file(&half)], &["secret_key", "the profile", "is missing", "mend"]),
        (&[("TKE_REGION", "ap-guangzhou")], &["TKE_ROLE_ARN in the pod's identity is not set"]),
        (&pod_identity(&token_file), &[ROLE_ARN, "AuthFailure.OIDCRefused"]),
    ];
    for (environment, says) in table {
        let process = Process::start(&lab, &scratch, environment, &[]);

        let message = until_message(&lab, "lobby", says).await;
        assert!(message.contains("no other source is used instead"), "{message}");
        assert!(message.contains("name a Secret in spec.credentialsRef"), "{message}");
        process.stop().await;
    }
    assert_eq!((lab.history(), lab.simulator.stats().keys_issued), (Vec::new(), 0));
}

#[tokio::test]
async fn a_node_without_a_role_is_told_and_the_first_role_that_it_gets_is_used() {
    let lab = lab_with(Identity::default()).await;
    let scratch = Scratch::of(&lab);
    let _process = Process::start(&lab, &scratch, &[], &[]);
    create(&lab, "lobby", &["a"]).await;
    until_message(&lab, "lobby", &["the node's role", "HTTP 404", "--node-role-credentials"]).await;

    lab.simulator.set_identity(node_with_a_role());

    assert_eq!(credential(&lab, &["a"]).await, NODE_ROLE);
}

#[tokio::test]
async fn sts_that_fails_once_is_asked_again_and_the_nodes_role_is_not_used_meanwhile() {
    let lab = lab_with(node_with_a_role()).await;
    let (scratch, proxy) = (Scratch::of(&lab), RecordingProxy::before(&lab.simulator).await);
    let token_file = scratch.write("token", WEB_IDENTITY_TOKEN);
    proxy.kept.failures.store(1, Ordering::SeqCst);
    let pod = [&pod_identity(&token_file)[..], &[("STS_ENDPOINT", &proxy.url)]].concat();
    let _process = Process::start(&lab, &scratch, &pod, &[]);

    create(&lab, "lobby", &["a"]).await;

    until_message(&lab, "lobby", &[ROLE_ARN, &proxy.url, "HTTP 500", "tried again"]).await;
    assert_eq!((lab.history(), lab.simulator.stats().keys_issued), (Vec::new(), 0));
    assert_eq!(credential(&lab, &["a"]).await, ROLE_ARN);
    assert_eq!((refusals(&lab), lab.simulator.stats().keys_issued), (Vec::new(), 1));
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

#[tokio::test]
async fn the_ca_file_counts_for_sts_too() {
    let lab = Lab::with(gs_simulator::Options {
        tls: Some(Tls::Generated),
        signature_validity: Duration::from_secs(4),
        ..gs_simulator::Options::default()
    })
    .await;
    let scratch = Scratch::of(&lab);
    let token_file = scratch.write("token", WEB_IDENTITY_TOKEN);
    let ca = scratch.write("ca.pem", lab.simulator.ca_pem().expect("a CA"));
    let pod = [&pod_identity(&token_file)[..], &[("GS_CA_FILE", &ca)]].concat();
    let _process = Process::start(&lab, &scratch, &pod, &[]);

    create(&lab, "lobby", &["a"]).await;

    assert_eq!(credential(&lab, &["a"]).await, ROLE_ARN);
}
