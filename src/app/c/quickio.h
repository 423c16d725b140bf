/*
 * quickio.h: applications for QuickIO in C, and in whatever can call C.
 *
 * An application is a shared object that the server loads:
 *
 *     cc -shared -fPIC -o hello.so hello.c && quickio --app ./hello.so
 *
 * It exports one thing, `qio_app`. It is not linked against the server: what it may call comes in a table of functions,
 * `qio_api`, which `init` is given and keeps. docs/applications.md has a guide, examples/chat.c a whole application.
 *
 *     #include "quickio.h"
 *
 *     static const qio_api *qio;
 *
 *     static void hello(qio_cx cx, const qio_event *event, void *user) {
 *         (void)event, (void)user;
 *         qio->answer(cx, QIO_STR("\"hello\""));
 *     }
 *
 *     static int32_t init(const qio_api *api, qio_server server) {
 *         (void)server;
 *         qio = api;
 *         return QIO_OK;
 *     }
 *
 *     static int32_t register_events(qio_registrar registrar) {
 *         qio_event_spec spec = QIO_EVENT_SPEC;
 *         spec.path = QIO_STR("/hello");
 *         spec.handler = hello;
 *         return qio->register_event(registrar, &spec);
 *     }
 *
 *     const qio_app_info qio_app = {QIO_APP_HEAD, "hello", init, register_events, NULL, NULL, NULL};
 *
 * WHERE YOUR CODE RUNS. The server runs a shard for each core: one thread that owns its clients. Handlers, hooks,
 * callbacks and timers run on the shard of their client, one at a time for each shard, and at the same time on different
 * shards. What all shards share needs a lock or an atomic; what `register_events` makes for one shard (see `user` below)
 * needs none. Every client of the shard waits while you run: nothing that runs on a shard may wait. No files, no
 * databases, no sleep, no lock that is held for long. Give such work to a thread of your own with a promise to answer
 * later.
 *
 * WHAT MAY BE CALLED FROM WHERE.
 *   - Functions that take a `qio_cx`: inside the handler, hook, callback or timer that was given it, on its thread, until
 *     it returns. Elsewhere they do nothing and say QIO_STALE or QIO_WRONG_THREAD.
 *   - Functions that take a `qio_registrar`: inside `register_events`, likewise.
 *   - All others: from any thread, at any time from `init` on. They never wait.
 *   - A free function may run on any thread, and inside any call that was given it: it may call functions of the last
 *     kind only. Those of a context say QIO_NESTED there.
 *
 * WHO OWNS WHAT. Texts that you pass are copied before the call returns. Texts that you are given (event, reply, ...) are
 * yours to read until your function returns; settings, for ever. Wherever you pass `user` together with a `free`, they are
 * the server's from that moment, whatever the call answers: `free` runs exactly once, when the server needs `user` no
 * longer; also when the call fails, the callback never fires, expires or is evicted, or the client goes. `free` may be
 * NULL.
 *
 * ERRORS. Functions answer QIO_OK or the code of an error, in which case they have done nothing. `error_text` has it in
 * words. Handles (contexts, promises) that are old, used up or made up are told from good ones. Pointers are checked for
 * being NULL or misaligned, nothing else is possible: your code runs in the server's process, and a bad pointer in it
 * ends that. An exception that leaves a function of yours ends it too; quickio.hpp catches them.
 *
 * Everything here is C99 and C++17.
 */
#ifndef QUICKIO_H
#define QUICKIO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What `qio_app` begins with: "QIO1", as a little-endian number. */
#define QIO_MAGIC 0x314f4951u

/* Raised when an application that was compiled with an older header would not run any more. New functions are appended
 * to `qio_api` without raising it: look at `qio_api.size` before you call one that an older server may not have. */
#define QIO_ABI_VERSION 1u

/* Bytes of a path, cleaned, at most. */
#define QIO_PATH_BYTES_MAX 1024

/* Bytes of an application's name, at most: of A-Z a-z 0-9 - _. */
#define QIO_NAME_BYTES_MAX 64

/* ---- Texts ---- */

/* A text in UTF-8, not terminated. Empty: `len` is 0, `ptr` may be NULL. */
typedef struct qio_str {
    const char *ptr;
    size_t len;
} qio_str;

/* A literal. */
#ifdef __cplusplus
#define QIO_STR(literal) (qio_str{"" literal, sizeof(literal) - 1})
#else
#define QIO_STR(literal) ((qio_str){"" literal, sizeof(literal) - 1})
#endif

/* So many bytes. */
static inline qio_str qio_text(const char *ptr, size_t len) {
    qio_str text;
    text.ptr = ptr;
    text.len = len;
    return text;
}

/* A terminated text; NULL is the empty one. */
static inline qio_str qio_cstr(const char *text) {
    return qio_text(text, text == NULL ? 0 : strlen(text));
}

static inline int qio_equal(qio_str a, qio_str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ---- Codes ---- */

/* What functions answer. */
typedef int32_t qio_status;

enum {
    QIO_OK = 0,
    /* A shard's inbox is full (setting inbox-messages-max): try again later, or tell the client. */
    QIO_BUSY = 1,
    /* The promise was kept or dropped before; or there is no such client on this shard. */
    QIO_GONE = 2,
    /* The event was answered already, or it was promised to be. */
    QIO_ANSWERED = 3,
    /* The function that was given this context or registrar has returned, or the handle was made up. */
    QIO_STALE = 4,
    /* The context or registrar belongs to another thread. */
    QIO_WRONG_THREAD = 5,
    /* This cannot be done here: an answer to what is no event, a decision about what is no subscription. */
    QIO_WRONG_PLACE = 6,
    /* A context was used by a free function that runs inside a call with that context. */
    QIO_NESTED = 7,
    /* A pointer that must not be NULL is NULL, or one is misaligned. */
    QIO_BAD_POINTER = 8,
    /* A text is not UTF-8. */
    QIO_BAD_TEXT = 9,
    /* Nothing is left of a path when it was cleaned, or too much; or it cannot be registered. */
    QIO_BAD_PATH = 10,
    /* A text is not JSON. Only the json_ functions look: data of events is passed on as it is. */
    QIO_BAD_JSON = 11,
    /* A value that makes no sense: an unknown flag, the size of a struct that is none. */
    QIO_BAD_VALUE = 12,
    /* The path is registered already. */
    QIO_DUPLICATE = 13,
    /* There is no such setting, member, application. */
    QIO_NOT_FOUND = 14,
    /* The room given is too small. */
    QIO_TOO_LONG = 15,
    /* The server does not run yet: `start` has not been called. */
    QIO_NOT_RUNNING = 16,
    /* More promises are open than the server keeps. */
    QIO_FULL = 17,
    /* A fault of the server itself. Please report it. */
    QIO_PANIC = 18,
    /* For your own functions, where none of the others fits; `fail` says why. */
    QIO_FAILED = 19
};

/* Levels of `log`. */
enum { QIO_LOG_ERROR = 1, QIO_LOG_WARN = 2, QIO_LOG_INFO = 3, QIO_LOG_DEBUG = 4, QIO_LOG_TRACE = 5 };

/* What an on-hook answers. */
enum {
    /* 401; or 404 where the event handles children, since a path below it may be nothing at all. */
    QIO_REFUSE = 0,
    /* 200. */
    QIO_ACCEPT = 1,
    /* `later_decision` was called: somebody holds the promise. */
    QIO_DECIDE_LATER = 2,
    /* 500: it cannot be decided. */
    QIO_FAIL = 3
};

/* Flags of an event. */
enum {
    /* It handles paths below its own, too: `extra` is what follows. */
    QIO_CHILDREN = 1,
    /* Nobody may subscribe. */
    QIO_NO_SUBSCRIPTIONS = 2
};

/* ---- Handles: numbers that only the server makes. 0 is none. ---- */

/* What a handler, hook, callback or timer asks for things by. */
typedef struct qio_cx {
    uint64_t id;
} qio_cx;

/* What `register_events` registers by. */
typedef struct qio_registrar {
    uint64_t id;
} qio_registrar;

/* A promise to answer an event, or to decide about a subscription. */
typedef struct qio_promise {
    uint64_t id;
} qio_promise;

/* Your application on its server. */
typedef struct qio_server {
    uint64_t id;
} qio_server;

/* A client. Told from whoever connects after it has gone. */
typedef struct qio_client {
    uint32_t shard;
    uint32_t slot;
    uint32_t generation;
} qio_client;

static inline int qio_same_client(qio_client a, qio_client b) {
    return a.slot == b.slot && a.generation == b.generation && a.shard == b.shard;
}

/* ---- What your functions are given. Newer servers may append fields. ---- */

/* An event that a client sent. */
typedef struct qio_event {
    qio_client client;
    /* 1 where the client waits for an answer. You may answer anyhow: it is dropped. */
    uint32_t wants_answer;
    /* The path at which the handler is registered. */
    qio_str path;
    /* What follows it in the event's path, from the slash on; empty where that is the handler's own. */
    qio_str extra;
    /* One JSON text, unchecked: `null` where the client sent none. */
    qio_str data;
} qio_event;

/* What a client answered to a server callback. */
typedef struct qio_reply {
    qio_client client;
    uint32_t wants_answer;
    qio_str data;
} qio_reply;

/* A subscription that a client asks for. */
typedef struct qio_subscription {
    qio_client client;
    uint32_t reserved;
    qio_str path;
    qio_str extra;
    /* The JSON of `["path", JSON]`; `null` otherwise. */
    qio_str data;
} qio_subscription;

/* A subscription that has ended. */
typedef struct qio_unsubscribed {
    qio_client client;
    uint32_t reserved;
    qio_str path;
    qio_str extra;
} qio_unsubscribed;

/* Writes `path` and `extra` into `out`, which has QIO_PATH_BYTES_MAX bytes: what is broadcast to that path reaches those
 * who subscribed to it. */
static inline qio_str qio_full_path(char *out, qio_str path, qio_str extra) {
    if (path.len + extra.len > QIO_PATH_BYTES_MAX) return qio_text(out, 0); /* never of what the server gave */
    memcpy(out, path.ptr, path.len);
    if (extra.len > 0) memcpy(out + path.len, extra.ptr, extra.len);
    return qio_text(out, path.len + extra.len);
}

typedef void (*qio_free)(void *user);
typedef void (*qio_handler)(qio_cx cx, const qio_event *event, void *user);
typedef int32_t (*qio_on_hook)(qio_cx cx, const qio_subscription *subscription, void *user);
typedef void (*qio_off_hook)(qio_cx cx, const qio_unsubscribed *unsubscribed, void *user);
typedef void (*qio_reply_handler)(qio_cx cx, const qio_reply *reply, void *user);
typedef void (*qio_timer)(qio_cx cx, void *user);

/* ---- What you give ---- */

/* An event to register. Begin with QIO_EVENT_SPEC. */
typedef struct qio_event_spec {
    /* sizeof(qio_event_spec) */
    uint32_t size;
    /* QIO_CHILDREN, QIO_NO_SUBSCRIPTIONS */
    uint32_t flags;
    qio_str path;
    /* NULL: events here are answered 500; they can still be subscribed to. A handler answers, by one of the functions for
     * that, or promises to; one that returns without either is answered 500. */
    qio_handler handler;
    /* NULL: everyone may subscribe. Answers QIO_ACCEPT, QIO_REFUSE, QIO_DECIDE_LATER or QIO_FAIL. */
    qio_on_hook on;
    /* Runs once for each subscription that became active, when it has ended, for whatever reason. May be NULL. */
    qio_off_hook off;
    /* For the three above. It is this shard's: `register_events` runs on each. */
    void *user;
    qio_free free;
} qio_event_spec;

/* What a client may fire: offered with an answer, or with an event of yours. Runs at most once, on the client's shard; it
 * answers, as a handler does. A client holds four at most: a fifth drops the oldest. One that is not fired within
 * clients-cb-max-age is dropped. */
typedef struct qio_callback {
    qio_reply_handler run;
    void *user;
    qio_free free;
} qio_callback;

/* An answer. Begin with QIO_ANSWER: 200, data null. */
typedef struct qio_answer {
    /* sizeof(qio_answer) */
    uint32_t size;
    /* 200, or an error: docs/protocol.md lists the usual ones. At most 65535. */
    uint32_t code;
    /* One JSON text; empty for `null`. */
    qio_str data;
    /* What to tell; `ptr` NULL for nothing. */
    qio_str message;
    /* Offered with code 200 to who asked for an answer; dropped otherwise. May be NULL. */
    const qio_callback *callback;
} qio_answer;

#ifdef __cplusplus
#define QIO_EVENT_SPEC (qio_event_spec{sizeof(qio_event_spec), 0, {}, nullptr, nullptr, nullptr, nullptr, nullptr})
#define QIO_ANSWER (qio_answer{sizeof(qio_answer), 200, {}, {}, nullptr})
#define QIO_NO_STR (qio_str{nullptr, 0})
#else
#define QIO_EVENT_SPEC ((qio_event_spec){sizeof(qio_event_spec), 0, {NULL, 0}, NULL, NULL, NULL, NULL, NULL})
#define QIO_ANSWER ((qio_answer){sizeof(qio_answer), 200, {NULL, 0}, {NULL, 0}, NULL})
#define QIO_NO_STR ((qio_str){NULL, 0})
#endif

/* ---- The table of functions ---- */

typedef struct qio_api {
    /* QIO_ABI_VERSION of the server. */
    uint32_t abi;
    /* Bytes of the server's table. */
    uint32_t size;

    /* Any thread. A status in words; for ever yours to read. */
    const char *(*error_text)(qio_status status);

    /* Any thread. Says why your function is about to answer an error; the operator reads it. The last one counts. */
    void (*fail)(qio_server server, qio_str why);
    /* Any thread. Writes to the server's log, with your name, where the setting log-level lets it. Never waits. Bytes
     * behind the first 8 KiB, and bytes that are no UTF-8, are replaced. */
    void (*log)(qio_server server, int32_t level, qio_str text);
    /* Any thread. 1 where such a line would be written. */
    int32_t (*log_enabled)(int32_t level);
    /* Any thread. A setting of your own: from the section [app-settings.NAME] of the settings file, where NAME is your
     * name. Texts as they are, numbers and booleans as they are written. QIO_NOT_FOUND where it is not set. */
    qio_status (*setting)(qio_server server, qio_str key, qio_str *value);
    /* Any thread. The settings by number from 0, in the order of their keys; QIO_NOT_FOUND behind the last. To refuse
     * those that you do not know. */
    qio_status (*setting_nth)(qio_server server, size_t nth, qio_str *key, qio_str *value);

    /* The shard that is being registered on, from 0: what must happen once for the server is registered there only.
     * UINT32_MAX where the registrar is not good. */
    uint32_t (*registrar_shard)(qio_registrar registrar);
    /* Registers an event on this shard. Where it fails the application does, whatever `register_events` answers. */
    qio_status (*register_event)(qio_registrar registrar, const qio_event_spec *spec);
    /* Runs something on this shard every so many milliseconds (1 at least), first after one period. */
    qio_status (*every)(qio_registrar registrar, uint64_t period_ms, qio_timer run, void *user, qio_free free);

    /* The shard that this runs on; UINT32_MAX where the context is not good. */
    uint32_t (*shard)(qio_cx cx);
    /* Milliseconds since the server began, by the clock that timers go by; UINT64_MAX where the context is not good. */
    uint64_t (*now_ms)(qio_cx cx);

    /* In handlers and callbacks: answers 200 with data; empty for `null`. */
    qio_status (*answer)(qio_cx cx, qio_str data);
    /* In handlers and callbacks: answers an error. */
    qio_status (*answer_error)(qio_cx cx, uint32_t code, qio_str message);
    /* In handlers and callbacks: answers anything. */
    qio_status (*answer_with)(qio_cx cx, const qio_answer *answer);
    /* In handlers and callbacks: there will be no answer. The client waits in vain. */
    qio_status (*answer_never)(qio_cx cx);
    /* In handlers and callbacks: the promise to answer later, from any thread. */
    qio_status (*later)(qio_cx cx, qio_promise *promise);
    /* In on-hooks, which then answer QIO_DECIDE_LATER: the promise to decide later, from any thread. */
    qio_status (*later_decision)(qio_cx cx, qio_promise *promise);

    /* These are done in the order of the calls, when your function has returned, and before its answer is sent. None of
     * them waits. A client that has gone, or is none, gets nothing, and nobody is told. */

    /* Sends an event to all subscribers of a path, on all shards. */
    qio_status (*broadcast)(qio_cx cx, qio_str path, qio_str data);
    /* Sends an event to one client, wherever it lives, subscribed or not. `callback`, which may be NULL, runs when it
     * answers. */
    qio_status (*send)(qio_cx cx, qio_client client, qio_str path, qio_str data, const qio_callback *callback);
    /* Closes a client's connection, once what was queued for it before is sent. */
    qio_status (*close)(qio_cx cx, qio_client client);
    /* Tells a client to connect to another address (/qio/move), and closes its connection. */
    qio_status (*move)(qio_cx cx, qio_client client, qio_str address);
    /* Runs something once, so many milliseconds later, on this shard. */
    qio_status (*after)(qio_cx cx, uint64_t ms, qio_timer run, void *user, qio_free free);

    /* What your application keeps for a client of this shard; NULL where it keeps nothing. */
    void *(*client_data)(qio_cx cx, qio_client client);
    /* Keeps something in the place of what was kept before. It is freed when the client has gone, after the off-hooks of
     * its subscriptions; at once, and QIO_GONE, where the client has gone already or lives on another shard. */
    qio_status (*set_client_data)(qio_cx cx, qio_client client, void *data, qio_free free);
    /* Stops to keep it; it is yours again and will not be freed. NULL where nothing was kept. */
    void *(*take_client_data)(qio_cx cx, qio_client client);

    /* Any thread. Answers, and so uses the promise up: QIO_GONE the second time. QIO_BUSY: the promise is still open (the
     * callback was freed): try again, or drop it. Where the client has gone the answer is dropped and counted. */
    qio_status (*promise_answer)(qio_promise promise, const qio_answer *answer);
    /* Any thread. Accepts (not 0) or refuses (0). As `promise_answer` otherwise. */
    qio_status (*promise_decide)(qio_promise promise, int32_t accepted);
    /* Any thread. Gives a promise up: the client is answered 500, or refused. */
    qio_status (*promise_drop)(qio_promise promise);
    /* Any thread. Who waits for it. */
    qio_status (*promise_client)(qio_promise promise, qio_client *client);

    /* Any thread, from `start` on. As those of a context, but QIO_BUSY where a shard's inbox is full. */
    qio_status (*server_broadcast)(qio_server server, qio_str path, qio_str data);
    qio_status (*server_send)(qio_server server, qio_client client, qio_str path, qio_str data,
                              const qio_callback *callback);
    qio_status (*server_close)(qio_server server, qio_client client);
    qio_status (*server_move)(qio_server server, qio_client client, qio_str address);

    /* Any thread. For those who have no JSON library at hand. Depth is no matter. */

    /* Whether a text is one JSON text: QIO_OK or QIO_BAD_JSON. */
    qio_status (*json_check)(qio_str json);
    /* The value of an object's first member of this name, as the piece of `json` that it is. QIO_NOT_FOUND where there is
     * none, QIO_BAD_JSON where `json` is no object. */
    qio_status (*json_member)(qio_str json, qio_str name, qio_str *value);
    /* The text of a JSON string, its escapes resolved, and a 0 behind it. `len`, which may be NULL, is set to its bytes
     * without the 0 also where it did not fit: QIO_TOO_LONG. QIO_BAD_JSON where `json` is no string. */
    qio_status (*json_text)(qio_str json, char *out, size_t room, size_t *len);
    /* A text as a JSON string, quoted and escaped; likewise. */
    qio_status (*json_string)(qio_str text, char *out, size_t room, size_t *len);
} qio_api;

/* ---- What you export ---- */

typedef struct qio_app_info {
    /* QIO_APP_HEAD fills these three. */
    uint32_t magic;
    uint32_t abi;
    uint32_t size;
    uint32_t reserved;
    /* The name of the application, terminated. */
    const char *name;
    /* Called first, once, when the object is loaded: keep both. Anything but QIO_OK stops the server from starting. */
    int32_t (*init)(const qio_api *api, qio_server server);
    /* Called on each shard, on its thread, one shard after the other, before the first connection. Likewise. */
    int32_t (*register_events)(qio_registrar registrar);
    /* Called once, when all shards are ready, before the first connection: begin your threads here. Likewise. May be
     * NULL. */
    int32_t (*start)(void);
    /* Called once after a good `init`, when the last shard has ended and all that the server held of yours is freed, or
     * when the server could not start: end your threads here. Nothing can be sent any more. It is left out where a shard
     * still runs when shutdown-timeout is over. May be NULL. */
    void (*stop)(void);
    /* Checks what can be checked without a server; `quickio test-app` calls it. May be NULL. */
    int32_t (*self_test)(void);
} qio_app_info;

#define QIO_APP_HEAD QIO_MAGIC, QIO_ABI_VERSION, sizeof(qio_app_info), 0u

#if defined(__GNUC__)
#define QIO_EXPORT __attribute__((visibility("default")))
#else
#define QIO_EXPORT
#endif

/* Define it, once: const qio_app_info qio_app = {QIO_APP_HEAD, "name", init, register_events, start, stop, self_test}; */
extern QIO_EXPORT const qio_app_info qio_app;

/* Languages that export functions but no data export this in its place. What it answers is for ever the server's to
 * read. */
QIO_EXPORT const qio_app_info *qio_app_get(void);

#ifdef __cplusplus
}
#endif

#endif
