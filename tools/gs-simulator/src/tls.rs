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

/// What a self-made certificate is good for, besides the address that is listened on. The real
/// names are for clients whose name resolution leads here.
const NAMES: [&str; 5] =
    ["localhost", "127.0.0.1", "::1", "gs.tencentcloudapi.com", "sts.tencentcloudapi.com"];

/// Where the certificate comes from.
#[derive(Clone)]
pub enum Tls {
    /// A certificate for loopback and the service's names, from a new CA:
    /// [`Simulator::ca_pem`](crate::Simulator::ca_pem).
    SelfMade,
    /// A certificate with its chain, and its key, both as PEM.
    Given {
        /// The server's own certificate first.
        chain_pem: String,
        /// The key of the first.
        key_pem: String,
    },
}

/// The key is nobody's business.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfMade => "SelfMade",
            Self::Given { .. } => "Given",
        })
    }
}

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the certificate or its key is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the certificate and its key can't be used: {0}")]
    Use(#[from] rustls::Error),
}

/// Ready to shake hands.
pub(crate) struct Terminator {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) ca_pem: Option<String>,
}

impl fmt::Debug for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Terminator")
    }
}

impl Terminator {
    /// `listen` is a name of a self-made certificate.
    pub(crate) fn new(tls: &Tls, listen: IpAddr) -> io::Result<Self> {
        Self::try_new(tls, listen)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn try_new(tls: &Tls, listen: IpAddr) -> Result<Self, TlsError> {
        let (chain, key, ca_pem) = match tls {
            Tls::SelfMade => self_made(listen)?,
            Tls::Given { chain_pem, key_pem } => {
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

fn self_made(listen: IpAddr) -> Result<Certificate, rcgen::Error> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::{Options, Simulator};

    async fn get(simulator: &Simulator, ca_pem: &str) -> io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(simulator.address()).await?;
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect("localhost".try_into().unwrap(), stream)
            .await?;
        stream
            .write_all(b"GET /admin/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn start(tls: Tls) -> io::Result<Simulator> {
        Simulator::start(Options { tls: Some(tls), ..Options::default() }).await
    }

    #[tokio::test]
    async fn a_self_made_certificate_is_trusted_with_its_ca_alone() {
        let (simulator, other) =
            (start(Tls::SelfMade).await.unwrap(), start(Tls::SelfMade).await.unwrap());

        let answer = get(&simulator, simulator.ca_pem().unwrap()).await.unwrap();

        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(simulator.url().starts_with("https://127.0.0.1:"));
        assert!(get(&simulator, other.ca_pem().unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn a_given_certificate_is_shown() {
        let key = KeyPair::generate().unwrap();
        let mut own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = own.self_signed(&key).unwrap();
        let issuer = Issuer::new(own, key);
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .signed_by(&server_key, &issuer)
            .unwrap();

        let simulator =
            start(Tls::Given { chain_pem: server.pem(), key_pem: server_key.serialize_pem() })
                .await
                .unwrap();

        assert!(get(&simulator, &ca.pem()).await.unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(simulator.ca_pem(), None);
    }

    #[tokio::test]
    async fn what_is_no_certificate_is_refused_at_the_start() {
        let error = start(Tls::Given { chain_pem: String::new(), key_pem: "no key".to_owned() })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("not PEM"), "{error}");
    }
}
