//! `switch`, as somebody tries it who has not used it before: help, mistakes, outcomes, the
//! confirmation, and what `--dry-run` shows and hides.

use std::process::{Command, Stdio};

use gs_simulator::{
    EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Faults, Key, Operation, Outcome, Simulator,
};
use serde_json::{Value, json};

use crate::harness::SESSION;

const PHONES: [&str; 2] = [
    "RK8S37P1402445261_69f8d3e2-8867-462c-a8cf-7c1d1a527782",
    "RK8S37P1402445261_95de5774-0f9f-4cc2-aa67-58d41378d209",
];
const TOKEN: &str = "Pn6bM2cL4dJ0fG8kR5tW";
/// What stands above the curl command.
const CURL: &str = "# The same with curl\n";

/// How it ended, and what it printed where.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it failed so, printed nothing for programs, and says each of these.
    fn assert_complains(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in: {}", self.stderr);
        }
    }
}

/// Runs it with no terminal and nothing in the environment but these variables.
fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamsession-operator"));
    command
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .arg("switch")
        .args(arguments);
    let output = command.output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

const KEYS: [(&str, &str); 2] = [
    ("TENCENTCLOUD_SECRET_ID", EXAMPLE_SECRET_ID),
    ("TENCENTCLOUD_SECRET_KEY", EXAMPLE_SECRET_KEY),
];

/// Runs it with the example key, about the example session, at the simulator.
fn at(simulator: &Simulator, arguments: &[&str]) -> Ended {
    run(&KEYS, &[&["--session-id", SESSION, "--gs-endpoint", &simulator.url()], arguments].concat())
}

async fn simulator() -> Simulator {
    Simulator::start(gs_simulator::Options::default()).await.expect("a simulator")
}

fn members(simulator: &Simulator) -> Vec<String> {
    simulator.members(SESSION).into_iter().collect()
}

/// The signed calls that reached it.
fn calls(simulator: &Simulator) -> Vec<gs_simulator::Call> {
    simulator.calls().into_iter().filter(|call| call.secret_id.is_some()).collect()
}

#[test]
fn help_names_each_flag_the_variables_of_the_keys_and_what_the_operator_does_not_learn() {
    let help = run(&[], &["--help"]);

    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    let flags = [
        "--session-id",
        "--attach",
        "--detach",
        "--region",
        "--gs-endpoint",
        "--gs-timeout",
        "--output",
        "--dry-run",
        "--timestamp",
    ];
    let keys = ["TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_SESSION_TOKEN"];
    let rest = [
        "--yes",
        "GS_ENDPOINT",
        "REGION",
        "table",
        "json",
        "https://gs.tencentcloudapi.com",
        "does not learn of it",
    ];
    for word in flags.iter().chain(&keys).chain(&rest) {
        assert!(help.stdout.contains(word), "no {word} in {}", help.stdout);
    }
}

#[test]
fn help_says_that_the_keys_are_the_persons_own_and_come_from_the_environment_alone() {
    let help = run(&[], &["--help"]).stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");

    for part in [
        "The keys are your own, from the environment alone",
        "No profile, no pod's identity and no node's role is used",
        "--default-credentials-namespaces does not count here",
    ] {
        assert!(help.contains(part), "no `{part}` in {help}");
    }
}

#[test]
fn a_profile_is_nobodys_that_calls_by_hand() {
    let home = std::env::temp_dir().join(format!("streamsession-switch-{}", std::process::id()));
    let folder = home.join(".tencentcloud");
    std::fs::create_dir_all(&folder).expect("a folder");
    let profile =
        format!("[default]\nsecret_id = {EXAMPLE_SECRET_ID}\nsecret_key = {EXAMPLE_SECRET_KEY}\n");
    std::fs::write(folder.join("credentials"), profile).expect("a profile");
    let variables = [("HOME", home.to_str().expect("UTF-8"))];

    let ended = run(&variables, &["--session-id", SESSION, "--attach", "a", "--dry-run"]);

    std::fs::remove_dir_all(&home).expect("removed");
    ended.assert_complains(1, &["no credentials: set TENCENTCLOUD_SECRET_ID"]);
}

#[test]
fn wrong_flags_are_named_with_what_would_be_right() {
    let attach = ["--session-id", SESSION, "--attach", "a"];
    let with = |more: &[&'static str]| [&attach, more].concat();
    let table: [(Vec<&str>, &[&str]); 10] = [
        (vec![], &["--session-id <ID>", "--attach <ID>...|--detach <ID>..."]),
        (vec!["--session-id", SESSION], &["--attach <ID>...|--detach <ID>..."]),
        (vec!["--attach", "a"], &["--session-id <ID>"]),
        (vec!["--session-id", SESSION, "--attach"], &["a value is required for '--attach"]),
        (with(&["--detach", "b"]), &["'--attach <ID>...' cannot be used with '--detach <ID>...'"]),
        (with(&["--wrong"]), &["unexpected argument '--wrong'"]),
        (
            with(&["-o", "yaml"]),
            &["invalid value 'yaml' for '--output", "possible values: table, json"],
        ),
        (with(&["--timestamp", "now"]), &["invalid value 'now' for '--timestamp <UNIX_SECONDS>'"]),
        (
            with(&["--gs-endpoint", "http://example.com"]),
            &["`http://example.com`", "plain http:// is for loopback only", "use https://"],
        ),
        (
            vec!["--session-id", SESSION, "--attach", "a b"],
            &["'a b' for '--attach <ID>...'", "printable ASCII characters only, and no space"],
        ),
    ];

    for (arguments, says) in table {
        run(&KEYS, &arguments).assert_complains(2, says);
    }
}

#[test]
fn without_credentials_it_says_which_variables_to_set() {
    let arguments = ["--session-id", SESSION, "--attach", "a"];

    run(&[], &arguments).assert_complains(
        1,
        &["no credentials: set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY"],
    );
    run(&KEYS[..1], &arguments).assert_complains(1, &["TENCENTCLOUD_SECRET_KEY", "is missing"]);
    run(&KEYS[1..], &arguments).assert_complains(1, &["TENCENTCLOUD_SECRET_ID", "is missing"]);
    let spaced = run(&[KEYS[0], ("TENCENTCLOUD_SECRET_KEY", "hunter 2")], &arguments);
    spaced.assert_complains(1, &["TENCENTCLOUD_SECRET_KEY", "holds a space"]);
    assert!(!spaced.stderr.contains("hunter"), "{spaced:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_told_with_the_services_code_and_request_id() {
    let simulator = simulator().await;
    let url = simulator.url();
    let wrong = [KEYS[0], ("TENCENTCLOUD_SECRET_KEY", "WRONG")];
    let arguments = ["--session-id", SESSION, "--gs-endpoint", &url, "--attach", "a", "b"];

    let table = run(&wrong, &arguments);
    let json = run(&wrong, &[&arguments[..], &["-o", "json"]].concat());

    assert_eq!(table.code, Some(1), "{table:?}");
    let calls = calls(&simulator);
    for part in [
        "a          NothingDone",
        "AuthFailure.SignatureFailure: ",
        &format!("RequestId: {}", calls[0].request_id),
    ] {
        assert!(table.stdout.contains(part), "no `{part}` in {}", table.stdout);
    }
    assert!(table.stderr.contains("2 of 2"), "{table:?}");
    assert!(!format!("{table:?}{json:?}").contains("WRONG"));
    assert_eq!(json.code, Some(1));
    let answer = json.json();
    assert_eq!(
        (&answer["code"], &answer["requestId"]),
        (&json!("AuthFailure.SignatureFailure"), &json!(calls[1].request_id))
    );
    assert_eq!(answer["instances"][0], json!({"instanceId": "a", "outcome": "NothingDone"}));
    assert_eq!(members(&simulator), <[&str; 0]>::default());
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_named_with_what_to_check() {
    let url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };

    let ended = run(&KEYS, &["--session-id", SESSION, "--attach", "a", "--gs-endpoint", &url]);

    ended.assert_complains(1, &[&url, "refused", "check the endpoint"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_is_a_table_for_people_and_json_for_programs_and_exit_code_zero() {
    let simulator = simulator().await;

    let table = at(&simulator, &["--region", "ap-guangzhou", "--attach", "phone-b", "a", "a"]);
    let json = at(&simulator, &["--attach", "c", "-o", "json"]);

    let calls = calls(&simulator);
    assert_eq!((table.code, table.stderr.as_str()), (Some(0), ""), "{table:?}");
    let expected = format!(
        "INSTANCE   OUTCOME\na          Succeeded\nphone-b    Succeeded\n\nRequestId: {}\n",
        calls[0].request_id
    );
    assert_eq!(table.stdout, expected);
    assert_eq!((json.code, json.stderr.as_str()), (Some(0), ""), "{json:?}");
    let instances = json!([{"instanceId": "c", "outcome": "Succeeded"}]);
    assert_eq!(
        json.json(),
        json!({"requestId": calls[1].request_id, "code": "", "message": "", "instances": instances})
    );
    assert_eq!(members(&simulator), ["a", "c", "phone-b"]);
    assert_eq!(
        (calls[0].region.as_deref(), calls[1].region.as_deref(), calls.len()),
        (Some("ap-guangzhou"), None, 2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_instance_that_failed_makes_the_exit_code_one() {
    let simulator = simulator().await;
    simulator.set_faults(Faults { fail_instances: ["bad".to_owned()].into(), ..Faults::default() });

    let ended = at(&simulator, &["--attach", "good", "bad"]);

    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("bad        Refused\ngood       Succeeded\n"), "{ended:?}");
    assert_eq!(ended.stderr, "streamsession-operator: not as wanted: 1 of 2\n");
    assert_eq!(members(&simulator), ["good"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_unanswered_and_the_call_is_not_made_again() {
    let simulator = simulator().await;
    simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });

    let ended = at(&simulator, &["--attach", "a"]);

    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("a          Unanswered"), "{ended:?}");
    assert_eq!(calls(&simulator).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detach_asks_first_and_without_a_terminal_wants_yes() {
    let simulator = simulator().await;
    simulator.set_members(SESSION, PHONES);

    let asked = at(&simulator, &["--detach", PHONES[0], PHONES[1]]);

    asked.assert_complains(1, &["confirmation", "--yes", "detach 2"]);
    assert_eq!(calls(&simulator), []);

    let sure = at(&simulator, &["--detach", PHONES[0], "--yes"]);

    assert_eq!(sure.code, Some(0), "{sure:?}");
    assert_eq!(members(&simulator), [PHONES[1]]);
    assert_eq!(calls(&simulator)[0].operation, Some(Operation::Detach));
}

/// The keys of a temporary credential.
fn temporary() -> [(&'static str, &'static str); 3] {
    [KEYS[0], KEYS[1], ("TENCENTCLOUD_SESSION_TOKEN", TOKEN)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_sends_nothing_and_shows_what_is_signed_but_neither_key_nor_token() {
    let simulator = simulator().await;
    let url = simulator.url();
    let arguments = [
        "--session-id",
        SESSION,
        "--gs-endpoint",
        &url,
        "--region",
        "ap-guangzhou",
        "--detach",
        "a",
        "--dry-run",
    ];

    let text = run(&temporary(), &arguments);
    let json = run(&temporary(), &[&arguments[..], &["-o", "json"]].concat());

    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""), "{text:?}");
    let host = simulator.address();
    let parts = [
        format!(
            "# Canonical request\nPOST\n/\n\ncontent-type:application/json\nhost:{host}\n\ncontent-type;host\n"
        ),
        "# String to sign\nTC3-HMAC-SHA256\n".to_owned(),
        "/gs/tc3_request\n".to_owned(),
        format!(
            "# Request\nPOST {url}/\nauthorization: TC3-HMAC-SHA256 Credential={EXAMPLE_SECRET_ID}/"
        ),
        "SignedHeaders=content-type;host, Signature=".to_owned(),
        "\nx-tc-region: ap-guangzhou\n".to_owned(),
        "\nx-tc-token: (hidden)\n".to_owned(),
        format!("{CURL}curl '{url}/' \\\n"),
        r#"--data-raw '{"SessionId":"1326515201117065216","Type":2,"SlaveInstanceIds":["a"]}'"#
            .to_owned(),
    ];
    for part in &parts {
        assert!(text.stdout.contains(part), "no `{part}` in {}", text.stdout);
    }
    assert_eq!(json.json()["headers"]["x-tc-token"], "(hidden)");
    for secret in [EXAMPLE_SECRET_KEY, TOKEN] {
        assert!(!format!("{text:?}{json:?}").contains(secret), "{secret} is shown");
    }
    assert_eq!(simulator.calls(), [], "not even the time was asked for");
}

#[test]
fn a_dry_run_of_the_published_vector_has_its_signature() {
    let arguments = [
        "--session-id",
        SESSION,
        "--detach",
        PHONES[0],
        PHONES[1],
        "--timestamp",
        "1736312400",
        "--dry-run",
        "-o",
        "json",
    ];

    let ended = run(&KEYS, &arguments);

    assert_eq!(ended.code, Some(0), "{ended:?}");
    let body = format!(
        r#"{{"SessionId":"{SESSION}","Type":2,"SlaveInstanceIds":["{}","{}"]}}"#,
        PHONES[0], PHONES[1]
    );
    let authorization = "TC3-HMAC-SHA256 Credential=AKIDEXAMPLE/2025-01-08/gs/tc3_request, SignedHeaders=content-type;host, \
                         Signature=21f55035d98f0a733f8d4e9bd1f5b822f5f2bec968c5c70774bc370d93e8c36f";
    let mut printed = ended.json();
    let headers = printed["headers"].take();
    assert_eq!(
        printed,
        json!({"method": "POST", "url": "https://gs.tencentcloudapi.com/", "headers": null, "body": body})
    );
    let names: Vec<_> = headers.as_object().expect("headers").keys().map(String::as_str).collect();
    let expected = [
        "authorization",
        "content-type",
        "host",
        "x-tc-action",
        "x-tc-language",
        "x-tc-requestclient",
        "x-tc-timestamp",
    ];
    assert_eq!(names, [&expected[..], &["x-tc-version"]].concat(), "long-term keys have no token");
    assert_eq!(
        (&headers["authorization"], &headers["host"]),
        (&json!(authorization), &json!("gs.tencentcloudapi.com"))
    );
    assert_eq!(
        (&headers["x-tc-timestamp"], &headers["content-type"]),
        (&json!("1736312400"), &json!("application/json"))
    );
}

#[test]
fn a_time_that_no_calendar_holds_is_an_error() {
    let arguments = [
        "--session-id",
        SESSION,
        "--attach",
        "a",
        "--timestamp",
        "9223372036854775807",
        "--dry-run",
    ];

    run(&KEYS, &arguments).assert_complains(1, &["9223372036854775807", "outside of the calendar"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_curl_command_of_a_dry_run_is_accepted_by_the_service() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: there is no curl here");
        return;
    }
    let keys = [
        ("AKIDEXAMPLE".to_owned(), Key::long_term(EXAMPLE_SECRET_KEY)),
        ("AKIDTEMPORARY".to_owned(), Key::temporary(EXAMPLE_SECRET_KEY, TOKEN)),
    ];
    let simulator = Simulator::start(gs_simulator::Options {
        keys: keys.into(),
        ..gs_simulator::Options::default()
    })
    .await;
    let simulator = simulator.expect("a simulator");
    let url = simulator.url();
    let mut temporary = temporary();
    temporary[0].1 = "AKIDTEMPORARY";

    // An id is a word of a shell, whatever is in it.
    for (variables, phone) in [(&KEYS[..], "it's"), (&temporary, r#"a"\$(b)`c`"#)] {
        let dry = run(
            variables,
            &["--session-id", SESSION, "--gs-endpoint", &url, "--attach", phone, "--dry-run"],
        );
        let (_, curl) = dry.stdout.split_once(CURL).unwrap_or_else(|| panic!("{dry:?}"));

        let mut shell = Command::new("sh");
        shell
            .args(["-c", curl])
            .env("NO_PROXY", "127.0.0.1")
            .env("TENCENTCLOUD_SESSION_TOKEN", TOKEN)
            .stdin(Stdio::null());
        let output = shell.output().expect("a shell");

        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(answer["Response"]["SuccessInstanceIds"], json!([phone]), "{answer}");
        assert_eq!(calls(&simulator).last().expect("a call").outcome, Outcome::Applied);
    }
}
