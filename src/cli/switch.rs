//! `switch`: the service's call by hand, without Kubernetes.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use serde_json::json;
use streamsession_core::answer::{Answer, Operation, Outcome};
use streamsession_core::ids::{InstanceId, SessionId};

use crate::gs::{
    Client, Credentials, CredentialsError, Endpoint, HIDDEN, Prepared, Settings, Switch,
};
use crate::operator::{EndpointParser, GS_ENDPOINT, GS_TIMEOUT, seconds};

/// Make one call of SwitchCloudPhoneMultipleStreamSessionSlaves by hand.
///
/// The operator does not learn of it: an instance that a StreamSession names belongs to the
/// operator, and one that is attached by hand is remembered by nobody.
///
/// The keys are your own, from the environment alone: TENCENTCLOUD_SECRET_ID,
/// TENCENTCLOUD_SECRET_KEY and, for temporary keys, TENCENTCLOUD_SESSION_TOKEN. No profile, no
/// pod's identity and no node's role is used, and the operator's --default-credentials-namespaces
/// does not count here.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["attach", "detach"])))]
pub(super) struct SwitchCommand {
    /// The session.
    #[arg(long, value_name = "ID", value_parser = session)]
    session_id: SessionId,
    /// Instances to add.
    #[arg(long, value_name = "ID", num_args = 1.., value_parser = instance)]
    attach: Vec<InstanceId>,
    /// Instances to remove.
    #[arg(long, value_name = "ID", num_args = 1.., value_parser = instance)]
    detach: Vec<InstanceId>,
    /// The region; without it none is sent.
    #[arg(long, env = "REGION")]
    region: Option<String>,
    /// The service. http:// is taken for loopback only.
    #[arg(
        long,
        env = "GS_ENDPOINT",
        value_name = "URL",
        default_value = GS_ENDPOINT,
        value_parser = EndpointParser { insecure: false }
    )]
    gs_endpoint: Endpoint,
    /// Seconds for the call.
    #[arg(
        long,
        env = "GS_TIMEOUT",
        value_name = "SECONDS",
        default_value = GS_TIMEOUT,
        value_parser = seconds(1, 60)
    )]
    gs_timeout: Duration,
    /// How the outcome is printed.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Send nothing: print the request, what is signed, and an equivalent curl command.
    #[arg(long)]
    dry_run: bool,
    /// Sign with this time instead of the service's own.
    #[arg(long, value_name = "UNIX_SECONDS")]
    timestamp: Option<i64>,
    /// Detach without asking.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn session(text: &str) -> Result<SessionId, String> {
    SessionId::parse(text).map_err(|why| why.to_string())
}

fn instance(text: &str) -> Result<InstanceId, String> {
    InstanceId::parse(text).map_err(|why| why.to_string())
}

impl SwitchCommand {
    /// Makes the call; fails if any instance did.
    pub(super) fn execute(self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no async runtime can be built: {error}"))?;
        runtime.block_on(self.run())
    }

    async fn run(self) -> Result<(), String> {
        let credentials = Credentials::from_env().map_err(|error| {
            let what = match error {
                CredentialsError::Incomplete { part, problem, .. } => format!("{part} {problem}"),
                _ => "no credentials".to_owned(),
            };
            format!("{what}: set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY")
        })?;
        let (operation, mut instances) = if self.attach.is_empty() {
            (Operation::Detach, self.detach.clone())
        } else {
            (Operation::Attach, self.attach.clone())
        };
        instances.sort();
        instances.dedup();

        if operation == Operation::Detach && !self.yes && !self.dry_run {
            confirm(&self.session_id, instances.len())?;
        }
        let settings = Settings { call_deadline: self.gs_timeout, ..Settings::default() };
        let client = Client::new(settings).map_err(|error| error.to_string())?;
        let timestamp = match self.timestamp {
            Some(timestamp) => timestamp,
            // Nothing is sent, not even to ask for the time.
            None if self.dry_run => jiff::Timestamp::now().as_second(),
            None => client.ask_time(&self.gs_endpoint).await.map_err(|error| error.to_string())?,
        };
        let request = Switch {
            endpoint: self.gs_endpoint.clone(),
            region: self.region.clone(),
            session: self.session_id.clone(),
            operation,
            instances,
            timestamp,
            credentials,
        };
        if self.dry_run {
            let prepared = request.prepare()?;
            return print(&self.dry_run_text(&prepared)?);
        }
        let answer = client.switch(&request).await;
        let rows = rows(&request, &answer);
        print(&match self.output {
            Output::Table => table(&rows, &answer),
            Output::Json => json_text(&answer_json(&rows, &answer))?,
        })?;
        let done = word(Outcome::Done);
        let failed = rows.iter().filter(|(_, outcome)| *outcome != done).count();
        if failed == 0 { Ok(()) } else { Err(format!("not as wanted: {failed} of {}", rows.len())) }
    }

    fn dry_run_text(&self, prepared: &Prepared) -> Result<String, String> {
        let url = self.gs_endpoint.url();
        if self.output == Output::Json {
            let headers: serde_json::Map<_, _> =
                prepared.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            return json_text(
                &json!({"method": "POST", "url": url, "headers": headers, "body": prepared.body}),
            );
        }
        let headers: Vec<_> =
            prepared.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let curl: Vec<_> = prepared
            .headers
            .iter()
            .map(|(name, value)| match value.as_str() {
                HIDDEN => {
                    format!("  -H {}\"$TENCENTCLOUD_SESSION_TOKEN\"", quoted(&format!("{name}: ")))
                }
                value => format!("  -H {}", quoted(&format!("{name}: {value}"))),
            })
            .collect();
        Ok(format!(
            "# Nothing was sent. The signature holds for five minutes from its timestamp.\n\n\
             # Canonical request\n{}\n\n\
             # String to sign\n{}\n\n\
             # Request\nPOST {url}\n{}\n\n{}\n\n\
             # The same with curl\ncurl {} \\\n{} \\\n  --data-raw {}\n",
            prepared.canonical_request,
            prepared.string_to_sign,
            headers.join("\n"),
            prepared.body,
            quoted(&url),
            curl.join(" \\\n"),
            quoted(&prepared.body),
        ))
    }
}

fn json_text(value: &serde_json::Value) -> Result<String, String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| error.to_string())
}

/// A word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("the outcome can't be printed: {error}"))
}

fn confirm(session: &SessionId, count: usize) -> Result<(), String> {
    if !std::io::stdin().is_terminal() {
        return Err(format!(
            "detaching needs a confirmation, and nobody can be asked here: \
             give --yes to detach {count}"
        ));
    }
    eprint!("Detach {count} from session {session}? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| format!("the answer can't be read: {error}"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err("nothing was sent".to_owned())
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "Succeeded",
        Outcome::Refused => "Refused",
        Outcome::Rejected => "Rejected",
        Outcome::Unclear | Outcome::Suspect => "Unclear",
        Outcome::Unanswered => "Unanswered",
        Outcome::NothingDone => "NothingDone",
    }
}

fn rows(request: &Switch, answer: &Answer) -> Vec<(String, &'static str)> {
    let count = request.instances.len();
    request.instances.iter().map(|id| (id.to_string(), word(answer.outcome(id, count)))).collect()
}

fn answer_json(rows: &[(String, &'static str)], answer: &Answer) -> serde_json::Value {
    let instances: Vec<_> =
        rows.iter().map(|(id, outcome)| json!({"instanceId": id, "outcome": outcome})).collect();
    json!({
        "requestId": answer.request_id,
        "code": answer.code,
        "message": answer.message,
        "instances": instances,
    })
}

fn table(rows: &[(String, &'static str)], answer: &Answer) -> String {
    let width = rows.iter().map(|(id, _)| id.len()).max().unwrap_or(0).max("INSTANCE".len());
    let mut lines = vec![format!("{:width$}   OUTCOME", "INSTANCE")];
    lines.extend(rows.iter().map(|(id, outcome)| format!("{id:width$}   {outcome}")));
    if !answer.code.is_empty() {
        lines.push(format!("\n{}: {}", answer.code, answer.message));
    }
    if !answer.request_id.is_empty() {
        lines.push(format!("\nRequestId: {}", answer.request_id));
    }
    lines.join("\n") + "\n"
}
