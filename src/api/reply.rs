//! Answers of the server API.

use super::refusal::ApiRefusal;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// The response of hyper.
pub(super) type ApiResponse = Response<Full<Bytes>>;

/// The seconds after which a back end should repeat a request that the server had no room for.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An answer: its status and its body, which is JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiAnswer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl ApiAnswer {
    /// Answers 200 with this body.
    pub fn ok(body: &impl Serialize) -> ApiAnswer {
        ApiAnswer { status: StatusCode::OK, body: to_json(body) }
    }

    /// Answers 200 with this JSON.
    pub fn ok_json(json: String) -> ApiAnswer {
        let mut bytes = json.into_bytes();
        bytes.push(b'\n');
        ApiAnswer { status: StatusCode::OK, body: bytes.into() }
    }

    /// Returns the response.
    pub fn into_response(self) -> ApiResponse {
        let mut response = Response::new(Full::new(self.body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"quickio\""));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
            }
            _ => {}
        }
        *response.status_mut() = self.status;
        response
    }
}

impl From<ApiRefusal> for ApiAnswer {
    fn from(refusal: ApiRefusal) -> ApiAnswer {
        ApiAnswer { status: refusal.status, body: to_json(&refusal) }
    }
}

/// Returns a 405 with the methods that the path supports.
pub(super) fn wrong_method(allowed: &'static str) -> ApiResponse {
    let error = format!("this path takes {allowed}");
    let mut response =
        ApiAnswer::from(ApiRefusal::new(StatusCode::METHOD_NOT_ALLOWED, &error)).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn to_json(body: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(body).expect("answers have only texts, numbers and lists");
    bytes.push(b'\n');
    bytes.into()
}

/// Returns the bytes of a response for a connection without a request that hyper can answer.
pub(super) fn refusal_bytes(status: StatusCode, error: &str) -> Vec<u8> {
    let body = to_json(&ApiRefusal::new(status, error));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        body.len(),
    );
    [head.as_bytes(), &body].concat()
}
