//! The flags of each server.

use std::{ffi::OsString, path::Path};

use crate::folder::DataFolder;

/// One line a request, with who, what and the answer's code but without bodies. The stage before
/// the answer is left out, so a count of lines is a count of requests.
pub(crate) const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// A flag whose value is a path; paths need not be UTF-8.
fn flag(name: &str, value: impl AsRef<Path>) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value.as_ref());
    flag
}

fn socket(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(format!("--{name}=unix://"));
    flag.push(path);
    flag
}

/// etcd listens on sockets in the data folder: no port to clash, and nobody else on the machine can
/// reach it.
pub(crate) fn etcd(folder: &DataFolder) -> Vec<OsString> {
    let (client, peer) = (folder.etcd_socket(), folder.peer_socket());
    vec![
        "--name=devcluster".into(),
        flag("data-dir", folder.etcd_data()),
        // The data does not outlive the process, so it need not reach the disk.
        "--unsafe-no-fsync".into(),
        socket("listen-client-urls", &client),
        socket("advertise-client-urls", &client),
        socket("listen-peer-urls", &peer),
        socket("initial-advertise-peer-urls", &peer),
        socket("initial-cluster=devcluster", &peer),
        "--log-level=warn".into(),
    ]
}

pub(crate) fn kube_apiserver(folder: &DataFolder, port: u16) -> Vec<OsString> {
    vec![
        socket("etcd-servers", &folder.etcd_socket()),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}").into(),
        // Without it the server looks for a default route, and a laptop may be offline.
        "--advertise-address=127.0.0.1".into(),
        // No pod needs to find the API server, and a loopback address is refused as an endpoint.
        "--endpoint-reconciler-type=none".into(),
        flag("cert-dir", folder.certificates()),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        flag("service-account-key-file", folder.service_account_key()),
        flag("service-account-signing-key-file", folder.service_account_key()),
        flag("token-auth-file", folder.tokens()),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        // It would refuse pods until a controller has made the default ServiceAccount.
        "--disable-admission-plugins=ServiceAccount".into(),
        flag("audit-policy-file", folder.audit_policy()),
        flag("audit-log-path", folder.audit_log()),
        // In MB. A rotation (at 100 by default) would lose lines that a test counts.
        "--audit-log-maxsize=10240".into(),
    ]
}

/// Only the controllers that end namespaces, collect garbage and make default `ServiceAccount`s: no
/// nodes exist for the others.
pub(crate) fn kube_controller_manager(folder: &DataFolder) -> Vec<OsString> {
    vec![
        flag("kubeconfig", folder.kubeconfig()),
        "--controllers=namespace-controller,garbage-collector-controller,serviceaccount-controller"
            .into(),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        // Nothing connects to it.
        "--secure-port=0".into(),
    ]
}
