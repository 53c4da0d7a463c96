//! Certificates, as a client sees them.

use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::server::tls::Tls;
use crate::simulator::{Options, Simulator};

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
async fn a_generated_certificate_is_trusted_with_its_ca_alone() {
    let (simulator, other) =
        (start(Tls::Generated).await.unwrap(), start(Tls::Generated).await.unwrap());

    let answer = get(&simulator, simulator.ca_pem().unwrap()).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(simulator.url().starts_with("https://127.0.0.1:"));
    assert!(get(&simulator, other.ca_pem().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_provided_certificate_is_served() {
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
        start(Tls::Provided { chain_pem: server.pem(), key_pem: server_key.serialize_pem() })
            .await
            .unwrap();

    assert!(get(&simulator, &ca.pem()).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(simulator.ca_pem(), None);
}

#[tokio::test]
async fn what_is_no_certificate_is_refused_at_the_start() {
    let error = start(Tls::Provided { chain_pem: String::new(), key_pem: "no key".to_owned() })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("not PEM"), "{error}");
}
