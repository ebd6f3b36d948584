//! Records as other systems take them: JSON lines, OCSF events, OTLP log records. Pure: who sends them
//! where is the service's matter.
//!
//! Every record carries its address, `<log id>/audit/<number>`: deliveries are at least once, and a
//! receiver that sees an address twice has the same record twice.

use serde_json::{Map, Value, json};

use crate::output;
use crate::path::rfc3339;
use crate::segment::join;
use crate::{Outcome, Record};
use chancery_token::b64;

/// The version of the Open Cybersecurity Schema Framework that [`ocsf`] writes.
pub const OCSF_VERSION: &str = "1.5.0";

/// OCSF's class Authentication, its category, and the activity "Service Ticket Request".
const AUTHENTICATION: u64 = 3_002;
const SERVICE_TICKET_REQUEST: u64 = 4;
/// OCSF's class Entity Management, and the activity "Update".
const ENTITY_MANAGEMENT: u64 = 3_004;
const UPDATE: u64 = 3;
const IDENTITY_AND_ACCESS: u64 = 3;
/// The activity that OCSF does not list.
const OTHER: u64 = 99;
/// OCSF's OAuth 2.0.
const OAUTH: u64 = 6;
/// Severities of OCSF.
const INFORMATIONAL: u64 = 1;
const LOW: u64 = 2;
/// Severities of OpenTelemetry.
const OTEL_INFO: u64 = 9;
const OTEL_WARN: u64 = 13;

/// A record and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// The log id.
    pub log: [u8; 16],
    /// The record's number in that log.
    pub number: u64,
    /// The record.
    pub record: Record,
}

impl Addressed {
    /// `<log id>/audit/<number>`: one record, for ever.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}/audit/{}", b64::encode(&self.log), self.number)
    }
}

/// As `chancery audit find --json` prints it, with its address.
#[must_use]
pub fn json(at: &Addressed) -> Value {
    let mut document = output::json(&at.record);
    if let Some(members) = document.as_object_mut() {
        members.insert("address_in_log".into(), at.address().into());
    }
    document
}

/// An event of OCSF [`OCSF_VERSION`]: Authentication for decisions, Entity Management for what an
/// operator changed. What OCSF has no attribute for is in `unmapped`.
#[must_use]
pub fn ocsf(at: &Addressed, software_version: &str) -> Value {
    let record = &at.record;
    let changed = record.outcome == Outcome::Changed;
    let (class, activity, name) = match record.outcome {
        Outcome::Granted | Outcome::Refused => {
            (AUTHENTICATION, SERVICE_TICKET_REQUEST, "Service Ticket Request")
        }
        Outcome::Voided => (AUTHENTICATION, OTHER, "Token Voided"),
        Outcome::Changed => (ENTITY_MANAGEMENT, UPDATE, "Update"),
    };
    let succeeded = matches!(record.outcome, Outcome::Granted | Outcome::Changed);
    let mut event = json!({
        "activity_id": activity,
        "activity_name": name,
        "category_uid": IDENTITY_AND_ACCESS,
        "category_name": "Identity & Access Management",
        "class_uid": class,
        "class_name": if changed { "Entity Management" } else { "Authentication" },
        "type_uid": class.saturating_mul(100).saturating_add(activity),
        "severity_id": if succeeded { INFORMATIONAL } else { LOW },
        "status_id": if succeeded { 1 } else { 2 },
        "status": if succeeded { "Success" } else { "Failure" },
        "time": record.time_ms,
        "count": record.count,
        "metadata": {
            "version": OCSF_VERSION,
            "uid": at.address(),
            "log_name": "audit",
            "product": {
                "name": "Chancery", "vendor_name": "Chancery", "version": software_version
            },
        },
        "unmapped": unmapped(record),
    });
    let Some(members) = event.as_object_mut() else { return event };
    for (name, text) in [("status_code", &record.code), ("status_detail", &record.detail)] {
        put(members, name, text);
    }
    if changed {
        let entity = if record.realm.is_empty() { "service" } else { &record.realm };
        members.insert("entity".into(), json!({ "name": entity, "type": record.code }));
        members.insert("actor".into(), json!({ "user": { "name": record.client } }));
    } else {
        authentication(members, record);
    }
    event
}

/// What OCSF's class Authentication has attributes for.
fn authentication(members: &mut Map<String, Value>, record: &Record) {
    let who = match (record.subject.as_str(), record.client.as_str()) {
        ("", "") => "unauthenticated",
        ("", client) => client,
        (subject, _) => subject,
    };
    members.insert("user".into(), json!({ "name": who, "uid": who }));
    members.insert("auth_protocol_id".into(), OAUTH.into());
    members.insert("auth_protocol".into(), "OAUTH 2.0".into());
    // OCSF wants one: where none was granted or none is known, whoever was asked for a token.
    let service = match (record.audiences.as_slice(), record.realm.as_str()) {
        ([], "") => "chancery".to_owned(),
        ([], realm) => realm.to_owned(),
        (audiences, _) => join(audiences),
    };
    members.insert("service".into(), json!({ "name": service }));
    if !record.address.is_empty() {
        members.insert("src_endpoint".into(), json!({ "ip": record.address }));
    }
    if !record.client.is_empty() {
        members.insert("actor".into(), json!({ "app_name": record.client }));
    }
    if let Some(token) = &record.token {
        let expires = token.exp.saturating_mul(1_000);
        let session = json!({
            "uid": token.jti, "issuer": record.realm, "expiration_time": expires
        });
        members.insert("session".into(), session);
    }
    let mut request = Map::new();
    put(&mut request, "uid", &record.request_id);
    put(&mut request, "user_agent", &record.user_agent);
    if !request.is_empty() {
        members.insert("http_request".into(), request.into());
    }
}

fn unmapped(record: &Record) -> Value {
    let mut members = Map::new();
    for (name, text) in
        [("realm", &record.realm), ("scope", &record.scope), ("grant_name", &record.grant)]
    {
        put(&mut members, name, text);
    }
    members.insert("policy_version".into(), record.policy_version.into());
    members.insert("latency_ms".into(), record.latency_ms.into());
    if let Some(token) = &record.token {
        members.insert("kid".into(), b64::encode(&token.kid).into());
        members.insert("digest".into(), hex(&token.digest).into());
        members.insert("lifetime_s".into(), token.lifetime_s.into());
    }
    members.into()
}

fn put(members: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        members.insert(name.into(), text.into());
    }
}

/// An `ExportLogsServiceRequest` of OTLP in its JSON encoding, as it is posted to `/v1/logs`.
#[must_use]
pub fn otlp(records: &[Addressed], software_version: &str) -> Value {
    let records: Vec<Value> = records.iter().map(log_record).collect();
    json!({
        "resourceLogs": [{
            "resource": { "attributes": [
                text_attribute("service.name", "chancery"),
                text_attribute("service.version", software_version),
            ] },
            "scopeLogs": [{
                "scope": { "name": "chancery.audit", "version": software_version },
                "logRecords": records,
            }],
        }],
    })
}

fn log_record(at: &Addressed) -> Value {
    let record = &at.record;
    let succeeded = matches!(record.outcome, Outcome::Granted | Outcome::Changed);
    let (severity, text) = if succeeded { (OTEL_INFO, "INFO") } else { (OTEL_WARN, "WARN") };
    // 64-bit integers are texts in the JSON encoding of protocol buffers.
    let nanos = record.time_ms.saturating_mul(1_000_000).to_string();
    let mut attributes = vec![text_attribute("chancery.address_in_log", &at.address())];
    if let Value::Object(members) = output::json(record) {
        for (name, value) in members.into_iter().filter(|(name, _)| name != "time") {
            attributes.push(attribute(&otel_name(&name), &value));
        }
    }
    json!({
        "timeUnixNano": nanos,
        "observedTimeUnixNano": nanos,
        "severityNumber": severity,
        "severityText": text,
        "eventName": format!("chancery.token.{}", record.outcome.as_str()),
        "body": { "stringValue": sentence(record) },
        "attributes": attributes,
    })
}

/// Names of OpenTelemetry's semantic conventions where there are some.
fn otel_name(name: &str) -> String {
    match name {
        "address" => "client.address".into(),
        "user_agent" => "user_agent.original".into(),
        other => format!("chancery.{other}"),
    }
}

fn text_attribute(name: &str, text: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": text } })
}

fn attribute(name: &str, value: &Value) -> Value {
    let value = match value {
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Array(values) => {
            let texts = values.iter().map(|v| json!({ "stringValue": v }));
            json!({ "arrayValue": { "values": texts.collect::<Vec<_>>() } })
        }
        other => json!({ "stringValue": other }),
    };
    json!({ "key": name, "value": value })
}

fn sentence(record: &Record) -> String {
    let who = if record.client.is_empty() { "an unknown client" } else { &record.client };
    let time = rfc3339(record.time_ms);
    match record.outcome {
        Outcome::Granted => format!("{time} granted a token of `{}` to `{who}`", record.realm),
        Outcome::Refused => {
            format!("{time} refused `{who}` a token of `{}`: {}", record.realm, record.code)
        }
        Outcome::Voided => format!("{time} voided a token of `{who}`"),
        Outcome::Changed => format!("{time} `{who}` changed: {}", record.code),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::tests::record;
    use proptest::prelude::*;

    fn at(record: Record) -> Addressed {
        Addressed { log: [7; 16], number: 41, record }
    }

    proptest! {
        #[test]
        fn whatever_is_recorded_has_what_ocsf_requires(record in record()) {
            let event = ocsf(&at(record.clone()), "1");
            for name in ["activity_id", "category_uid", "class_uid", "severity_id", "time", "type_uid"] {
                prop_assert!(event[name].is_u64(), "{name}");
            }
            let class = event["class_uid"].as_u64().unwrap();
            prop_assert_eq!(
                event["type_uid"].as_u64().unwrap(), class * 100 + event["activity_id"].as_u64().unwrap()
            );
            prop_assert_eq!(&event["metadata"]["uid"], &json!(at(record.clone()).address()));
            let needed = if class == ENTITY_MANAGEMENT { "entity" } else { "user" };
            prop_assert!(event[needed]["name"].as_str().is_some_and(|name| !name.is_empty()));
            prop_assert!(class == ENTITY_MANAGEMENT || event["service"]["name"].as_str() != Some(""));
            prop_assert_eq!(event["status_id"] == 1, matches!(record.outcome, Outcome::Granted | Outcome::Changed));
        }

        #[test]
        fn every_attribute_of_otlp_has_one_typed_value(record in record()) {
            let request = otlp(&[at(record)], "1");
            let log = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
            prop_assert!(log["timeUnixNano"].is_string());
            for attribute in log["attributes"].as_array().unwrap() {
                let value = attribute["value"].as_object().unwrap();
                prop_assert_eq!(value.len(), 1, "{}", attribute);
            }
        }
    }

    #[test]
    fn an_address_is_in_every_form() {
        let one = at(Record::new(5, Outcome::Granted));
        let address = "BwcHBwcHBwcHBwcHBwcHBw/audit/41";
        assert_eq!(one.address(), address);
        assert_eq!(json(&one)["address_in_log"], address);
        assert!(otlp(&[one], "1").to_string().contains(address));
    }
}
