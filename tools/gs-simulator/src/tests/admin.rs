//! The admin routes.

use serde_json::json;

use super::client::{ATTACH, admin, call, date, plain, split, start};
use crate::service::faults::Faults;
use crate::simulator::EXAMPLE_SECRET_ID;

#[tokio::test]
async fn the_admin_routes_show_and_change_what_the_methods_do() {
    let simulator = start(Faults::default()).await;

    assert_eq!(
        admin(&simulator, "PUT", "/admin/sessions/s", r#"["z","b"]"#).await.0,
        "HTTP/1.1 204 No Content"
    );
    let (status, faults) =
        admin(&simulator, "PUT", "/admin/faults", r#"{"failInstances":["a"]}"#).await;
    assert_eq!((status.as_str(), &faults["failInstances"]), ("HTTP/1.1 200 OK", &json!(["a"])));
    call(&simulator, ATTACH).await;

    assert_eq!(admin(&simulator, "GET", "/admin/sessions", "").await.1, json!({"s": ["b", "z"]}));
    let calls = admin(&simulator, "GET", "/admin/calls", "").await.1;
    assert_eq!((&calls[0]["outcome"], &calls[0]["failed"]), (&json!("applied"), &json!(["a"])));
    let of_key = json!({
        "arrivals": 1, "throttled": 0, "maxArrivalsInOneSecond": 1, "maxAcceptedInOneSecond": 1,
    });
    let counts = json!({
        "calls": 1, "throttled": 0, "keysIssued": 0, "maxArrivalsInOneSecond": 1,
        "maxAcceptedInOneSecond": 1, "byKey": {EXAMPLE_SECRET_ID: of_key},
    });
    assert_eq!(admin(&simulator, "GET", "/admin/stats", "").await.1, counts);

    admin(&simulator, "DELETE", "/admin/faults", "").await;
    let (path, body) = ("/admin/unspecified-behaviour", r#"{"addPresent":"error:ResourceInUse"}"#);
    let behaviour = admin(&simulator, "PUT", path, body).await.1;
    assert_eq!(admin(&simulator, "GET", path, "").await.1, behaviour);
    assert_eq!(simulator.unspecified_behaviour().add_present.to_string(), "error:ResourceInUse");
    admin(&simulator, "DELETE", "/admin/sessions/s", "").await;
    assert_eq!(simulator.faults(), Faults::default());
    let (_, answer) = split(&call(&simulator, ATTACH).await);
    assert!(answer.contains("ResourceNotFound.SessionNotFound"), "{answer}");

    admin(&simulator, "POST", "/admin/reset", "").await;
    assert_eq!((simulator.calls().len(), simulator.sessions().len()), (0, 0));
}

#[tokio::test]
async fn a_mistake_in_an_admin_body_or_a_path_is_explained() {
    let simulator = start(Faults::default()).await;

    let (head, body) = plain(&simulator, "PUT", "/admin/faults", r#"{"dropAnswer":1}"#).await;
    assert!(
        head.starts_with("HTTP/1.1 400") && body.contains("unknown field `dropAnswer`"),
        "{head}\n{body}"
    );

    for (method, path, status) in [("GET", "/", "HTTP/1.1 405"), ("GET", "/admin", "HTTP/1.1 404")]
    {
        let (head, body) = plain(&simulator, method, path, "").await;
        assert!(head.starts_with(status) && body.contains("GET /admin/sessions"), "{head}\n{body}");
    }
}

#[tokio::test]
async fn the_clock_is_set_while_it_runs() {
    let simulator = start(Faults::default()).await;
    let before = simulator.now();

    admin(&simulator, "PUT", "/admin/faults", r#"{"clockOffsetSeconds":3600}"#).await;

    let (head, _) = split(&call(&simulator, ATTACH).await);
    assert!(date(&head).as_second() >= before.as_second() + 3600, "{head}");
}
