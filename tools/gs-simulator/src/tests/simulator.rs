//! Where a simulator listens, what it leaves behind, and how it ends.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{ATTACH, DEADLINE, call, start};
use crate::service::faults::Faults;
use crate::simulator::{Options, Simulator};

#[tokio::test]
async fn only_loopback_is_listened_on_by_default() {
    let options = Options { listen: "0.0.0.0:0".parse().unwrap(), ..Options::default() };
    assert_eq!(
        Simulator::start(options.clone()).await.unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert!(Simulator::start(Options { allow_non_loopback: true, ..options }).await.is_ok());
}

#[tokio::test]
async fn a_dropped_simulator_closes_its_connections_and_frees_its_address() {
    let simulator = start(Faults::default()).await;
    let address = simulator.address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    // Answered, so the connection is known to be accepted and kept alive.
    idle.write_all(b"GET /admin/stats HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 4096]).await.unwrap(), 0);

    drop(simulator);

    timeout(DEADLINE, idle.read_to_end(&mut Vec::new()))
        .await
        .expect("the connection closes")
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_record_has_a_line_for_each_call_and_is_appended_to() {
    let folder = std::env::temp_dir().join(format!("gs-simulator-record-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let record = folder.join("calls.jsonl");
    for drop_answers in [0, 1] {
        let options = Options {
            record: Some(record.clone()),
            faults: Faults { drop_answers, ..Faults::default() },
            ..Options::default()
        };
        call(&Simulator::start(options).await.unwrap(), ATTACH).await;
    }

    let lines = std::fs::read_to_string(&record).unwrap();
    std::fs::remove_dir_all(folder).unwrap();

    let outcomes: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["applied", "applied-unanswered"]);
}
