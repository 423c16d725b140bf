//! The reasons for which requests are refused, and their answers.

use hyper::StatusCode;
use serde::Serialize;

/// A request that is refused: the status, and the body, which is `{"error": ...}` and may name a line or an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ApiRefusal {
    #[serde(skip)]
    pub status: StatusCode,
    pub error: String,
    /// The first line of the body that is not valid, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The first event of the body that is not valid, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<usize>,
}

impl ApiRefusal {
    /// Refuses a request with this status.
    pub fn new(status: StatusCode, error: &str) -> ApiRefusal {
        ApiRefusal { status, error: error.to_owned(), line: None, event: None }
    }

    /// Refuses a body that is not valid.
    pub fn invalid(error: &str) -> ApiRefusal {
        ApiRefusal::new(StatusCode::BAD_REQUEST, error)
    }

    /// Refuses a body with this first bad line.
    pub fn line(number: usize, error: &str) -> ApiRefusal {
        ApiRefusal { line: Some(number), ..ApiRefusal::invalid(&format!("line {number}: {error}")) }
    }

    /// Refuses a body with this first bad event.
    pub fn event(number: usize, error: &str) -> ApiRefusal {
        ApiRefusal { event: Some(number), ..ApiRefusal::invalid(&format!("event {number}: {error}")) }
    }

    /// Refuses a request because a part of the server has no room for it now.
    pub fn busy(error: &str) -> ApiRefusal {
        ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}
