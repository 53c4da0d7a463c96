//! What people write: Secrets, endpoints; and `Date` headers.

use super::*;

/// A value of a Secret.
#[derive(Clone, Debug, TypeGenerator)]
enum Part {
    Good(Vec<u8>, bool),
    Raw(Vec<u8>),
    Long(u16),
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Good(bytes, line_feed) => {
                format!("{}{}", graphic(bytes), if *line_feed { "\r\n" } else { "" }).into_bytes()
            }
            Self::Raw(bytes) => bytes.clone(),
            Self::Long(length) => vec![b'x'; usize::from(*length) % 400],
        }
    }
}

/// The value without white space at its end, if it can be a part of a key.
fn usable(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches([' ', '\t', '\n', '\r', '\u{c}']);
    (!text.is_empty() && text.chars().all(|c| ('!'..='~').contains(&c))).then_some(text)
}

/// Whether six neighbours of the secret stand in the text.
fn shows(text: &str, secret: &[u8]) -> bool {
    let shown: HashSet<&[u8]> = text.as_bytes().windows(6).collect();
    secret.windows(6).any(|part| shown.contains(part))
}

#[test]
fn a_secret_is_taken_if_its_parts_are_usable_and_never_shown() {
    check!().with_test_time(TEST_TIME).with_type::<[Option<Part>; 3]>().for_each(|parts| {
        let values = parts.each_ref().map(|part| part.as_ref().map(Part::bytes));
        let named = ["secretId", "secretKey", "token"].into_iter().zip(&values);
        let data: BTreeMap<_, _> = named
            .filter_map(|(name, value)| Some((name.to_owned(), ByteString(value.clone()?))))
            .collect();
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.namespace = Some("arcade".to_owned());
        secret.metadata.name = Some("tencent".to_owned());

        let read = Credentials::from_secret(&secret);

        let [id, key, token] = values.each_ref().map(Option::as_deref);
        let (good_id, good_key) =
            (id.and_then(usable).filter(|id| id.len() <= 256), key.and_then(usable));
        let no_token = token.is_none_or(|token| token.iter().all(u8::is_ascii_whitespace));
        let good_token = token.and_then(usable);
        match read {
            Ok(read) => {
                assert_eq!(
                    (Some(read.secret_id.as_str()), Some(read.secret_key.expose_secret())),
                    (good_id, good_key)
                );
                assert_eq!(read.token.as_ref().map(ExposeSecret::expose_secret), good_token);
                let printed = format!("{read:?}");
                for hidden in [good_key, good_token]
                    .into_iter()
                    .flatten()
                    .filter(|hidden| !read.secret_id.contains(*hidden))
                {
                    assert!(hidden.len() < 6 || !printed.contains(hidden), "{printed}");
                }
            }
            Err(error) => {
                assert!(
                    good_id.is_none() || good_key.is_none() || !(no_token || good_token.is_some()),
                    "{error}"
                );
                for printed in [error.to_string(), format!("{error:?}")] {
                    assert!(printed.chars().count() <= MESSAGE_LENGTH_MAX);
                    assert!(
                        !values.iter().flatten().any(|value| shows(&printed, value)),
                        "{printed}"
                    );
                }
            }
        }
    });
}

/// A piece of something that looks like a URL.
#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    Usual(u8),
    Number(u16),
    Any(String),
}

const PIECES: [&str; 24] = [
    "https://",
    "http://",
    "https:",
    "://",
    "localhost",
    "127.0.0.1",
    "[::1]",
    "0x7f.1",
    "gs.Example.com",
    "bücher.example",
    "[2001:db8::1]",
    ":",
    ":443",
    ":80",
    "/",
    "\\",
    "?",
    "#",
    "@",
    "%41",
    "\t",
    "\n",
    " ",
    ".",
];

impl Piece {
    fn text(&self) -> String {
        match self {
            Self::Usual(number) => PIECES[usize::from(*number) % PIECES.len()].to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Any(text) => text.clone(),
        }
    }
}

/// A text that often is an endpoint, or nearly.
#[derive(Clone, Debug, TypeGenerator)]
struct Address {
    secure: Option<bool>,
    pieces: Vec<Piece>,
    length_max: u8,
}

impl Address {
    fn text(&self) -> String {
        let scheme = self.secure.map_or("", |secure| if secure { "https://" } else { "http://" });
        // Short ones are more often valid.
        let pieces = self.pieces.iter().take(usize::from(self.length_max % 8)).map(Piece::text);
        std::iter::once(scheme.to_owned()).chain(pieces).collect()
    }
}

#[test]
fn an_endpoint_that_is_taken_is_the_same_when_it_is_read_back_and_can_be_called() {
    check!().with_test_time(TEST_TIME).with_type::<Address>().for_each(|address| {
        let text = address.text();
        let strict = Endpoint::parse(&text);
        let trusting = Endpoint::parse_with(&text, true);
        assert!(strict.is_err() || strict == trusting, "{strict:?} {trusting:?}");
        for (result, insecure) in [(strict, false), (trusting, true)] {
            match result {
                Ok(endpoint) => {
                    assert!(insecure || !endpoint.is_plain() || endpoint.is_loopback(), "{text:?}");
                    assert_eq!(
                        Endpoint::parse_with(&endpoint.url(), insecure).as_ref(),
                        Ok(&endpoint),
                        "{text:?}"
                    );
                    assert!(
                        http::HeaderValue::from_str(endpoint.host_header()).is_ok(),
                        "{text:?}"
                    );
                    assert_eq!(
                        endpoint.host_header(),
                        endpoint.host_header().to_lowercase(),
                        "{text:?}"
                    );
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        error.chars().count() <= MESSAGE_LENGTH_MAX
                            && !error.contains(char::is_control),
                        "{error:?}"
                    );
                }
            }
        }
    });
}

/// An endpoint with a password in it.
#[derive(Clone, Debug, TypeGenerator)]
struct WithPassword {
    scheme: u8,
    user: Vec<u8>,
    password: Vec<u8>,
    repeated: u8,
    after: Vec<Piece>,
}

impl WithPassword {
    /// It begins with a word that stands nowhere else.
    fn password(&self, length_max: usize) -> String {
        format!("hunter2{}", graphic(&self.password).repeat(1 + usize::from(self.repeated)))
            .chars()
            .take(length_max)
            .collect()
    }

    fn text(&self, schemes: &[&str], password: &str) -> String {
        let scheme = schemes[usize::from(self.scheme) % schemes.len()];
        let user: String = graphic(&self.user).chars().take(64).collect();
        let after: String = self.after.iter().take(4).map(Piece::text).collect();
        format!("{scheme}{user}:{password}@{after}")
    }
}

fn repeats_no_password(text: &str) {
    for result in [Endpoint::parse(text), Endpoint::parse_with(text, true)] {
        let shown = result.map_or_else(|error| error.to_string(), |endpoint| endpoint.to_string());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn an_endpoint_that_is_refused_repeats_no_password_of_usual_length() {
    check!().with_test_time(TEST_TIME).with_type::<WithPassword>().for_each(|with| {
        repeats_no_password(&with.text(&["https://", "http://", "ftp://"], &with.password(64)));
    });
}

#[test]
fn an_endpoint_that_is_refused_repeats_no_password_whatever_it_looks_like() {
    check!().with_test_time(TEST_TIME).with_type::<WithPassword>().for_each(|with| {
        repeats_no_password(&with.text(
            &["https://", "http://", "ftp://", "https:\\\\", "https:", ""],
            &with.password(1_000),
        ));
    });
}

/// Seconds until the year 10000, which no `Date` can say.
const DATES: u64 = 253_402_300_800;

#[test]
fn a_date_header_is_read_as_it_was_written_and_no_other_text_panics() {
    check!().with_test_time(TEST_TIME).with_type::<(u64, Vec<Mutation>, String)>().for_each(
        |(seconds, mutations, text)| {
            let seconds = i64::try_from(seconds % DATES).expect("small");
            let written = |seconds| {
                jiff::Timestamp::from_second(seconds)
                    .expect("a time")
                    .strftime("%a, %d %b %Y %H:%M:%S GMT")
                    .to_string()
            };
            assert_eq!(parse_date(&written(seconds)), Some(seconds));

            let damaged = mutated(written(seconds).as_bytes(), mutations);
            for read in [parse_date(text), parse_date(&String::from_utf8_lossy(&damaged))]
                .into_iter()
                .flatten()
            {
                assert!(jiff::Timestamp::from_second(read).is_ok());
                let (mut clock, now) = (ServiceClock::default(), Instant::now());
                clock.observe(read, now);
                assert_eq!(clock.now(now + Duration::from_mins(1)), Some(read + 60));
            }
        },
    );
}
