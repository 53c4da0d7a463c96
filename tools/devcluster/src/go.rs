//! Builds a Go package and reports its progress: these builds take minutes.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::Error;

/// The minimum of the module's `go` line.
const GO_MIN: (u32, u32) = (1, 26);

/// Often enough to show that it goes on, seldom enough to be read.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The compiler's first error and its neighbours fit; a page of output does not help.
const TAIL_LINES: usize = 20;

/// A Go toolchain that can build the control plane.
pub(crate) struct Go {
    proxy: String,
}

/// One package to build.
pub(crate) struct Job<'a> {
    /// The Go module's folder.
    pub(crate) module: &'a Path,
    /// The package, as `go build` names it.
    pub(crate) package: &'a str,
    /// The linker's flags.
    pub(crate) ldflags: &'a str,
    /// The binary to write.
    pub(crate) output: &'a Path,
    /// How progress reports call it, such as `kubectl (3 of 3)`.
    pub(crate) title: &'a str,
}

impl Go {
    /// Finds `go` in PATH and checks that it is new enough.
    pub(crate) fn find() -> Result<Self, Error> {
        // In the root folder there is no go.mod above, which an older Go would refuse before it
        // prints its version.
        let output = Command::new("go")
            .args(["env", "GOVERSION", "GOPROXY"])
            .env("GOTOOLCHAIN", "local")
            .current_dir("/")
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::GoMissing),
            Err(source) => return Err(Error::Run { program: "go".into(), source }),
        };
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::GoBroken { status: output.status, message });
        }
        let answer = String::from_utf8_lossy(&output.stdout);
        let mut lines = answer.lines();
        let version = lines.next().unwrap_or_default();
        // A development build has no number, and is taken as new enough.
        if minor_version(version).is_some_and(|found| found < GO_MIN) {
            return Err(Error::GoTooOld { found: version.to_owned() });
        }
        Ok(Self { proxy: without_direct(lines.next().unwrap_or_default()).to_owned() })
    }

    /// Builds one package; `lock` stays locked for as long as `go` runs, also when this process is
    /// killed meanwhile.
    pub(crate) fn build(
        &self,
        job: &Job<'_>,
        lock: &File,
        progress: &dyn Fn(&str),
    ) -> Result<(), Error> {
        // `go` gets the lock as its stdin, which it never reads. A lock belongs to all processes
        // that have the file open: so no other build begins while a `go` without its parent still
        // writes the same output.
        let stdin = lock.try_clone().map_err(Error::file("share the lock of", job.output))?;
        let mut child = Command::new("go")
            .args([
                "build",
                "-v",
                "-trimpath",
                "-mod=readonly",
                "-buildvcs=false",
                "-ldflags",
                job.ldflags,
                "-o",
            ])
            .arg(job.output)
            .arg(job.package)
            .current_dir(job.module)
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .env("GOWORK", "off")
            .env("GOPROXY", &self.proxy)
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::run("go"))?;

        let started = Instant::now();
        let tail = match child.stderr.take() {
            Some(stderr) => follow(&lines_of(stderr), job.title, progress),
            None => String::new(),
        };
        let status: ExitStatus = child.wait().map_err(Error::run("go"))?;
        if status.success() {
            progress(&format!("  {}: done in {}", job.title, elapsed(started.elapsed())));
            return Ok(());
        }
        Err(Error::Build {
            package: job.package.to_owned(),
            module: job.module.to_owned(),
            status,
            tail,
        })
    }
}

/// Reads lines on a thread, so that the reader can also look at the clock. The channel closes with
/// the stream.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reports what `go build -v` does until it closes its output; returns its last lines.
fn follow(lines: &Receiver<String>, title: &str, progress: &dyn Fn(&str)) -> String {
    let started = Instant::now();
    let mut next_report = started + REPORT_EVERY;
    let mut tail = VecDeque::new();
    loop {
        let now = Instant::now();
        if now >= next_report {
            next_report = now + REPORT_EVERY;
            // With -v the last line is the package that is being compiled, or the module that is
            // being downloaded; there is none when all of them are in Go's own cache.
            let current = tail.back().map_or("linking", String::as_str);
            progress(&format!("  {title}: {}, {current}", elapsed(now - started)));
        }
        match lines.recv_timeout(next_report - now) {
            Ok(line) => {
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Vec::from(tail).join("\n")
}

/// `1 min 5 s`.
pub(crate) fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes} min {} s", seconds % 60),
    }
}

/// `go1.26.8` is `(1, 26)`.
fn minor_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("go")?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Without the last resort `direct`: for a module that the proxy refuses, Go would fall back to
/// version control on the module's own host, and where that host can't be reached the build hangs
/// instead of failing.
fn without_direct(proxy: &str) -> &str {
    proxy.strip_suffix(",direct").unwrap_or(proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number_and_unknown_ones_pass() {
        assert_eq!(minor_version("go1.26.8"), Some((1, 26)));
        assert_eq!(minor_version("go1.27rc1"), Some((1, 27)));
        assert!(minor_version("go1.9").is_some_and(|found| found < GO_MIN));
        assert_eq!(minor_version("devel go1.27-abcdef"), None);
    }

    #[test]
    fn only_a_trailing_direct_is_taken_from_the_proxy_list() {
        assert_eq!(without_direct("https://proxy.test,direct"), "https://proxy.test");
        assert_eq!(without_direct("https://proxy.test"), "https://proxy.test");
        assert_eq!(without_direct("direct"), "direct");
        assert_eq!(without_direct("off"), "off");
    }

    #[test]
    fn the_last_lines_of_a_build_are_kept_for_its_error() {
        let text = (0..30).map(|number| format!("line {number}\n")).collect::<Vec<_>>().concat();

        let tail = follow(&lines_of(io::Cursor::new(text)), "kubectl", &|_| {});

        assert!(tail.starts_with("line 10\n"), "{tail}");
        assert!(tail.ends_with("line 29"), "{tail}");
    }

    #[test]
    fn elapsed_time_reads_in_minutes_and_seconds() {
        assert_eq!(elapsed(Duration::from_secs(9)), "9 s");
        assert_eq!(elapsed(Duration::from_secs(125)), "2 min 5 s");
    }
}
