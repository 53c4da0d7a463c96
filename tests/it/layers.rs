//! The layers of the design, read off the sources: what is pure stays pure, dependencies point
//! inwards, files stay readable.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No I/O, no clock, no cluster: these can be tested by arguments alone.
const PURE: [&str; 11] = [
    "src/api",
    "src/gs/sign.rs",
    "src/gs/wire.rs",
    "src/gs/answer.rs",
    "src/gs/endpoint.rs",
    "src/queue/fair.rs",
    "src/queue/permits.rs",
    "src/queue/quota.rs",
    "src/controller/agenda.rs",
    "src/controller/digest.rs",
    "src/controller/key.rs",
];

/// Of kube, what names and describes objects, and reaches no server.
const PURE_KUBE: [&str; 4] = ["CustomResource", "CustomResourceExt", "KubeSchema", "ResourceExt"];

/// What no pure file may name, as whole path segments.
const IMPURE: [&str; 12] = [
    "tokio",
    "tokio_util",
    "reqwest",
    "hyper",
    "std::net::Tcp",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "Zoned::now",
];

/// What else of the crate a layer may use, besides itself.
const INWARDS: [(&str, &[&str]); 4] = [
    ("src/api", &["api"]),
    ("src/gs", &["gs"]),
    ("src/queue", &["queue"]),
    ("src/telemetry", &["telemetry"]),
];

const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files under a path, or the file itself.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .flat_map(|path| {
            if path.is_dir() || path.extension().is_some_and(|end| end == "rs") {
                rust_files(&path)
            } else {
                Vec::new()
            }
        })
        .collect();
    files.sort();
    files
}

/// The source without comments and without its tests, which may use clocks as they like.
fn production(source: &str) -> String {
    let source =
        source.split_once("#[cfg(test)]\nmod tests {").map_or(source, |(production, _)| production);
    source
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether the path stands in the code, its first segment whole.
fn names(code: &str, path: &str) -> bool {
    let part_of_a_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(path).any(|(at, _)| {
        let end = at + path.len();
        !code[..at].ends_with(part_of_a_word)
            && (path.ends_with("Tcp") || !code[end..].starts_with(part_of_a_word))
    })
}

/// The names that follow `krate::`, one by one also out of braces.
fn used_of<'a>(code: &'a str, krate: &str) -> Vec<&'a str> {
    let prefix = format!("{krate}::");
    let starts = code.match_indices(&prefix).filter(|(at, _)| {
        !code[..*at].ends_with(|letter: char| letter.is_alphanumeric() || "_:".contains(letter))
    });
    starts
        .flat_map(|(at, _)| {
            let rest = &code[at + prefix.len()..];
            let group = rest
                .strip_prefix('{')
                .map(|rest| rest.split_once('}').map_or(rest, |(group, _)| group));
            group.map_or_else(|| vec![rest], |group| group.split(',').collect())
        })
        .map(|name| {
            name.trim()
                .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .next()
                .unwrap_or_default()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// What makes a source impure.
fn impurities(source: &str) -> Vec<String> {
    let code = production(source);
    let kube = used_of(&code, "kube")
        .into_iter()
        .filter(|name| !PURE_KUBE.contains(name))
        .map(|name| format!("kube::{name}"));
    let now = ["Timestamp", "jiff::Timestamp"]
        .into_iter()
        .map(|clock| format!("{clock}::now"))
        .find(|now| names(&code, now));
    IMPURE
        .into_iter()
        .filter(|path| names(&code, path))
        .map(str::to_owned)
        .chain(now)
        .chain(kube)
        .collect()
}

#[test]
fn pure_files_name_no_runtime_no_client_and_no_clock() {
    for path in PURE {
        for file in rust_files(&root().join(path)) {
            let found = impurities(&fs::read_to_string(&file).expect("a source"));
            assert!(
                found.is_empty(),
                "{} is a pure layer and must not use {found:?}",
                file.display()
            );
        }
    }
}

#[test]
fn dependencies_point_inwards() {
    for (layer, allowed) in INWARDS {
        for file in rust_files(&root().join(layer)) {
            let code = production(&fs::read_to_string(&file).expect("a source"));
            let found: Vec<_> = used_of(&code, "crate")
                .into_iter()
                .filter(|name| !allowed.contains(name))
                .map(str::to_owned)
                .collect();
            assert!(
                found.is_empty(),
                "{} may use {allowed:?} of this crate, not {found:?}",
                file.display()
            );
        }
    }
}

#[test]
fn the_checker_finds_what_it_looks_for() {
    let found = impurities(
        "//! tokio is only mentioned here
use std::time::{Duration, Instant}; // tokio::time is not used
use kube::{Api, ResourceExt};
use tokio::time::sleep;
fn age(since: Instant) -> Duration { Instant::now() - since }
fn today() -> jiff::Timestamp { jiff::Timestamp::now() }
fn mytokio() -> kube::Client { todo!() }
",
    );
    let pure = "use std::time::Instant;\nuse kube::ResourceExt;\nfn f(kubelet: u8) {}\n#[cfg(test)]\nmod tests {\n use tokio; fn f() { Instant::now(); }\n}\n";

    assert_eq!(found, ["tokio", "Instant::now", "Timestamp::now", "kube::Api", "kube::Client"]);
    assert_eq!(impurities(pure), Vec::<String>::new());
    assert_eq!(
        used_of("use crate::{gs, queue::Limiter};\ncrate::api::x(); my_crate::no();", "crate"),
        ["gs", "queue", "api"]
    );
}

#[test]
fn the_protocol_crate_can_reach_no_cluster_no_network_and_no_clock() {
    let manifest = fs::read_to_string(root().join("protocol/Cargo.toml")).expect("a manifest");
    let dependencies = manifest
        .split("\n[")
        .filter(|section| section.starts_with("dependencies]"))
        .flat_map(str::lines)
        .skip(1);
    let names: Vec<_> = dependencies
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|name| !name.is_empty())
        .collect();

    assert_eq!(
        names,
        ["jiff"],
        "protocol is pure: a new dependency needs a reason, and kube, tokio, reqwest are never one"
    );
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let jiff =
        workspace.lines().find(|line| line.starts_with("jiff = ")).expect("jiff of the workspace");
    assert!(
        jiff.contains("default-features = false") && !jiff.contains(r#""std""#),
        "with std, jiff has a clock: {jiff}"
    );
    for file in rust_files(&root().join("protocol/src")) {
        let found = impurities(&fs::read_to_string(&file).expect("a source"));
        assert!(found.is_empty(), "{} must not use {found:?}", file.display());
    }
}

#[test]
fn no_source_file_has_more_than_500_lines() {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output();
    // Without git, as in an unpacked archive, every file of the tree counts.
    let files: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|path| root().join(path))
                .filter(|path| path.is_file())
                .collect()
        }
        _ => ["src", "protocol", "tools", "tests"]
            .iter()
            .flat_map(|folder| rust_files(&root().join(folder)))
            .collect(),
    };
    assert!(files.len() > 50, "{files:?}");

    let too_long: Vec<_> = files
        .into_iter()
        .map(|file| (fs::read_to_string(&file).expect("a source").lines().count(), file))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();

    assert!(too_long.is_empty(), "a file has one subject; split {too_long:?}");
}

#[test]
fn there_is_one_crypto_provider_and_no_openssl() {
    for (package, expected) in
        [("aws-lc-rs", true), ("ring", false), ("openssl-sys", false), ("native-tls", false)]
    {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "--offline",
                "--quiet",
                "--workspace",
                "--prefix",
                "none",
                "--invert",
                package,
            ])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        let (printed, complained) =
            (String::from_utf8_lossy(&tree.stdout), String::from_utf8_lossy(&tree.stderr));

        let absent = printed.trim().is_empty()
            && (tree.status.success() || complained.contains("did not match any packages"));
        let present = tree.status.success() && printed.starts_with(&format!("{package} v"));
        assert!(absent || present, "cargo tree failed: {complained}");
        assert_eq!(present, expected, "{package}: {printed}");
    }
}
