//! An HTTP/1.1 server of a few lines that misbehaves as a test wants. Blocking threads, so that no
//! runtime hides what happens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server does with a request that it has read.
pub(super) enum Reply {
    /// Writes it and keeps the connection.
    Answer(String),
    /// Writes it and closes the connection.
    AnswerAndClose(String),
    /// Closes the connection without a byte.
    Drop,
    /// Says nothing until the client goes away.
    Silence,
    /// An answer whose body does not end.
    Endless,
}

pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

type Script = dyn Fn(usize, &str) -> Reply + Send + Sync;

impl TestServer {
    /// The script is given the number of requests before this one, and the request.
    pub(super) fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&requests));
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &*script, &seen));
            }
        });
        Self { address, requests, connections }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A whole answer with these header lines and this body.
pub(super) fn http(status: &str, headers: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    let head = [&[&*format!("HTTP/1.1 {status}")], headers, &[&*length]].concat().join("\r\n");
    format!("{head}\r\n\r\n{body}")
}

fn serve(mut stream: TcpStream, script: &Script, seen: &Mutex<Vec<String>>) -> Option<()> {
    loop {
        let request = read_request(&mut stream)?;
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        match script(number, &request) {
            Reply::Answer(answer) => stream.write_all(answer.as_bytes()).ok()?,
            Reply::AnswerAndClose(answer) => return stream.write_all(answer.as_bytes()).ok(),
            Reply::Drop => return None,
            Reply::Silence => {
                let _ = stream.read(&mut [0; 1]);
                return None;
            }
            Reply::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"Response\":{\"X\":\"").ok()?;
                loop {
                    stream.write_all(&[b'x'; 1 << 14]).ok()?;
                }
            }
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        if body.len() >= length {
            return Some(text);
        }
    }
}
