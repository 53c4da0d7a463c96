//! Who may log in to the cluster: the admin's token, the key that signs `ServiceAccount` tokens,
//! the kubeconfig.

use std::{fs::File, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::Error;

const RANDOM_SOURCE: &str = "/dev/urandom";

/// `N` bytes of the operating system's randomness.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    File::open(RANDOM_SOURCE)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::file("read", RANDOM_SOURCE))?;
    Ok(bytes)
}

/// Two lower-case digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// `N` random bytes as hexadecimal.
pub(crate) fn random_hex<const N: usize>() -> Result<String, Error> {
    Ok(hex(&random::<N>()?))
}

/// The line of `--token-auth-file` that makes the token's holder an administrator, whatever RBAC
/// says.
pub(crate) fn token_file(token: &str) -> String {
    format!("{token},devcluster-admin,devcluster-admin,\"system:masters\"\n")
}

/// A fresh P-256 key with which the API server signs `ServiceAccount` tokens, as PEM.
pub(crate) fn service_account_key() -> Result<String, Error> {
    Ok(ec_private_key_pem(random()?))
}

/// An `ECPrivateKey` of RFC 5915. Its public half is optional there and the Go library computes it,
/// so no code for curves is needed: any number from 1 to below the curve's order is a private key.
/// The order is just below 2^256; without the highest bit a number is below it for sure, and one
/// lost bit of 256 is nothing for a cluster that runs for minutes.
fn ec_private_key_pem(mut scalar: [u8; 32]) -> String {
    scalar[0] &= 0x7f;
    let mut der = vec![
        0x30, 0x31, // SEQUENCE of 49 bytes
        0x02, 0x01, 0x01, // INTEGER 1: the format's version
        0x04, 0x20, // OCTET STRING of 32 bytes: the private key
    ];
    der.extend_from_slice(&scalar);
    der.extend_from_slice(&[
        0xa0, 0x0a, // [0] EXPLICIT of 10 bytes: the curve
        0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
        0x07, // OBJECT IDENTIFIER prime256v1
    ]);
    format!(
        "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        wrapped(&STANDARD.encode(der))
    )
}

/// PEM allows 64 characters in a line (RFC 7468).
fn wrapped(base64: &str) -> String {
    let mut text = String::new();
    for (index, character) in base64.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text
}

/// A kubeconfig that needs no other file. `certificate` is the bundle that the API server made for
/// itself, as PEM.
pub(crate) fn kubeconfig(server_url: &str, certificate: &[u8], token: &str) -> String {
    let authority = STANDARD.encode(certificate);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: devcluster
  cluster:
    server: {server_url}
    certificate-authority-data: {authority}
users:
- name: devcluster-admin
  user:
    token: {token}
contexts:
- name: devcluster
  context:
    cluster: devcluster
    user: devcluster-admin
current-context: devcluster
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_key_is_pem_of_a_51_byte_structure_below_the_curves_order() {
        let pem = ec_private_key_pem([0xff; 32]);

        let lines = pem.lines().collect::<Vec<_>>();
        assert_eq!(
            (lines[0], lines[lines.len() - 1]),
            ("-----BEGIN EC PRIVATE KEY-----", "-----END EC PRIVATE KEY-----")
        );
        assert!(lines.iter().all(|line| line.len() <= 64));
        let der = STANDARD.decode(lines[1..lines.len() - 1].concat()).unwrap();
        assert_eq!(usize::from(der[1]) + 2, der.len());
        assert_eq!(der[7], 0x7f);
    }

    #[test]
    fn hexadecimal_has_two_digits_a_byte() {
        assert_eq!(hex(&[0x00, 0x0a, 0xf1]), "000af1");
    }

    #[test]
    fn random_names_differ() {
        let name = random_hex::<16>().unwrap();

        assert_eq!(name.len(), 32);
        assert_ne!(name, random_hex::<16>().unwrap());
    }

    #[test]
    fn a_kubeconfig_carries_the_certificate_and_the_token() {
        let text = kubeconfig("https://127.0.0.1:6443", b"PEM", "secret");

        assert!(
            text.contains("server: https://127.0.0.1:6443\n    certificate-authority-data: UEVN\n"),
            "{text}"
        );
        assert!(text.contains("token: secret\n"), "{text}");
    }
}
