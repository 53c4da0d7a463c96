//! Requests of any bytes: no header and no body makes the verification panic, and only the signed
//! request is accepted. `PROPTEST_CASES=100000` makes it longer.

use axum::http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::service::keys::Key;

const SIGNED_AT: i64 = 1_736_312_400;
const SECRET_KEY: &str = "SECRETEXAMPLE";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn check(headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), AuthError> {
    let keys = Keys::from([("AKIDEXAMPLE".to_owned(), Key::long_term(SECRET_KEY))]);
    let verdict = verify(headers, body, &keys, now, Duration::from_mins(5));
    if let Err(error) = &verdict {
        let message = error.to_string();
        // It repeats what the client sent, quotes escaped, of which the server takes a bounded
        // amount; the rest is a sentence.
        let sent: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert!(message.len() <= 512 + 2 * sent, "{} characters for {sent}", message.len());
        assert!(
            !message.contains(SECRET_KEY) && !format!("{error:?}").contains(SECRET_KEY),
            "{message}"
        );
    }
    verdict
}

/// A request that is accepted.
fn signed(body: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("host", HeaderValue::from_static("gs.tencentcloudapi.com"));
    headers.insert("x-tc-timestamp", SIGNED_AT.into());
    let authorization = sign(&headers, body, "AKIDEXAMPLE", SECRET_KEY, at(SIGNED_AT));
    headers.insert("authorization", authorization.parse().unwrap());
    headers
}

/// An Authorization header of the right words in any order, or any text.
fn authorization() -> impl Strategy<Value = Vec<u8>> {
    let word = "TC3-HMAC-SHA256|Credential|SignedHeaders|Signature|AKIDEXAMPLE|2025-01-08|gs|\
                tc3_request|content-type|host|[=/,; ]|\\PC";
    let words = proptest::collection::vec(word, 0..40).prop_map(|words| words.concat());
    let parts = (
        "[A-Z]{0,4}|AKIDEXAMPLE",
        "[0-9-]{0,12}|2025-01-08",
        "[a-z;-]{0,20}|(content-type|host|;|authorization|[a-z]){0,6}|content-type;host",
        "[0-9a-f]{0,70}|\\PC{0,9}",
    );
    let shaped = parts.prop_map(|(id, date, signed, signature)| {
        format!(
            "TC3-HMAC-SHA256 Credential={id}/{date}/gs/tc3_request, \
             SignedHeaders={signed}, Signature={signature}"
        )
    });
    prop_oneof![
        words.prop_map(String::into_bytes),
        shaped.prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..200)
    ]
}

proptest! {
    #[test]
    fn no_unsigned_request_is_accepted_and_none_panics(
        authorization in authorization(),
        timestamp in "1736312400|-?[0-9]{0,20}|\\PC{0,5}",
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut headers = signed(b"another body");
        for (name, value) in [
            ("authorization", authorization.as_slice()),
            ("x-tc-timestamp", timestamp.as_bytes()),
        ] {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.insert(name, value);
            }
        }

        prop_assert!(check(&headers, &body, at(SIGNED_AT)).is_err());
        let _ = claimed_secret_id(&headers);
    }

    #[test]
    fn a_signed_request_is_accepted_and_with_any_byte_changed_it_is_not(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        place in any::<proptest::sample::Index>(),
        other in any::<u8>(),
        header in 0_usize..4,
    ) {
        let headers = signed(&body);
        prop_assert_eq!(check(&headers, &body, at(SIGNED_AT)), Ok(()));

        let mut longer = body.clone();
        longer.insert(place.index(body.len() + 1), other);
        prop_assert!(check(&headers, &longer, at(SIGNED_AT)).is_err());

        let name = ["authorization", "content-type", "host", "x-tc-timestamp"][header];
        let mut value = headers[name].as_bytes().to_vec();
        let place = place.index(value.len());
        // The same letter in upper case says the same in a hexadecimal number, and a tab the same
        // as the space between two fields.
        let same = value[place].eq_ignore_ascii_case(&other)
            || [value[place], other].iter().all(u8::is_ascii_whitespace);
        prop_assume!(!same);
        value[place] = other;
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let mut changed = headers.clone();
            changed.insert(name, value);
            prop_assert!(check(&changed, &body, at(SIGNED_AT)).is_err(), "{name}: {changed:?}");
        }
    }

    #[test]
    fn no_time_of_either_clock_panics(
        now in -377_705_023_201_i64..=253_402_207_200,
        signed_at in any::<i64>(),
    ) {
        let mut headers = signed(b"{}");
        headers.insert("x-tc-timestamp", signed_at.into());

        let verdict = check(&headers, b"{}", at(now));

        prop_assert!(verdict.is_err());
    }
}
