//! What the operator is told: the flags of `run`, with their defaults.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{Resettable, TypedValueParser};
use clap::{Args, Command, FromArgMatches, value_parser};
use streamsession_core::ledger::Rules;
use streamsession_core::reconcile::Settings;
use streamsession_core::time::Validity;

use super::error::Error;
use super::values::{
    ALL_NAMESPACES, EndpointParser, namespace_or_all, resync_interval, seconds, session_gone_code,
};
use crate::gs::{Endpoint, OwnSettings, PermittedNamespaces};

/// The service, under its public name.
pub(crate) const GS_ENDPOINT: &str = "https://gs.tencentcloudapi.com";
/// Seconds for one call of the service.
pub(crate) const GS_TIMEOUT: &str = "10";
/// How long the service itself takes a signature; less is for tests against a simulator on
/// loopback.
const SERVICE_SIGNATURE_VALIDITY: Duration = Duration::from_mins(5);
/// How long a journal may be on its way to the service before it is taken back: longer than any
/// healthy write, shorter than a person waits.
const JOURNAL_AGE_MAX: Duration = Duration::from_secs(5);

/// What the operator is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The service. http:// is taken for loopback only.
    #[arg(
        long,
        env = "GS_ENDPOINT",
        value_name = "URL",
        default_value = GS_ENDPOINT,
        value_parser = EndpointParser { insecure: true } // as long as the next flag allows it
    )]
    pub gs_endpoint: Endpoint,
    /// Take http:// for any host: for a proxy on a network that you trust. The signature protects
    /// the request; nothing hides it.
    #[arg(long, env = "ALLOW_INSECURE_ENDPOINT")]
    pub allow_insecure_endpoint: bool,
    /// A PEM file of CA certificates that are believed besides the platform's, by the service and
    /// by STS.
    #[arg(long, env = "GS_CA_FILE", value_name = "FILE")]
    pub gs_ca_file: Option<PathBuf>,
    /// Ids in one call. The service's own limit is published nowhere; 100 is that of its sibling
    /// actions.
    #[arg(
        long,
        env = "BATCH_SIZE",
        value_name = "N",
        default_value = "100",
        value_parser = value_parser!(u16).range(1..=1000).try_map(NonZeroU16::try_from)
    )]
    pub batch_size: NonZeroU16,
    /// An error code that means that the session is gone, besides
    /// ResourceNotFound.SessionNotFound; repeatable. It empties the ledger: give none that the
    /// service answers for other reasons too.
    #[arg(
        long,
        env = "SESSION_GONE_CODES",
        value_name = "CODE",
        value_delimiter = ',',
        value_parser = session_gone_code
    )]
    pub session_gone_codes: Vec<String>,
    /// Calls a second, for each sub-account. The service's own limit is 20; everything else that
    /// uses the sub-account draws on it too.
    #[arg(
        long,
        env = "GS_QPS",
        value_name = "N",
        default_value = "20",
        value_parser = value_parser!(u32).range(1..=1000).try_map(NonZeroU32::try_from)
    )]
    pub gs_qps: NonZeroU32,
    /// Calls at once after a pause. More makes a first wave faster, but an urgent call waits longer
    /// behind it. No second ever sees more than --gs-qps.
    #[arg(long, env = "GS_BURST", value_name = "N", default_value = "1")]
    pub gs_burst: NonZeroU32,
    /// Seconds for one call of the service.
    #[arg(
        long,
        env = "GS_TIMEOUT",
        value_name = "SECONDS",
        default_value = GS_TIMEOUT,
        value_parser = seconds(1, 60)
    )]
    pub gs_timeout: Duration,
    /// For each request to the API server.
    #[arg(skip = Duration::from_secs(5))]
    pub kube_timeout: Duration,
    /// Seconds for which the service takes a signature. Less than 300 is for a simulator on
    /// loopback.
    #[arg(
        long,
        env = "SIGNATURE_VALIDITY",
        value_name = "SECONDS",
        default_value = "300",
        value_parser = seconds(1, 86_400)
    )]
    pub signature_validity: Duration,
    /// The region of StreamSessions that name none. Default: that of the endpoint, if its name has
    /// one; else no region is sent.
    #[arg(long, env = "REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// A namespace whose StreamSessions without a spec.credentialsRef may use the operator's own
    /// credentials; repeatable. Whoever may create one there can attach and detach every phone of
    /// that account. * names every namespace. Default: nobody's may.
    #[arg(
        long,
        env = "DEFAULT_CREDENTIALS_NAMESPACES",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = namespace_or_all
    )]
    pub default_credentials_namespaces: Vec<String>,
    /// The role of the operator's node (CVM) is one of the operator's own credentials, the last
    /// one. Every pod of the node could use it, and it may be allowed much more than this.
    #[arg(long, env = "NODE_ROLE_CREDENTIALS")]
    pub node_role_credentials: bool,
    /// Security Token Service: it tells the account behind a key, and gives keys for the pod's
    /// identity. Default: sts.tencentcloudapi.com; where --gs-endpoint is no name of Tencent
    /// Cloud's, that.
    #[arg(long, env = "STS_ENDPOINT", value_name = "URL", value_parser = EndpointParser { insecure: false })]
    pub sts_endpoint: Option<Endpoint>,
    /// The metadata service of a CVM node, for the node's role.
    #[arg(
        long,
        env = "METADATA_ENDPOINT",
        value_name = "URL",
        default_value = "http://metadata.tencentyun.com"
    )]
    pub metadata_endpoint: String,
    /// A namespace to watch; repeatable. Default: all.
    #[arg(long = "namespace", env = "NAMESPACE", value_name = "NAME", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// StreamSessions that are worked on at a time.
    #[arg(
        long,
        env = "CONCURRENCY",
        value_name = "N",
        default_value = "16",
        value_parser = value_parser!(u16).range(1..=256).map(usize::from)
    )]
    pub concurrency: usize,
    /// Seconds after which the members of each StreamSession without a spec.resyncInterval are
    /// attached again, at the lowest priority, with a tenth of --gs-qps at most: that puts back what
    /// somebody took out, and tells that a session has ended. What it does to a running stream is
    /// published nowhere. 0: never.
    #[arg(
        long,
        env = "RESYNC_INTERVAL",
        value_name = "SECONDS",
        default_value = "0",
        value_parser = resync_interval
    )]
    pub resync_interval: Duration,
    /// The first pause of the backoff.
    #[arg(skip = Duration::from_secs(1))]
    pub retry_base: Duration,
}

impl Options {
    /// The options of these flags, with the defaults of all others: the environment says nothing.
    ///
    /// ```
    /// # use streamsession_operator::operator::Options;
    /// let options = Options::from_flags(["--gs-endpoint", "http://127.0.0.1:8080"])?;
    /// assert_eq!(options.gs_qps.get(), 20);
    /// # Ok::<(), clap::Error>(())
    /// ```
    pub fn from_flags<'a>(flags: impl IntoIterator<Item = &'a str>) -> Result<Self, clap::Error> {
        let command = Self::augment_args(Command::new("run").no_binary_name(true));
        let command = command.mut_args(|argument| argument.env(Resettable::Reset));
        Self::from_arg_matches(&command.try_get_matches_from(flags)?)
    }

    /// Refuses what each flag allows by itself, but not beside the others.
    pub fn check(&self) -> Result<(), Error> {
        if !self.allow_insecure_endpoint {
            self.gs_endpoint.refuse_plain().map_err(Error::Endpoint)?;
        }
        if self.signature_validity < SERVICE_SIGNATURE_VALIDITY && !self.gs_endpoint.is_loopback() {
            return Err(Error::Validity {
                seconds: self.signature_validity.as_secs(),
                endpoint: self.gs_endpoint.clone(),
            });
        }
        Ok(())
    }

    pub(super) fn own_credentials(&self) -> OwnSettings {
        let names = &self.default_credentials_namespaces;
        OwnSettings {
            namespaces: if names.iter().any(|name| name == ALL_NAMESPACES) {
                PermittedNamespaces::All
            } else {
                PermittedNamespaces::Named(names.iter().cloned().collect())
            },
            node_role: self.node_role_credentials,
            sts: self.sts().url(),
            metadata: self.metadata_endpoint.trim_end_matches('/').to_owned(),
            ca_file: self.gs_ca_file.clone(),
        }
    }

    /// The STS to ask.
    pub(super) fn sts(&self) -> Endpoint {
        let named = self.sts_endpoint.clone().or_else(|| self.gs_endpoint.sts());
        named.unwrap_or_else(|| self.gs_endpoint.clone())
    }

    pub(super) fn settings(&self) -> Settings {
        let seconds = |duration: Duration| duration.as_secs().try_into().unwrap_or(i64::MAX);
        Settings {
            rules: Rules {
                validity: Validity {
                    signature_seconds: seconds(self.signature_validity),
                    ..Validity::default()
                },
                batch_size_max: self.batch_size.get().into(),
                session_gone_codes: self.session_gone_codes.clone(),
            },
            journal_age_max_seconds: seconds(JOURNAL_AGE_MAX),
            // The longest time that another writer may still be at work on its journal.
            foreign_journal_timeout: JOURNAL_AGE_MAX + self.gs_timeout + self.kube_timeout,
            retry_base: self.retry_base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(flags: &[&str]) -> Options {
        Options::from_flags(flags.iter().copied()).unwrap()
    }

    #[test]
    fn the_defaults_are_for_the_public_service() {
        let defaults = options(&[]);

        assert!(defaults.check().is_ok());
        assert_eq!(defaults.gs_endpoint.to_string(), "gs.tencentcloudapi.com");
        assert_eq!((defaults.gs_qps.get(), defaults.batch_size.get()), (20, 100));
        assert_eq!(defaults.gs_timeout, Duration::from_secs(10));
        assert_eq!(defaults.resync_interval, Duration::ZERO, "never");
    }

    #[test]
    fn a_resync_is_never_or_at_most_twice_a_minute() {
        for (text, seconds) in [("0", 0), ("30", 30), ("86400", 86_400)] {
            let options = options(&["--resync-interval", text]);
            assert_eq!(options.resync_interval, Duration::from_secs(seconds));
        }
        for text in ["1", "29", "86401", "30m", ""] {
            let refused = Options::from_flags(["--resync-interval", text]).unwrap_err();
            assert!(refused.to_string().contains("0 (never), or 30 to 86400 seconds"), "{refused}");
        }
    }

    #[test]
    fn lists_are_repeated_or_separated_by_commas() {
        let lists = options(&["--namespace", "a,b", "--namespace", "c"]);

        assert_eq!(lists.namespaces, ["a", "b", "c"]);
    }

    #[test]
    fn a_number_outside_of_its_range_is_refused_with_the_range() {
        for (flag, value, range) in [
            ("--batch-size", "0", "1..=1000"),
            ("--gs-qps", "0", "1..=1000"),
            ("--gs-qps", "1001", "1..=1000"),
            ("--gs-qps", "4294967295", "1..=1000"),
            ("--gs-timeout", "61", "1..=60"),
            ("--signature-validity", "0", "1..=86400"),
            ("--concurrency", "257", "1..=256"),
        ] {
            let error = Options::from_flags([flag, value]).unwrap_err().to_string();

            assert!(error.contains(flag) && error.contains(range), "{error}");
        }
    }

    #[test]
    fn the_rate_may_be_anything_within_its_range() {
        for rate in ["1", "20", "1000"] {
            assert_eq!(options(&["--gs-qps", rate]).gs_qps.to_string(), rate);
        }
    }

    #[test]
    fn nobody_may_use_the_operators_own_credentials_unless_named() {
        let may = |flags: &[&str]| options(flags).own_credentials().namespaces;
        let named = |names: &[&str]| {
            PermittedNamespaces::Named(names.iter().map(ToString::to_string).collect())
        };
        let flag = "--default-credentials-namespaces";

        assert_eq!(may(&[]), named(&[]));
        assert_eq!(may(&[flag, "a,b", flag, "c"]), named(&["a", "b", "c"]));
        assert_eq!(may(&[flag, "a,*"]), PermittedNamespaces::All);
    }

    #[test]
    fn the_nodes_role_is_no_source_unless_a_flag_says_so() {
        assert!(!options(&[]).own_credentials().node_role);
        assert!(options(&["--node-role-credentials"]).own_credentials().node_role);
    }

    #[test]
    fn what_names_no_namespace_is_refused_with_what_would_be_right() {
        for name in ["team-*", "a, b", "Arcade", "a/b", "**"] {
            let refused = Options::from_flags(["--default-credentials-namespaces", name]);

            let message = refused.unwrap_err().to_string();
            assert!(message.contains("name one, or * for all"), "{message}");
        }
    }

    /// Why the code is refused as one that means that the session is gone.
    fn refused_gone_code(code: &str) -> String {
        let refused = Options::from_flags(["--session-gone-codes", code]);
        let message = refused.map(|_| code.to_owned()).unwrap_err().to_string();
        assert!(message.contains("--session-gone-codes <CODE>"), "{message}");
        message
    }

    #[test]
    fn a_code_with_a_suffix_of_its_own_or_without_another_meaning_may_say_that_a_session_is_gone() {
        for code in [
            "FailedOperation.SessionClosed",
            "ResourceNotFound.Session",
            "InvalidParameterValue.SessionId",
            "SessionClosed",
            // What counts anyway.
            "ResourceNotFound.SessionNotFound",
        ] {
            assert_eq!(options(&["--session-gone-codes", code]).session_gone_codes, [code]);
        }
        let several = options(&["--session-gone-codes", "A.B,C", "--session-gone-codes", "D"]);
        assert_eq!(several.session_gone_codes, ["A.B", "C", "D"]);
    }

    #[test]
    fn no_code_at_all_is_no_session_gone_code() {
        for code in ["", "A.B,", ",A.B"] {
            let message = refused_gone_code(code);

            assert!(message.contains("is empty") && message.contains("leave"), "{message}");
        }
    }

    #[test]
    fn what_can_be_no_code_is_no_session_gone_code() {
        for code in [" ", "A.B C", "A.B, C.D", " A.B", "A.B\n", "FailedOperation.*", "A..B", "A."] {
            let message = refused_gone_code(code);

            assert!(message.contains("letters, digits and dots"), "{message}");
        }
    }

    #[test]
    fn a_code_of_many_failures_is_no_session_gone_code() {
        for code in ["FailedOperation", "InvalidParameter", "ResourceNotFound"] {
            let message = refused_gone_code(code);

            let example = format!("{code}.SessionClosed");
            assert!(message.contains("of many kinds") && message.contains(&example), "{message}");
        }
    }

    #[test]
    fn a_code_that_means_something_else_is_no_session_gone_code() {
        for (code, meaning) in [
            ("RequestLimitExceeded", "throttled"),
            ("RequestLimitExceeded.UinLimitExceeded", "throttled"),
            ("AuthFailure", "credentials_rejected"),
            ("UnauthorizedOperation.X", "credentials_rejected"),
            ("InternalError", "unanswered"),
            ("InternalError.Db", "unanswered"),
            ("FailedOperation.Timeout", "unanswered"),
        ] {
            let message = refused_gone_code(code);

            assert!(message.contains(meaning), "{message}");
        }
    }

    #[test]
    fn plain_http_beyond_this_machine_needs_a_flag_of_its_own() {
        let proxy = ["--gs-endpoint", "http://proxy:8080"];

        assert!(matches!(options(&proxy).check(), Err(Error::Endpoint(_))));
        assert!(options(&[&proxy[..], &["--allow-insecure-endpoint"]].concat()).check().is_ok());
    }

    #[test]
    fn a_short_validity_is_for_loopback() {
        let short = ["--signature-validity", "5"];
        let loopback = ["--gs-endpoint", "http://127.0.0.1:8080"];

        assert!(matches!(options(&short).check(), Err(Error::Validity { seconds: 5, .. })));
        assert!(options(&[short, loopback].concat()).check().is_ok());
    }

    #[test]
    fn an_endpoint_that_is_refused_is_named_without_its_password() {
        let error = Options::from_flags(["--gs-endpoint", "https://me:hunter2@h"]).unwrap_err();

        let message = error.to_string();
        assert!(message.contains("--gs-endpoint <URL>: the endpoint `https://…@h`"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}
