//! A proxy that keeps what the simulator answers, and can hold an answer back.

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
}

impl RecordingProxy {
    pub(super) async fn before(simulator: &Simulator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let kept = Arc::<Kept>::default();
        let (server, keeper) = (simulator.address(), Arc::clone(&kept));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
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
