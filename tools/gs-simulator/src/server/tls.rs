//! The certificate that clients see, if TLS is asked for.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// The names of a generated certificate, besides the address that is listened on. The real ones are
/// for clients whose name resolution leads here.
const NAMES: [&str; 5] =
    ["localhost", "127.0.0.1", "::1", "gs.tencentcloudapi.com", "sts.tencentcloudapi.com"];

/// Where the certificate comes from.
#[derive(Clone)]
pub enum Tls {
    /// A certificate for loopback and the service's names, from a new CA: `Simulator::ca_pem`.
    Generated,
    /// A certificate with its chain, and its key, both as PEM.
    Provided {
        /// The server's own certificate first.
        chain_pem: String,
        /// The key of the first.
        key_pem: String,
    },
}

/// Without the key: options get printed.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generated => "Generated",
            Self::Provided { .. } => "Provided",
        })
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("no certificate can be generated: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("the certificate or its key is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the certificate and its key can't be used: {0}")]
    Use(#[from] rustls::Error),
}

/// Accepts TLS connections.
pub(crate) struct TlsTerminator {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) ca_pem: Option<String>,
}

impl fmt::Debug for TlsTerminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTerminator")
    }
}

impl TlsTerminator {
    /// `listen` is one of the names of a generated certificate.
    pub(crate) fn new(tls: &Tls, listen: IpAddr) -> io::Result<Self> {
        Self::try_new(tls, listen)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn try_new(tls: &Tls, listen: IpAddr) -> Result<Self, TlsError> {
        let (chain, key, ca_pem) = match tls {
            Tls::Generated => generate(listen)?,
            Tls::Provided { chain_pem, key_pem } => {
                let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
                    .collect::<Result<_, _>>()?;
                (chain, PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?, None)
            }
        };
        // The provider by name: the process may have another default, or none.
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), ca_pem })
    }
}

type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Option<String>);

fn generate(listen: IpAddr) -> Result<Certificate, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "gs-simulator CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_certificate = ca.self_signed(&ca_key)?;

    let key = KeyPair::generate()?;
    let mut names: Vec<String> = NAMES.map(str::to_owned).into();
    names.push(listen.to_string());
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "gs-simulator");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Strict verifiers (Python 3.13) want it.
    server.use_authority_key_identifier_extension = true;
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key))?;

    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok((vec![certificate.der().clone()], key.into(), Some(ca_certificate.pem())))
}
