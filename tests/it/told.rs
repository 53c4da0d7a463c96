//! What is let go of is told, whatever becomes of the write.

use std::fs::File;

use kube::config::Kubeconfig;
use serde_json::json;

use crate::harness::{Lab, cluster, eventually, kubectl, set};
use crate::process::{self, Logs};

/// A kubeconfig of somebody who may do all that an operator may in the lab's namespace, but for
/// changing an object's finalizers.
fn without_the_right_to_finalizers(lab: &Lab) -> Kubeconfig {
    let namespace = &lab.namespace;
    let user = format!("limited-{namespace}");
    let group = "gs.tencentcloud.dev";
    let metadata = json!({"name": "limited", "namespace": namespace});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [
            {"apiGroups": [group], "resources": ["streamsessions"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [group], "resources": ["streamsessions/status"], "verbs": ["patch", "update"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    });
    for manifest in [role, binding] {
        kubectl(&["apply", "-f", "-"], &manifest.to_string());
    }
    let mut config = Kubeconfig::read_from(cluster().kubeconfig()).expect("a kubeconfig");
    for user_info in &mut config.auth_infos {
        user_info.auth_info.as_mut().expect("a user").impersonate = Some(user.clone());
    }
    config
}

#[tokio::test]
async fn the_log_names_what_is_left_before_it_is_written() {
    let mut lab = Lab::with_members(&["a", "b"]).await;
    lab.stop_operator().await;
    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;
    lab.delete("lobby").await;
    let logs = Logs::of(&lab);
    let kubeconfig = logs.folder().join("kubeconfig");
    let config = serde_json::to_string(&without_the_right_to_finalizers(&lab)).expect("JSON");
    std::fs::write(&kubeconfig, config).expect("a kubeconfig");
    let log = logs.folder().join("limited.log");

    let mut operator = process::operator_with(&lab, &kubeconfig)
        .stderr(File::create(&log).expect("a log"))
        .spawn()
        .expect("the operator");

    let line = eventually("the log names them", async || {
        let text = std::fs::read_to_string(&log).expect("the log");
        let mut lines = text.lines().filter(|line| line.contains("InstancesOrphaned"));
        lines.next().map(str::to_owned).ok_or(text)
    })
    .await;
    assert!(line.contains(r#"ids=["a", "b"]"#) && line.contains("lobby"), "{line}");
    process::kill(&mut operator).await;
    let object = lab.get("lobby").await;
    assert!(object.metadata.finalizers.is_some_and(|it| !it.is_empty()), "nothing was written");
    assert_eq!(lab.members(), set(&["a", "b"]));
}
