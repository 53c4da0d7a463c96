//! The command line, and the options that it stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use clap::Parser;
use gs_simulator::{
    EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Faults, Identity, Key, NoOpAnswer, Options, RateWindow,
    Tls, UnspecifiedBehaviour,
};

const AFTER_HELP: &str = "\
Point a client at the printed address (POST /). The admin routes, for curl:
  curl $URL/admin/sessions                       the phones of each session
  curl $URL/admin/calls                          the calls, and what became of them
  curl $URL/admin/stats                          counts and the busiest second, of each key
  curl -X PUT $URL/admin/sessions/S -d '[\"a\"]'   session S has exactly these phones
  curl -X DELETE $URL/admin/sessions/S           session S ends: later calls don't find it
  curl -X POST $URL/admin/reset                  forget sessions and calls
  curl $URL/admin/unspecified-behaviour          what the documentation leaves open
  curl -X PUT $URL/admin/unspecified-behaviour -d '{\"addPresent\":\"failure\"}'
      what is left out is as by default: addPresent, removeAbsent, goneCode, maxBatch,
      maxBatchCode, invalidInstances, omitEmptyFailures, emptySessionEcho
  curl -X PUT $URL/admin/identity -d '{\"role\":\"R\"}'
      who gets temporary keys; each field is optional:
      role NAME                  the machine's role; its keys are at
                                 /latest/meta-data/cam/security-credentials/NAME
      keyLifeSeconds N           how long issued keys are valid
      webIdentityTokens [T,…]    what AssumeRoleWithWebIdentity accepts; none: anything
      stsError CODE              STS answers this instead
      metadataStatus N           the metadata service answers this instead
      delayMs M                  both answer so much later
  curl -X POST $URL/admin/issued-keys/expire     all temporary keys expire now
  curl $URL/admin/faults                         the faults that are left
  curl -X DELETE $URL/admin/faults               no more faults
  curl -X PUT $URL/admin/faults -d '{\"dropAnswers\":1}'
      these faults and no others; each field is optional:
      failInstances [id,…]       these ids fail to attach
      instanceFaults [{pattern,tries?,operation?},…]
                                 ids that match a pattern (* and ?) fail, each for so many tries;
                                 Attach or Detach
      dropRequests N             the next N calls are lost before they take effect
      lateArrivals N, lateArrivalMs M
                                 the next N calls take effect M ms after their connection closed
      gateways [{kind,times},…]  something else answers; nothing is applied. Kinds: html-502,
                                 html-429, html-200, not-json, empty, truncated, oversized,
                                 without-response, unknown-fields, null-lists, id-in-both-lists,
                                 unasked-id, no-ids
      throttle N                 the next N calls answer RequestLimitExceeded
      errors [{code,times},…]    whole-call errors; nothing is applied
      dropAnswers N              the next N calls take effect, their answers are lost
      garbledAnswers [{kind,times},…]
                                 the call takes effect, its answer is of that kind
      slowAnswers N, slowAnswerBytes B, slowAnswerPauseMs M
                                 the next N answers come B bytes at a time, each after M ms
      delayMs M                  every answer leaves M ms later
      clockOffsetSeconds S       the service's clock is so much further ahead
      seed N, chances {dropRequest,lateArrival,gateways {kind:P},throttle,errors {code:P},
                       dropAnswer,garbledAnswers {kind:P},slowAnswer,delay}
                                 the same at random, each P from 0 to 1
Only correctly signed calls meet faults.
The simulator ends on SIGINT or SIGTERM and keeps nothing.";

/// Plays Tencent Cloud GS for laptops and tests: verifies signatures, keeps sessions in memory,
/// injects faults on request.
///
/// It answers the action `SwitchCloudPhoneMultipleStreamSessionSlaves` (version 2019-11-18). The
/// first line on standard output is its address, once it listens.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, env = "SIM_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,

    /// Listen on an address that others can reach. They can then use the admin routes, too.
    #[arg(long, env = "SIM_ALLOW_NON_LOOPBACK")]
    allow_non_loopback: bool,

    /// A key that is accepted (repeatable) [default: AKIDEXAMPLE=SECRETEXAMPLE]. The environment
    /// variable separates with commas.
    #[arg(
        long = "key",
        env = "SIM_KEY",
        hide_env_values = true,
        value_name = "ID=SECRET",
        value_parser = key,
        value_delimiter = ','
    )]
    keys: Vec<(String, Key)>,

    /// How many seconds the service's clock is ahead of this machine's. It dates answers and checks
    /// signatures.
    #[arg(
        long,
        env = "SIM_CLOCK_OFFSET",
        value_name = "SECONDS",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    clock_offset: i64,

    /// How far a signature's timestamp may be from the service's clock.
    #[arg(long, env = "SIM_SIGNATURE_VALIDITY", value_name = "SECONDS", default_value_t = 300)]
    signature_validity: u64,

    /// Calls of one key that are accepted in any one second; more answer `RequestLimitExceeded`.
    #[arg(long, env = "SIM_QPS", value_name = "CALLS", default_value_t = 20)]
    qps: u32,

    /// Which second the rate is counted in: any, or each full one since the start.
    #[arg(long, env = "SIM_RATE_WINDOW", value_name = "WINDOW", value_enum, default_value_t)]
    rate_window: RateWindow,

    /// A session that exists (repeatable). With none, every session exists from its first use on;
    /// with any, all others answer `ResourceNotFound.SessionNotFound`.
    #[arg(
        long = "known-session",
        env = "SIM_KNOWN_SESSION",
        value_name = "ID",
        value_delimiter = ','
    )]
    known_sessions: Vec<String>,

    /// The machine's role: the metadata service (GET /latest/meta-data/cam/security-credentials/)
    /// issues its keys.
    #[arg(long, env = "SIM_ROLE", value_name = "NAME")]
    role: Option<String>,

    /// How long keys are valid that STS (AssumeRoleWithWebIdentity) and the metadata service issue
    /// [default: as asked for, 7200].
    #[arg(long, env = "SIM_KEY_LIFE", value_name = "SECONDS")]
    key_life: Option<u32>,

    /// A phone that fails to attach (repeatable): it is listed in `FailureInstanceIds`.
    #[arg(
        long = "fail-instance",
        env = "SIM_FAIL_INSTANCE",
        value_name = "ID",
        value_delimiter = ','
    )]
    fail_instances: Vec<String>,

    /// Apply the first N calls and close their connections without an answer.
    #[arg(long, env = "SIM_DROP_ANSWERS", value_name = "N", default_value_t = 0)]
    drop_answers: u32,

    /// Append every call to this file, as a line of JSON.
    #[arg(long, env = "SIM_RECORD", value_name = "FILE")]
    record: Option<PathBuf>,

    // Last: a heading holds for all that follows.
    #[command(flatten)]
    unspecified: UnspecifiedArguments,

    #[command(flatten)]
    pub(crate) tls: TlsArguments,
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        let mut keys: BTreeMap<_, _> = arguments.keys.into_iter().collect();
        if keys.is_empty() {
            keys.insert(EXAMPLE_SECRET_ID.to_owned(), Key::long_term(EXAMPLE_SECRET_KEY));
        }
        Self {
            listen: arguments.listen,
            allow_non_loopback: arguments.allow_non_loopback,
            tls: None, // read from files by `run`
            keys,
            clock_offset_seconds: arguments.clock_offset,
            signature_validity: Duration::from_secs(arguments.signature_validity),
            qps: arguments.qps,
            rate_window: arguments.rate_window,
            known_sessions: without_empty(arguments.known_sessions),
            unspecified_behaviour: arguments.unspecified.into(),
            identity: Identity {
                role: arguments.role,
                key_life_seconds: arguments.key_life,
                ..Identity::default()
            },
            faults: Faults {
                fail_instances: without_empty(arguments.fail_instances),
                drop_answers: arguments.drop_answers,
                ..Faults::default()
            },
            record: arguments.record,
        }
    }
}

/// Without them, plain HTTP.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArguments {
    /// Serve HTTPS with a generated certificate for loopback and the service's names; the CA to
    /// trust is written to this file.
    #[arg(
        long = "tls-self-signed",
        env = "SIM_TLS_SELF_SIGNED",
        value_name = "CA_FILE",
        conflicts_with_all = ["chain", "key"]
    )]
    pub(crate) ca_file: Option<PathBuf>,

    /// Serve HTTPS with this certificate and its chain (PEM).
    #[arg(long = "tls-cert", env = "SIM_TLS_CERT", value_name = "FILE", requires = "key")]
    chain: Option<PathBuf>,

    /// The certificate's key (PEM).
    #[arg(long = "tls-key", env = "SIM_TLS_KEY", value_name = "FILE", requires = "chain")]
    key: Option<PathBuf>,
}

impl TlsArguments {
    pub(crate) fn read(&self) -> io::Result<Option<Tls>> {
        if self.ca_file.is_some() {
            return Ok(Some(Tls::Generated));
        }
        let (Some(chain), Some(key)) = (&self.chain, &self.key) else { return Ok(None) };
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| about(path, &error));
        Ok(Some(Tls::Provided { chain_pem: read(chain)?, key_pem: read(key)? }))
    }
}

pub(crate) fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The documentation is silent about these.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Unspecified behaviour")]
struct UnspecifiedArguments {
    /// What adding a phone answers that is already in the session: success, failure, or error:CODE
    /// for the whole call.
    #[arg(long, env = "SIM_ADD_PRESENT", value_name = "ANSWER", default_value_t)]
    add_present: NoOpAnswer,

    /// What removing a phone answers that is not in the session: success, failure, or error:CODE
    /// for the whole call.
    #[arg(long, env = "SIM_REMOVE_ABSENT", value_name = "ANSWER", default_value_t)]
    remove_absent: NoOpAnswer,

    /// The code for a session that does not exist.
    #[arg(
        long,
        env = "SIM_GONE_CODE",
        value_name = "CODE",
        default_value = "ResourceNotFound.SessionNotFound"
    )]
    gone_code: String,

    /// A call with more phones is refused, with InvalidParameterValue unless a code follows: 100 or
    /// 100:LimitExceeded.
    #[arg(long, env = "SIM_MAX_BATCH", value_name = "N[:CODE]", value_parser = max_batch)]
    max_batch: Option<(usize, Option<String>)>,

    /// A phone that is not valid (repeatable): a call that names it answers InvalidParameterValue
    /// as a whole.
    #[arg(
        long = "invalid-instance",
        env = "SIM_INVALID_INSTANCE",
        value_name = "ID",
        value_delimiter = ','
    )]
    invalid_instances: Vec<String>,

    /// Leave empty lists of successes and failures out of the answer. False: an empty list stands
    /// there.
    #[arg(
        long,
        env = "SIM_OMIT_EMPTY_FAILURES",
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    omit_empty_failures: bool,

    /// Answer with an empty session id, as the only published sample does. False: with the
    /// request's.
    #[arg(
        long,
        env = "SIM_EMPTY_SESSION_ECHO",
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    empty_session_echo: bool,
}

impl From<UnspecifiedArguments> for UnspecifiedBehaviour {
    fn from(arguments: UnspecifiedArguments) -> Self {
        let (max_batch, max_batch_code) = arguments.max_batch.unzip();
        Self {
            add_present: arguments.add_present,
            remove_absent: arguments.remove_absent,
            gone_code: arguments.gone_code,
            max_batch,
            max_batch_code: max_batch_code
                .flatten()
                .unwrap_or_else(|| Self::default().max_batch_code),
            invalid_instances: without_empty(arguments.invalid_instances),
            omit_empty_failures: arguments.omit_empty_failures,
            empty_session_echo: arguments.empty_session_echo,
        }
    }
}

fn max_batch(argument: &str) -> Result<(usize, Option<String>), &'static str> {
    let (most, code) = argument
        .split_once(':')
        .map_or((argument, None), |(most, code)| (most, Some(code.to_owned())));
    most.parse().map(|most| (most, code)).map_err(|_| "a limit is written N or N:CODE")
}

/// An environment variable that is set to nothing means none, not one with the name "".
fn without_empty(names: Vec<String>) -> BTreeSet<String> {
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

fn key(argument: &str) -> Result<(String, Key), &'static str> {
    match argument.split_once('=') {
        Some((id, secret)) if !id.is_empty() && !secret.is_empty() => {
            Ok((id.to_owned(), Key::long_term(secret)))
        }
        _ => Err("a key is written ID=SECRET"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_arguments_it_is_the_default_of_the_library() {
        let options: Options = Arguments::parse_from(["gs-simulator"]).into();
        assert_eq!(format!("{options:?}"), format!("{:?}", Options::default()));
    }

    #[test]
    fn an_empty_name_is_no_name() {
        let options: Options =
            Arguments::parse_from(["gs-simulator", "--known-session=", "--fail-instance=a,"])
                .into();
        assert!(options.known_sessions.is_empty());
        assert_eq!(options.faults.fail_instances.into_iter().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_batch_limit_may_have_a_code() {
        let behaviour = |limit: &str| {
            let arguments = Arguments::parse_from(["gs-simulator", "--max-batch", limit]);
            Options::from(arguments).unspecified_behaviour
        };
        assert_eq!(
            behaviour("100"),
            UnspecifiedBehaviour { max_batch: Some(100), ..UnspecifiedBehaviour::default() }
        );
        let other = UnspecifiedBehaviour {
            max_batch: Some(7),
            max_batch_code: "LimitExceeded".to_owned(),
            ..UnspecifiedBehaviour::default()
        };
        assert_eq!(behaviour("7:LimitExceeded"), other);
    }

    #[test]
    fn a_key_has_an_id_and_a_secret() {
        assert_eq!(key("ID=SEC=RET"), Ok(("ID".to_owned(), Key::long_term("SEC=RET"))));
        assert!(key("ID").is_err());
        assert!(key("=SECRET").is_err());
        assert!(key("ID=").is_err());
    }
}
