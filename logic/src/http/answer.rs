//! goim's envelope, and every way a request is refused.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::json;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A request that goim calls wrong.
pub const BAD_REQUEST: i32 = -400;
/// A request that failed behind us.
pub const SERVER_ERROR: i32 = -500;

/// goim's envelope. `data` is left out when there is none.
#[derive(Debug, Serialize)]
struct Envelope<T> {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

/// Why a request gets no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// 400: a parameter is missing or wrong. goim sends it as plain text.
    Parameter(String),
    /// 200 with a code: goim's way to say that it will not work.
    Failed(i32, String),
    /// 503: try again.
    Away(i32, String),
    /// 401: no token, or one nobody gave out.
    Unauthorized,
    /// 403: the token is not for this route.
    Forbidden(String),
    /// 408: the body did not come in time.
    Slow,
    /// 413: the body or the list of keys is too long.
    TooLarge(String),
    /// 429: more than the token's rate; seconds until there is room again.
    TooMany(u64),
}

/// 200, code 0.
pub fn ok(data: impl Serialize) -> Response {
    envelope(StatusCode::OK, JSON, 0, String::new(), Some(data))
}

fn envelope<T: Serialize>(
    status: StatusCode,
    content_type: HeaderValue,
    code: i32,
    message: String,
    data: Option<T>,
) -> Response {
    let mut response = Response::new(Body::from(json::to_vec(&Envelope { code, message, data })));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let refuse = |status: StatusCode, message: String, header: Option<(HeaderName, HeaderValue)>| {
            let mut response = envelope::<()>(status, JSON, -i32::from(status.as_u16()), message, None);
            response.headers_mut().extend(header);
            response
        };
        match refusal {
            Refusal::Parameter(message) => envelope::<()>(StatusCode::BAD_REQUEST, TEXT, BAD_REQUEST, message, None),
            Refusal::Failed(code, message) => envelope::<()>(StatusCode::OK, JSON, code, message, None),
            Refusal::Away(code, message) => {
                let mut response = envelope::<()>(StatusCode::SERVICE_UNAVAILABLE, JSON, code, message, None);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            Refusal::Unauthorized => refuse(
                StatusCode::UNAUTHORIZED,
                "expected the header `Authorization: Bearer <push token>` with a token of --push-tokens".to_owned(),
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            ),
            Refusal::Forbidden(message) => refuse(StatusCode::FORBIDDEN, message, None),
            Refusal::Slow => refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned(), None),
            Refusal::TooLarge(message) => refuse(StatusCode::PAYLOAD_TOO_LARGE, message, None),
            Refusal::TooMany(seconds) => refuse(
                StatusCode::TOO_MANY_REQUESTS,
                "more pushes than this token may make, try again later".to_owned(),
                Some((RETRY_AFTER, HeaderValue::from(seconds))),
            ),
        }
    }
}

/// 404 as gin answers it: the content type has no charset.
pub fn not_found() -> Response {
    let mut response = Response::new(Body::from("404 page not found"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// 500 without a body: the handler panicked.
pub fn panicked() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Sends a GET there for good (301, with Go's little page), anything else with its method and body (307).
pub fn redirect(to: &str, get: bool) -> Response {
    let status = if get { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
    let Ok(location) = HeaderValue::try_from(to) else {
        return not_found();
    };
    let mut response = Response::new(Body::empty());
    if get {
        let escaped = to
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&#34;")
            .replace('\'', "&#39;");
        *response.body_mut() = Body::from(format!("<a href=\"{escaped}\">Moved Permanently</a>.\n\n"));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    response
}
