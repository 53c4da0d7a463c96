//! One cluster: start, wait until ready, stop.

use std::{
    fs,
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Binaries, Error,
    binaries::{cache_root, report_to_stderr},
    flags,
    folder::{DataFolder, tail, write_private},
    guard::{Janitor, Server},
    identity,
};

/// Ready takes 3 s on an idle machine; the rest is for one that compiles with all its cores
/// meanwhile.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// Short against the 3 s, long against the cost of a look.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// How often another process may take the port between our look and the server's; more than once is
/// rare already.
const PORT_TRIES: usize = 5;

const ETCD: &str = "etcd";
const APISERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// What the cluster should have beyond etcd and kube-apiserver.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The binaries to run; without, [`Binaries::find_or_build`] with its progress on stderr.
    pub binaries: Option<Binaries>,
    /// Also run a kube-controller-manager with the controllers that end namespaces, collect garbage
    /// and make default `ServiceAccount`s. Without it a deleted namespace stays `Terminating`.
    pub controller_manager: bool,
    /// Write the kubeconfig here, when all is ready, and remove it at the end. The file must not
    /// exist yet.
    pub kubeconfig: Option<PathBuf>,
}

/// A running etcd and kube-apiserver. When it is dropped, or this process ends in any way, the
/// servers and their data go.
///
/// A `static` is never dropped but ends with its process, so tests may share a cluster in a `static
/// OnceLock`.
#[derive(Debug)]
pub struct Cluster {
    // The order of the fields is the order in which they are dropped: clients before servers, the
    // janitor last.
    controller_manager: Option<Server>,
    apiserver: Option<Server>,
    etcd: Server,
    janitor: Janitor,
    folder: DataFolder,
    binaries: Binaries,
    port: u16,
    token: String,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Builds the binaries if they are missing, starts the servers and waits until they are ready:
    /// about 3 s once built.
    pub fn start(options: Options) -> Result<Self, Error> {
        if let Some(path) =
            options.kubeconfig.as_ref().filter(|path| path.symlink_metadata().is_ok())
        {
            return Err(Error::KubeconfigExists { path: path.clone() });
        }
        let binaries = match options.binaries {
            Some(binaries) => binaries,
            None => Binaries::find_or_build(&report_to_stderr)?,
        };
        // A missing one is built before anything runs.
        let controller_manager = if options.controller_manager {
            Some(binaries.controller_manager(&report_to_stderr)?)
        } else {
            None
        };

        let folder = DataFolder::create()?;
        let published = options.kubeconfig.as_deref().map(absolute).transpose()?;
        let janitor = Janitor::start(
            &[Some(folder.root()), published.as_deref()].into_iter().flatten().collect::<Vec<_>>(),
        )?;
        let token = identity::random_hex::<16>()?;
        write_private(&folder.tokens(), &identity::token_file(&token))?;
        write_private(&folder.service_account_key(), &identity::service_account_key()?)?;
        write_private(&folder.audit_policy(), flags::AUDIT_POLICY)?;

        let etcd = Server::start(ETCD, &binaries.etcd(), &flags::etcd(&folder), &folder, &janitor)?;
        let kubeconfig = folder.kubeconfig();
        let mut cluster = Self {
            controller_manager: None,
            apiserver: None,
            etcd,
            janitor,
            folder,
            binaries,
            port: 0,
            token,
            kubeconfig,
        };
        cluster.start_apiserver_on_a_free_port()?;
        if let Some(program) = controller_manager {
            cluster.start_controller_manager(&program)?;
        }
        if let Some(path) = published {
            let content = fs::read_to_string(&cluster.kubeconfig)
                .map_err(Error::file("read", &cluster.kubeconfig))?;
            write_private(&path, &content)?;
            cluster.kubeconfig = path;
        }
        Ok(cluster)
    }

    /// The kubeconfig of the administrator, with mode 0600: server, certificate and token, no other
    /// file needed.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// kubectl for this cluster, as its administrator; it reads and writes nothing in the user's
    /// home.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.binaries.kubectl());
        command.env("KUBECONFIG", self.folder.kubeconfig());
        command.env("KUBECACHEDIR", self.folder.kubectl_cache()).env("KUBERC", "off");
        command
    }

    /// Runs kubectl to its end, with `stdin` as its standard input.
    pub fn run_kubectl(&self, arguments: &[&str], stdin: &str) -> io::Result<Output> {
        let mut child = self
            .kubectl()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(stdin.as_bytes())?;
        }
        child.wait_with_output()
    }

    /// Where the API server listens, such as `https://127.0.0.1:41235`.
    #[must_use]
    pub fn server_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The API server's audit log: one JSON object a line for each answered request, level
    /// `Metadata`. A line is written when the request ends, which may be a moment after its client
    /// has the answer.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.folder.audit_log()
    }

    /// The binaries that run.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The temporary folder with data, logs and `<server>.pid` files, removed at the end.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.folder.root()
    }

    /// Fails if a server ended by itself.
    pub fn check(&mut self) -> Result<(), Error> {
        for server in
            self.controller_manager.iter_mut().chain(&mut self.apiserver).chain([&mut self.etcd])
        {
            if let Some(status) = server.ended()? {
                let (log, tail) = keep_log(server);
                return Err(Error::ServerEnded { name: server.name, status, log, tail });
            }
        }
        Ok(())
    }

    /// Stops the API server: an outage, until [`Cluster::start_apiserver`]. Returns when its
    /// process is gone.
    pub fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Starts the API server again on the same port, with the same data, certificate and tokens,
    /// and waits until it is ready.
    pub fn start_apiserver(&mut self) -> Result<(), Error> {
        if self.apiserver.is_none() {
            self.spawn_apiserver()?;
        }
        self.wait_until_apiserver_ready()
    }

    /// The API server can't choose a port itself (it refuses 0), so a free one may be taken before
    /// it binds.
    fn start_apiserver_on_a_free_port(&mut self) -> Result<(), Error> {
        let mut tries_left = PORT_TRIES;
        loop {
            tries_left -= 1;
            self.port = free_port()?;
            self.spawn_apiserver()?;
            match self.wait_until_apiserver_ready() {
                Err(Error::ServerEnded { name: APISERVER, tail, .. })
                    if tries_left > 0 && port_was_taken(&tail) =>
                {
                    self.apiserver = None;
                }
                result => return result,
            }
        }
    }

    fn spawn_apiserver(&mut self) -> Result<(), Error> {
        let arguments = flags::kube_apiserver(&self.folder, self.port);
        let server = Server::start(
            APISERVER,
            &self.binaries.kube_apiserver(),
            &arguments,
            &self.folder,
            &self.janitor,
        )?;
        self.apiserver = Some(server);
        Ok(())
    }

    fn wait_until_apiserver_ready(&mut self) -> Result<(), Error> {
        let certificate = self.folder.certificates().join("apiserver.crt");
        // The server writes its key after its certificate: when the key is there, the certificate
        // is complete.
        let key = self.folder.certificates().join("apiserver.key");
        self.wait_until(APISERVER, "its certificate", |_| {
            if key.is_file() { Ok(()) } else { Err("none yet".to_owned()) }
        })?;

        let pem = fs::read(&certificate).map_err(Error::file("read", &certificate))?;
        write_private(
            &self.folder.kubeconfig(),
            &identity::kubeconfig(&self.server_url(), &pem, &self.token),
        )?;
        self.wait_until(APISERVER, "/readyz", |cluster| cluster.get("/readyz"))?;
        // Ready does not include it, and the first thing that people do is to create something in
        // it.
        self.wait_until(APISERVER, "the default namespace", |cluster| {
            cluster.get("/api/v1/namespaces/default")
        })
    }

    fn start_controller_manager(&mut self, program: &Path) -> Result<(), Error> {
        let arguments = flags::kube_controller_manager(&self.folder);
        let server =
            Server::start(CONTROLLER_MANAGER, program, &arguments, &self.folder, &self.janitor)?;
        self.controller_manager = Some(server);
        // Made by one of its controllers, so they run.
        let path = "/api/v1/namespaces/default/serviceaccounts/default";
        self.wait_until(CONTROLLER_MANAGER, "the default ServiceAccount", |cluster| {
            cluster.get(path)
        })
    }

    /// Asks until the answer is good; fails when a server ends or the time is over.
    fn wait_until(
        &mut self,
        name: &'static str,
        asked: &'static str,
        mut ask: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            self.check()?;
            let Err(answer) = ask(self) else { return Ok(()) };
            if Instant::now() >= deadline {
                let server = if name == APISERVER {
                    self.apiserver.as_ref()
                } else {
                    self.controller_manager.as_ref()
                };
                let (log, tail) = keep_log(server.unwrap_or(&self.etcd));
                return Err(Error::NotReady {
                    name,
                    seconds: READY_WITHIN.as_secs(),
                    asked,
                    answer,
                    log,
                    tail,
                });
            }
            thread::sleep(POLL_EVERY);
        }
    }

    /// Reads a path of the API server. kubectl does it, so that this crate needs no TLS.
    fn get(&self, path: &str) -> Result<(), String> {
        let output = self
            .kubectl()
            .args(["get", "--request-timeout=5s", "--raw", path])
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("can't run {}: {error}", self.binaries.kubectl().display())),
        }
    }
}

/// The janitor works in another folder.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::file("find the folder of", path))
}

fn free_port() -> Result<u16, Error> {
    let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(address.map_err(|source| Error::NoPort { source })?.port())
}

fn port_was_taken(log: &str) -> bool {
    log.contains("address already in use")
}

/// Saves a failed server's log from the data folder, which goes; one file for each server in the
/// user's cache folder.
fn keep_log(server: &Server) -> (PathBuf, String) {
    let tail = tail(server.log());
    let keep = || {
        let folder = cache_root().ok()?.join("failed");
        fs::create_dir_all(&folder).ok()?;
        let kept = folder.join(format!("{}.log", server.name));
        fs::copy(server.log(), &kept).ok()?;
        Some(kept)
    };
    // Without a cache folder the tail must do.
    (keep().unwrap_or_else(|| server.log().to_owned()), tail)
}
