/*
 * quickio.h: the interface for QuickIO applications in C, and in any language that can call C.
 *
 * An application is a shared object that the server loads:
 *
 *     cc -shared -fPIC -o hello.so hello.c && quickio --app ./hello.so
 *
 * It exports one symbol, `qio_app`. It is not linked against the server: the functions that it may call are in a table,
 * `qio_api`, which `init` receives and has to keep. docs/applications.md has a guide, and examples/chat.c is a complete
 * application.
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
 * WHERE YOUR CODE RUNS. The server runs one shard for each core: a thread that owns its clients. Handlers, hooks,
 * callbacks and timers run on the shard of their client. Each shard runs one of them at a time; different shards run
 * them at the same time. Data shared by all shards needs a lock or an atomic; data that `register_events` creates for
 * one shard (see `user` below) does not. All clients of the shard wait while your code runs, so code on a shard must
 * not block: no files, no databases, no sleep, no lock that is held for long. Give such work to a thread of your own,
 * together with a promise to answer later.
 *
 * WHICH FUNCTIONS MAY BE CALLED WHERE.
 *   - Functions that take a `qio_cx`: inside the handler, hook, callback or timer that received it, on its thread,
 *     until it returns. Elsewhere they do nothing and return QIO_STALE or QIO_WRONG_THREAD.
 *   - Functions that take a `qio_registrar`: inside `register_events`, with the same rules.
 *   - All others: from any thread, at any time after `init` was called. They never block.
 *   - A free function may run on any thread, also inside the call that received it. It may call only functions of the
 *     last kind. Functions that take a `qio_cx` return QIO_NESTED there.
 *
 * OWNERSHIP. Texts that you pass are copied before the call returns. Texts that you receive (event, reply, ...) are
 * valid until your function returns; the texts of settings are valid until the process ends. When you pass `user`
 * together with a `free`, the server owns `user` from then on, even if the call returns an error. It calls `free`
 * exactly once, when it no longer needs `user`: also if the call fails, or if the callback never fires, expires or is
 * evicted, or if the client disconnects. `free` may be NULL.
 *
 * ERRORS. Functions return QIO_OK or the code of an error; if they return an error, they have done nothing else.
 * `error_text` returns its description. Handles (contexts, promises) that are old, used up or invented are detected.
 * Pointers are checked only for being NULL or misaligned: your code runs in the server's process, and any other bad
 * pointer crashes the server. An exception that leaves a function of yours ends the process, too; quickio.hpp catches
 * exceptions.
 *
 * The header is valid C99 and C++17.
 */
#ifndef QUICKIO_H
#define QUICKIO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The first field of `qio_app`: "QIO1" as a little-endian number. */
#define QIO_MAGIC 0x314f4951u

/* Raised when an application compiled with an older header would no longer run. New functions are appended to `qio_api`
 * without raising it: check `qio_api.size` before you call a function that an older server may not have. */
#define QIO_ABI_VERSION 1u

/* The most bytes that a cleaned path may have. */
#define QIO_PATH_BYTES_MAX 1024

/* The most bytes that the name of an application may have. It consists of A-Z a-z 0-9 - _. */
#define QIO_NAME_BYTES_MAX 64

/* ---- Texts ---- */

/* A text in UTF-8, not terminated. If it is empty, `len` is 0 and `ptr` may be NULL. */
typedef struct qio_str {
    const char *ptr;
    size_t len;
} qio_str;

/* Makes a text of a string literal. */
#ifdef __cplusplus
#define QIO_STR(literal) (qio_str{"" literal, sizeof(literal) - 1})
#else
#define QIO_STR(literal) ((qio_str){"" literal, sizeof(literal) - 1})
#endif

/* Makes a text of `len` bytes. */
static inline qio_str qio_text(const char *ptr, size_t len) {
    qio_str text;
    text.ptr = ptr;
    text.len = len;
    return text;
}

/* Makes a text of a terminated string. NULL makes an empty text. */
static inline qio_str qio_cstr(const char *text) {
    return qio_text(text, text == NULL ? 0 : strlen(text));
}

static inline int qio_equal(qio_str a, qio_str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ---- Codes ---- */

/* The result of most functions. */
typedef int32_t qio_status;

enum {
    QIO_OK = 0,
    /* The inbox of a shard is full (setting inbox-messages-max). Try again later, or tell the client. */
    QIO_BUSY = 1,
    /* The promise was already answered or dropped, or there is no such client on this shard. */
    QIO_GONE = 2,
    /* The event has already been answered, or a promise to answer it was made. */
    QIO_ANSWERED = 3,
    /* The function that received this context or registrar has returned, or the handle was invented. */
    QIO_STALE = 4,
    /* The context or registrar belongs to another thread. */
    QIO_WRONG_THREAD = 5,
    /* The function cannot be called here: for example, a timer or an off-hook has nothing to answer. */
    QIO_WRONG_PLACE = 6,
    /* A free function used a context while it was running inside a call with that context. */
    QIO_NESTED = 7,
    /* A pointer that must not be NULL is NULL, or one is misaligned. */
    QIO_BAD_POINTER = 8,
    /* A text is not UTF-8. */
    QIO_BAD_TEXT = 9,
    /* The cleaned path is empty or too long, or it cannot be registered. */
    QIO_BAD_PATH = 10,
    /* A text is not JSON. All data of answers, events and broadcasts is checked, because data that a client has sent may be
     * anything, and could forge the rest of an answer. Nothing was sent. */
    QIO_BAD_JSON = 11,
    /* A value is invalid: for example, a flag is unknown, or the size of a struct is wrong. */
    QIO_BAD_VALUE = 12,
    /* The path is already registered. */
    QIO_DUPLICATE = 13,
    /* There is no such setting, member or application. */
    QIO_NOT_FOUND = 14,
    /* The buffer is too small. */
    QIO_TOO_LONG = 15,
    /* The server is not running yet: `start` has not been called. */
    QIO_NOT_RUNNING = 16,
    /* Too many promises are open, or this client has its share of them. The event or subscription is answered 420. */
    QIO_FULL = 17,
    /* An error in the server itself. Please report it. */
    QIO_PANIC = 18,
    /* For your own functions, if no other code fits. Call `fail` with the reason first. */
    QIO_FAILED = 19
};

/* Levels of `log`. */
enum { QIO_LOG_ERROR = 1, QIO_LOG_WARN = 2, QIO_LOG_INFO = 3, QIO_LOG_DEBUG = 4, QIO_LOG_TRACE = 5 };

/* The result of an on-hook. */
enum {
    /* Refuses with 401; or with 404 if the event handles children, because a path below it may not exist. */
    QIO_REFUSE = 0,
    /* Accepts with 200. */
    QIO_ACCEPT = 1,
    /* `later_decision` was called, and the promise will decide. */
    QIO_DECIDE_LATER = 2,
    /* Refuses with 500: the hook cannot decide. */
    QIO_FAIL = 3
};

/* Flags of an event. */
enum {
    /* The event also handles all paths below its own; `extra` is the rest of the path. */
    QIO_CHILDREN = 1,
    /* Clients may not subscribe. */
    QIO_NO_SUBSCRIPTIONS = 2
};

/* ---- Handles: numbers that only the server creates. 0 is never a valid handle. ---- */

/* The context of a handler, hook, callback or timer, through which it sends commands to the server. */
typedef struct qio_cx {
    uint64_t id;
} qio_cx;

/* The context of `register_events`, through which it registers events. */
typedef struct qio_registrar {
    uint64_t id;
} qio_registrar;

/* A promise to answer an event, or to decide about a subscription. */
typedef struct qio_promise {
    uint64_t id;
} qio_promise;

/* The application, as the server knows it. */
typedef struct qio_server {
    uint64_t id;
} qio_server;

/* A client. A client that connects later never has the same three numbers. */
typedef struct qio_client {
    uint32_t shard;
    uint32_t slot;
    uint32_t generation;
} qio_client;

static inline int qio_same_client(qio_client a, qio_client b) {
    return a.slot == b.slot && a.generation == b.generation && a.shard == b.shard;
}

/* ---- Arguments of your functions. Newer servers may append fields. ---- */

/* An event that a client has sent. */
typedef struct qio_event {
    qio_client client;
    /* 1 if the client waits for an answer. Otherwise an answer is discarded. */
    uint32_t wants_answer;
    /* The path at which the handler is registered. */
    qio_str path;
    /* The rest of the event's path after `path`, with its leading slash. Empty if there is none. */
    qio_str extra;
    /* One JSON text, which has not been validated. `null` if the client sent no data. */
    qio_str data;
} qio_event;

/* A client's reply to a server callback. */
typedef struct qio_reply {
    qio_client client;
    uint32_t wants_answer;
    qio_str data;
} qio_reply;

/* A client's request to subscribe. */
typedef struct qio_subscription {
    qio_client client;
    uint32_t reserved;
    qio_str path;
    qio_str extra;
    /* The JSON of `["path", JSON]`. `null` if the client sent only a path. */
    qio_str data;
    /* Since 0.4: check that `size` of the table is at least QIO_API_SIZE_0_4 if your application may run on an older server.
     * The options of `["path", JSON, options]`, a JSON object that is valid: the earlier events that the client asks for.
     * `null` if it sent none. */
    qio_str options;
} qio_subscription;

/* A subscription that has ended. */
typedef struct qio_unsubscribed {
    qio_client client;
    uint32_t reserved;
    qio_str path;
    qio_str extra;
} qio_unsubscribed;

/* Writes `path` and `extra` into `out`, which has QIO_PATH_BYTES_MAX bytes. A broadcast to that path reaches the
 * clients that subscribed to it. */
static inline qio_str qio_full_path(char *out, qio_str path, qio_str extra) {
    if (path.len + extra.len > QIO_PATH_BYTES_MAX) return qio_text(out, 0); /* texts of the server fit */
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

/* ---- Structs that you pass to the server ---- */

/* An event to register. Initialise it with QIO_EVENT_SPEC. */
typedef struct qio_event_spec {
    /* sizeof(qio_event_spec) */
    uint32_t size;
    /* QIO_CHILDREN, QIO_NO_SUBSCRIPTIONS */
    uint32_t flags;
    qio_str path;
    /* Must answer by one of the answer functions, or call `later`. If it returns without either, the client is answered
     * 500. If it is NULL, events are answered 500; clients can still subscribe. */
    qio_handler handler;
    /* Returns QIO_ACCEPT, QIO_REFUSE, QIO_DECIDE_LATER or QIO_FAIL. If it is NULL, every client may subscribe. */
    qio_on_hook on;
    /* Runs once for each subscription that became active, after it has ended for any reason. May be NULL. */
    qio_off_hook off;
    /* Passed to the three functions above. It belongs to this shard, because `register_events` runs on each shard. */
    void *user;
    qio_free free;
} qio_event_spec;

/* A callback that a client may reply to, offered with an answer or with an event of yours. It runs at most once, on the
 * client's shard, and answers as a handler does. A client has at most four open callbacks: a fifth drops the oldest. A
 * callback that does not fire within clients-cb-max-age is dropped. */
typedef struct qio_callback {
    qio_reply_handler run;
    void *user;
    qio_free free;
} qio_callback;

/* An answer. Initialise it with QIO_ANSWER: code 200, data null. */
typedef struct qio_answer {
    /* sizeof(qio_answer) */
    uint32_t size;
    /* 200, or the code of an error, at most 65535. docs/protocol.md lists the usual codes. */
    uint32_t code;
    /* One JSON text. An empty text means `null`. */
    qio_str data;
    /* The message of an error. `ptr` is NULL if there is none. */
    qio_str message;
    /* Offered if the code is 200 and the client waits for an answer; dropped otherwise. May be NULL. */
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
    /* The server's QIO_ABI_VERSION. */
    uint32_t abi;
    /* The size of the server's table in bytes. */
    uint32_t size;

    /* Any thread. Returns the description of a status. It is valid until the process ends. */
    const char *(*error_text)(qio_status status);

    /* Any thread. Sets the reason of the error that your function is about to return, for the operator. The last call
     * counts. */
    void (*fail)(qio_server server, qio_str why);
    /* Any thread. Writes to the server's log with the application's name, if the setting log-level permits it. Never
     * blocks. Bytes after the first 8 KiB, and bytes that are not UTF-8, are replaced. */
    void (*log)(qio_server server, int32_t level, qio_str text);
    /* Any thread. Returns 1 if a line of this level would be written. */
    int32_t (*log_enabled)(int32_t level);
    /* Any thread. Reads a setting of the application, from the section [app-settings.NAME] of the settings file.
     * Strings are returned without quotes, numbers and booleans as they are written. QIO_NOT_FOUND if it is not set. */
    qio_status (*setting)(qio_server server, qio_str key, qio_str *value);
    /* Any thread. Reads the settings by number from 0, in the order of their keys; QIO_NOT_FOUND after the last one.
     * Use it to reject unknown settings. */
    qio_status (*setting_nth)(qio_server server, size_t nth, qio_str *key, qio_str *value);

    /* Returns the shard on which `register_events` runs, from 0. Register on shard 0 only what must happen once for the
     * whole server. UINT32_MAX if the registrar is not valid. */
    uint32_t (*registrar_shard)(qio_registrar registrar);
    /* Registers an event on this shard. If it fails, the application fails, even if `register_events` returns
     * QIO_OK. */
    qio_status (*register_event)(qio_registrar registrar, const qio_event_spec *spec);
    /* Runs a function on this shard repeatedly. The period is at least 1 ms; the first run is after one period. */
    qio_status (*every)(qio_registrar registrar, uint64_t period_ms, qio_timer run, void *user, qio_free free);

    /* Returns the shard on which the caller runs. UINT32_MAX if the context is not valid. */
    uint32_t (*shard)(qio_cx cx);
    /* Returns the milliseconds since the server started, by the clock of the timers. UINT64_MAX if the context is not
     * valid. */
    uint64_t (*now_ms)(qio_cx cx);

    /* In handlers and callbacks: answers 200 with data. An empty text means `null`. */
    qio_status (*answer)(qio_cx cx, qio_str data);
    /* In handlers and callbacks: answers with an error. */
    qio_status (*answer_error)(qio_cx cx, uint32_t code, qio_str message);
    /* In handlers and callbacks: answers with all that an answer may have. */
    qio_status (*answer_with)(qio_cx cx, const qio_answer *answer);
    /* In handlers and callbacks: ends the request without an answer. The client gets none, even if it waits. */
    qio_status (*answer_never)(qio_cx cx);
    /* In handlers and callbacks: makes a promise to answer later, from any thread. */
    qio_status (*later)(qio_cx cx, qio_promise *promise);
    /* In on-hooks: makes a promise to decide later, from any thread. The hook must then return QIO_DECIDE_LATER. */
    qio_status (*later_decision)(qio_cx cx, qio_promise *promise);

    /* The following commands are carried out in the order of the calls, after your function has returned and before its
     * answer is sent. None of them blocks. Commands for a client that has disconnected or does not exist have no
     * effect. */

    /* Sends an event to all subscribers of a path, on all shards. */
    qio_status (*broadcast)(qio_cx cx, qio_str path, qio_str data);
    /* Sends an event to one client on any shard, whether or not it is subscribed. `callback` runs when the client
     * replies; it may be NULL. */
    qio_status (*send)(qio_cx cx, qio_client client, qio_str path, qio_str data, const qio_callback *callback);
    /* Closes a client's connection after everything queued for it has been sent. */
    qio_status (*close)(qio_cx cx, qio_client client);
    /* Tells a client to connect to another address (/qio/move), and closes its connection. */
    qio_status (*move)(qio_cx cx, qio_client client, qio_str address);
    /* Runs a function once on this shard, after a number of milliseconds. */
    qio_status (*after)(qio_cx cx, uint64_t ms, qio_timer run, void *user, qio_free free);

    /* Returns the application's data for a client of this shard, or NULL if there is none. */
    void *(*client_data)(qio_cx cx, qio_client client);
    /* Sets the application's data for a client, and frees the previous data. The data is freed after the client has
     * disconnected and the off-hooks of its subscriptions have run. If the client has already disconnected or belongs
     * to another shard, the data is freed at once and QIO_GONE returned. */
    qio_status (*set_client_data)(qio_cx cx, qio_client client, void *data, qio_free free);
    /* Removes the client's data without freeing it, and returns it; the caller owns it. NULL if there is none. */
    void *(*take_client_data)(qio_cx cx, qio_client client);

    /* Any thread. Answers, which uses up the promise: a second call returns QIO_GONE. If it returns QIO_BUSY, the
     * promise is still open, but the callback has been freed: try again, or drop the promise. If the client has
     * disconnected, the answer is dropped and counted. */
    qio_status (*promise_answer)(qio_promise promise, const qio_answer *answer);
    /* Any thread. Accepts (not 0) or refuses (0) a subscription. Otherwise like `promise_answer`. */
    qio_status (*promise_decide)(qio_promise promise, int32_t accepted);
    /* Any thread. Drops a promise: the client is answered 500, or its subscription refused. */
    qio_status (*promise_drop)(qio_promise promise);
    /* Any thread. Reads the client that waits for the promise. */
    qio_status (*promise_client)(qio_promise promise, qio_client *client);

    /* Any thread, from `start` on. Like the functions with a context, but they return QIO_BUSY if the inbox of a shard
     * is full. */
    qio_status (*server_broadcast)(qio_server server, qio_str path, qio_str data);
    qio_status (*server_send)(qio_server server, qio_client client, qio_str path, qio_str data,
                              const qio_callback *callback);
    qio_status (*server_close)(qio_server server, qio_client client);
    qio_status (*server_move)(qio_server server, qio_client client, qio_str address);

    /* Any thread. The following functions are for applications without a JSON library. Nesting may have any depth. */

    /* Checks that a text is one JSON text: QIO_OK or QIO_BAD_JSON. */
    qio_status (*json_check)(qio_str json);
    /* Finds the first member of an object with this name. `value` is set to a part of `json`. QIO_NOT_FOUND if there is
     * no such member, QIO_BAD_JSON if `json` is not an object. */
    qio_status (*json_member)(qio_str json, qio_str name, qio_str *value);
    /* Writes the text of a JSON string, with its escapes resolved and a terminating 0. `len` is set to the number of
     * bytes without the 0, also if the buffer is too small (QIO_TOO_LONG); it may be NULL. QIO_BAD_JSON if `json` is
     * not a string. */
    qio_status (*json_text)(qio_str json, char *out, size_t room, size_t *len);
    /* Writes a text as a JSON string, quoted and escaped. `out`, `room` and `len` are used as by `json_text`. */
    qio_status (*json_string)(qio_str text, char *out, size_t room, size_t *len);

    /* Since 0.4: check that `size` of this table is at least QIO_API_SIZE_0_4 if your application may run on an older server.
     *
     * What the server knows of a client of this shard. The texts are valid until your function returns. QIO_NOT_FOUND: there is
     * none. QIO_GONE: the client has disconnected, or belongs to another shard. */

    /* The user that the client has authenticated as. */
    qio_status (*client_user)(qio_cx cx, qio_client client, qio_str *value);
    /* The claims of the client's token, a JSON object. */
    qio_status (*client_claims)(qio_cx cx, qio_client client, qio_str *value);
    /* A header of the request that has opened the connection or session, if the setting app-headers names it. */
    qio_status (*client_header)(qio_cx cx, qio_client client, qio_str name, qio_str *value);
    /* The subject of the client's TLS certificate, such as CN=device-7. */
    qio_status (*client_certificate)(qio_cx cx, qio_client client, qio_str *value);
    /* Writes the client's IP address. `out`, `room` and `len` are used as by `json_text`; 46 bytes are enough. QIO_NOT_FOUND if
     * the client uses a Unix socket. */
    qio_status (*client_address)(qio_cx cx, qio_client client, char *out, size_t room, size_t *len);
} qio_api;

/* The size of the table of a server of version 0.4. Such a server also sets `options` of qio_subscription. */
#define QIO_API_SIZE_0_4 (offsetof(qio_api, client_address) + sizeof(void (*)(void)))

/* ---- Symbols that you export ---- */

typedef struct qio_app_info {
    /* QIO_APP_HEAD sets these four fields. */
    uint32_t magic;
    uint32_t abi;
    uint32_t size;
    uint32_t reserved;
    /* The name of the application, a terminated string. */
    const char *name;
    /* Called first, once, when the object is loaded. Keep both arguments. If it returns anything but QIO_OK, the server
     * does not start. */
    int32_t (*init)(const qio_api *api, qio_server server);
    /* Called on each shard, on its thread, one shard after the other, before the first connection. If it returns
     * anything but QIO_OK, the server does not start. */
    int32_t (*register_events)(qio_registrar registrar);
    /* Called once, when all shards are ready, before the first connection. Start your threads here. If it returns
     * anything but QIO_OK, the server does not start. May be NULL. */
    int32_t (*start)(void);
    /* Called once if `init` succeeded: after the last shard has ended and the server has freed everything that it owned
     * of the application, or if the server could not start. End your threads here. Nothing can be sent at this point.
     * It is not called if a shard is still running after shutdown-timeout. May be NULL. */
    void (*stop)(void);
    /* Runs the checks that need no server. `quickio test-app` calls it. May be NULL. */
    int32_t (*self_test)(void);
} qio_app_info;

#define QIO_APP_HEAD QIO_MAGIC, QIO_ABI_VERSION, sizeof(qio_app_info), 0u

#if defined(__GNUC__)
#define QIO_EXPORT __attribute__((visibility("default")))
#else
#define QIO_EXPORT
#endif

/* Define it once:
 * const qio_app_info qio_app = {QIO_APP_HEAD, "name", init, register_events, start, stop, self_test}; */
extern QIO_EXPORT const qio_app_info qio_app;

/* Languages that can export functions but no data export this function instead of `qio_app`. The struct that it returns
 * must stay valid until the process ends. */
QIO_EXPORT const qio_app_info *qio_app_get(void);

#ifdef __cplusplus
}
#endif

#endif
