//! The pages: creates the response to each request.

use std::time::Duration;

use hyper::{Method, Request, StatusCode};

use super::reply::{self, AdminResponse};
use super::{Health, Source, json, process, prometheus};

/// The maximum time in milliseconds by which one request advances the manual clock: no timer waits for a year.
const ADVANCE_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// Returns the response to a request. The body of the request is not read.
pub(super) async fn answer<B>(request: &Request<B>, source: &impl Source) -> AdminResponse {
    let uri = request.uri();
    match uri.path() {
        "/stats" | "/histograms" | "/metrics" | "/healthz"
            if ![Method::GET, Method::HEAD].contains(request.method()) =>
        {
            reply::wrong_method("GET, HEAD")
        }
        "/stats" => stats(source).await,
        "/histograms" => histograms(source).await,
        "/metrics" => metrics(source).await,
        "/healthz" => healthz(source).await,
        "/clock" if source.info().manual_clock => {
            clock(request.method(), uri.query().unwrap_or_default(), source).await
        }
        _ => {
            let pages = "no such page: there are /stats, /histograms, /metrics and /healthz";
            reply::text(StatusCode::NOT_FOUND, pages)
        }
    }
}

async fn stats(source: &impl Source) -> AdminResponse {
    let Some(shards) = source.snapshot().await else { return no_snapshot() };
    json_page(json::stats(&source.info(), &process::read(), &shards))
}

async fn histograms(source: &impl Source) -> AdminResponse {
    let Some(shards) = source.snapshot().await else { return no_snapshot() };
    json_page(json::histograms(&shards))
}

fn json_page(page: serde_json::Result<Vec<u8>>) -> AdminResponse {
    match page {
        Ok(page) => reply::page(StatusCode::OK, "application/json", page),
        Err(error) => reply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("the statistics could not be written: {error}"),
        ),
    }
}

async fn metrics(source: &impl Source) -> AdminResponse {
    let Some(shards) = source.snapshot().await else { return no_snapshot() };
    let page = prometheus::metrics(&source.info(), &process::read(), &shards);
    reply::page(StatusCode::OK, prometheus::CONTENT_TYPE, page)
}

fn no_snapshot() -> AdminResponse {
    reply::text(StatusCode::SERVICE_UNAVAILABLE, "a shard did not answer in time")
}

async fn healthz(source: &impl Source) -> AdminResponse {
    match source.health().await {
        Health::Healthy => reply::text(StatusCode::OK, "ok"),
        Health::Unhealthy(why) => reply::text(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

async fn clock(method: &Method, query: &str, source: &impl Source) -> AdminResponse {
    if method != Method::POST {
        return reply::wrong_method("POST");
    }
    let Some(ms) = advance_ms(query) else {
        let why = "advance=MS is needed, in milliseconds, a year at most";
        return reply::text(StatusCode::BAD_REQUEST, why);
    };
    if source.advance_clock(Duration::from_millis(ms)).await {
        reply::page(StatusCode::OK, "application/json", format!("{{\"advanced_ms\":{ms}}}\n").into_bytes())
    } else {
        reply::text(StatusCode::SERVICE_UNAVAILABLE, "the clock could not be moved")
    }
}

/// Returns the `advance` of a query if it is given once and is a number in range.
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
