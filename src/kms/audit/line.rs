//! One event as a line of JSON, without its place in the chain. Field names and order: CloudTrail's.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::identity::Identity;
use crate::clock::{Clock, Timestamp};
use crate::ids::{KeyId, KeyStoreId};
use crate::kms::event::Event;
use crate::kms::key::rfc3339_text;

/// The version of CloudTrail's record whose field names these are.
const EVENT_VERSION: &str = "1.11";

/// Puts events into words: knows who asks, and what time it is.
pub(in crate::kms) struct Recorder {
    identity: Identity,
    clock: Arc<dyn Clock>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    event_version: &'static str,
    event_time: String,
    event_source: &'static str,
    event_name: &'a str,
    user_identity: &'a Identity,
    user_agent: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    request_parameters: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    additional_event_data: &'a Map<String, Value>,
    #[serde(rename = "requestID")]
    request_id: String,
    #[serde(rename = "eventID")]
    event_id: String,
    read_only: bool,
    resources: Vec<Value>,
    event_type: &'static str,
    management_event: bool,
    event_category: &'static str,
}

impl Recorder {
    pub(in crate::kms) fn new(identity: Identity, clock: Arc<dyn Clock>) -> Self {
        Self { identity, clock }
    }

    pub(in crate::kms) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The text of an event: a JSON object that is yet to be chained.
    pub(in crate::kms) fn text(&self, store: KeyStoreId, event: &Event) -> String {
        let unique = || uuid::Uuid::new_v4().to_string();
        let record = Record {
            event_version: EVENT_VERSION,
            event_time: rfc3339_text(self.now()),
            event_source: "kms.cmkfs",
            event_name: event.name,
            user_identity: &self.identity,
            user_agent: concat!("cmkfs/", env!("CARGO_PKG_VERSION")),
            error_code: event.refused.as_ref().map(|refused| refused.code),
            error_message: event.refused.as_ref().map(|refused| &*refused.message),
            request_parameters: &event.request,
            additional_event_data: &event.additional,
            request_id: unique(),
            event_id: unique(),
            read_only: event.read_only,
            resources: event.key.iter().map(|key| resource(store, *key)).collect(),
            event_type: if event.by_itself {
                "CmkfsServiceEvent"
            } else {
                "CmkfsApiCall"
            },
            management_event: !event.data,
            event_category: if event.data { "Data" } else { "Management" },
        };
        // Names and texts only: nothing in it that JSON cannot say.
        serde_json::to_string(&record).expect("a record of strings and numbers")
    }
}

fn resource(store: KeyStoreId, key: KeyId) -> Value {
    json!({
        "type": "CMKFS::KMS::Key",
        "ARN": format!("arn:cmkfs:kms:local:{store}:key/{key}"),
    })
}
