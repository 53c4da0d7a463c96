//! Where the service is. Pure.

#![deny(clippy::disallowed_methods)]

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

/// Where all services of Tencent Cloud are.
const DOMAIN: &str = ".tencentcloudapi.com";
/// Where those of its international site are.
const INTERNATIONAL: &str = ".intl.tencentcloudapi.com";
/// Longest text of a user that an error repeats, in characters.
const SHOWN_LENGTH_MAX: usize = 200;

/// A base address, `https://host[:port]`, or `http://` on this very machine.
///
/// It is displayed without a scheme for HTTPS, whole for plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    /// `host` or `host:port`, in lower case; the scheme's own port is left out.
    authority: String,
    loopback: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Scheme {
    Https,
    PlainHttp,
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEndpoint {
    given: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    NoUrl(String),
    Scheme,
    PlainHttp,
    NoHost,
    User,
    Path,
}

impl fmt::Display for InvalidEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the endpoint `{}` can't be used: ", self.given)?;
        match &self.problem {
            Problem::NoUrl(why) => write!(f, "it is no URL ({why})"),
            Problem::Scheme => f.write_str("it begins neither with https:// nor with http://"),
            Problem::PlainHttp => f.write_str(
                "plain http:// is for loopback only (localhost, 127.0.0.1, [::1]); \
                 use https://, or --allow-insecure-endpoint for a proxy on a network \
                 that you trust",
            ),
            Problem::NoHost => f.write_str("it names no host"),
            Problem::User => {
                f.write_str("it holds a user or a password, which belong into a Secret")
            }
            Problem::Path => {
                f.write_str("it has a path, a query or a fragment; the service is called at `/`")
            }
        }?;
        f.write_str("; give https://HOST[:PORT], as https://gs.tencentcloudapi.com")
    }
}

impl std::error::Error for InvalidEndpoint {}

impl Endpoint {
    /// Takes `https://host[:port]`, or `http://host[:port]` of a loopback host.
    ///
    /// ```
    /// # use streamsession_operator::gs::Endpoint;
    /// let service = Endpoint::parse("https://gs.tencentcloudapi.com")?;
    /// assert_eq!(service.to_string(), "gs.tencentcloudapi.com");
    /// let simulator = Endpoint::parse("http://127.0.0.1:8080")?;
    /// assert_eq!(simulator.to_string(), "http://127.0.0.1:8080");
    /// assert!(Endpoint::parse("http://gs.tencentcloudapi.com").is_err());
    /// # Ok::<(), streamsession_operator::gs::InvalidEndpoint>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, InvalidEndpoint> {
        Self::parse_with(text, false)
    }

    /// Likewise; `insecure`: plain HTTP to any host.
    pub fn parse_with(text: &str, insecure: bool) -> Result<Self, InvalidEndpoint> {
        let invalid = |problem| InvalidEndpoint { given: shown(text), problem };
        if !text.contains("://") {
            return Err(invalid(Problem::Scheme));
        }
        let url = Url::parse(text).map_err(|error| invalid(Problem::NoUrl(error.to_string())))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(invalid(Problem::Scheme));
        }
        let host = url.host().ok_or_else(|| invalid(Problem::NoHost))?;
        let loopback = is_loopback(&host);
        let scheme = if url.scheme() == "https" { Scheme::Https } else { Scheme::PlainHttp };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(Problem::User));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(invalid(Problem::Path));
        }
        let authority =
            url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let endpoint = Self { scheme, authority, loopback };
        if !insecure {
            endpoint.refuse_plain()?;
        }
        Ok(endpoint)
    }

    /// Plain HTTP to another machine is an error.
    pub fn refuse_plain(&self) -> Result<(), InvalidEndpoint> {
        if self.is_plain() && !self.loopback {
            return Err(InvalidEndpoint {
                given: shown(&self.to_string()),
                problem: Problem::PlainHttp,
            });
        }
        Ok(())
    }

    /// The service behind it, as `status.target.endpoint` names it: see [`service`].
    #[must_use]
    pub fn service(&self) -> String {
        service(&self.to_string()).to_owned()
    }

    /// The region in a regional name of the service: a request there without `X-TC-Region` is one of
    /// that region.
    ///
    /// ```
    /// use streamsession_operator::gs::Endpoint;
    ///
    /// let regional = Endpoint::parse("https://gs.ap-guangzhou.tencentcloudapi.com")?;
    /// assert_eq!(regional.region(), Some("ap-guangzhou"));
    /// let internal = Endpoint::parse("https://gs.internal.tencentcloudapi.com")?;
    /// assert_eq!(internal.region(), None);
    /// # Ok::<(), streamsession_operator::gs::InvalidEndpoint>(())
    /// ```
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        place(&self.authority)?.split('.').find(|label| label.contains('-'))
    }

    /// Tencent Cloud's Security Token Service beside the service behind it; none if that is not
    /// Tencent Cloud's.
    ///
    /// ```
    /// use streamsession_operator::gs::Endpoint;
    ///
    /// let regional = Endpoint::parse("https://gs.ap-guangzhou.tencentcloudapi.com")?;
    /// assert_eq!(regional.sts().unwrap().to_string(), "sts.tencentcloudapi.com");
    /// assert!(Endpoint::parse("http://127.0.0.1:8080")?.sts().is_none());
    /// # Ok::<(), streamsession_operator::gs::InvalidEndpoint>(())
    /// ```
    #[must_use]
    pub fn sts(&self) -> Option<Self> {
        let place = place(&self.authority)?;
        let domain = if is_international(place) { INTERNATIONAL } else { DOMAIN };
        let authority = format!("sts{domain}");
        Some(Self { scheme: Scheme::Https, authority, loopback: false })
    }

    /// The `Host` header, with the port when there is one: it is signed exactly as sent.
    #[must_use]
    pub fn host_header(&self) -> &str {
        &self.authority
    }

    /// The address of a call.
    #[must_use]
    pub fn url(&self) -> String {
        match self.scheme {
            Scheme::Https => format!("https://{}/", self.authority),
            Scheme::PlainHttp => format!("http://{}/", self.authority),
        }
    }

    /// True for this very machine, where a simulator may take signatures for a shorter time.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// True if nothing is encrypted.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.scheme == Scheme::PlainHttp
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Https => f.write_str(&self.authority),
            Scheme::PlainHttp => write!(f, "http://{}", self.authority),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        Self::parse(text)
    }
}

/// The service behind an address as an [`Endpoint`] is displayed: the public, regional and internal
/// names of one are one, and the international one is another. Any other host is a service of its
/// own.
///
/// ```
/// # use streamsession_operator::gs::endpoint::service;
/// assert_eq!(service("gs.ap-guangzhou.tencentcloudapi.com"), "gs.tencentcloudapi.com");
/// assert_eq!(service("gs.intl.tencentcloudapi.com"), "gs.intl.tencentcloudapi.com");
/// assert_eq!(service("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
/// ```
#[must_use]
pub fn service(address: &str) -> &str {
    match place(address) {
        Some(place) if is_international(place) => "gs.intl.tencentcloudapi.com",
        Some(_) => "gs.tencentcloudapi.com",
        None => address,
    }
}

/// What stands between the service's name and Tencent Cloud's domain, with its dots; none of any
/// other host.
fn place(address: &str) -> Option<&str> {
    let place = address.strip_suffix(DOMAIN)?.strip_prefix("gs")?;
    (place.is_empty() || place.starts_with('.')).then_some(place)
}

fn is_international(place: &str) -> bool {
    place.split('.').any(|label| label == "intl")
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::V4(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(*address).is_loopback(),
    }
}

/// What an error repeats of a user's text: never a password, and no line feeds. Whatever stands
/// before an `@` may be one.
fn shown(text: &str) -> String {
    let whole: String = text.chars().filter(|c| !c.is_control()).collect();
    let shown = match whole.rsplit_once('@') {
        None => whole,
        Some((before, host)) => {
            let scheme = ["https://", "http://"]
                .into_iter()
                .find(|scheme| before.starts_with(scheme))
                .unwrap_or_default();
            format!("{scheme}…@{host}")
        }
    };
    shown.chars().take(SHOWN_LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Endpoint::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_endpoint_is_shown_as_it_stands_in_the_status() {
        let table = [
            ("https://gs.tencentcloudapi.com", "gs.tencentcloudapi.com"),
            ("https://gs.tencentcloudapi.com/", "gs.tencentcloudapi.com"),
            ("https://GS.Example.COM:443", "gs.example.com"),
            ("https://gs.example.com:8443", "gs.example.com:8443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.9.9.9", "http://127.9.9.9"),
            ("http://localhost:80", "http://localhost"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ];

        for (text, shown) in table {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
        }
    }

    #[test]
    fn all_names_of_one_service_are_one_and_any_other_host_is_its_own() {
        let of = |url: &str| Endpoint::parse(url).unwrap().service();
        for name in ["gs", "gs.ap-guangzhou", "gs.internal", "gs.internal.ap-guangzhou"] {
            let public = "gs.tencentcloudapi.com";
            assert_eq!(of(&format!("https://{name}.tencentcloudapi.com")), public, "{name}");
        }
        for name in ["gs.intl", "gs.intl.ap-singapore", "gs.ap-singapore.intl"] {
            let international = "gs.intl.tencentcloudapi.com";
            assert_eq!(of(&format!("https://{name}.tencentcloudapi.com")), international, "{name}");
        }
        for host in [
            "cvm.tencentcloudapi.com",
            "gsx.tencentcloudapi.com",
            "gs.tencentcloudapi.com.example.com",
            "gs.example.com:8443",
            "tencentcloudapi.com",
        ] {
            assert_eq!(of(&format!("https://{host}")), host);
        }
        assert_eq!(of("http://localhost:8080"), "http://localhost:8080");
    }

    #[test]
    fn the_host_header_has_the_port_when_there_is_one() {
        assert_eq!(
            Endpoint::parse("https://gs.example.com:443").unwrap().host_header(),
            "gs.example.com"
        );
        assert_eq!(
            Endpoint::parse("https://gs.example.com:80").unwrap().host_header(),
            "gs.example.com:80"
        );
        assert_eq!(Endpoint::parse("http://[::1]:8080").unwrap().host_header(), "[::1]:8080");
    }

    #[test]
    fn the_url_of_a_call_is_the_root() {
        assert_eq!(
            Endpoint::parse("https://gs.example.com").unwrap().url(),
            "https://gs.example.com/"
        );
        assert_eq!(
            Endpoint::parse("http://localhost:8080/").unwrap().url(),
            "http://localhost:8080/"
        );
    }

    #[test]
    fn loopback_is_known_whatever_the_scheme() {
        assert!(Endpoint::parse("https://127.0.0.1").unwrap().is_loopback());
        assert!(!Endpoint::parse("https://gs.tencentcloudapi.com").unwrap().is_loopback());
        assert!(!Endpoint::parse("https://localhost.example.com").unwrap().is_loopback());
    }

    #[test]
    fn plain_http_is_refused_beyond_this_machine() {
        for text in [
            "http://gs.tencentcloudapi.com",
            "http://10.0.0.1",
            "http://127.0.0.1.example.com",
            "http://[::2]",
        ] {
            assert!(refusal(text).contains("plain http:// is for loopback only"), "{text}");
        }
    }

    #[test]
    fn only_a_base_address_is_taken() {
        for text in ["https://h/path", "https://h/?q", "https://h/#f", "https://h?q=1"] {
            assert!(refusal(text).contains("it has a path, a query or a fragment"), "{text}");
        }
        for text in ["gs.tencentcloudapi.com", "ftp://h", "", "localhost:8080", "file:///etc"] {
            assert!(
                refusal(text).contains("it begins neither with https:// nor with http://"),
                "{text}"
            );
        }
        for text in ["https://", "https://h:99999", "https://a b", "http://:80"] {
            assert!(refusal(text).contains("it is no URL"), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do_and_repeats_no_password() {
        assert_eq!(
            refusal("https://me:hunter2@gs.example.com"),
            "the endpoint `https://…@gs.example.com` can't be used: \
             it holds a user or a password, which belong into a Secret; \
             give https://HOST[:PORT], as https://gs.tencentcloudapi.com"
        );
        for text in ["https://me:hunter2@h:x", "me:hunter2@h", "http://me:hunter2@h"] {
            assert!(!refusal(text).contains("hunter2"), "{text}");
        }
    }
}
