//! The service of a lab: its faults, and calls that do not come from the operator.

use axum::Router;
use gs_simulator::{
    EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, ErrorFault, Faults, InstanceFault, Operation,
};
use streamsession_core::answer;
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_operator::gs::{Credentials, Endpoint, Source, Switch};
use tokio::net::TcpListener;

use super::SESSION;

/// The key that a simulator knows unless told otherwise.
pub fn example_credentials() -> Credentials {
    Credentials {
        secret_id: EXAMPLE_SECRET_ID.into(),
        secret_key: EXAMPLE_SECRET_KEY.into(),
        token: None,
        source: Source::Environment,
    }
}

/// A call that attaches these to [`SESSION`], signed with the example key at that time.
pub fn attach_call(url: &str, ids: &[&str], timestamp: jiff::Timestamp) -> Switch {
    Switch {
        endpoint: Endpoint::parse(url).expect("an endpoint"),
        region: None,
        session: SessionId::parse(SESSION).expect("an id"),
        operation: answer::Operation::Attach,
        instances: ids.iter().map(|id| InstanceId::parse(id).expect("an id")).collect(),
        timestamp: timestamp.as_second(),
        credentials: example_credentials(),
    }
}

/// The service takes effect at once and answers late: time to do something meanwhile, and less than
/// the call's timeout.
pub fn slow() -> Faults {
    Faults { delay_ms: 1500, ..Faults::default() }
}

/// The next calls fail with these codes, each so often.
pub fn errors(codes: &[(&str, u32)]) -> Faults {
    let error = |(code, times): &(&str, u32)| ErrorFault { code: (*code).into(), times: *times };
    Faults { errors: codes.iter().map(error).collect(), ..Faults::default() }
}

/// The service refuses to detach the instances that fit.
pub fn refuse_detach(pattern: &str) -> Faults {
    let fault =
        InstanceFault { pattern: pattern.into(), tries: None, operation: Operation::Detach };
    Faults { instance_faults: vec![fault], ..Faults::default() }
}

/// Serves at a free port of loopback; answers its address. It ends with the test's runtime.
pub async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}
