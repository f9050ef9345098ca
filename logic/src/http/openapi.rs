//! The API's own description, OpenAPI 3.1, as it stands in `openapi.json`.

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

/// The document.
pub const DOCUMENT: &str = include_str!("../openapi.json");

/// GET /openapi.json.
pub fn answer() -> Response {
    let mut response = Response::new(Body::from(DOCUMENT));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::Route;

    fn document() -> serde_json::Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            described.extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
        }
        let routes = Route::ALL.map(|route| (route.method().to_string(), route.path().to_owned()));
        assert_eq!(described, BTreeSet::from(routes));
    }

    #[test]
    fn every_push_needs_a_token_and_every_operation_has_an_id_and_answers() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        for route in Route::ALL {
            let operation = &document["paths"][route.path()][route.method().as_str().to_lowercase()];
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{}", route.path());
            assert!(operation["responses"]["200"].is_object(), "{}", route.path());
            assert_eq!(operation["security"].is_array(), route.pushes(), "{}", route.path());
            if route.pushes() {
                for status in ["400", "401", "403", "408", "413", "414", "429", "503"] {
                    assert!(operation["responses"][status].is_object(), "{} {status}", route.path());
                }
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &serde_json::Value, document: &serde_json::Value) {
            match value {
                serde_json::Value::Object(fields) => {
                    if let Some(reference) = fields.get("$ref").and_then(|reference| reference.as_str()) {
                        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
                    }
                    fields.values().for_each(|value| check(value, document));
                }
                serde_json::Value::Array(values) => values.iter().for_each(|value| check(value, document)),
                _ => {}
            }
        }
        let document = document();
        check(&document, &document);
    }
}
