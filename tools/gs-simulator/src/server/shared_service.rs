//! The service behind a lock, with real clocks and a record of its calls.

use std::fs::File;
use std::io::{self, Write as _};
use std::time::Instant;

use axum::http::HeaderValue;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::service::Service;
use crate::service::calls::{Arrival, Call};

#[derive(Debug)]
pub(crate) struct SharedService {
    service: Mutex<Service>,
    started: Instant,
    clock_offset: SignedDuration,
    record: Option<File>,
}

impl SharedService {
    pub(crate) fn new(service: Service, clock_offset_seconds: i64, record: Option<File>) -> Self {
        Self {
            service: Mutex::new(service),
            started: Instant::now(),
            clock_offset: SignedDuration::from_secs(clock_offset_seconds),
            record,
        }
    }

    /// The service's clock: answers are dated by it, signatures checked against it.
    pub(crate) fn now(&self) -> Timestamp {
        self.with(|service| self.now_at(service))
    }

    /// The machine's own time if the offset leads out of the calendar.
    fn now_at(&self, service: &Service) -> Timestamp {
        let now = Timestamp::now();
        let offset = SignedDuration::from_secs(service.faults().clock_offset_seconds)
            .checked_add(self.clock_offset);
        offset.and_then(|offset| now.checked_add(offset).ok()).unwrap_or(now)
    }

    /// The Date header. Rounded down, as every server does: clients take it for a time that has
    /// certainly come.
    pub(crate) fn date(&self) -> HeaderValue {
        let date =
            DateTimePrinter::new().timestamp_to_rfc9110_string(&self.now()).unwrap_or_default();
        HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(""))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Service) -> T) -> T {
        act(&mut self.service.lock())
    }

    pub(crate) fn with_now<T>(&self, act: impl FnOnce(&mut Service, Timestamp) -> T) -> T {
        self.with(|service| {
            let now = self.now_at(service);
            act(service, now)
        })
    }

    /// A call arrives; `act` passes it to the service. It is timed and recorded under the lock: the
    /// order of times is the order of calls.
    pub(crate) fn with_arrival<T>(&self, act: impl FnOnce(&mut Service, Arrival) -> T) -> T {
        self.with_now(|service, now| {
            let at = Arrival { now, since_start: self.started.elapsed() };
            let result = act(service, at);
            if let (Some(record), Some(call)) = (&self.record, service.last_call()) {
                write_line(record, call);
            }
            result
        })
    }
}

/// In one piece, so that a reader sees whole lines.
fn write_line(mut record: &File, call: &Call) {
    let line = serde_json::to_string(call).map_err(io::Error::from);
    if let Err(error) = line.and_then(|line| record.write_all(format!("{line}\n").as_bytes())) {
        // The calls go on: a full disk is no reason to break the client under test.
        eprintln!("gs-simulator: can't record a call: {error}");
    }
}
