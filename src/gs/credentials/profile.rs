//! The profile file of Tencent Cloud's tools: INI, the section `[default]`.
//! Pure but for the reading.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Credentials, CredentialsError, Source};

/// A profile has three short lines; what is longer is another file.
const LENGTH_MAX: u64 = 64 * 1024;
const SECTION: &str = "default";

/// Where a profile may be, in order.
pub(super) fn paths(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(path) = variable("TENCENTCLOUD_CREDENTIALS_FILE") {
        return vec![path.into()];
    }
    let home = variable("HOME").map(|home| Path::new(&home).join(".tencentcloud/credentials"));
    home.into_iter().chain(["/etc/tencentcloud/credentials".into()]).collect()
}

/// Reads the first file that there is.
pub(super) fn read(paths: &[PathBuf]) -> Result<Credentials, CredentialsError> {
    for path in paths {
        let source = || Source::Profile { path: path.display().to_string() };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(CredentialsError::Unreachable {
                    wanted: source(),
                    reason: error.to_string(),
                });
            }
        };
        let mut text = String::new();
        if let Err(error) = file.take(LENGTH_MAX).read_to_string(&mut text) {
            return Err(CredentialsError::Unreachable {
                wanted: source(),
                reason: error.to_string(),
            });
        }
        return parse(&text, source());
    }
    let path = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(CredentialsError::NotFound { wanted: Source::Profile { path } })
}

/// Takes `secret_id`, `secret_key` and `token` from the section; comments begin with `#` or `;`,
/// the last word counts.
fn parse(text: &str, source: Source) -> Result<Credentials, CredentialsError> {
    let mut section = "";
    let (mut id, mut key, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
        } else if section == SECTION
            && let Some((name, value)) = line.split_once('=')
        {
            let value = Some(value.trim().as_bytes()).filter(|value| !value.is_empty());
            match name.trim() {
                "secret_id" => id = value,
                "secret_key" => key = value,
                "token" => token = value,
                _ => {}
            }
        }
    }
    Credentials::from_parts(source, ("secret_id", id), ("secret_key", key), ("token", token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn source() -> Source {
        Source::Profile { path: "credentials".into() }
    }

    #[test]
    fn the_default_section_is_read_and_others_are_not() {
        let text = "[other]\nsecret_id=NO\n# a comment\n\
                    [default]\nsecret_id = AKID\nsecret_key=k=ey\n\n[last]\ntoken=no\n";

        let credentials = parse(text, source()).unwrap();

        assert_eq!(
            (credentials.secret_id.as_str(), credentials.secret_key.expose_secret()),
            ("AKID", "k=ey")
        );
        assert!(credentials.token.is_none());
    }

    #[test]
    fn a_missing_part_is_named() {
        let error = parse("[default]\nsecret_id=AKID\n", source()).unwrap_err().to_string();
        assert!(error.contains("secret_key") && error.contains("credentials"), "{error}");
    }

    #[test]
    fn a_file_named_by_the_variable_stands_alone() {
        let named = paths(|name| {
            (name == "TENCENTCLOUD_CREDENTIALS_FILE").then(|| "/keys/tencent".to_owned())
        });
        assert_eq!(named, [PathBuf::from("/keys/tencent")]);
        let usual = paths(|name| (name == "HOME").then(|| "/home/me".to_owned()));
        assert_eq!(
            usual,
            [
                PathBuf::from("/home/me/.tencentcloud/credentials"),
                "/etc/tencentcloud/credentials".into()
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in "\\PC*|(\\[default\\]|secret_id=|secret_key=|=|\n|\\PC){0,40}",
        ) {
            let _ = parse(&text, source());
        }
    }
}
