//! Tests of authentication on whole shards: what clients may do before and after, slow verifications, expiry, and tokens of
//! requests.

use crate::app::Decision;
use crate::config::{AuthMode, Config};
use crate::identity::testing::TestSigner;
use crate::identity::{Algorithm, Flaw, Identity, KeySet, OpenToken, Seen, TokenError, TokenPolicy};
use crate::limits::{
    AUTH_HELD_BYTES_MAX, AUTH_PENDING_ADDRESS_MAX, AUTH_REFUSED_MAX, AUTH_RELEASED_PER_TURN_MAX,
    INCOMPLETE_BYTES_MIN,
};
use crate::metrics::{Counter, Gauge};
use crate::protocol::OHAI;
use crate::protocol::websocket::frame::Opcode;
use crate::rules::{Access, Rule, RuleSet};
use crate::shard::auth::{AuthParts, VerifiedAs, VerifiedToken, VerifyJob, VerifyTokens};
use crate::shard::messages::ControlMessage;
use crate::shard::testing::{FnApp, Peer, World, address, client_frame};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// The tokens that shards have had verified beside them.
#[derive(Default)]
struct Jobs(Mutex<Vec<VerifyJob>>);

impl VerifyTokens for Jobs {
    fn verify(&self, job: VerifyJob) -> Result<(), VerifyJob> {
        self.0.lock().unwrap().push(job);
        Ok(())
    }
}

/// A world whose clients can authenticate with a secret, and with a key whose algorithm is slow.
struct AuthWorld {
    world: World,
    fast: TestSigner,
    slow: TestSigner,
    keys: Arc<KeySet>,
    jobs: Arc<Jobs>,
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl AuthWorld {
    /// Sends the request that creates a session, with a token, on a new connection.
    fn open_session(&mut self, sid: &str, query: &str, token: &str, body: &str) -> Peer {
        let peer = self.world.connect(0);
        self.world.run_until_idle();
        let header = format!("Authorization: Bearer {token}\r\n");
        self.world.send_bytes(peer, &poll(sid, query, &header, body));
        self.world.run_until_idle();
        peer
    }

    fn new(mode: AuthMode) -> AuthWorld {
        AuthWorld::with_shards(mode, 1)
    }

    fn with_shards(mode: AuthMode, shards: usize) -> AuthWorld {
        let config = Config { auth: mode, ..Config::default() };
        AuthWorld::with_config(config, shards, None)
    }

    /// A world whose clients an application is asked about: about tokens without a key, and about those with a cookie.
    fn asking(mode: AuthMode) -> AuthWorld {
        let app_headers = vec!["origin".to_owned(), "cookie".to_owned()];
        let config = Config { auth: mode, app_headers, ..Config::default() };
        AuthWorld::with_config(config, 1, Some(Arc::new([1])))
    }

    fn with_config(config: Config, shards: usize, asks: Option<Arc<[u8]>>) -> AuthWorld {
        let (fast, slow) = (TestSigner::new(Algorithm::Hs256), TestSigner::new(Algorithm::EdDsa));
        let policy = TokenPolicy { leeway: 5, ..TokenPolicy::default() };
        let keys = Arc::new(KeySet::new([fast.verifier("fast"), slow.verifier("slow")], policy));
        let jobs = Arc::new(Jobs::default());
        let verifier = Arc::clone(&jobs) as Arc<dyn VerifyTokens>;
        let app = FnApp(|registrar: &mut crate::app::Registrar| {
            registrar.event("/echo").handler(|_, event| crate::app::Answer::data(event.data)).register()?;
            registrar.event("/open").on(|_, _| Decision::Accept).register()?;
            registrar.event("/team").children().on(|_, _| Decision::Accept).register()
        });
        let parts = AuthParts { keys: Arc::clone(&keys), verifier, asks };
        let world = World::with_auth(shards, config, vec![Arc::new(app)], parts);
        AuthWorld { world, fast, slow, keys, jobs }
    }

    /// A token of a user, which expires in so many seconds.
    fn token(&self, user: &str, expires_in: i64) -> String {
        self.fast.token(Some("fast"), &claims(user, expires_in))
    }

    fn slow_token(&self, user: &str) -> String {
        self.slow.token(Some("slow"), &claims(user, 3600))
    }

    /// A token that takes long to verify, and is refused then.
    fn unsigned_slow_token(&self) -> String {
        let token = self.slow_token("7");
        format!("{}.{}", token.rsplit_once('.').unwrap().0, "A".repeat(86))
    }

    /// Sends an event from a raw client; returns what it has been sent since.
    fn say(&mut self, peer: Peer, event: &str) -> Vec<String> {
        self.world.send_event(peer, event);
        self.world.run_until_idle();
        self.world.take_raw_messages(peer)
    }

    fn auth(&mut self, peer: Peer, token: &str) -> String {
        self.say(peer, &format!("/qio/auth:1=\"{token}\"")).join("\n")
    }

    /// Verifies a token, as the server's thread does.
    fn verified(&self, job: &VerifyJob) -> VerifiedToken {
        let (_, token) = job.token.as_ref().expect("the job has a token");
        job.verified(self.keys.open(token).and_then(|open: OpenToken<'_>| {
            let identity = open.verify(&self.keys, unix_now())?;
            let seen = Seen { identity: Arc::new(identity), key: open.key_mark() };
            Ok::<_, TokenError>(VerifiedAs::Token(seen))
        }))
    }

    /// Has the oldest token that waits verified.
    fn verify_next(&mut self) {
        let job = self.jobs.0.lock().unwrap().remove(0);
        let verified = self.verified(&job);
        self.world.send_control(usize::from(job.shard), ControlMessage::TokenVerified(Box::new(verified)));
        self.world.run_until_idle();
    }

    /// Has the oldest job decided, as an application does.
    fn decide_next(&mut self, decision: Result<VerifiedAs, TokenError>) {
        let job = self.jobs.0.lock().unwrap().remove(0);
        let verified = job.verified(decision);
        self.world.send_control(usize::from(job.shard), ControlMessage::TokenVerified(Box::new(verified)));
        self.world.run_until_idle();
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.world.states().map(|state| state.snapshot().counters.get(counter)).sum()
    }

    fn gauge(&self, gauge: Gauge) -> u64 {
        self.world.states().map(|state| state.snapshot().gauges.get(gauge)).sum()
    }
}

fn claims(user: &str, expires_in: i64) -> String {
    format!(r#"{{"sub":"{user}","exp":{}}}"#, unix_now() as i64 + expires_in)
}

fn answered(id: u32, code: u16, message: &str) -> String {
    format!(r#"/qio/callback/{id}:0={{"code":{code},"data":null,"err_msg":"{message}"}}"#)
}

#[test]
fn nobody_authenticates_if_auth_is_off() {
    let mut world = World::new(1, vec![]);
    let peer = world.connect_raw(0);
    world.send_event(peer, "/qio/auth:1=\"x\"");
    world.run_until_idle();
    let expected = r#"/qio/callback/1:0={"code":404,"data":null,"err_msg":null}"#;
    assert_eq!(world.take_raw_messages(peer), [expected]);
}

#[test]
fn a_token_makes_a_client_known() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    let token = of.token("Zoë \\\"7\\\"", 60);
    let answer = of.auth(peer, &token);
    let expected = r#""data":{"user":"Zoë \"7\"","expires":"#;
    assert!(answer.starts_with("/qio/callback/1:0={\"code\":200,") && answer.contains(expected), "{answer}");
    assert_eq!((of.gauge(Gauge::ClientsAuthenticated), of.gauge(Gauge::Users)), (1, 1));
    let forever = of.fast.token(None, r#"{"sub":"8"}"#);
    let other = of.world.connect_raw(0);
    assert!(of.auth(other, &forever).contains(r#"{"user":"8","expires":null}"#));
    of.world.end_stream(peer);
    of.world.run_until_idle();
    assert_eq!((of.gauge(Gauge::ClientsAuthenticated), of.gauge(Gauge::Users)), (1, 1));
}

#[test]
fn refused_tokens_are_answered_and_counted() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    let forged = TestSigner::with_secret(Algorithm::Hs256, &[9; 32]);
    for (token, message, counter) in [
        ("x".to_owned(), "token invalid", Counter::AuthRefusedForm),
        (forged.token(Some("other"), "{}"), "token invalid", Counter::AuthRefusedKey),
        (forged.token(Some("fast"), &claims("7", 60)), "token invalid", Counter::AuthRefusedSignature),
        (of.fast.token(Some("fast"), "{}"), "token invalid", Counter::AuthRefusedClaims),
        (of.token("7", -60), "token expired", Counter::AuthRefusedExpired),
    ] {
        assert_eq!(of.auth(peer, &token), answered(1, 401, message));
        assert_eq!(of.counter(counter), 1, "{counter:?}");
    }
    assert_eq!(of.say(peer, "/qio/auth:1=7"), [answered(1, 400, "invalid json token")]);
    let token = of.token("7", 60);
    assert!(of.auth(peer, &token).contains("200"));
    let other = of.token("8", 60);
    assert_eq!(of.auth(peer, &other), answered(1, 401, "token of another user"));
    assert_eq!(of.counter(Counter::AuthRefusedUser), 1);
    assert!(of.auth(peer, &token).contains("200"), "the client is still user 7");
    assert_eq!(of.counter(Counter::AuthSeen), 1);
}

#[test]
fn a_connection_with_many_refused_tokens_ends() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    for _ in 0..AUTH_REFUSED_MAX {
        assert_eq!(of.auth(peer, "x"), answered(1, 401, "token invalid"));
    }
    assert!(!of.world.is_stream_ended(peer));
    of.auth(peer, "x");
    assert!(of.world.is_stream_ended(peer));
    assert_eq!(of.counter(Counter::ClosesTokenRefused), 1);
}

#[test]
fn clients_that_must_authenticate_may_do_little_before() {
    let mut of = AuthWorld::new(AuthMode::Required);
    let peer = of.world.connect_raw(0);
    for event in ["/echo:2=1", "/qio/on:2=\"/echo\"", "/nothing:2=1", "/qio/callbacks:2=1", "//echo//:2=1"] {
        assert_eq!(of.say(peer, event), [answered(2, 401, "authenticate first")], "{event}");
    }
    assert_eq!(of.say(peer, "/echo:0=1"), [""; 0], "no answer is wanted");
    for event in ["/qio/ping:2=1", "/qio/hostname:2=1", "/qio/limits:2=1", "//qio//ping/:2=1"] {
        assert!(of.say(peer, event)[0].contains("\"code\":200"), "{event}");
    }
    assert_eq!(of.say(peer, "/qio/callback/7:2=1"), [answered(2, 404, "callback doesn't exist")]);
    assert_eq!(of.counter(Counter::EventsRefusedAuth), 6);
    let token = of.token("7", 60);
    assert!(of.auth(peer, &token).contains("\"code\":200"));
    assert!(of.say(peer, "/echo:2=1")[0].contains("\"data\":1"));
}

#[test]
fn clients_that_do_not_authenticate_in_time_end() {
    let mut of = AuthWorld::new(AuthMode::Required);
    let silent = of.world.connect_raw(0);
    let known = of.world.connect_raw(0);
    let token = of.token("7", 3600);
    of.auth(known, &token);
    of.world.run_seconds(9);
    assert!(!of.world.is_stream_ended(silent));
    of.world.run_seconds(2);
    assert!(of.world.is_stream_ended(silent) && !of.world.is_stream_ended(known));
    assert_eq!(of.counter(Counter::TimeoutsAuth), 1);
}

/// A token that is being verified when the time is over does not lengthen it, if it is refused.
#[test]
fn a_token_that_is_refused_late_gives_no_further_time() {
    let mut of = AuthWorld::new(AuthMode::Required);
    let peer = of.world.connect_raw(0);
    of.world.run_seconds(9);
    let unsigned = of.unsigned_slow_token();
    assert_eq!(of.auth(peer, &unsigned), "");
    of.world.run_seconds(2);
    assert!(!of.world.is_stream_ended(peer), "the token may be valid");
    of.verify_next();
    assert_eq!(of.world.take_raw_messages(peer), [answered(1, 401, "token invalid")]);
    of.world.run_seconds(1);
    assert!(of.world.is_stream_ended(peer));
    assert_eq!(of.counter(Counter::TimeoutsAuth), 1);
}

/// A token with these claims, signed with the secret.
fn granting(of: &AuthWorld, on: &str) -> String {
    let claims = format!(r#"{{"sub":"7","exp":{},"qio":{{"on":{on}}}}}"#, unix_now() + 3600);
    of.fast.token(Some("fast"), &claims)
}

fn subscribe(of: &mut AuthWorld, peer: Peer, path: &str) {
    let answer = of.say(peer, &format!("/qio/on:0=\"{path}\""));
    assert_eq!(answer, [""; 0]);
}

#[test]
fn subscriptions_that_a_later_token_does_not_grant_end() {
    let mut of = AuthWorld::with_shards(AuthMode::Optional, 1);
    let rule = |pattern: &str, on| Rule { on, ..Rule::open(pattern.parse().unwrap()) };
    let rules = vec![rule("/team/{user}/x", Access::Owner), rule("/team/*", Access::Granted)];
    of.world.send_control(0, ControlMessage::Rules(Arc::new(RuleSet::new(rules))));
    let [peer, other] = [of.world.connect_raw(0), of.world.connect_raw(0)];
    let all = granting(&of, r#"["/team/*"]"#);
    for peer in [peer, other] {
        of.auth(peer, &all);
        for path in ["/team/7/x", "/team/a", "/team/b", "/open"] {
            subscribe(&mut of, peer, path);
        }
    }
    assert_eq!(of.gauge(Gauge::Subscriptions), 8);
    // The same grants, in another token.
    let again = granting(&of, r#"["/team/*"]"#);
    of.auth(peer, &again);
    assert_eq!(of.gauge(Gauge::Subscriptions), 8);
    let fewer = granting(&of, r#"["/team/b"]"#);
    let said = of.auth(peer, &fewer);
    assert!(said.contains("\"code\":200") && said.ends_with("\n/qio/off:0=\"/team/a\""), "{said}");
    assert_eq!(of.say(peer, "/qio/ping:0="), [""; 0]);
    assert_eq!(of.gauge(Gauge::Subscriptions), 7);
    let none = of.token("7", 3600);
    let said = of.auth(peer, &none);
    assert!(said.ends_with("\n/qio/off:0=\"/team/b\""), "{said}");
    assert_eq!(of.gauge(Gauge::Subscriptions), 6, "the others are not granted by a token");
}

/// A client with many subscriptions is checked in several turns, also if it ends meanwhile.
#[test]
fn many_subscriptions_are_checked_in_several_turns() {
    let mut of = AuthWorld::with_shards(AuthMode::Optional, 1);
    let rule = Rule { on: Access::Granted, ..Rule::open("/team/*".parse().unwrap()) };
    of.world.send_control(0, ControlMessage::Rules(Arc::new(RuleSet::new(vec![rule]))));
    let (all, none) = (granting(&of, r#"["/team/*"]"#), of.token("7", 3600));
    let peers: Vec<Peer> = (0..4).map(|_| of.world.connect_raw(0)).collect();
    for peer in &peers {
        of.auth(*peer, &all);
        for path in 0..1000 {
            of.world.send_event(*peer, &format!("/qio/on:0=\"/team/{path}\""));
        }
    }
    of.world.run_until_idle();
    assert_eq!(of.gauge(Gauge::Subscriptions), 4000);
    for peer in &peers[1..] {
        of.world.send_event(*peer, &format!("/qio/auth:0=\"{none}\""));
    }
    of.world.turn(0);
    let left = of.gauge(Gauge::Subscriptions);
    assert!((1001..4000).contains(&left), "{left} are left after one turn");
    of.world.reset(peers[2]);
    of.world.run_until_idle();
    assert_eq!(of.gauge(Gauge::Subscriptions), 1000);
    assert_eq!(of.world.take_raw_messages(peers[1]).len(), 1000, "each is told");
}

#[test]
fn a_websocket_is_told_why_it_ends() {
    let mut of = AuthWorld::new(AuthMode::Required);
    let peer = of.world.connect_websocket(0);
    of.world.run_seconds(11);
    let close = of.world.take_bytes(peer);
    assert_eq!(close[..4], [0x88, 24, 0x03, 0xF0], "a Close with 1008");
    assert_eq!(&close[4..], b"authentication timeout");
}

#[test]
fn a_token_expires_after_some_grace_unless_there_is_another() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let [expires, extended] = [of.world.connect_raw(0), of.world.connect_raw(0)];
    let token = of.token("7", 20);
    of.auth(expires, &token);
    of.auth(extended, &token);
    of.world.run_seconds(25);
    assert!(!of.world.is_stream_ended(expires), "the client has some grace");
    let next = of.token("7", 100);
    assert!(of.auth(extended, &next).contains("200"));
    assert_eq!(of.auth(expires, &token), answered(1, 401, "token expired"), "it was seen, but has expired");
    of.world.run_seconds(22);
    assert!(of.world.is_stream_ended(expires) && !of.world.is_stream_ended(extended));
    assert_eq!(of.counter(Counter::ClosesTokenExpired), 1);
    of.world.run_seconds(85);
    assert!(of.world.is_stream_ended(extended));
}

// Slow verifications.

#[test]
fn events_wait_for_a_slow_verification() {
    let mut of = AuthWorld::new(AuthMode::Required);
    let peer = of.world.connect_raw(0);
    let token = of.slow_token("7");
    assert_eq!(of.auth(peer, &token), "");
    assert_eq!(of.say(peer, "/echo:2=[1]"), [""; 0]);
    assert_eq!(of.say(peer, "/echo:3=[2]"), [""; 0]);
    assert!(of.say(peer, "/qio/ping:4=")[0].contains("200"), "a ping does not wait");
    assert_eq!(of.gauge(Gauge::AuthPending), 1);
    of.verify_next();
    let messages = of.world.take_raw_messages(peer);
    assert!(messages[0].starts_with("/qio/callback/1:0={\"code\":200"), "{messages:?}");
    assert!(messages[1].contains("/2:0={\"code\":200,\"data\":[1]"), "{messages:?}");
    assert!(messages[2].contains("/3:0={\"code\":200,\"data\":[2]"), "{messages:?}");
    assert_eq!(of.gauge(Gauge::AuthPending), 0);
    // The shard remembers the token: another connection with it does not wait.
    let other = of.world.connect_raw(0);
    assert!(of.auth(other, &token).contains("200"));
    assert_eq!((of.counter(Counter::AuthVerifiedBeside), of.counter(Counter::AuthSeen)), (1, 1));
}

#[test]
fn events_behind_a_token_that_is_refused_are_refused() {
    let mut of = AuthWorld::new(AuthMode::Required);
    let peer = of.world.connect_raw(0);
    let (token, unsigned) = (of.slow_token("7"), of.unsigned_slow_token());
    assert_eq!(of.auth(peer, &unsigned), "");
    of.say(peer, "/echo:2=1");
    // A second token, in order.
    of.say(peer, &format!("/qio/auth:3=\"{token}\""));
    of.say(peer, "/echo:4=4");
    of.verify_next();
    let messages = of.world.take_raw_messages(peer);
    assert_eq!(messages, [answered(1, 401, "token invalid"), answered(2, 401, "authenticate first")]);
    of.verify_next();
    let messages = of.world.take_raw_messages(peer);
    assert!(messages[0].contains("/3:0={\"code\":200") && messages[1].contains("\"data\":4"), "{messages:?}");
}

#[test]
fn what_is_held_for_a_token_is_bounded() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    let token = of.slow_token("7");
    of.auth(peer, &token);
    let long = format!("/echo:2=\"{}\"", "x".repeat(AUTH_HELD_BYTES_MAX / 2));
    assert_eq!(of.say(peer, &long), [""; 0]);
    assert_eq!(of.say(peer, &long), [answered(2, 420, "the token is being verified")]);
    assert_eq!(of.say(peer, "/echo:3=1"), [""; 0]);
    of.verify_next();
    assert_eq!(of.world.take_raw_messages(peer).len(), 3);
}

/// The events that are kept for all clients together are bounded too, with the memory of incomplete messages.
#[test]
fn what_is_held_for_all_tokens_is_bounded() {
    const ROOM: usize = 256 << 10;
    let config = Config { auth: AuthMode::Required, incomplete_bytes_max: Some(ROOM), ..Config::default() };
    let mut of = AuthWorld::with_config(config, 1, None);
    let peers: Vec<Peer> = (0..40).map(|_| of.world.connect_raw(0)).collect();
    let event = format!("/echo:2=\"{}\"", "x".repeat(1000));
    let events = AUTH_HELD_BYTES_MAX / 1100;
    let mut refused = 0;
    for peer in &peers {
        let token = of.slow_token("7");
        of.world.send_event(*peer, &format!("/qio/auth:1=\"{token}\""));
        (0..events).for_each(|_| of.world.send_event(*peer, &event));
        of.world.run_until_idle();
        let answers = of.world.take_raw_messages(*peer);
        assert!(answers.iter().all(|answer| *answer == answered(2, 420, "the token is being verified")));
        refused += answers.len();
    }
    let held = of.gauge(Gauge::IncompleteBytes) as usize;
    assert!((ROOM..ROOM + 70_000 + peers.len() * (INCOMPLETE_BYTES_MIN + 2000)).contains(&held), "{held}");
    // Some end, and the tokens of the others are verified.
    peers[..10].iter().for_each(|peer| of.world.reset(*peer));
    of.world.run_until_idle();
    assert!((of.gauge(Gauge::IncompleteBytes) as usize) < held);
    for _ in &peers {
        of.verify_next();
    }
    assert_eq!(of.gauge(Gauge::IncompleteBytes), 0);
    let handled = peers[10..].iter().map(|peer| of.world.take_raw_messages(*peer).len() - 1).sum::<usize>();
    assert!(handled > 0 && handled < peers.len() * events - refused);
}

/// Events that were kept are handled in several turns, in order, and those that come meanwhile after them.
#[test]
fn released_events_are_bounded_in_a_turn() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    let token = of.slow_token("7");
    of.auth(peer, &token);
    let kept = AUTH_RELEASED_PER_TURN_MAX + 40;
    for id in 2..kept + 2 {
        of.world.send_event(peer, &format!("/echo:{id}=1"));
    }
    of.world.run_until_idle();
    let job = of.jobs.0.lock().unwrap().remove(0);
    let verified = of.verified(&job);
    of.world.send_control(0, ControlMessage::TokenVerified(Box::new(verified)));
    of.world.send_event(peer, &format!("/echo:{}=1", kept + 2));
    let before = of.counter(Counter::EventsReceived);
    of.world.turn(0);
    assert_eq!(of.counter(Counter::EventsReceived) - before, AUTH_RELEASED_PER_TURN_MAX as u64);
    of.world.run_until_idle();
    let answers = of.world.take_raw_messages(peer);
    let ids = answers.iter().map(|answer| answer.split(['/', ':']).nth(3).unwrap().parse().unwrap());
    assert_eq!(ids.collect::<Vec<usize>>(), (1..kept + 3).collect::<Vec<usize>>());
    assert_eq!(of.gauge(Gauge::AuthPending), 0);
}

/// A connection may end while its events are being handled, and another one may get its slot.
#[test]
fn events_of_a_connection_that_has_ended_are_dropped() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    let token = of.slow_token("7");
    of.auth(peer, &token);
    for _ in 0..AUTH_RELEASED_PER_TURN_MAX + 40 {
        of.world.send_event(peer, "/echo:2=1");
    }
    of.world.run_until_idle();
    let job = of.jobs.0.lock().unwrap().remove(0);
    let verified = of.verified(&job);
    of.world.send_control(0, ControlMessage::TokenVerified(Box::new(verified)));
    of.world.turn(0);
    of.world.reset(peer);
    of.world.run_until_idle();
    assert_eq!(of.gauge(Gauge::AuthPending), 0);
    let other = of.world.connect_raw(0);
    assert_eq!(of.say(other, "/echo:3=1").len(), 1);
}

/// The tokens of one address leave room for those of others.
#[test]
fn slow_verifications_of_an_address_are_bounded() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let token = of.slow_token("7");
    for _ in 0..AUTH_PENDING_ADDRESS_MAX {
        let peer = of.world.connect_raw(0);
        assert_eq!(of.auth(peer, &token), "");
    }
    let peer = of.world.connect_raw(0);
    let refused = answered(1, 420, "too many tokens are being verified");
    assert_eq!(of.auth(peer, &token), refused);
    let other = of.world.connect_from(0, address("10.0.0.2:1000"));
    of.world.turn(0);
    of.world.send_bytes(other, OHAI.as_bytes());
    of.world.run_until_idle();
    of.world.take_bytes(other);
    assert_eq!(of.auth(other, &token), "", "it is being verified");
    of.verify_next();
    // The shard knows the token now, and another one has room.
    let another = of.slow_token("8");
    assert_eq!(of.auth(peer, &another), "");
}

#[test]
fn slow_verifications_are_bounded() {
    const MAX: usize = 4;
    let mut of = AuthWorld::new(AuthMode::Optional);
    of.world.shards[0].state_mut().auth.set_in_flight_max(MAX);
    let token = of.slow_token("7");
    let peers: Vec<Peer> = (0..=MAX).map(|_| of.world.connect_raw(0)).collect();
    for peer in &peers[..MAX] {
        assert_eq!(of.auth(*peer, &token), "");
    }
    let refused = answered(1, 420, "too many tokens are being verified");
    assert_eq!(of.auth(peers[MAX], &token), refused);
    // A connection that ends makes no room before its result has come, which is ignored.
    of.world.end_stream(peers[0]);
    of.world.run_until_idle();
    assert_eq!(of.auth(peers[MAX], &token), refused);
    of.verify_next();
    assert_eq!(of.gauge(Gauge::ClientsAuthenticated), 0);
    // The shard knows the token now.
    assert!(of.auth(peers[MAX], &token).contains("200"));
}

/// A token that was verified while another audience was wanted is not accepted, and not remembered.
#[test]
fn settings_that_change_during_a_verification_count() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    let token = of.slow_token("7");
    of.auth(peer, &token);
    let job = of.jobs.0.lock().unwrap().remove(0);
    let verified = of.verified(&job);
    assert!(verified.result.is_ok());
    let policy = TokenPolicy { audience: vec!["chat".into()], ..of.keys.policy().clone() };
    let keys = Arc::new(KeySet::new(of.keys.keys().to_vec(), policy));
    of.world.send_control(0, ControlMessage::AuthKeys(keys));
    of.world.send_control(0, ControlMessage::TokenVerified(Box::new(verified)));
    of.world.run_until_idle();
    assert_eq!(of.world.take_raw_messages(peer), [answered(1, 401, "token invalid")]);
    assert_eq!(of.auth(peer, &token), "", "it is verified again");
}

#[test]
fn a_key_that_is_taken_away_verifies_nothing() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    let token = of.token("7", 60);
    assert!(of.auth(peer, &token).contains("200"));
    let none: [crate::identity::AuthKey; 0] = [];
    let keys = Arc::new(KeySet::new(none, of.keys.policy().clone()));
    of.world.send_control(0, ControlMessage::AuthKeys(keys));
    of.world.run_until_idle();
    assert_eq!(of.auth(peer, &token), answered(1, 401, "token invalid"));
    assert_eq!(of.gauge(Gauge::ClientsAuthenticated), 1, "the connection stays until the token expires");
}

// Tokens of requests.

fn upgrade(token: &str) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn a_websocket_authenticates_with_its_request() {
    for is_slow in [false, true] {
        let mut of = AuthWorld::new(AuthMode::Required);
        let peer = of.world.connect(0);
        of.world.turn(0);
        let token = if is_slow { of.slow_token("7") } else { of.token("7", 60) };
        of.world.send_bytes(peer, &upgrade(&token));
        of.world.send_bytes(peer, &client_frame(Opcode::Text, OHAI.as_bytes()));
        of.world.send_bytes(peer, &client_frame(Opcode::Text, b"/echo:1=7"));
        of.world.run_until_idle();
        if is_slow {
            of.verify_next();
        }
        let output = String::from_utf8_lossy(&of.world.take_bytes(peer)).into_owned();
        assert!(output.ends_with("{\"code\":200,\"data\":7}"), "{output}");
        assert_eq!(of.gauge(Gauge::Users), 1);
        of.world.run_seconds(15);
        assert!(!of.world.is_stream_ended(peer));
    }
}

#[test]
fn a_websocket_ends_if_the_token_of_its_request_is_refused() {
    for (is_slow, reason) in [(false, "token expired"), (true, "token invalid")] {
        let mut of = AuthWorld::new(AuthMode::Optional);
        let peer = of.world.connect(0);
        of.world.turn(0);
        let unsigned = format!("{}.{}", of.slow_token("7").rsplit_once('.').unwrap().0, "A".repeat(86));
        let token = if is_slow { unsigned } else { of.token("7", -60) };
        of.world.send_bytes(peer, &upgrade(&token));
        of.world.run_until_idle();
        if is_slow {
            assert!(!of.world.is_stream_ended(peer));
            of.verify_next();
        }
        let output = of.world.take_bytes(peer);
        assert!(output.ends_with(reason.as_bytes()), "{}", String::from_utf8_lossy(&output));
        assert_eq!(of.counter(Counter::ClosesTokenRefused) + of.counter(Counter::ClosesTokenExpired), 1);
    }
}

/// The sessions of these sids live on either shard.
const SIDS: [&str; 6] = ["01", "02", "03", "04", "05", "06"];

fn poll(sid: &str, query: &str, headers: &str, body: &str) -> Vec<u8> {
    let sid = sid.repeat(16);
    let len = body.len();
    format!("POST /?sid={sid}{query} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn sessions_authenticate_with_the_request_that_creates_them() {
    let mut of = AuthWorld::with_shards(AuthMode::Required, 2);
    for sid in SIDS {
        let peer = of.world.connect(0);
        of.world.run_until_idle();
        let header = format!("authorization: bearer {}\r\n", of.token("7", 60));
        of.world.send_bytes(peer, &poll(sid, "&connect=true", &header, "/echo:1=7"));
        of.world.run_until_idle();
        let output = String::from_utf8(of.world.take_bytes(peer)).unwrap();
        assert!(output.starts_with("HTTP/1.1 200") && output.contains("\"data\":7"), "{output}");
        // The next request needs no token.
        of.world.send_bytes(peer, &poll(sid, "", "", "/echo:2=8"));
        of.world.run_until_idle();
        assert!(String::from_utf8(of.world.take_bytes(peer)).unwrap().contains("\"data\":8"));
    }
    let by_shard: Vec<u64> =
        of.world.states().map(|state| state.snapshot().gauges.get(Gauge::ClientsAuthenticated)).collect();
    assert!(by_shard.iter().all(|clients| *clients > 0) && by_shard.iter().sum::<u64>() == 6, "{by_shard:?}");
}

#[test]
fn a_slow_verification_holds_the_events_of_a_session() {
    let mut of = AuthWorld::with_shards(AuthMode::Required, 2);
    for sid in SIDS {
        let token = of.slow_token(sid);
        let peer = of.open_session(sid, "&connect=true", &token, "/echo:1=7\n/echo:2=8");
        assert_eq!(of.world.take_bytes(peer), b"");
        of.verify_next();
        let output = String::from_utf8(of.world.take_bytes(peer)).unwrap();
        assert!(output.contains("\"data\":7") && output.contains("\"data\":8"), "{output}");
    }
}

/// A program may connect, send and close with one request.
#[test]
fn a_session_closes_after_the_events_that_wait_for_a_token() {
    let mut of = AuthWorld::with_shards(AuthMode::Required, 2);
    for sid in SIDS {
        let token = of.slow_token(sid);
        let peer = of.open_session(sid, "&connect=true&close=true", &token, "/echo:1=7");
        of.verify_next();
        let output = String::from_utf8(of.world.take_bytes(peer)).unwrap();
        assert!(output.contains("\"data\":7"), "{output}");
        of.world.send_bytes(peer, &poll(sid, "", "", ""));
        of.world.run_until_idle();
        assert!(of.world.take_bytes(peer).starts_with(b"HTTP/1.1 403"), "the session has ended");
    }
    assert_eq!(of.gauge(Gauge::HttpSessions), 0);
}

#[test]
fn a_session_is_not_created_with_a_token_that_is_refused() {
    let mut of = AuthWorld::with_shards(AuthMode::Optional, 2);
    for sid in SIDS {
        for is_slow in [false, true] {
            let token = if is_slow { of.unsigned_slow_token() } else { "x".into() };
            let peer = of.open_session(sid, "&connect=true", &token, "/echo:1=7");
            if is_slow {
                of.verify_next();
            }
            let output = String::from_utf8(of.world.take_bytes(peer)).unwrap();
            assert!(output.starts_with("HTTP/1.1 401"), "{output}");
            assert!(output.contains("WWW-Authenticate: Bearer error=\"invalid_token\""), "{output}");
            assert!(output.ends_with("token invalid: connect again, with another token\n"), "{output}");
            of.world.send_bytes(peer, &poll(sid, "", "", "/echo:1=7"));
            of.world.run_until_idle();
            assert!(of.world.take_bytes(peer).starts_with(b"HTTP/1.1 403"), "there is no session");
        }
    }
    assert_eq!(of.gauge(Gauge::HttpSessions), 0);
}

#[test]
fn a_session_that_does_not_authenticate_ends() {
    let mut of = AuthWorld::new(AuthMode::Required);
    let peer = of.world.connect(0);
    of.world.run_until_idle();
    of.world.send_bytes(peer, &poll("01", "&connect=true", "", "/echo:1=7"));
    of.world.run_until_idle();
    assert!(String::from_utf8(of.world.take_bytes(peer)).unwrap().contains("authenticate first"));
    of.world.send_bytes(peer, &poll("01", "", "", ""));
    of.world.run_seconds(11);
    let output = String::from_utf8(of.world.take_bytes(peer)).unwrap();
    assert!(output.starts_with("HTTP/1.1 401") && output.contains("authentication timeout"), "{output}");
    assert_eq!(of.gauge(Gauge::HttpSessions), 0);
}

#[test]
fn other_schemes_are_for_somebody_else() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    for header in ["Authorization: Basic eA==\r\n", "Authorization: Bearer\r\n"] {
        let peer = of.world.connect(0);
        of.world.run_until_idle();
        of.world.send_bytes(peer, &poll("01", "&connect=true", header, "/echo:1=7"));
        of.world.run_until_idle();
        assert!(of.world.take_bytes(peer).starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(of.counter(Counter::AuthAccepted) + of.counter(Counter::AuthRefusedForm), 0);
}

// What applications see.

/// A world whose application answers `/who` with what it sees of the client.
fn world_with_headers(shards: usize) -> World {
    let config = Config { app_headers: vec!["cookie".into(), "origin".into()], ..Config::default() };
    let app = FnApp(|registrar: &mut crate::app::Registrar| {
        registrar
            .event("/who")
            .handler(|cx, event| {
                let seen = cx.client(event.client).expect("the client is connected").to_json();
                crate::app::Answer::data(crate::app::Json::trusted(&seen))
            })
            .register()
    });
    World::with_config(shards, config, vec![Arc::new(app)])
}

const SEEN: &str = r#"{"user":null,"claims":null,"address":"10.0.0.1","headers":{"cookie":"a=1; b=2","origin":"null"},"certificate":null}"#;

#[test]
fn applications_see_headers_of_the_upgrade() {
    let mut world = world_with_headers(1);
    let peer = world.connect(0);
    world.turn(0);
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nCookie: a=1\r\nCOOKIE: b=2\r\norigin: null\r\nX: y\r\n\r\n";
    world.send_bytes(peer, request.as_bytes());
    world.send_bytes(peer, &client_frame(Opcode::Text, OHAI.as_bytes()));
    world.send_bytes(peer, &client_frame(Opcode::Text, b"/who:1="));
    world.run_until_idle();
    let output = String::from_utf8_lossy(&world.take_bytes(peer)).into_owned();
    assert!(output.contains(SEEN), "{output}");
    let state = world.states().next().unwrap();
    assert!(state.snapshot().gauges.get(Gauge::ClientFactsBytes) > 0);
    world.end_stream(peer);
    world.run_until_idle();
    let state = world.states().next().unwrap();
    assert_eq!(state.snapshot().gauges.get(Gauge::ClientFactsBytes), 0);
}

#[test]
fn applications_see_headers_of_the_request_that_creates_a_session() {
    let mut world = world_with_headers(2);
    for sid in SIDS {
        let peer = world.connect(0);
        world.run_until_idle();
        let headers = "Cookie: a=1; b=2\r\nOrigin: null\r\n";
        world.send_bytes(peer, &poll(sid, "&connect=true", headers, "/who:1="));
        world.run_until_idle();
        assert!(String::from_utf8(world.take_bytes(peer)).unwrap().contains(SEEN));
        // Headers of later requests do not matter.
        world.send_bytes(peer, &poll(sid, "", "Cookie: c=3\r\n", "/who:2="));
        world.run_until_idle();
        assert!(String::from_utf8(world.take_bytes(peer)).unwrap().contains(SEEN));
    }
    assert!(world.states().all(|state| state.snapshot().gauges.get(Gauge::ClientFactsBytes) > 0));
}

#[test]
fn headers_that_are_too_long_are_left_out() {
    let mut world = world_with_headers(1);
    let peer = world.connect(0);
    world.run_until_idle();
    let headers =
        format!("Cookie: {}\r\nOrigin: null\r\n", "x".repeat(crate::limits::APP_HEADERS_BYTES_MAX + 1));
    world.send_bytes(peer, &poll("01", "&connect=true", &headers, "/who:1="));
    world.run_until_idle();
    let output = String::from_utf8(world.take_bytes(peer)).unwrap();
    assert!(output.contains(r#""headers":{"origin":"null"}"#), "{output}");
    let state = world.states().next().unwrap();
    assert_eq!(state.snapshot().counters.get(Counter::AppHeadersLeftOut), 1);
}

#[test]
fn applications_see_the_user() {
    let mut of = AuthWorld::new(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    let token = of.token("7", 60);
    of.auth(peer, &token);
    let state = of.world.states().next().unwrap();
    let slot = state.identities.connections_of("7").next().expect("the user has a connection");
    assert_eq!(state.identity(slot).map(|identity| &*identity.user), Some("7"));
    assert_eq!(state.identities.connections_of("8").count(), 0);
}

fn vouched(user: &str, expires: Option<u64>) -> Result<VerifiedAs, TokenError> {
    Ok(VerifiedAs::Vouched(Arc::new(Identity::vouched(user, expires, None, None).unwrap())))
}

/// A request for a WebSocket with these headers, and the first message on it.
fn upgrade_with(headers: &str) -> Vec<u8> {
    let head = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
    );
    [head.into_bytes(), client_frame(Opcode::Text, OHAI.as_bytes())].concat()
}

#[test]
fn an_application_is_asked_about_tokens_without_a_key() {
    let mut of = AuthWorld::asking(AuthMode::Required);
    let peer = of.world.connect_raw(0);
    for (token, decision, answer) in [
        ("opaque", Err(TokenError::Invalid(Flaw::Refused)), (401, "token invalid")),
        ("opaque", Err(TokenError::Expired), (401, "token expired")),
        ("opaque", Err(TokenError::Unavailable), (503, "authentication unavailable")),
        ("opaque", vouched("7", Some(unix_now() - 60)), (401, "token expired")),
        ("opaque", Ok(VerifiedAs::Nobody), (401, "token invalid")),
    ] {
        assert_eq!(of.auth(peer, token), "", "the application decides");
        assert_eq!(of.say(peer, "/echo:9=1"), [""; 0], "events wait meanwhile");
        {
            let jobs = of.jobs.0.lock().unwrap();
            let client = jobs[0].client.as_ref().unwrap();
            assert_eq!((client.transport, client.headers.len()), ("raw", 0));
            assert_eq!(jobs[0].token.as_ref().map(|(_, token)| &**token), Some("opaque"));
        }
        of.decide_next(decision);
        let answers = of.world.take_raw_messages(peer);
        assert_eq!(answers, [answered(1, answer.0, answer.1), answered(9, 401, "authenticate first")]);
    }
    assert_eq!((of.counter(Counter::AuthRefusedApp), of.counter(Counter::AuthUnavailable)), (2, 1));
    of.auth(peer, "opaque");
    of.decide_next(vouched("7", Some(unix_now() + 60)));
    assert!(of.world.take_raw_messages(peer)[0].contains(r#""user":"7""#));
    assert_eq!(of.gauge(Gauge::AuthSeenBytes), 0, "what an application says is asked again");
    // Another token of the user renews the identity, one of another user is refused.
    of.auth(peer, "opaque");
    of.decide_next(vouched("8", None));
    assert_eq!(of.world.take_raw_messages(peer), [answered(1, 401, "token of another user")]);
    // Those that a key is for are not asked about, even if they are forged.
    let forged = format!("{}.{}", of.token("7", 60).rsplit_once('.').unwrap().0, "A".repeat(43));
    assert_eq!(of.auth(peer, &forged), answered(1, 401, "token invalid"));
    let token = of.token("7", 60);
    assert!(of.auth(peer, &token).contains("200"));
    assert!(of.jobs.0.lock().unwrap().is_empty());
}

#[test]
fn a_failing_application_does_not_end_connections_that_try_again() {
    let mut of = AuthWorld::asking(AuthMode::Optional);
    let peer = of.world.connect_raw(0);
    for _ in 0..2 * AUTH_REFUSED_MAX {
        of.auth(peer, "opaque");
        of.decide_next(Err(TokenError::Unavailable));
    }
    assert!(!of.world.is_stream_ended(peer));
    for _ in 0..=AUTH_REFUSED_MAX {
        of.auth(peer, "opaque");
        of.decide_next(Err(TokenError::Invalid(Flaw::Refused)));
    }
    assert!(of.world.is_stream_ended(peer), "it has tried too many bad tokens");
}

#[test]
fn an_application_is_asked_about_a_cookie_without_a_token() {
    let mut of = AuthWorld::asking(AuthMode::Optional);
    let connect = |of: &mut AuthWorld, headers: &str| {
        let peer = of.world.connect(0);
        of.world.send_bytes(peer, &upgrade_with(headers));
        of.world.run_until_idle();
        peer
    };
    let waiting = |of: &AuthWorld| of.jobs.0.lock().unwrap().len();
    connect(&mut of, "Origin: https://a\r\n");
    connect(&mut of, "Authorization: Basic eA==\r\n");
    assert_eq!(waiting(&of), 0, "nothing says who they are");
    let known = connect(&mut of, "Cookie: s=1\r\nOrigin: https://a\r\n");
    {
        let jobs = of.jobs.0.lock().unwrap();
        let client = jobs[0].client.as_ref().unwrap();
        let headers: Vec<(&str, &str)> =
            client.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            (client.transport, headers),
            ("websocket", vec![("origin", "https://a"), ("cookie", "s=1")])
        );
        assert!(jobs[0].token.is_none());
    }
    of.decide_next(vouched("7", None));
    assert_eq!((of.gauge(Gauge::ClientsAuthenticated), of.world.is_stream_ended(known)), (1, false));
    let nobody = connect(&mut of, "Cookie: s=2\r\n");
    of.decide_next(Ok(VerifiedAs::Nobody));
    assert_eq!((of.gauge(Gauge::ClientsAuthenticated), of.world.is_stream_ended(nobody)), (1, false));
    assert_eq!(of.counter(Counter::AuthNobody), 1);
    for (error, code, reason) in [
        (TokenError::Invalid(Flaw::Refused), [0x03, 0xF0], "token invalid"),
        (TokenError::Unavailable, [0x03, 0xF5], "authentication unavailable; try again later"),
    ] {
        let refused = connect(&mut of, "Cookie: s=3\r\n");
        of.world.take_bytes(refused);
        of.decide_next(Err(error));
        let close = of.world.take_bytes(refused);
        assert_eq!((&close[2..4], &close[4..]), (&code[..], reason.as_bytes()));
    }
}

#[test]
fn nobody_has_as_much_time_to_authenticate_as_others() {
    let mut of = AuthWorld::asking(AuthMode::Required);
    let peer = of.world.connect(0);
    of.world.send_bytes(peer, &upgrade_with("Cookie: s=1\r\n"));
    of.world.run_seconds(4);
    of.decide_next(Ok(VerifiedAs::Nobody));
    assert!(!of.world.is_stream_ended(peer));
    of.world.take_bytes(peer);
    of.world.run_seconds(7);
    assert_eq!(&of.world.take_bytes(peer)[4..], b"authentication timeout");
}
