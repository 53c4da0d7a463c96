//! Who may use the operator's own credentials: nobody, unless the operator is told so.

use super::*;

/// A StreamSession with a Secret of its own works, whatever the others may.
async fn one_with_a_secret_is_attached(lab: &Lab) {
    lab.create_apart("beside", &["b"]).await;
    lab.until_attached("beside", &["b"]).await;
}

fn is_stalled(object: &StreamSession) -> bool {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let mut stalled = conditions.filter(|condition| condition.type_ == "Stalled");
    stalled.any(|condition| condition.status == "True")
}

#[tokio::test]
async fn by_default_no_namespace_may_use_the_operators_own_keys() {
    let lab = Lab::without_operator().await;
    let scratch = Scratch::of(&lab);
    let _process = Process::unpermitted(&lab, &scratch, &OWN_KEYS, &[]);

    create(&lab, "lobby", &["a"]).await;

    let message = lab.until_reason("lobby", "CredentialsNotFound").await;
    let expected = format!(
        "namespace {} may not use the operator's own credentials: \
         name a Secret in spec.credentialsRef, \
         or add the namespace to --default-credentials-namespaces",
        lab.namespace
    );
    assert_eq!(message, expected);
    assert!(is_stalled(&lab.get("lobby").await));
    one_with_a_secret_is_attached(&lab).await;
    assert_eq!(lab.history(), ["Attach b"]);
}

#[tokio::test]
async fn a_namespace_that_is_named_may_use_them_and_another_one_may_not() {
    let lab = Lab::without_operator().await;
    let scratch = Scratch::of(&lab);
    let flag = "--default-credentials-namespaces";
    let process = Process::unpermitted(&lab, &scratch, &OWN_KEYS, &[flag, "arcade"]);
    create(&lab, "lobby", &["a"]).await;
    let message = lab.until_reason("lobby", "CredentialsNotFound").await;
    assert!(message.contains(&lab.namespace), "{message}");
    process.stop().await;

    let named = format!("arcade,{}", lab.namespace);
    let process = Process::unpermitted(&lab, &scratch, &OWN_KEYS, &[flag, &named]);
    lab.until_ready("lobby", &["a"]).await;
    process.stop().await;
    lab.edit_ids("lobby", &["b"]).await;
    let environment =
        [OWN_KEYS[0], OWN_KEYS[1], ("DEFAULT_CREDENTIALS_NAMESPACES", named.as_str())];
    let _process = Process::unpermitted(&lab, &scratch, &environment, &[]);

    lab.until_ready("lobby", &["b"]).await;
}

#[tokio::test]
async fn a_star_names_every_namespace() {
    let lab = Lab::without_operator().await;
    let scratch = Scratch::of(&lab);
    let every = ["--default-credentials-namespaces", "*"];
    let _process = Process::unpermitted(&lab, &scratch, &OWN_KEYS, &every);

    create(&lab, "lobby", &["a"]).await;

    lab.until_ready("lobby", &["a"]).await;
}

#[tokio::test]
async fn the_nodes_role_is_used_with_a_flag_of_its_own_alone() {
    let lab = lab_with(node_with_a_role()).await;
    let scratch = Scratch::of(&lab);
    let named = ["--default-credentials-namespaces", &lab.namespace];
    let process = Process::unpermitted(&lab, &scratch, &[], &named);
    create(&lab, "lobby", &["a"]).await;

    until_message(&lab, "lobby", &["the node's role", "--node-role-credentials"]).await;
    assert!(is_stalled(&lab.get("lobby").await));
    one_with_a_secret_is_attached(&lab).await;
    assert_eq!((lab.history(), lab.simulator.stats().keys_issued), (vec!["Attach b".into()], 0));
    process.stop().await;
    let permitted = [&named[..], &["--node-role-credentials"]].concat();
    let _process = Process::unpermitted(&lab, &scratch, &[], &permitted);

    assert_eq!(credential(&lab, &["a"]).await, NODE_ROLE);
}

#[tokio::test]
async fn the_flag_of_the_nodes_role_names_no_namespace() {
    let lab = lab_with(node_with_a_role()).await;
    let scratch = Scratch::of(&lab);
    let _process = Process::unpermitted(&lab, &scratch, &[("NODE_ROLE_CREDENTIALS", "true")], &[]);

    create(&lab, "lobby", &["a"]).await;

    let message = lab.until_reason("lobby", "CredentialsNotFound").await;
    assert!(message.contains("--default-credentials-namespaces"), "{message}");
    assert_eq!((lab.history(), lab.simulator.stats().keys_issued), (Vec::new(), 0));
}
