//! The responses of the endpoint's pages.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};

/// A response with a complete body.
pub(super) type AdminResponse = Response<Full<Bytes>>;

/// The media type of texts.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Returns a response with this body, which must not be cached, and which pages of other sites cannot include.
pub(super) fn page(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> AdminResponse {
    let mut reply = Response::new(Full::from(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    let fixed = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}

/// Returns a response with a line of text.
pub(super) fn text(status: StatusCode, line: &str) -> AdminResponse {
    page(status, TEXT, format!("{line}\n").into_bytes())
}

/// Returns a 405 with the methods that the page supports.
pub(super) fn wrong_method(allowed: &'static str) -> AdminResponse {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, &format!("this page has {allowed}"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// Returns the bytes of a response for a connection without a request that hyper can answer.
pub(super) fn refusal(status: StatusCode, line: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        line.len() + 1,
    );
    [head.as_bytes(), line.as_bytes(), b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_complete_response() {
        let refusal = refusal(StatusCode::REQUEST_TIMEOUT, "too late");
        let expected = "HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\
                        Content-Length: 9\r\nCache-Control: no-store\r\nConnection: close\r\n\r\ntoo late\n";
        assert_eq!(String::from_utf8(refusal).unwrap(), expected);
    }
}
