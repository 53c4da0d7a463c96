//! The generated CRD passes the review that an API reviewer would give it: the rules of
//! kube-api-linter and of the API conventions.

use serde_json::{Map, Value, json};
use streamsession_operator::api::v1alpha1::crd_yaml;

const COMMITTED: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/crds/streamsessions.gs.tencentcloud.dev.yaml"
));

/// The largest whole number that every JSON reader holds exactly.
const SAFE_INTEGER_MAX: i64 = (1 << 53) - 1;

fn crd() -> Value {
    serde_saphyr::from_str(&crd_yaml().expect("a CRD")).expect("YAML")
}

fn version(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]
}

/// Calls `look` for every schema below the one at `path`, and for that; `in_list` tells whether one
/// element of a list is its subject.
fn visit(path: &str, schema: &Value, in_list: bool, look: &mut dyn FnMut(&str, &Value, bool)) {
    look(path, schema, in_list);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        visit(&format!("{path}.{name}"), field, in_list, look);
    }
    if schema["items"].is_object() {
        visit(&format!("{path}[]"), &schema["items"], true, look);
    }
}

/// What is wrong with a schema.
fn findings(schema: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    visit("", schema, false, &mut |path, schema, in_list| {
        let mut wrong = |what: &str| findings.push(format!("{path}: {what}"));
        let fields = schema.as_object().expect("a schema");
        if !path.is_empty() {
            review(path, fields, in_list, &mut wrong);
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !schema["properties"][name]["default"].is_null() {
                wrong(&format!("{name} is required and has a default"));
            }
        }
        for name in schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name) {
            let camel_case = name.starts_with(|letter: char| letter.is_ascii_lowercase())
                && name.chars().all(char::is_alphanumeric);
            if !camel_case
                || name.ends_with("Timestamp")
                || name.ends_with("Reference")
                || name == "phase"
            {
                wrong(&format!("{name} is no name for a field"));
            }
        }
    });
    findings
}

fn review(path: &str, schema: &Map<String, Value>, in_list: bool, wrong: &mut dyn FnMut(&str)) {
    let has = |key: &str| schema.contains_key(key);
    for forbidden in [
        "nullable",
        "additionalProperties",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
    ] {
        if has(forbidden) {
            wrong(forbidden);
        }
    }
    let name = path.rsplit('.').next().unwrap_or_default();
    let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    if !name.ends_with("[]")
        && !description.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':']))
    {
        wrong("the description does not begin with the name");
    }
    if in_list && has("default") {
        wrong("a default in a list, which keeps Argo CD out of sync");
    }
    let in_spec = path.starts_with(".spec");
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => {
            let choice = schema.get("enum").and_then(Value::as_array);
            if !has("maxLength")
                && choice.is_none()
                && schema.get("format") != Some(&json!("date-time"))
            {
                wrong("a string without a maxLength");
            }
            if in_spec && !has("minLength") && choice.is_none() {
                wrong("a string of the spec without a minLength");
            }
            if choice.into_iter().flatten().any(|value| {
                !value.as_str().is_some_and(|value| value.starts_with(char::is_uppercase))
            }) {
                wrong("an enum value that is not CamelCase");
            }
        }
        Some("array") => {
            if !has("maxItems") {
                wrong("a list without maxItems");
            }
            if !has("x-kubernetes-list-type") {
                wrong("a list without a listType");
            }
            if schema["items"]["type"] == "object"
                && schema["items"]["required"].as_array().is_none_or(Vec::is_empty)
            {
                wrong("a list of objects of which no field is required");
            }
        }
        Some("integer") => {
            let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
            if bound("minimum").is_none_or(|least| least < -1)
                || bound("maximum").is_none_or(|most| most > SAFE_INTEGER_MAX)
            {
                wrong("an integer without bounds");
            }
            if !["int32", "int64"].iter().any(|format| schema.get("format") == Some(&json!(format)))
            {
                wrong("an integer that is neither int32 nor int64");
            }
        }
        Some("object") if !has("properties") => wrong("an object without fields"),
        Some("object" | "boolean") => {}
        other => wrong(&format!("the type {other:?}")),
    }
}

#[test]
fn the_committed_crd_is_the_generated_one() {
    assert!(
        COMMITTED == crd_yaml().expect("a CRD"),
        "crds/ is not what the types in src/api/v1alpha1.rs make of it: run `make crd`"
    );
}

#[test]
fn the_schema_passes_the_review() {
    let crd = crd();

    let found = findings(&version(&crd)["schema"]["openAPIV3Schema"]);

    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_review_finds_what_it_looks_for() {
    let count = json!({
        "type": "integer", "description": "count of", "format": "uint32", "minimum": 0,
        "default": 1,
    });
    let items = json!({"type": "object", "properties": {"count": count}});
    let booleans = json!({"type": "boolean"});
    let mut found = findings(&json!({"type": "object", "required": ["on"], "properties": {
        "text": {"type": "string", "description": "a text", "nullable": true},
        "list": {"type": "array", "description": "list of", "items": items},
        "ratio": {"type": "number", "description": "ratio of"},
        "map": {"type": "object", "description": "map of", "additionalProperties": booleans},
        "on": {"type": "boolean", "description": "on if", "default": true},
        "startTimestamp": {
            "type": "string", "description": "startTimestamp: when", "enum": ["now"],
        },
    }}));

    let expected = [
        ".list: a list of objects of which no field is required",
        ".list: a list without a listType",
        ".list: a list without maxItems",
        ".list[].count: a default in a list, which keeps Argo CD out of sync",
        ".list[].count: an integer that is neither int32 nor int64",
        ".list[].count: an integer without bounds",
        ".map: additionalProperties",
        ".map: an object without fields",
        ".ratio: the type Some(\"number\")",
        ".startTimestamp: an enum value that is not CamelCase",
        ".text: a string without a maxLength",
        ".text: nullable",
        ".text: the description does not begin with the name",
        ": on is required and has a default",
        ": startTimestamp is no name for a field",
    ];
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn no_field_of_the_status_is_required_and_a_new_status_looks_unfinished() {
    let crd = crd();
    let schema = &version(&crd)["schema"]["openAPIV3Schema"];

    assert_eq!(schema["required"], json!(["spec"]));
    assert_eq!(schema["properties"]["status"]["required"], Value::Null);
    assert_eq!(schema["properties"]["status"]["default"], json!({"observedGeneration": -1}));
    assert_eq!(version(&crd)["subresources"], json!({"status": {}}));
}

#[test]
fn the_ids_are_a_set_the_conditions_a_map_and_all_other_lists_atomic() {
    let crd = crd();

    let mut others = Vec::new();
    visit("", &version(&crd)["schema"]["openAPIV3Schema"], false, &mut |path, schema, _| {
        let kind = (&schema["x-kubernetes-list-type"], &schema["x-kubernetes-list-map-keys"]);
        match path {
            _ if schema["type"] != "array" => {}
            ".spec.slaveInstanceIds" => assert_eq!(kind, (&json!("set"), &Value::Null)),
            ".status.conditions" => assert_eq!(kind, (&json!("map"), &json!(["type"]))),
            other => {
                assert_eq!(kind, (&json!("atomic"), &Value::Null), "{other}");
                others.push(other.to_owned());
            }
        }
    });
    assert_eq!(
        others,
        [
            ".status.attachedInstanceIds",
            ".status.pendingCall.instanceIds",
            ".status.unsettledInstances"
        ]
    );
}

#[test]
fn a_rule_that_forbids_a_change_speaks_to_people() {
    let crd = crd();

    visit("", &version(&crd)["schema"]["openAPIV3Schema"], false, &mut |path, schema, _| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(
                message.contains("must") && message.matches('`').count() >= 2,
                "{path}: {message:?} names no field, or no rule"
            );
        }
    });
}

#[test]
fn names_columns_and_selectable_fields_are_as_documented() {
    let crd = crd();

    let columns = version(&crd)["additionalPrinterColumns"].as_array().expect("columns");
    let named = |wide: bool| {
        let shown =
            columns.iter().filter(|column| (column["priority"].as_i64().unwrap_or(0) > 0) == wide);
        shown
            .filter_map(|column| column["name"].as_str())
            .map(str::to_uppercase)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        named(false),
        ["SESSION", "DESIRED", "ATTACHED", "FAILED", "READY", "STATUS", "AGE"]
    );
    assert_eq!(named(true), ["REGION", "MESSAGE"]);
    assert_eq!(
        version(&crd)["selectableFields"],
        json!([{"jsonPath": ".spec.sessionId"}, {"jsonPath": ".spec.region"}])
    );
    assert_eq!(crd["spec"]["names"]["shortNames"], json!(["gss"]));
    assert_eq!(crd["spec"]["names"]["categories"], json!(["tencentcloud"]));
    assert_eq!(crd["spec"]["scope"], "Namespaced");
    assert_eq!((&version(&crd)["served"], &version(&crd)["storage"]), (&json!(true), &json!(true)));
}
