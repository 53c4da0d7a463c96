//! What is shipped: `deploy/` and `examples/` are accepted by the real API server, and the rights
//! that they grant are enough and no more.

use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;

use kube::config::AuthInfo;
use serde_json::{Value, json};

use crate::harness::{Lab, cluster, config, eventually, kubectl, try_kubectl};

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/base");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
const NAMESPACE: &str = "streamsession-system";
const SERVICE_ACCOUNT: &str = "streamsession-operator";
const USER: &str = "system:serviceaccount:streamsession-system:streamsession-operator";

fn apply_strictly(arguments: &[&str]) -> String {
    let text = kubectl(&[&["apply", "--server-side", "--validate=strict"], arguments].concat(), "");
    // Of a field that is deprecated, or of a pod that the namespace's security standard would
    // refuse.
    assert!(!text.contains("Warning"), "{text}");
    text
}

/// Applies the base for real, once. No controller runs in the test cluster, so the Deployment
/// starts nothing.
fn deploy() {
    static DEPLOYED: OnceLock<()> = OnceLock::new();
    DEPLOYED.get_or_init(|| {
        // All tests share the CRD: its owner and its schema must not change.
        let rendered = kubectl(&["kustomize", BASE], "");
        let (crds, others): (Vec<_>, Vec<_>) = rendered
            .split("\n---\n")
            .partition(|document| document.contains("kind: CustomResourceDefinition"));
        assert_eq!(crds.len(), 1, "{rendered}");
        let text = kubectl(
            &["apply", "--server-side", "--validate=strict", "-f", "-"],
            &others.join("\n---\n"),
        );
        assert!(!text.contains("Warning"), "{text}");
    });
}

fn may(verb: &str, resource: &str) -> bool {
    let (ok, text) =
        try_kubectl(&["auth", "can-i", verb, resource, "--all-namespaces", "--as", USER], "");
    assert!(text.contains(if ok { "yes" } else { "no" }), "{verb} {resource}: {text}");
    ok
}

#[test]
fn the_base_renders_every_kind_of_object_and_no_secret() {
    let rendered = kubectl(&["kustomize", BASE], "");

    let kinds: BTreeSet<_> =
        rendered.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    let expected = [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "Namespace",
        "ServiceAccount",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);
    assert!(!rendered.contains("kind: Secret"), "no key belongs into the tree");
}

#[test]
fn the_api_server_accepts_the_base_in_every_detail() {
    deploy();

    let text = apply_strictly(&["--dry-run=server", "--force-conflicts", "-k", BASE]);

    for object in [
        "deployment.apps/streamsession-operator",
        "customresourcedefinition.apiextensions.k8s.io/streamsessions.gs.tencentcloud.dev",
    ] {
        assert!(text.contains(object), "{text}");
    }
}

fn deployment() -> Value {
    let rendered = kubectl(&["kustomize", BASE], "");
    let documents = rendered
        .split("\n---\n")
        .map(|document| serde_saphyr::from_str::<Value>(document).expect("YAML"));
    documents.into_iter().find(|document| document["kind"] == "Deployment").expect("a Deployment")
}

/// As the operator of the Deployment reads them.
#[test]
fn nobody_may_use_the_operators_own_keys_as_it_is_shipped() {
    let deployment = deployment();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];

    let variables = container["env"].as_array().expect("variables");
    let named: Vec<_> = variables
        .iter()
        .filter(|variable| {
            variable["name"].as_str().is_some_and(|name| {
                ["DEFAULT_CREDENTIALS_NAMESPACES", "NODE_ROLE_CREDENTIALS"].contains(&name)
            })
        })
        .collect();
    assert_eq!(named, [&json!({"name": "DEFAULT_CREDENTIALS_NAMESPACES", "value": ""})]);
    let arguments = container["args"].to_string();
    assert!(!arguments.contains("credentials"), "{arguments}");
}

#[test]
fn the_pod_is_restricted_and_its_flags_exist() {
    let deployment = deployment();

    let spec = &deployment["spec"];
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!((&spec["replicas"], &spec["strategy"]["type"]), (&json!(1), &json!("Recreate")));
    assert_eq!(
        (&pod["serviceAccountName"], &pod["securityContext"]["runAsNonRoot"]),
        (&json!(SERVICE_ACCOUNT), &json!(true))
    );
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(
        (&security["readOnlyRootFilesystem"], &security["allowPrivilegeEscalation"]),
        (&json!(true), &json!(false))
    );
    for kind in ["requests", "limits"] {
        assert!(
            container["resources"][kind]["memory"].is_string()
                && container["resources"][kind]["cpu"].is_string(),
            "{kind}"
        );
    }
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
    }
    let arguments = container["args"]
        .as_array()
        .expect("arguments")
        .iter()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>();
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_streamsession-operator"))
        .args(["run", "--help"])
        .output()
        .expect("help");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert_eq!(arguments[0], "run");
    for flag in &arguments[1..] {
        assert!(help.contains(flag.split('=').next().unwrap_or(flag)), "no {flag} in {help}");
    }
}

#[tokio::test]
async fn the_examples_are_accepted_in_every_detail() {
    let lab = Lab::without_operator().await;
    let files =
        fs::read_dir(EXAMPLES).expect("examples").map(|entry| entry.expect("a file").path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    assert!(files.len() >= 2, "{files:?}");

    for file in files {
        apply_strictly(&[
            "--dry-run=server",
            "-n",
            &lab.namespace,
            "-f",
            file.to_str().expect("UTF-8"),
        ]);
    }
}

#[tokio::test]
async fn a_session_is_created_edited_and_deleted_with_the_rights_that_are_shipped() {
    deploy();
    let mut lab = Lab::without_operator().await;
    let token = kubectl(&["create", "token", SERVICE_ACCOUNT, "-n", NAMESPACE], "");
    let mut config = config().await;
    config.auth_info =
        AuthInfo { token: Some(token.trim().to_owned().into()), ..AuthInfo::default() };

    lab.start_operator_as(config).await;
    lab.create_ready("lobby", &["a", "b"]).await;
    lab.edit_ids("lobby", &["b", "c"]).await;
    lab.until_ready("lobby", &["b", "c"]).await;
    eventually("an event reports it", async || {
        let events = kubectl(&["events", "-n", &lab.namespace, "--for", "streamsession/lobby"], "");
        if events.contains("UpToDate") { Ok(()) } else { Err(events) }
    })
    .await;
    lab.delete("lobby").await;
    lab.until_gone("lobby").await;

    assert!(lab.members().is_empty());
    let (done, denied) = audited(&lab.namespace);
    for needed in [
        "watch streamsessions",
        "get streamsessions",
        "patch streamsessions",
        "update streamsessions/status",
        "get secrets",
        "create events",
    ] {
        assert!(done.contains(needed), "the ServiceAccount never did `{needed}`, but {done:?}");
    }
    assert!(denied.is_empty(), "the ServiceAccount was denied {denied:?}");
    // A denial would have been seen.
    let (ok, _) =
        try_kubectl(&["get", "secrets", "-n", &lab.namespace, "--token", token.trim()], "");
    assert!(!ok, "the ServiceAccount may list Secrets");
    eventually("the audit log shows the denial", async || match audited(&lab.namespace).1 {
        denied if denied.contains("list secrets") => Ok(()),
        denied => Err(format!("{denied:?}")),
    })
    .await;
}

/// What the ServiceAccount did in a namespace, and what it was denied anywhere, by the API server's
/// audit log.
fn audited(namespace: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let log = fs::read_to_string(cluster().audit_log()).expect("the audit log");
    let lines = log
        .lines()
        .filter(|line| line.contains(USER))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let (mut done, mut denied) = (BTreeSet::new(), BTreeSet::new());
    // `kubectl auth can-i --as` impersonates it: then the user is another one.
    for event in lines.filter(|event| event["user"]["username"] == USER) {
        let object = &event["objectRef"];
        let subresource =
            object["subresource"].as_str().map(|name| format!("/{name}")).unwrap_or_default();
        let what = format!(
            "{} {}{subresource}",
            event["verb"].as_str().unwrap_or(""),
            object["resource"].as_str().unwrap_or("")
        );
        match event["responseStatus"]["code"].as_i64() {
            Some(401 | 403) => denied.insert(what),
            _ => object["namespace"] == namespace && done.insert(what),
        };
    }
    (done, denied)
}

#[test]
fn the_service_account_may_do_what_it_needs_and_nothing_else() {
    deploy();

    let needed = [
        ("list", "streamsessions.gs.tencentcloud.dev"),
        ("watch", "streamsessions.gs.tencentcloud.dev"),
        ("get", "streamsessions.gs.tencentcloud.dev"),
        ("patch", "streamsessions.gs.tencentcloud.dev"),
        ("get", "secrets"),
        ("create", "events.events.k8s.io"),
    ];
    for (verb, resource) in needed {
        assert!(may(verb, resource), "{verb} {resource}");
    }
    let denied = [
        ("list", "secrets"),
        ("watch", "secrets"),
        ("create", "secrets"),
        ("create", "streamsessions.gs.tencentcloud.dev"),
        ("delete", "streamsessions.gs.tencentcloud.dev"),
        ("create", "pods"),
        ("get", "configmaps"),
        ("impersonate", "users"),
        ("escalate", "clusterroles.rbac.authorization.k8s.io"),
        ("*", "*"),
    ];
    for (verb, resource) in denied {
        assert!(!may(verb, resource), "{verb} {resource}");
    }
}
