//! The pages: which request gets which answer.

use std::time::Duration;

use super::http::{Method, Request, Response};
use super::{Health, Source, json, process, prometheus};

/// The most that one request moves the manual clock: a year is more than any timer waits.
const ADVANCE_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// Answers a request.
pub(super) fn answer(request: &Request, source: &dyn Source) -> Response {
    match request.path.as_str() {
        "/stats" => read_only(request, || stats(source)),
        "/metrics" => read_only(request, || metrics(source)),
        "/healthz" => read_only(request, || healthz(source)),
        "/clock" if source.info().manual_clock => clock(request, source),
        _ => Response::text(404, "no such page: there are /stats, /metrics and /healthz"),
    }
}

fn read_only(request: &Request, page: impl FnOnce() -> Response) -> Response {
    match request.method {
        Method::Get | Method::Head => page(),
        Method::Post | Method::Other => Response::wrong_method("GET, HEAD"),
    }
}

fn stats(source: &dyn Source) -> Response {
    let Some(shards) = source.snapshot() else { return no_snapshot() };
    match json::stats(&source.info(), &process::read(), &shards) {
        Ok(page) => Response::new(200, "application/json", page),
        Err(error) => Response::text(500, &format!("the statistics could not be written: {error}")),
    }
}

fn metrics(source: &dyn Source) -> Response {
    let Some(shards) = source.snapshot() else { return no_snapshot() };
    let page = prometheus::metrics(&source.info(), &process::read(), &shards);
    Response::new(200, prometheus::CONTENT_TYPE, page)
}

fn no_snapshot() -> Response {
    Response::text(503, "a shard did not answer in time")
}

fn healthz(source: &dyn Source) -> Response {
    match source.healthy() {
        Health::Healthy => Response::text(200, "ok"),
        Health::Unhealthy(why) => Response::text(503, &why),
    }
}

fn clock(request: &Request, source: &dyn Source) -> Response {
    if request.method != Method::Post {
        return Response::wrong_method("POST");
    }
    let Some(ms) = advance_ms(&request.query) else {
        return Response::text(400, "advance=MS is needed, in milliseconds, a year at most");
    };
    match source.advance_clock(Duration::from_millis(ms)) {
        true => Response::new(200, "application/json", format!("{{\"advanced_ms\":{ms}}}\n").into_bytes()),
        false => Response::text(503, "the clock could not be moved"),
    }
}

/// The `advance` of a query, where it is there once and is a number in range.
fn advance_ms(query: &str) -> Option<u64> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("advance="));
    let value = values.next()?;
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !is_number || values.next().is_some() {
        return None;
    }
    value.parse().ok().filter(|&ms| ms <= ADVANCE_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances() {
        for (query, expected) in [
            ("advance=0", Some(0)),
            ("advance=1500", Some(1500)),
            ("a=b&advance=7", Some(7)),
            ("advance=31622400000", Some(ADVANCE_MS_MAX)),
            ("advance=31622400001", None),
            ("advance=99999999999999999999", None),
            ("advance=1&advance=2", None),
            ("advance=+1", None),
            ("advance=-1", None),
            ("advance=1s", None),
            ("advance=", None),
            ("advance", None),
            ("", None),
        ] {
            assert_eq!(advance_ms(query), expected, "{query:?}");
        }
    }
}
