//! One request: its route, its key, its body, and its answer.

use super::batch::EventList;
use super::bodies;
use super::budget::Charge;
use super::commands::{self, CommandKind};
use super::idempotency::{KeyState, KeyedRequest};
use super::keys::ApiKey;
use super::messages::{ApiMessage, ShardsBusy};
use super::query::{HistoryQuery, Query};
use super::refusal::ApiRefusal;
use super::reply::{ApiAnswer, ApiResponse, wrong_method};
use super::{ApiEndpoint, Shards};
use crate::config::Scope;
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::log::throttle;
use crate::metrics::Counter;
use crate::qev::control::timeout;
use futures_channel::oneshot;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// The header by which a back end names a request that it may repeat.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The description of the API for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// A route that needs a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Post(PostRoute),
    Get(GetRoute),
}

/// A request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PostRoute {
    Broadcast,
    Command(CommandKind),
}

/// A request that reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GetRoute {
    Paths,
    Clients,
    History,
    Info,
}

impl Route {
    fn find(path: &str) -> Option<Route> {
        Some(match path {
            "/broadcast" => Route::Post(PostRoute::Broadcast),
            "/send" => Route::Post(PostRoute::Command(CommandKind::Send)),
            "/close" => Route::Post(PostRoute::Command(CommandKind::Close)),
            "/on" => Route::Post(PostRoute::Command(CommandKind::On)),
            "/off" => Route::Post(PostRoute::Command(CommandKind::Off)),
            "/paths" => Route::Get(GetRoute::Paths),
            "/clients" => Route::Get(GetRoute::Clients),
            "/history" => Route::Get(GetRoute::History),
            "/info" => Route::Get(GetRoute::Info),
            _ => return None,
        })
    }

    fn scope(self) -> Scope {
        match self {
            Route::Post(PostRoute::Broadcast) => Scope::Broadcast,
            Route::Post(PostRoute::Command(CommandKind::Send)) => Scope::Send,
            Route::Post(PostRoute::Command(_)) => Scope::Clients,
            Route::Get(_) => Scope::Read,
        }
    }

    /// Returns the refusal of a method that the route does not have.
    fn refuse_method(self, method: &Method) -> Option<ApiResponse> {
        match self {
            Route::Post(_) => (method != Method::POST).then(|| wrong_method("POST")),
            Route::Get(_) => {
                (![Method::GET, Method::HEAD].contains(method)).then(|| wrong_method("GET, HEAD"))
            }
        }
    }
}

/// Answers a request.
pub(super) async fn answer<S: Shards>(
    endpoint: &Rc<ApiEndpoint<S>>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> ApiResponse {
    endpoint.count(Counter::ApiRequests, 1);
    let path = request.uri().path();
    if path == "/openapi.json" {
        return document(request.method());
    }
    let Some(route) = Route::find(path) else {
        let error = "no such path: GET /openapi.json describes those that there are";
        return ApiAnswer::from(ApiRefusal::new(StatusCode::NOT_FOUND, error)).into_response();
    };
    if let Some(refusal) = route.refuse_method(request.method()) {
        return refusal;
    }
    let answer = match endpoint.authorize(peer, request.headers(), route.scope()) {
        Ok(key) => match route {
            Route::Post(route) => endpoint.answer_post(route, &key, request).await,
            Route::Get(route) => endpoint.answer_get(route, request.uri().query().unwrap_or_default()).await,
        },
        Err(refusal) => Err(refusal),
    };
    answer.unwrap_or_else(|refusal| endpoint.refused(refusal)).into_response()
}

fn document(method: &Method) -> ApiResponse {
    if ![Method::GET, Method::HEAD].contains(method) {
        return wrong_method("GET, HEAD");
    }
    ApiAnswer { status: StatusCode::OK, body: Bytes::from_static(OPENAPI.as_bytes()) }.into_response()
}

/// The answer to a broadcast.
#[derive(Serialize)]
struct Accepted {
    accepted: usize,
}

impl<S: Shards> ApiEndpoint<S> {
    pub(super) fn count(&self, counter: Counter, n: u64) {
        self.parts.counters.add(counter, n);
    }

    /// Counts a refusal.
    fn refused(&self, refusal: ApiRefusal) -> ApiAnswer {
        let counter = match refusal.status {
            StatusCode::UNAUTHORIZED => Counter::ApiRefusedKey,
            StatusCode::FORBIDDEN => Counter::ApiRefusedScope,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Counter::ApiRefusedBusy,
            _ => Counter::ApiRefusedInvalid,
        };
        self.count(counter, 1);
        refusal.into()
    }

    /// Returns the key of a request that has it, if the key has a scope.
    fn authorize(&self, peer: SocketAddr, headers: &HeaderMap, scope: Scope) -> Result<ApiKey, ApiRefusal> {
        let secret = bearer(headers);
        let Some(key) = secret.and_then(|secret| self.parts.keys.find(secret)) else {
            let why = if secret.is_some() { "the key is unknown" } else { "there is no key" };
            throttle!(warn, "keys of the server API", %peer,
                "request to the server API refused: {why}; a back end sends `Authorization: Bearer SECRET` with the secret of \
                 one of [[api-keys]]");
            let error = match secret {
                Some(_) => "the key is unknown",
                None => "a key is needed: send the header `Authorization: Bearer SECRET`",
            };
            return Err(ApiRefusal::new(StatusCode::UNAUTHORIZED, error));
        };
        if key.has(scope) {
            return Ok(key);
        }
        let scope = scope.name();
        throttle!(warn, "scopes of the server API", %peer, key = %key.name(),
            "request to the server API refused: the key does not have the scope {scope}; add it to its scopes in \
             [[api-keys]] if it should");
        Err(ApiRefusal::new(StatusCode::FORBIDDEN, &format!("the key does not have the scope {scope}")))
    }

    async fn answer_get(&self, route: GetRoute, query: &str) -> Result<ApiAnswer, ApiRefusal> {
        match route {
            GetRoute::Paths => {
                let query = Query::parse(query, "prefix")?;
                self.list_paths(query.filter.as_deref().unwrap_or_default(), query.page).await
            }
            GetRoute::Clients => {
                let query = Query::parse(query, "user")?;
                let user = query.filter.as_deref().map(commands::user).transpose()?;
                self.list_clients(user, query.page).await
            }
            GetRoute::History => self.history(HistoryQuery::parse(query)?).await,
            GetRoute::Info => self.info().await,
        }
    }

    /// Answers a request with a body, unless it has a key of a request that was answered before.
    async fn answer_post(
        self: &Rc<Self>,
        route: PostRoute,
        key: &ApiKey,
        request: Request<Incoming>,
    ) -> Result<ApiAnswer, ApiRefusal> {
        let kind = BodyKind::of(request.headers())?;
        if kind == BodyKind::Text && route != PostRoute::Broadcast {
            return Err(wrong_type("application/json"));
        }
        let idempotency_key = idempotency_key(request.headers())?;
        let path = request.uri().path().to_owned();
        let (body, charge) = self.body(request.into_body()).await?;
        let Some(idempotency_key) = idempotency_key else {
            return self.handle(route, kind, body, charge).await;
        };
        let keyed = KeyedRequest::new(key.name(), &idempotency_key, &[path.as_bytes(), &[kind as u8], &body]);
        let state = self.remembered.borrow_mut().begin(&keyed, self.now());
        match state {
            KeyState::New => self.handle_to_the_end(route, kind, body, charge, keyed).await,
            KeyState::Done(answer) => {
                self.count(Counter::ApiReplayed, 1);
                Ok(answer)
            }
            KeyState::InProgress => {
                let error = "a request with this Idempotency-Key is being carried out";
                Err(ApiRefusal::new(StatusCode::CONFLICT, error))
            }
            KeyState::OfAnother => {
                let error = "the Idempotency-Key was used for another request";
                Err(ApiRefusal::new(StatusCode::UNPROCESSABLE_ENTITY, error))
            }
        }
    }

    /// Handles a request in a task of its own, and remembers its answer: the back end may disconnect meanwhile.
    async fn handle_to_the_end(
        self: &Rc<Self>,
        route: PostRoute,
        kind: BodyKind,
        body: Vec<u8>,
        charge: Charge,
        keyed: KeyedRequest,
    ) -> Result<ApiAnswer, ApiRefusal> {
        let (sender, answered) = oneshot::channel();
        let endpoint = Rc::clone(self);
        self.spawner.spawn(async move {
            let answer = endpoint.handle(route, kind, body, charge).await;
            endpoint.remember(&keyed, answer.as_ref());
            // The back end may have disconnected.
            let _ = sender.send(answer);
        });
        let stopping = |_| Err(ApiRefusal::busy("the server is shutting down"));
        answered.await.unwrap_or_else(stopping)
    }

    /// Remembers the answer of a request that was carried out, or may have been, and forgets one that was refused.
    fn remember(&self, keyed: &KeyedRequest, answer: Result<&ApiAnswer, &ApiRefusal>) {
        let mut remembered = self.remembered.borrow_mut();
        match answer {
            Ok(answer) => remembered.complete(keyed, answer.clone(), self.now()),
            Err(refusal) if refusal.status == StatusCode::GATEWAY_TIMEOUT => {
                remembered.complete(keyed, refusal.clone().into(), self.now());
            }
            Err(_) => remembered.abandon(keyed),
        }
        let evicted = remembered.take_evicted();
        if evicted > 0 {
            self.count(Counter::ApiKeysEvicted, evicted);
            throttle!(
                warn,
                "idempotency keys",
                "an Idempotency-Key was forgotten before five minutes had passed, because there are too many"
            );
        }
    }

    /// Receives the body of a request, within its bounds. The charge is for its memory.
    async fn body(&self, mut body: Incoming) -> Result<(Vec<u8>, Charge), ApiRefusal> {
        let max = self.parts.bounds.body_bytes;
        if body.size_hint().lower() > max as u64 {
            return Err(too_large(max));
        }
        let receive = async {
            let (mut bytes, mut charge) = (Vec::new(), self.budget.charge());
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| ApiRefusal::invalid("the body ended too early"))?;
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > max {
                    return Err(too_large(max));
                }
                bytes.extend_from_slice(&data);
                if !charge.set(bytes.capacity()) {
                    return Err(no_memory());
                }
            }
            Ok((bytes, charge))
        };
        let late = || Err(ApiRefusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"));
        timeout(self.times.body, receive).await.unwrap_or_else(late)
    }

    async fn handle(
        &self,
        route: PostRoute,
        kind: BodyKind,
        body: Vec<u8>,
        charge: Charge,
    ) -> Result<ApiAnswer, ApiRefusal> {
        match route {
            PostRoute::Broadcast => self.broadcast(kind, body, charge),
            PostRoute::Command(command) => {
                let (target, action) = commands::parse(command, &body)?;
                drop(body);
                let answer = self.act(target, action).await;
                drop(charge);
                answer
            }
        }
    }

    /// Handles `POST /broadcast`.
    fn broadcast(&self, kind: BodyKind, body: Vec<u8>, mut charge: Charge) -> Result<ApiAnswer, ApiRefusal> {
        let list: EventList = match kind {
            BodyKind::Text => bodies::parse_lines(body)?,
            BodyKind::Json => bodies::parse_json(&body)?,
        };
        if !charge.set(list.bytes()) {
            return Err(no_memory());
        }
        let accepted = list.len();
        let batches = list.into_batches(charge, self.shards.count(), |path| self.shards.of_path(path));
        let messages = batches.into_iter().map(|(shard, batch)| (shard, ApiMessage::Broadcast(batch)));
        self.shards.post_all(messages.collect()).map_err(|ShardsBusy| {
            ApiRefusal::busy("a shard has no room for the events now; nothing was broadcast; try again")
        })?;
        self.count(Counter::ApiEvents, accepted as u64);
        Ok(ApiAnswer::ok(&Accepted { accepted }))
    }

    /// Returns the time since the start of the API.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    Text,
    Json,
}

impl BodyKind {
    /// Returns the form that the headers of a request name.
    fn of(headers: &HeaderMap) -> Result<BodyKind, ApiRefusal> {
        let value = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        let essence = value.unwrap_or_default().split(';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case("text/plain") {
            Ok(BodyKind::Text)
        } else if essence.eq_ignore_ascii_case("application/json") {
            Ok(BodyKind::Json)
        } else {
            Err(wrong_type("text/plain or application/json"))
        }
    }
}

fn wrong_type(allowed: &str) -> ApiRefusal {
    let error = format!("the Content-Type must be {allowed}");
    ApiRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error)
}

fn too_large(max: usize) -> ApiRefusal {
    let error = format!("the body is larger than {max} bytes (api-body-bytes-max)");
    ApiRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, &error)
}

fn no_memory() -> ApiRefusal {
    ApiRefusal::busy(
        "the requests that are not done yet take too much memory (api-bytes-max); nothing was done; try again",
    )
}

/// Returns the secret of `Authorization: Bearer SECRET` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim_ascii())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiRefusal> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    // hyper takes a tab and a space for visible.
    let is_visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(key) if is_visible && (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => {
            Ok(Some(key.to_owned()))
        }
        _ => {
            let error =
                format!("an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
            Err(ApiRefusal::invalid(&error))
        }
    }
}
