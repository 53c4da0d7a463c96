//! The official clients against the simulator: what the vendor's own clients sign, our judge
//! accepts; so it may judge our signer too.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use gs_simulator::{Call, EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Operation, Outcome, Simulator};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::SESSION;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdks/python");
pub const REMEDY: &str = "this test needs Python 3 with its venv module: install python3 (Debian and Ubuntu: python3 and python3-venv)";

/// Runs a command that must succeed; answers what it printed.
fn must(command: &mut Command, remedy: &str) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("can't run {command:?}: {error}; {remedy}"));
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {complained}; {remedy}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether these tools are there. Without one of them a laptop skips the test and says so; CI
/// fails.
pub fn are_there(tools: &[&str], remedy: &str) -> bool {
    let is_there = |tool: &&str| {
        Command::new("sh")
            .args(["-c", r#"command -v "$0" >/dev/null"#, tool])
            .status()
            .is_ok_and(|status| status.success())
    };
    let Some(missing) = tools.iter().find(|tool| !is_there(tool)) else { return true };
    assert!(env::var_os("CI").is_none(), "{missing} is not there; {remedy}");
    eprintln!("skipped: {missing} is not there; {remedy}");
    false
}

fn cache() -> PathBuf {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let root =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    root.expect("a cache folder: set XDG_CACHE_HOME or HOME").join("streamsession-operator/sdks")
}

/// A folder that goes, unless it was moved away.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The Python of a virtual environment that holds the SDK; tests that want it at once wait for the
/// first.
pub fn python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(make_python).clone()
}

/// It is made once for each Python and each list of requirements.
fn make_python() -> PathBuf {
    let requirements = Path::new(FOLDER).join("requirements.txt");
    let version = must(Command::new("python3").arg("--version"), REMEDY);
    let key = Sha256::new()
        .chain_update(&version)
        .chain_update(fs::read(&requirements).expect("requirements"))
        .finalize();
    let home = cache().join(format!("python-{}", hex::encode(&key[..8])));
    let python = |home: &Path| home.join("bin/python");
    if !home.exists() {
        // Made beside its place and moved there complete: a test run that is cut off leaves nothing
        // half-made, and two may race.
        let draft = Draft(home.with_extension(format!("{}.draft", std::process::id())));
        must(Command::new("python3").args(["-m", "venv"]).arg(&draft.0), REMEDY);
        let mut install = Command::new(python(&draft.0));
        install
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
            .arg(&requirements);
        must(
            &mut install,
            "check the network, or pip's own configuration (index, proxy), and try again",
        );
        let moved = fs::rename(&draft.0, &home);
        assert!(
            moved.is_ok() || home.exists(),
            "{} can't be moved to {}: {moved:?}",
            draft.0.display(),
            home.display()
        );
    }
    python(&home)
}

/// Attaches `phone` with the SDK and this key: whether it succeeded, and the answer.
fn attach(simulator: &Simulator, secret_key: &str, phone: &str) -> (bool, Value) {
    let mut command = Command::new(python());
    command.arg(Path::new(FOLDER).join("attach.py")).args([
        &simulator.address().to_string(),
        SESSION,
        phone,
    ]);
    command
        .env("TENCENTCLOUD_SECRET_ID", EXAMPLE_SECRET_ID)
        .env("TENCENTCLOUD_SECRET_KEY", secret_key);
    // A proxy is for elsewhere, and `__pycache__` not for the tree.
    command
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME");
    let output = command.output().expect("Python runs");
    let (printed, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let answer = serde_json::from_str(&printed)
        .unwrap_or_else(|error| panic!("{error}: {printed}{complained}"));
    (output.status.success(), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_sdk_attaches_a_phone_and_one_changed_byte_of_its_key_is_refused() {
    if !are_there(&["python3"], REMEDY) {
        return;
    }
    let simulator = Simulator::start(gs_simulator::Options::default()).await.expect("a simulator");
    let changed = EXAMPLE_SECRET_KEY.replacen('S', "T", 1);
    assert_ne!(changed, EXAMPLE_SECRET_KEY);

    let (ok, answer) = attach(&simulator, EXAMPLE_SECRET_KEY, "phone-1");
    let (changed_ok, refusal) = attach(&simulator, &changed, "phone-2");

    assert!(ok, "{answer}");
    assert_eq!(
        answer["Response"]["SuccessInstanceIds"],
        serde_json::json!(["phone-1"]),
        "{answer}"
    );
    assert!(!changed_ok, "{refusal}");
    assert_eq!(refusal["code"], "AuthFailure.SignatureFailure");
    assert_eq!(simulator.members(SESSION), ["phone-1".to_owned()].into());
    let calls: Vec<_> =
        simulator.calls().into_iter().map(|call| (call.operation, call.outcome)).collect();
    let refused = Outcome::Refused("AuthFailure.SignatureFailure".into());
    assert_eq!(calls[0], (Some(Operation::Attach), Outcome::Applied));
    assert_eq!(calls.last().map(|(_, outcome)| outcome), Some(&refused));
}

/// What `tests/sdks/*/run` checks, in order.
const CHECKS: [&str; 6] =
    ["attach", "detach", "wrong key", "unknown key", "changed body", "old timestamp"];
const REFUSALS: [&str; 4] = [
    "AuthFailure.SignatureFailure",
    "AuthFailure.SecretIdNotFound",
    "AuthFailure.SignatureFailure",
    "AuthFailure.SignatureExpire",
];

/// Lets an official client do its checks against a simulator of its own; `tools` must be installed.
async fn passes_its_checks(client: &str, tools: &[&str], remedy: &str) {
    if !are_there(tools, remedy) {
        return;
    }
    let simulator = Simulator::start(gs_simulator::Options::default()).await.expect("a simulator");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdks").join(client).join("run");

    let output = Command::new(script)
        .arg(simulator.address().to_string())
        .output()
        .expect("the script runs");

    let printed = String::from_utf8_lossy(&output.stdout);
    let seen = format!("{printed}{}; {remedy}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {seen}", output.status);
    let passed: Vec<_> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("ok: ")?.split_once(':'))
        .map(|(check, _)| check)
        .collect();
    assert_eq!(passed, CHECKS, "{seen}");
    // A client that retries, or signs twice, would show here.
    let outcome = |call: Call| (call.operation, call.outcome);
    let calls: Vec<_> = simulator.calls().into_iter().map(outcome).collect();
    assert_eq!(
        calls[..2],
        [(Some(Operation::Attach), Outcome::Applied), (Some(Operation::Detach), Outcome::Applied)],
        "{seen}"
    );
    let refused: Vec<_> = calls[2..].iter().map(|(_, outcome)| outcome.clone()).collect();
    assert_eq!(refused, REFUSALS.map(|code| Outcome::Refused(code.into())), "{seen}");
    assert!(simulator.members(SESSION).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_go_sdk_passes_its_checks() {
    passes_its_checks(
        "go",
        &["go"],
        "this test needs Go 1.23 or newer (https://go.dev/dl) and, once, its module proxy",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_node_sdk_passes_its_checks() {
    let remedy = "this test needs Node 18 or newer with npm (Debian and Ubuntu: nodejs and npm) and, once, the npm registry";
    passes_its_checks("node", &["node", "npm"], remedy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_java_sdk_passes_its_checks() {
    let remedy = "this test needs a JDK 17 or newer and Maven (Debian and Ubuntu: default-jdk and maven) and, once, Maven Central";
    passes_its_checks("java", &["java", "mvn"], remedy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_command_line_passes_its_checks() {
    passes_its_checks(
        "tccli",
        &["python3"],
        &format!("{REMEDY} and, once, the Python package index"),
    )
    .await;
}
