//! Where keys come from: the operator's own sources in order, by the real process, whose
//! environment they are; and Secrets that change.

mod failing_sources;
mod permission;
mod recording_proxy;
mod renewal;
mod tenants;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gs_simulator::{
    Call, EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Identity, Key, Keys, Outcome, Simulator,
};
use serde_json::json;
use streamsession_operator::api::v1alpha1::StreamSession;
use tokio::process::{Child, Command};

use self::recording_proxy::RecordingProxy;
use crate::harness::{DEADLINE, Lab, SESSION, cluster, eventually, ready};

const ROLE_ARN: &str = "qcs::cam::uin/100000000001:roleName/phones";
const NODE_ROLE: &str = "node-role";
const WEB_IDENTITY_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.of-the-kubelet";
const OWN_KEYS: [(&str, &str); 2] = [
    ("TENCENTCLOUD_SECRET_ID", EXAMPLE_SECRET_ID),
    ("TENCENTCLOUD_SECRET_KEY", EXAMPLE_SECRET_KEY),
];

/// A folder of a test's own, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn of(lab: &Lab) -> Self {
        let folder =
            std::env::temp_dir().join(format!("streamsession-credentials-{}", lab.namespace));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// Writes a file, and answers where it is.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The real operator. Its environment has the addresses and what the test gives, and a home folder
/// of its own.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// One whose own credentials, the node's role included, may be used in the lab's namespace.
    fn start(lab: &Lab, scratch: &Scratch, environment: &[(&str, &str)], flags: &[&str]) -> Self {
        // Not as flags, so that a test can say otherwise.
        let permitted = [
            ("DEFAULT_CREDENTIALS_NAMESPACES", lab.namespace.as_str()),
            ("NODE_ROLE_CREDENTIALS", "true"),
        ];
        Self::unpermitted(lab, scratch, &[&permitted, environment].concat(), flags)
    }

    /// One whose own credentials nobody may use, unless the test says so.
    fn unpermitted(
        lab: &Lab,
        scratch: &Scratch,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Self {
        let log = scratch.0.join("stderr");
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamsession-operator"));
        let url = lab.simulator.url();
        command
            .arg("run")
            .arg("--kubeconfig")
            .arg(cluster().kubeconfig())
            .args([
                "--signature-validity",
                "4",
                "--namespace",
                &lab.namespace,
                "--admin-address",
                "127.0.0.1:0",
            ])
            .args(flags)
            .env_clear()
            .env("HOME", &scratch.0)
            .env("GS_TIMEOUT", "2")
            .env("GS_ENDPOINT", &url)
            .env("STS_ENDPOINT", &url)
            .env("METADATA_ENDPOINT", &url)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::options().create(true).append(true).open(&log).expect("a log"))
            .kill_on_drop(true);
        Self { child: command.spawn().expect("the operator"), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// Asks it to end and waits until it has, so that its log is complete.
    async fn stop(mut self) -> String {
        let pid = self.child.id().expect("a process").to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill").success());
        tokio::time::timeout(DEADLINE, self.child.wait())
            .await
            .expect("in time")
            .expect("a status");
        self.log()
    }
}

/// What TKE puts into a pod that has an identity.
fn pod_identity(token_file: &str) -> [(&str, &str); 4] {
    [
        ("TKE_ROLE_ARN", ROLE_ARN),
        ("TKE_PROVIDER_ID", "cls-12345678"),
        ("TKE_WEB_IDENTITY_TOKEN_FILE", token_file),
        ("TKE_REGION", "ap-guangzhou"),
    ]
}

fn node_with_a_role() -> Identity {
    Identity { role: Some(NODE_ROLE.to_owned()), ..Identity::default() }
}

async fn lab_with(identity: Identity) -> Lab {
    // An answer that is held back takes the service's clock back with it: no signature may be too
    // old because of that.
    let simulator = gs_simulator::Options {
        signature_validity: Duration::from_mins(1),
        ..gs_simulator::Options::default()
    };
    let lab = Lab::with(simulator).await;
    lab.simulator.set_identity(identity);
    lab
}

/// A StreamSession that uses the operator's own credentials.
async fn create(lab: &Lab, name: &str, ids: &[&str]) {
    lab.create(name, ids, json!({"credentialsRef": null})).await;
}

/// Whom the calls of the ready session `lobby` are signed for.
async fn credential(lab: &Lab, ids: &[&str]) -> String {
    lab.until_ready("lobby", ids)
        .await
        .status
        .expect("a status")
        .target
        .expect("a target")
        .credential
        .expect("a name")
}

/// The calls that were refused, with the keys that signed them.
fn refusals(lab: &Lab) -> Vec<(String, Outcome)> {
    let refused = |call: &Call| matches!(call.outcome, Outcome::Refused(_));
    lab.calls()
        .into_iter()
        .filter(refused)
        .map(|call| (call.secret_id.unwrap_or_default(), call.outcome))
        .collect()
}

/// Waits until Ready is False with a message that has all of these; answers it.
async fn until_message(lab: &Lab, name: &str, parts: &[&str]) -> String {
    eventually(&format!("{name} says {parts:?}"), async || {
        let (_, reason, message) = ready(&lab.get(name).await);
        if parts.iter().all(|part| message.contains(part)) {
            Ok(message)
        } else {
            Err(format!("{reason}: {message}"))
        }
    })
    .await
}

#[tokio::test]
async fn temporary_keys_in_the_environment_sign_with_their_token_under_each_of_its_names() {
    let keys = Keys::from([(
        "AKIDTEMPORARY".to_owned(),
        Key::temporary("KEYTEMPORARY", "TOKENTEMPORARY"),
    )]);
    let validity = Duration::from_secs(4);
    let lab = Lab::with(gs_simulator::Options {
        keys,
        signature_validity: validity,
        ..gs_simulator::Options::default()
    })
    .await;
    lab.simulator.set_identity(node_with_a_role());
    let scratch = Scratch::of(&lab);
    let keys =
        [("TENCENTCLOUD_SECRET_ID", "AKIDTEMPORARY"), ("TENCENTCLOUD_SECRET_KEY", "KEYTEMPORARY")];
    create(&lab, "lobby", &["a"]).await;

    for (number, name) in
        ["TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"]
            .into_iter()
            .enumerate()
    {
        let phone = format!("phone-{number}");
        lab.edit_ids("lobby", &[&phone]).await;
        let process =
            Process::start(&lab, &scratch, &[keys[0], keys[1], (name, "TOKENTEMPORARY")], &[]);

        assert_eq!(credential(&lab, &[&phone]).await, "AKIDTEMPORARY", "{name}");
        process.stop().await;
    }
    assert_eq!((refusals(&lab), lab.simulator.stats().keys_issued), (Vec::new(), 0));
}

#[tokio::test]
async fn a_profile_is_used_where_the_variable_says_and_in_the_home_folder() {
    let lab = lab_with(node_with_a_role()).await;
    let scratch = Scratch::of(&lab);
    let profile =
        format!("[default]\nsecret_id = {EXAMPLE_SECRET_ID}\nsecret_key = {EXAMPLE_SECRET_KEY}\n");
    let named = scratch.write("elsewhere/profile.ini", &profile);
    create(&lab, "lobby", &["a"]).await;

    let process = Process::start(&lab, &scratch, &[("TENCENTCLOUD_CREDENTIALS_FILE", &named)], &[]);
    assert_eq!(credential(&lab, &["a"]).await, EXAMPLE_SECRET_ID);
    process.stop().await;
    scratch.write(".tencentcloud/credentials", &profile);
    lab.edit_ids("lobby", &["b"]).await;
    let _process = Process::start(&lab, &scratch, &[], &[]);

    assert_eq!(credential(&lab, &["b"]).await, EXAMPLE_SECRET_ID);
    assert_eq!((refusals(&lab), lab.simulator.stats().keys_issued), (Vec::new(), 0));
}

#[tokio::test]
async fn the_pods_identity_signs_for_its_role_before_the_nodes_and_one_key_serves_all() {
    let lab = lab_with(Identity {
        web_identity_tokens: [WEB_IDENTITY_TOKEN.to_owned()].into(),
        ..node_with_a_role()
    })
    .await;
    let scratch = Scratch::of(&lab);
    // As many editors end a file.
    let token_file = scratch.write("token", &format!("{WEB_IDENTITY_TOKEN}\n"));
    let _process = Process::start(&lab, &scratch, &pod_identity(&token_file), &[]);

    create(&lab, "lobby", &["a"]).await;
    lab.create("other", &["b"], json!({"credentialsRef": null, "sessionId": "other"})).await;

    assert_eq!(credential(&lab, &["a"]).await, ROLE_ARN);
    lab.until_status("other", "is attached", |status| status.attached_instance_ids == ["b"]).await;
    assert_eq!((refusals(&lab), lab.simulator.stats().keys_issued), (Vec::new(), 1));
}

#[tokio::test]
async fn a_node_signs_for_its_role() {
    let lab = lab_with(node_with_a_role()).await;
    let scratch = Scratch::of(&lab);
    let _process = Process::start(&lab, &scratch, &[], &[]);

    create(&lab, "lobby", &["a"]).await;

    assert_eq!(credential(&lab, &["a"]).await, NODE_ROLE);
    assert_eq!((refusals(&lab), lab.simulator.stats().keys_issued), (Vec::new(), 1));
}

#[tokio::test]
async fn no_secret_of_temporary_keys_is_in_the_log_however_much_is_logged() {
    let lab = lab_with(node_with_a_role()).await;
    let (scratch, proxy) = (Scratch::of(&lab), RecordingProxy::before(&lab.simulator).await);
    let token_file = scratch.write("token", WEB_IDENTITY_TOKEN);
    let told = [
        ("RUST_LOG", "trace"),
        ("STS_ENDPOINT", proxy.url.as_str()),
        ("METADATA_ENDPOINT", proxy.url.as_str()),
    ];
    create(&lab, "lobby", &["a"]).await;

    let environment: Vec<_> = pod_identity(&token_file).into_iter().chain(told).collect();
    let process = Process::start(&lab, &scratch, &environment, &[]);
    lab.until_ready("lobby", &["a"]).await;
    lab.simulator.expire_issued_keys();
    lab.edit_ids("lobby", &["b"]).await;
    lab.until_ready("lobby", &["b"]).await;
    process.stop().await;
    lab.edit_ids("lobby", &["c"]).await;
    let process = Process::start(&lab, &scratch, &told, &[]);
    lab.until_ready("lobby", &["c"]).await;
    let log = process.stop().await;

    let (keys, tokens) = (proxy.told("TmpSecretKey"), proxy.told("Token"));
    assert_eq!(
        (keys.len(), tokens.len()),
        (3, 3),
        "two of the pod's identity, one of the node's role"
    );
    for secret in keys.iter().chain(&tokens).map(String::as_str).chain([WEB_IDENTITY_TOKEN]) {
        assert!(!log.contains(secret), "{secret} in: {log}");
    }
    assert!(log.contains("TRACE") && log.contains("the operator starts"), "{log}");
}

/// Another simulator takes the lab's place, with the same sessions, and knows this key alone: the
/// account's owner has removed the old one.
async fn replace_the_key(lab: &mut Lab, id: &str, key: &str) {
    let (listen, sessions) = (lab.simulator.address(), lab.simulator.sessions());
    let options = || gs_simulator::Options {
        listen,
        keys: Keys::from([(id.to_owned(), Key::long_term(key))]),
        signature_validity: lab.options.signature_validity,
        ..gs_simulator::Options::default()
    };
    // Elsewhere, until the old one has let its port go.
    let elsewhere = gs_simulator::Options { listen: ([127, 0, 0, 1], 0).into(), ..options() };
    drop(std::mem::replace(
        &mut lab.simulator,
        Simulator::start(elsewhere).await.expect("a simulator"),
    ));
    let simulator = eventually("the port is free", async || {
        Simulator::start(options()).await.map_err(|error| error.to_string())
    })
    .await;
    for (session, members) in sessions {
        simulator.set_members(&session, members);
    }
    lab.simulator = simulator;
}

#[tokio::test]
async fn a_key_that_was_removed_is_reported_and_the_next_one_is_used_without_a_restart() {
    let mut lab = Lab::start().await;
    lab.create("lobby", &["a"], json!({})).await;
    lab.until_ready("lobby", &["a"]).await;
    replace_the_key(&mut lab, "AKIDNEXT", "KEYNEXT").await;
    lab.edit_ids("lobby", &["a", "b"]).await;
    let message = lab.until_reason("lobby", "CredentialsRejected").await;
    assert!(message.contains("AuthFailure.SecretIdNotFound"), "{message}");

    lab.change_secret("tencent", "AKIDNEXT", "KEYNEXT").await;

    assert_eq!(credential(&lab, &["a", "b"]).await, "AKIDNEXT");
}

#[tokio::test]
async fn a_key_that_was_rotated_before_the_old_one_was_removed_costs_one_refusal() {
    let mut lab = Lab::without_operator().await;
    // Neither the backoff nor the rate ends the reconcile that was refused: it must not go on with the
    // old key.
    lab.options.retry_base = Duration::from_millis(1);
    lab.options.gs_qps = 1000.try_into().expect("not 0");
    lab.start_operator().await;
    lab.create("lobby", &["a"], json!({})).await;
    lab.until_ready("lobby", &["a"]).await;

    lab.change_secret("tencent", "AKIDNEXT", "KEYNEXT").await;
    replace_the_key(&mut lab, "AKIDNEXT", "KEYNEXT").await;
    lab.edit_ids("lobby", &["a", "b"]).await;

    assert_eq!(credential(&lab, &["a", "b"]).await, "AKIDNEXT");
    assert_eq!(
        refusals(&lab),
        [(EXAMPLE_SECRET_ID.to_owned(), Outcome::Refused("AuthFailure.SecretIdNotFound".into()))]
    );
}
