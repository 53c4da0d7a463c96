//! What reached the two servers: calls at the simulator, writes in the API server's audit log.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Lab, SESSION, cluster, eventually};

const WRITES: [&str; 4] = ["create", "update", "patch", "delete"];

impl Lab {
    /// The members of [`SESSION`] at the simulator.
    pub fn members(&self) -> BTreeSet<String> {
        self.simulator.members(SESSION)
    }

    /// The signed calls that reached the simulator so far; not the unsigned request that asks for
    /// the time.
    pub fn calls(&self) -> Vec<gs_simulator::Call> {
        self.simulator.calls().into_iter().filter(|call| call.secret_id.is_some()).collect()
    }

    /// The signed calls in short, as `Attach a,b`.
    pub fn history(&self) -> Vec<String> {
        let short = |call: gs_simulator::Call| match call.operation {
            Some(operation) => format!("{operation:?} {}", call.instance_ids.join(",")),
            None => format!("{:?}", call.outcome),
        };
        self.calls().into_iter().map(short).collect()
    }

    /// The operator's writes to StreamSessions of this namespace so far, by the API server's audit
    /// log: `verb/subresource`.
    pub fn writes(&self) -> Vec<String> {
        self.written().into_iter().map(|(_, write)| write).collect()
    }

    /// Those to the object of that name.
    pub fn writes_of(&self, name: &str) -> Vec<String> {
        let written = self.written().into_iter().filter(|(written, _)| written == name);
        written.map(|(_, write)| write).collect()
    }

    /// The name of an object, and the write.
    fn written(&self) -> Vec<(String, String)> {
        let log = std::fs::read_to_string(cluster().audit_log()).expect("the audit log");
        // All tests share the log: only this namespace's lines are worth parsing.
        let lines = log.lines().filter(|line| line.contains(&self.namespace));
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_operators_write = |event: &Value| {
            let (object, uri) = (&event["objectRef"], event["requestURI"].as_str());
            object["namespace"] == self.namespace.as_str()
                && object["resource"] == "streamsessions"
                && event["userAgent"] == "streamsession-operator"
                && WRITES.iter().any(|verb| event["verb"] == *verb)
                && uri.is_some_and(|uri| uri.contains("fieldManager=streamsession-operator"))
        };
        let write = |event: Value| {
            let object = &event["objectRef"];
            let write = format!("{}/{}", text(&event["verb"]), text(&object["subresource"]));
            (text(&object["name"]), write)
        };
        events.filter(is_operators_write).map(write).collect()
    }

    /// Waits until the audit log shows at least `count` writes to the object.
    pub async fn until_written(&self, name: &str, count: usize) {
        eventually(&format!("{count} writes to {name}"), async || {
            let writes = self.writes_of(name);
            if writes.len() >= count { Ok(()) } else { Err(format!("{writes:?}")) }
        })
        .await;
    }

    /// Waits until the audit log shows `count` writes, and no more of them.
    pub async fn until_writes(&self, count: usize) {
        eventually(&format!("{count} writes"), async || {
            let writes = self.writes();
            if writes.len() >= count { Ok(()) } else { Err(format!("{writes:?}")) }
        })
        .await;
        assert_eq!(self.writes().len(), count, "{:?}", self.writes());
    }
}
