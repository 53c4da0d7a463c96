//! One HTTP exchange: what goes out once, and what comes back or does not.
//!
//! The question that everything here answers is whether a byte of the request can have left this
//! machine: before the connection stands, nothing was done; after it, nobody knows.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::header::{DATE, HeaderMap};
use reqwest::{Certificate, ClientBuilder, Response, redirect, retry, tls};
use streamsession_core::answer::Answer;

use super::answer::{not_sent, unanswered};
use super::endpoint::Endpoint;
use super::error_chain;

/// The service closes idle connections after about 30 s (docs/tencent.md): a call must not race
/// with that.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Idle connections kept: about as many as there are calls at a time.
const POOL_IDLE_MAX: usize = 32;
/// For name, connection and TLS handshake together; never more than half of the call's deadline.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Read of an answer, at most. One to a call of a thousand ids has some 130 kB; what is longer is
/// no answer of the service's.
const BODY_BYTES_MAX: usize = 1 << 20;

/// No HTTP client could be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpUnavailable {
    /// No roots.
    #[error(
        "no HTTPS client could be made, neither with the platform's CA certificates nor with those \
         in the binary; check SSL_CERT_FILE and SSL_CERT_DIR"
    )]
    Client(#[source] reqwest::Error),
    /// The extra CA file is of no use.
    #[error(
        "the CA file {file} can't be used: {why}; give a PEM file with one or more certificates, \
         or leave --gs-ca-file out"
    )]
    CaFile {
        /// Its path.
        file: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What came back.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) status: u16,
    pub(super) date: Option<String>,
    /// When the answer's head was here: later than the `Date` in it.
    pub(super) received: Instant,
    pub(super) body: Vec<u8>,
}

/// Why an answer's body can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the answer has more than {BODY_BYTES_MAX} bytes")]
    TooLong,
    #[error("the answer broke off: {}", reason(.0))]
    BrokeOff(reqwest::Error),
}

/// The HTTP clients for the service, and for the sources of credentials.
#[derive(Debug)]
pub(super) struct Http {
    https: reqwest::Client,
    /// For loopback: reads no certificates, and asks no proxy for what is on this machine.
    plain: reqwest::Client,
    call_deadline: Duration,
}

/// Whose certificates are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roots {
    Platform,
    /// Those in the binary: an image `FROM scratch` has no others, and then the HTTP library
    /// refuses to start.
    BuiltIn,
}

impl Http {
    pub(super) fn new(
        call_deadline: Duration,
        ca_file: Option<&Path>,
    ) -> Result<Self, HttpUnavailable> {
        let extra = ca_file.map_or(Ok(Vec::new()), certificates)?;
        let (https, roots) = https_client(call_deadline, &extra)?;
        tracing::debug!(?roots, "TLS roots for the service");
        let plain = builder(call_deadline)
            .no_proxy()
            .tls_certs_only([])
            .build()
            .map_err(HttpUnavailable::Client)?;
        Ok(Self { https, plain, call_deadline })
    }

    /// The client for a URL.
    pub(super) fn client(&self, url: &str) -> &reqwest::Client {
        if url.starts_with("https://") { &self.https } else { &self.plain }
    }

    /// Sends one `POST /`. An error is the answer that the caller has to live with.
    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Exchange, Answer> {
        let call = async {
            let url = endpoint.url();
            let response = self.client(&url).post(&url).headers(headers).body(body).send().await;
            receive(response.map_err(|error| failure(endpoint, &error))?).await
        };
        // The time to connect is bounded by less, so that a request may be under way when this
        // ends.
        let late = |_| {
            unanswered(
                "DeadlineExceeded",
                &format!("{endpoint} gave no answer within {:?}", self.call_deadline),
            )
        };
        tokio::time::timeout(self.call_deadline, call).await.map_err(late)?
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, HttpUnavailable> {
    let unusable = |why: String| HttpUnavailable::CaFile { file: file.display().to_string(), why };
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        Err(unusable("it holds no certificate".to_owned()))
    } else {
        Ok(certificates)
    }
}

fn https_client(
    call_deadline: Duration,
    extra: &[Certificate],
) -> Result<(reqwest::Client, Roots), HttpUnavailable> {
    let https_builder =
        || builder(call_deadline).https_only(true).tls_certs_merge(extra.iter().cloned());
    if let Ok(client) = https_builder().build() {
        return Ok((client, Roots::Platform));
    }
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok());
    let client = builder(call_deadline)
        .https_only(true)
        .tls_certs_only(roots.chain(extra.iter().cloned()))
        .build()
        .map_err(HttpUnavailable::Client)?;
    Ok((client, Roots::BuiltIn))
}

/// No redirects and no retries: a call is sent once, to where its ledger says. One re-sending can't
/// be switched off, that of hyper's pool when a kept connection turns out to be closed; it happens
/// only if the request was never taken up for writing, and so sends it for the first time. TLS
/// early data, which can be replayed, is off by rustls' default.
fn builder(call_deadline: Duration) -> ClientBuilder {
    reqwest::Client::builder()
        .http1_only()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT_MAX.min(call_deadline / 2))
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_IDLE_MAX)
        .tls_version_min(tls::Version::TLS_1_2)
}

async fn receive(mut response: Response) -> Result<Exchange, Answer> {
    let received = Instant::now();
    let status = response.status().as_u16();
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    let body = match read_body(&mut response).await {
        Ok(body) => body,
        // What another status says needs no body.
        Err(_) if status != 200 => Vec::new(),
        Err(error) => {
            let code = match error {
                BodyError::TooLong => "OversizedAnswer",
                BodyError::BrokeOff(_) => "ConnectionLost",
            };
            return Err(unanswered(code, &error.to_string()));
        }
    };
    Ok(Exchange { status, date, received, body })
}

/// The body of an answer, up to a cap.
pub(super) async fn read_body(response: &mut Response) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::BrokeOff)? {
        if body.len().saturating_add(chunk.len()) > BODY_BYTES_MAX {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn failure(endpoint: &Endpoint, error: &reqwest::Error) -> Answer {
    if error.is_builder() {
        not_sent("UnsendableRequest", &reason(error))
    } else if error.is_connect() {
        // Name resolution, TCP, TLS and a proxy's CONNECT: the request is written only afterwards.
        not_sent("ConnectFailed", &format!("{endpoint} could not be reached: {}", reason(error)))
    } else {
        unanswered("ConnectionLost", &format!("{endpoint} gave no answer: {}", reason(error)))
    }
}

/// Why an exchange failed. The outermost message says only that a request was sent to a URL.
pub(super) fn reason(error: &reqwest::Error) -> String {
    error_chain(error.source().unwrap_or(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_certificates_uses_those_in_the_binary() {
        const CHILD: &str = "STREAMSESSION_TEST_WITHOUT_CERTIFICATES";
        let name =
            concat!(module_path!(), "::a_machine_without_certificates_uses_those_in_the_binary");

        if std::env::var_os(CHILD).is_some() {
            assert_eq!(https_client(CONNECT_TIMEOUT_MAX, &[]).unwrap().1, Roots::BuiltIn);
            return;
        }
        let (_, name) = name.split_once("::").unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .env("SSL_CERT_FILE", "/dev/null")
            .env("SSL_CERT_DIR", "/nonexistent")
            .output()
            .unwrap();

        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
    }
}
