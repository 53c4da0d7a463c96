//! The profile file of Tencent Cloud's tools: INI, the section `[default]`.
//! Pure but for the reading.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Credentials, CredentialsError, Source};

/// A profile has three short lines; what is longer is another file.
const LENGTH_MAX: u64 = 64 * 1024;
const SECTION: &str = "default";

/// Where a profile is, or may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Somebody says that it is here.
    Named(PathBuf),
    /// It may be at the first of these where there is a file.
    Usual(Vec<PathBuf>),
}

impl Place {
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        if let Some(path) = variable("TENCENTCLOUD_CREDENTIALS_FILE") {
            return Self::Named(path.into());
        }
        let home = variable("HOME").map(|home| Path::new(&home).join(".tencentcloud/credentials"));
        Self::Usual(home.into_iter().chain(["/etc/tencentcloud/credentials".into()]).collect())
    }
}

/// Reads the file that is named, or the first that there is.
pub(super) fn read(place: &Place) -> Result<Credentials, CredentialsError> {
    let paths = match place {
        Place::Named(path) => return read_file(path, File::open(path)),
        Place::Usual(paths) => paths,
    };
    for path in paths {
        match File::open(path) {
            Err(error) if is_absent(&error) => {}
            file => return read_file(path, file),
        }
    }
    let path = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(CredentialsError::NotFound { wanted: Source::Profile { path } })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_file(path: &Path, file: io::Result<File>) -> Result<Credentials, CredentialsError> {
    let source = || Source::Profile { path: path.display().to_string() };
    let mut text = String::new();
    file.and_then(|file| file.take(LENGTH_MAX).read_to_string(&mut text)).map_err(|error| {
        CredentialsError::Unreachable { wanted: source(), reason: error.to_string() }
    })?;
    parse(&text, source())
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
        let named = Place::from_variables(|name| {
            (name == "TENCENTCLOUD_CREDENTIALS_FILE").then(|| "/keys/tencent".into())
        });
        assert_eq!(named, Place::Named("/keys/tencent".into()));
        let usual = Place::from_variables(|name| (name == "HOME").then(|| "/home/me".into()));
        assert_eq!(
            usual,
            Place::Usual(vec![
                "/home/me/.tencentcloud/credentials".into(),
                "/etc/tencentcloud/credentials".into()
            ])
        );
    }

    #[test]
    fn a_file_that_is_nowhere_is_no_profile_and_one_that_is_named_is_missed() {
        // Of the second one, the folder is a file.
        let paths = vec![PathBuf::from("/nonexistent/credentials"), "/dev/null/credentials".into()];
        let missed = read(&Place::Named("/nonexistent/credentials".into())).unwrap_err();
        let absent = read(&Place::Usual(paths)).unwrap_err();

        assert!(matches!(missed, CredentialsError::Unreachable { .. }), "{missed}");
        assert!(matches!(absent, CredentialsError::NotFound { .. }), "{absent}");
    }

    #[test]
    fn a_file_that_can_not_be_read_is_not_passed_over() {
        let folder = std::env::temp_dir();
        let error = read(&Place::Usual(vec![folder.clone(), "/nonexistent".into()])).unwrap_err();

        assert!(matches!(error, CredentialsError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
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
