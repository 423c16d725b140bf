//! The pages: creates the response to each request.

use std::net::IpAddr;
use std::time::Duration;

use hyper::{Method, Request, StatusCode};

use super::access::{AccessCheck, Protection};
use super::reply::{self, AdminResponse};
use super::{Health, Info, Source, documents, json, process, prometheus};
use crate::inspect::ClientId;
use crate::limits::{CLIENTS_LISTED_MAX, PATHS_LISTED_MAX};

/// The maximum time in milliseconds by which one request advances the manual clock: no timer waits for a year.
const ADVANCE_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// A page of the endpoint.
#[derive(Clone, Copy)]
enum AdminPage<'a> {
    Stats,
    Histograms,
    Metrics,
    Healthz,
    Clock,
    Clients,
    /// The text is to be a client.
    Client(&'a str),
    BusiestPaths,
    Workers,
    /// A document of the operator's page.
    Document,
    /// No page.
    Missing,
}

impl AdminPage<'_> {
    fn at(path: &str) -> AdminPage<'_> {
        match path {
            "/stats" => AdminPage::Stats,
            "/histograms" => AdminPage::Histograms,
            "/metrics" => AdminPage::Metrics,
            "/healthz" => AdminPage::Healthz,
            "/clock" => AdminPage::Clock,
            "/clients" => AdminPage::Clients,
            "/paths/busiest" => AdminPage::BusiestPaths,
            "/workers" => AdminPage::Workers,
            path if documents::exists(path) => AdminPage::Document,
            path => path.strip_prefix("/clients/").map_or(AdminPage::Missing, AdminPage::Client),
        }
    }

    fn protection(self) -> Protection {
        match self {
            // Load balancers and service managers ask for it, and learn nothing but `ok`.
            AdminPage::Healthz => Protection::None,
            AdminPage::Stats
            | AdminPage::Histograms
            | AdminPage::Metrics
            | AdminPage::Clock
            | AdminPage::Missing => Protection::Password,
            AdminPage::Clients
            | AdminPage::Client(_)
            | AdminPage::BusiestPaths
            | AdminPage::Workers
            | AdminPage::Document => Protection::PasswordOrLoopback,
        }
    }
}

/// Returns the response to a request of this peer. The body of the request is not read.
pub(super) async fn answer<B>(
    request: &Request<B>,
    peer: Option<IpAddr>,
    access: &AccessCheck,
    source: &impl Source,
) -> AdminResponse {
    let uri = request.uri();
    let page = AdminPage::at(uri.path());
    if let Some(refusal) = access.refuse(request, peer, page.protection()) {
        return refusal;
    }
    let info = || Info { logins: access.counts(), ..source.info() };
    let query = uri.query().unwrap_or_default();
    let method = request.method();
    match page {
        AdminPage::Missing => no_such_page(),
        AdminPage::Clock if source.info().manual_clock => clock(method, query, source).await,
        AdminPage::Clock => no_such_page(),
        _ if ![Method::GET, Method::HEAD].contains(method) => reply::wrong_method("GET, HEAD"),
        AdminPage::Stats => stats(info(), source).await,
        AdminPage::Histograms => histograms(query, source).await,
        AdminPage::Metrics => metrics(info(), source).await,
        AdminPage::Healthz => healthz(source).await,
        AdminPage::Clients => clients(query, source).await,
        AdminPage::Client(id) => client(id, source).await,
        AdminPage::BusiestPaths => busiest_paths(query, source).await,
        AdminPage::Workers => workers(source).await,
        AdminPage::Document => documents::document(uri.path()).unwrap_or_else(no_such_page),
    }
}

fn no_such_page() -> AdminResponse {
    let pages = "no such page: there are /, /stats, /histograms, /metrics, /healthz, /clients, /clients/ID, /paths/busiest \
                 and /workers";
    reply::text(StatusCode::NOT_FOUND, pages)
}

async fn clients(query: &str, source: &impl Source) -> AdminResponse {
    let Some(count) = count_of(query, "slowest", CLIENTS_LISTED_MAX) else {
        return reply::text(StatusCode::BAD_REQUEST, "slowest=N is a number of clients from 1 to 100");
    };
    let Some(slowest) = source.slowest_clients().await else { return no_snapshot() };
    let shown = &slowest.clients[..count.min(slowest.clients.len())];
    json_page(json::list("clients", shown))
}

async fn client(id: &str, source: &impl Source) -> AdminResponse {
    let id = match id.parse::<ClientId>() {
        Ok(id) => id,
        Err(error) => return reply::text(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match source.client(id).await {
        Some(Some(details)) => json_page(json::single(&*details)),
        Some(None) => {
            reply::text(StatusCode::NOT_FOUND, "no such client: it has disconnected, or never connected")
        }
        None => no_snapshot(),
    }
}

async fn busiest_paths(query: &str, source: &impl Source) -> AdminResponse {
    let Some(count) = count_of(query, "count", PATHS_LISTED_MAX) else {
        return reply::text(StatusCode::BAD_REQUEST, "count=N is a number of paths from 1 to 100");
    };
    let Some(busiest) = source.busiest_paths().await else { return no_snapshot() };
    json_page(json::list("paths", busiest.first(count)))
}

async fn workers(source: &impl Source) -> AdminResponse {
    let Some(workers) = source.workers().await else {
        return reply::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the supervisor of the workers did not answer in time",
        );
    };
    json_page(json::list("workers", &workers))
}

/// The number of clients or paths if a query does not name one.
const LISTED: usize = 20;

/// Returns the number in a query if it is given at most once, and is in range.
fn count_of(query: &str, name: &str, max: usize) -> Option<usize> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let Some(value) = values.next() else { return Some(LISTED) };
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) && values.next().is_none();
    is_number.then(|| value.parse().ok()).flatten().filter(|count| (1..=max).contains(count))
}

async fn stats(info: Info, source: &impl Source) -> AdminResponse {
    let Some(shards) = source.snapshot().await else { return no_snapshot() };
    json_page(json::stats(&info, &process::read(), &shards))
}

async fn histograms(query: &str, source: &impl Source) -> AdminResponse {
    let only = query.split('&').find_map(|pair| pair.strip_prefix("latency="));
    let Some(timings) = json::timings(only) else {
        return reply::text(
            StatusCode::NOT_FOUND,
            "no such latency: /histograms without a query has all of them",
        );
    };
    let Some(shards) = source.snapshot().await else { return no_snapshot() };
    json_page(json::histograms(&shards, &timings))
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

async fn metrics(info: Info, source: &impl Source) -> AdminResponse {
    let Some(shards) = source.snapshot().await else { return no_snapshot() };
    let page = prometheus::metrics(&info, &process::read(), &shards);
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
    fn counts() {
        for (query, expected) in [
            ("", Some(LISTED)),
            ("other=1", Some(LISTED)),
            ("count=1", Some(1)),
            ("a=b&count=100", Some(100)),
            ("count=0", None),
            ("count=101", None),
            ("count=", None),
            ("count=-1", None),
            ("count=1&count=1", None),
            ("count=99999999999999999999", None),
            ("counts=5", Some(LISTED)),
        ] {
            assert_eq!(count_of(query, "count", 100), expected, "{query:?}");
        }
    }

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
