//! A proxy that keeps what the simulator answers, can hold an answer back, and can fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gs_simulator::Simulator;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Stands before the simulator and keeps what it answers.
pub(super) struct RecordingProxy {
    pub(super) url: String,
    pub(super) kept: Arc<Kept>,
}

#[derive(Default)]
pub(super) struct Kept {
    answers: Mutex<Vec<u8>>,
    /// The next answer with this text waits until the test lets it go.
    pub(super) held_text: Mutex<Option<&'static str>>,
    pub(super) released: Notify,
    /// So many connections more are answered HTTP 500, and the simulator sees nothing of them.
    pub(super) failures: AtomicUsize,
}

impl RecordingProxy {
    pub(super) async fn before(simulator: &Simulator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let kept = Arc::<Kept>::default();
        let (server, keeper) = (simulator.address(), Arc::clone(&kept));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let failures = &keeper.failures;
                if failures
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok()
                {
                    tokio::spawn(fail(client));
                    continue;
                }
                tokio::spawn(pass_on(
                    client,
                    TcpStream::connect(server).await.expect("the simulator"),
                    Arc::clone(&keeper),
                ));
            }
        });
        Self { url, kept }
    }

    /// The strings that answers gave under this name.
    pub(super) fn told(&self, name: &str) -> Vec<String> {
        let answers = self.kept.answers.lock().expect("no panic");
        let text = String::from_utf8_lossy(&answers).into_owned();
        let start = format!("\"{name}\":\"");
        text.split(&start)
            .skip(1)
            .filter_map(|rest| rest.split_once('"'))
            .map(|(value, _)| value.to_owned())
            .collect()
    }
}

async fn fail(mut client: TcpStream) {
    let answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    let _ = client.read(&mut [0; 4096]).await;
    let _ = client.write_all(answer).await;
}

async fn pass_on(client: TcpStream, server: TcpStream, kept: Arc<Kept>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    tokio::spawn(async move {
        let _ = copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    });
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = from_server.read(&mut piece).await {
        let piece = &piece[..length];
        kept.answers.lock().expect("no panic").extend_from_slice(piece);
        let text = String::from_utf8_lossy(piece);
        if kept.held_text.lock().expect("no panic").take_if(|held| text.contains(*held)).is_some() {
            kept.released.notified().await;
        }
        if to_client.write_all(piece).await.is_err() {
            return;
        }
    }
}
