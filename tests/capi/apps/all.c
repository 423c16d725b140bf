/* An application for tests/capi/main.rs that calls every function of qio_api, also with invalid arguments. */
#define _GNU_SOURCE
#include "quickio.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const qio_api *qio;
static qio_server self;

/* The number of allocations given to the server with a free function, and the number freed. */
static atomic_int given, freed;

static void *give(void) {
    atomic_fetch_add(&given, 1);
    return malloc(1);
}

static void give_back(void *user) {
    atomic_fetch_add(&freed, 1);
    free(user);
}

/* A list of results that differ from the expected ones. Empty if the test has passed. */
typedef struct report {
    char text[4096];
    size_t len;
} report;

static void expect(report *report, const char *what, long long got, long long wanted) {
    if (got == wanted || report->len > sizeof(report->text) - 200) return;
    report->len += (size_t)snprintf(report->text + report->len, 200, "%s%s: %lld, not %lld",
                                    report->len > 0 ? "; " : "", what, got, wanted);
}

static void answer_report(qio_cx cx, const report *report) {
    char json[8192];
    if (qio->json_string(qio_text(report->text, report->len), json, sizeof(json), NULL) == QIO_OK) {
        qio->answer(cx, qio_cstr(json));
    }
}

static qio_client no_client(void) {
    qio_client client = {77, 7, 7};
    return client;
}

/* ---- Answers ---- */

/* What the server knows of the client: an object of texts, with null for what is not known. */
static void put(char *out, size_t room, const char *name, qio_status status, qio_str value) {
    char text[1024] = "null";
    size_t used = strlen(out);
    if (status == QIO_OK) qio->json_string(value, text, sizeof(text), NULL);
    snprintf(out + used, room - used, "%s\"%s\":%s", used > 1 ? "," : "", name, text);
}

static void who(qio_cx cx, const qio_event *event, void *user) {
    char out[4096] = "{";
    char address[46];
    size_t len = 0;
    qio_str value = {NULL, 0};
    qio_client nobody = event->client;
    (void)user;
    nobody.generation += 1;
    if (qio->size < QIO_API_SIZE_0_4) return;
    put(out, sizeof(out), "user", qio->client_user(cx, event->client, &value), value);
    put(out, sizeof(out), "claims", qio->client_claims(cx, event->client, &value), value);
    put(out, sizeof(out), "origin", qio->client_header(cx, event->client, QIO_STR("Origin"), &value), value);
    put(out, sizeof(out), "cookie", qio->client_header(cx, event->client, QIO_STR("cookie"), &value), value);
    put(out, sizeof(out), "certificate", qio->client_certificate(cx, event->client, &value), value);
    qio_status found = qio->client_address(cx, event->client, address, sizeof(address), &len);
    put(out, sizeof(out), "address", found, qio_text(address, len));
    if (qio->client_user(cx, nobody, &value) != QIO_GONE) put(out, sizeof(out), "gone", QIO_OK, QIO_STR("no"));
    if (qio->client_address(cx, event->client, address, 3, &len) != QIO_TOO_LONG) put(out, sizeof(out), "long", QIO_OK, QIO_STR("no"));
    if (qio->client_user(cx, event->client, NULL) == QIO_OK) put(out, sizeof(out), "null", QIO_OK, QIO_STR("no"));
    strcat(out, "}");
    qio->answer(cx, qio_text(out, strlen(out)));
}

static void echo(qio_cx cx, const qio_event *event, void *user) {
    (void)user;
    qio->answer(cx, event->data);
}

static void null(qio_cx cx, const qio_event *event, void *user) {
    (void)event, (void)user;
    qio->answer(cx, QIO_NO_STR);
}

static void error(qio_cx cx, const qio_event *event, void *user) {
    (void)event, (void)user;
    qio->answer_error(cx, 420, QIO_STR("calm down"));
}

static void error_without_words(qio_cx cx, const qio_event *event, void *user) {
    (void)event, (void)user;
    qio->answer_error(cx, 404, QIO_NO_STR);
}

static void error_with_data(qio_cx cx, const qio_event *event, void *user) {
    qio_answer answer = QIO_ANSWER;
    (void)user;
    answer.code = 418;
    answer.data = event->data;
    answer.message = QIO_STR("a teapot");
    qio->answer_with(cx, &answer);
}

static void never(qio_cx cx, const qio_event *event, void *user) {
    (void)event, (void)user;
    qio->answer_never(cx);
}

static void forget(qio_cx cx, const qio_event *event, void *user) { (void)cx, (void)event, (void)user; }

static void place(qio_cx cx, const qio_event *event, void *user) {
    char path[QIO_PATH_BYTES_MAX], json[3 * QIO_PATH_BYTES_MAX];
    qio_str full = qio_full_path(path, event->path, event->extra);
    (void)user;
    snprintf(json, sizeof(json), "[\"%.*s\",\"%.*s\",\"%.*s\",%u]", (int)event->path.len, event->path.ptr,
             (int)event->extra.len, event->extra.ptr, (int)full.len, full.ptr, (unsigned)event->wants_answer);
    qio->answer(cx, qio_cstr(json));
    qio->broadcast(cx, full, event->data);
}

static void shard(qio_cx cx, const qio_event *event, void *user) {
    char json[100];
    (void)user;
    snprintf(json, sizeof(json), "[%u,%u,%llu]", qio->shard(cx), event->client.shard,
             (unsigned long long)qio->now_ms(cx));
    qio->answer(cx, qio_cstr(json));
}

static void *count_cores(void *cores) {
    cpu_set_t set;
    *(int *)cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : -1;
    return NULL;
}

/* The number of cores on which the shard, a thread that it starts and a process that it forks may run. */
static void cores(qio_cx cx, const qio_event *event, void *user) {
    char json[100];
    int here = 0, in_thread = 0, status = 0;
    pthread_t thread;
    (void)event, (void)user;
    count_cores(&here);
    if (pthread_create(&thread, NULL, count_cores, &in_thread) == 0) pthread_join(thread, NULL);
    pid_t child = fork();
    if (child == 0) {
        int in_child = 0;
        count_cores(&in_child);
        _exit(in_child);
    }
    waitpid(child, &status, 0);
    snprintf(json, sizeof(json), "[%d,%d,%d]", here, in_thread, WEXITSTATUS(status));
    qio->answer(cx, qio_cstr(json));
}

static void frees(qio_cx cx, const qio_event *event, void *user) {
    char json[100];
    (void)event, (void)user;
    snprintf(json, sizeof(json), "[%d,%d]", atomic_load(&given), atomic_load(&freed));
    qio->answer(cx, qio_cstr(json));
}

/* ---- Callbacks ---- */

static void replied(qio_cx cx, const qio_reply *reply, void *user);

static qio_callback offer(void) {
    qio_callback callback = {replied, NULL, give_back};
    callback.user = give();
    return callback;
}

/* Answers with the reply's data, and offers another callback. */
static void replied(qio_cx cx, const qio_reply *reply, void *user) {
    qio_answer answer = QIO_ANSWER;
    qio_callback callback = offer();
    (void)user;
    answer.data = reply->data;
    answer.callback = &callback;
    qio->answer_with(cx, &answer);
}

static void dialogue(qio_cx cx, const qio_event *event, void *user) {
    qio_answer answer = QIO_ANSWER;
    qio_callback callback = offer();
    (void)user;
    if (qio_equal(event->data, QIO_STR("\"refused\""))) answer.code = 400;
    answer.callback = &callback;
    qio->answer_with(cx, &answer);
}

static void confirmed(qio_cx cx, const qio_reply *reply, void *user) {
    (void)user;
    qio->send(cx, reply->client, QIO_STR("/c/confirmed"), reply->data, NULL);
    qio->answer(cx, QIO_NO_STR);
}

static void receipt(qio_cx cx, const qio_event *event, void *user) {
    qio_callback callback = {confirmed, NULL, give_back};
    (void)user;
    callback.user = give();
    qio->send(cx, event->client, QIO_STR("/c/confirm"), event->data, &callback);
    qio->answer(cx, QIO_NO_STR);
}

/* ---- A thread that runs tasks ---- */

typedef struct task {
    void (*run)(struct task *task);
    qio_promise promise;
    qio_client client;
    qio_cx cx;
    struct task *next;
} task;

static pthread_t worker;
static int worker_started;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static task *first, **last = &first;
static int worker_stops;

static void *work(void *nothing) {
    (void)nothing;
    pthread_mutex_lock(&lock);
    for (;;) {
        task *next = first;
        if (next == NULL && worker_stops) break;
        if (next == NULL) {
            pthread_cond_wait(&more, &lock);
            continue;
        }
        first = next->next;
        if (first == NULL) last = &first;
        pthread_mutex_unlock(&lock);
        next->run(next);
        free(next);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void give_task(void (*run)(task *), qio_promise promise, qio_client client, qio_cx cx) {
    task *next = calloc(1, sizeof(task));
    next->run = run;
    next->promise = promise;
    next->client = client;
    next->cx = cx;
    pthread_mutex_lock(&lock);
    *last = next;
    last = &next->next;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
}

static void answer_text(qio_promise promise, const char *json) {
    qio_answer answer = QIO_ANSWER;
    answer.data = qio_cstr(json);
    while (qio->promise_answer(promise, &answer) == QIO_BUSY) {
        struct timespec a_ms = {0, 1000000};
        nanosleep(&a_ms, NULL);
    }
}

static void late(task *task) { answer_text(task->promise, "\"late\""); }

static void late_dialogue(task *task) {
    qio_answer answer = QIO_ANSWER;
    qio_callback callback = offer();
    answer.callback = &callback;
    qio->promise_answer(task->promise, &answer);
}

static void drop(task *task) { qio->promise_drop(task->promise); }

static void decide_yes(task *task) { qio->promise_decide(task->promise, 1); }

static void decide_no(task *task) { qio->promise_decide(task->promise, 0); }

/* Calls from a thread that are invalid, and calls that are allowed. Answers with the report. */
static void misuse(task *task) {
    report report = {"", 0};
    qio_client client;
    qio_answer bad = QIO_ANSWER;
    qio_callback callback = offer();
    qio_promise made_up = {0x1234567800000001u}, none = {0};
    int before = atomic_load(&freed);
    char json[8192];

    expect(&report, "answer", qio->answer(task->cx, QIO_NO_STR), QIO_WRONG_THREAD);
    expect(&report, "broadcast", qio->broadcast(task->cx, QIO_STR("/c/tick"), QIO_NO_STR), QIO_WRONG_THREAD);
    expect(&report, "shard", qio->shard(task->cx), UINT32_MAX);
    expect(&report, "now_ms", qio->now_ms(task->cx) == UINT64_MAX, 1);
    expect(&report, "client_data", qio->client_data(task->cx, task->client) == NULL, 1);
    expect(&report, "promise_client", qio->promise_client(task->promise, &client), QIO_OK);
    expect(&report, "is the client", qio_same_client(client, task->client), 1);
    expect(&report, "decide a promise to answer", qio->promise_decide(task->promise, 1), QIO_WRONG_PLACE);
    bad.code = 70000;
    bad.callback = &callback;
    expect(&report, "bad code", qio->promise_answer(task->promise, &bad), QIO_BAD_VALUE);
    expect(&report, "bad code frees the callback", atomic_load(&freed) - before, 1);
    expect(&report, "NULL answer", qio->promise_answer(task->promise, NULL), QIO_BAD_POINTER);
    expect(&report, "invented promise", qio->promise_drop(made_up), QIO_GONE);
    expect(&report, "promise 0", qio->promise_drop(none), QIO_GONE);
    expect(&report, "client of promise 0", qio->promise_client(none, &client), QIO_GONE);
    if (qio->json_string(qio_text(report.text, report.len), json, sizeof(json), NULL) == QIO_OK) {
        answer_text(task->promise, json);
    }
    report.len = 0;
    bad.code = 200;
    bad.callback = NULL;
    expect(&report, "answered twice", qio->promise_answer(task->promise, &bad), QIO_GONE);
    expect(&report, "drop after the answer", qio->promise_drop(task->promise), QIO_GONE);
    if (qio->json_string(qio_text(report.text, report.len), json, sizeof(json), NULL) == QIO_OK) {
        qio->server_broadcast(self, QIO_STR("/c/misused"), qio_cstr(json));
    }
}

/* Everything that a thread may send without a request. */
static void unasked(task *task) {
    qio_callback callback = {confirmed, NULL, give_back};
    callback.user = give();
    qio->server_send(self, task->client, QIO_STR("/c/confirm"), QIO_STR("\"from a thread\""), &callback);
    qio->server_send(self, task->client, QIO_STR("/c/sent"), QIO_STR("1"), NULL);
    qio->server_broadcast(self, QIO_STR("/c/tick"), QIO_STR("\"from a thread\""));
}

static void close_client(task *task) { qio->server_close(self, task->client); }

static void move_client(task *task) { qio->server_move(self, task->client, QIO_STR("ws://elsewhere \"")); }

/* Gives a request to the thread. `user` is the function that the thread runs. */
typedef void (*task_function)(task *);
static const task_function on_thread[] = {late, late_dialogue, drop, misuse, unasked, close_client, move_client};
/* The first four need a promise; for the others, the request is answered at once. */
enum { WITH_PROMISE = 4 };

static void hand_over(qio_cx cx, const qio_event *event, void *user) {
    size_t nth = (size_t)((const task_function *)user - on_thread);
    qio_promise promise = {0};
    if (nth < WITH_PROMISE) {
        if (qio->later(cx, &promise) != QIO_OK) return;
    } else {
        qio->answer(cx, QIO_NO_STR);
    }
    give_task(on_thread[nth], promise, event->client, cx);
}

/* ---- Subscriptions ---- */

static int32_t may_subscribe(qio_cx cx, const qio_subscription *subscription, void *user) {
    qio_promise promise;
    qio_str data = subscription->data;
    (void)user;
    if (qio_equal(data, QIO_STR("\"yes\""))) return QIO_ACCEPT;
    if (qio_equal(data, QIO_STR("\"bad\""))) return 99;
    if (qio_equal(data, QIO_STR("\"fail\""))) return QIO_FAIL;
    if (qio_equal(data, QIO_STR("\"promised nothing\""))) return QIO_DECIDE_LATER;
    if (qio_equal(data, QIO_STR("\"options\""))) {
        if (qio->size < QIO_API_SIZE_0_4) return QIO_FAIL;
        qio->send(cx, subscription->client, QIO_STR("/c/options"), subscription->options, NULL);
        return qio_equal(subscription->options, QIO_STR("null")) ? QIO_REFUSE : QIO_ACCEPT;
    }
    if (qio_equal(data, QIO_STR("\"misused\""))) {
        report report = {"", 0};
        expect(&report, "answer", qio->answer(cx, QIO_NO_STR), QIO_WRONG_PLACE);
        expect(&report, "later", qio->later(cx, &promise), QIO_WRONG_PLACE);
        expect(&report, "NULL promise", qio->later_decision(cx, NULL), QIO_BAD_POINTER);
        if (report.len > 0) qio->log(self, QIO_LOG_ERROR, qio_text(report.text, report.len));
        return report.len > 0 ? QIO_REFUSE : QIO_ACCEPT;
    }
    if (qio_equal(data, QIO_STR("\"later\"")) || qio_equal(data, QIO_STR("\"later no\"")) ||
        qio_equal(data, QIO_STR("\"dropped\""))) {
        qio_cx none = {0};
        if (qio->later_decision(cx, &promise) != QIO_OK) return QIO_REFUSE;
        give_task(qio_equal(data, QIO_STR("\"later\""))      ? decide_yes
                  : qio_equal(data, QIO_STR("\"later no\"")) ? decide_no
                                                             : drop,
                  promise, subscription->client, none);
        return QIO_DECIDE_LATER;
    }
    return QIO_REFUSE;
}

static void has_left(qio_cx cx, const qio_unsubscribed *unsubscribed, void *user) {
    char json[2 * QIO_PATH_BYTES_MAX];
    (void)user;
    snprintf(json, sizeof(json), "\"%.*s\"", (int)unsubscribed->extra.len, unsubscribed->extra.ptr);
    qio->broadcast(cx, QIO_STR("/c/left"), qio_cstr(json));
}

/* ---- Data of a client ---- */

static void visits(qio_cx cx, const qio_event *event, void *user) {
    int *count = qio->client_data(cx, event->client);
    char json[100];
    (void)user;
    if (count == NULL) {
        count = calloc(1, sizeof(int));
        atomic_fetch_add(&given, 1);
        if (qio->set_client_data(cx, event->client, count, give_back) != QIO_OK) return;
    }
    snprintf(json, sizeof(json), "%d", ++*count);
    qio->answer(cx, qio_cstr(json));
}

static void replace(qio_cx cx, const qio_event *event, void *user) {
    (void)user;
    int *count = calloc(1, sizeof(int));
    atomic_fetch_add(&given, 1);
    qio->set_client_data(cx, event->client, count, give_back);
    qio->answer(cx, QIO_NO_STR);
}

static void take(qio_cx cx, const qio_event *event, void *user) {
    void *taken = qio->take_client_data(cx, event->client);
    (void)user;
    qio->answer(cx, taken == NULL ? QIO_STR("false") : QIO_STR("true"));
    if (taken != NULL) give_back(taken); /* the application owns it again */
}

/* ---- Timers, sending, closing ---- */

static void ring(qio_cx cx, void *user) {
    const qio_client *client = user;
    qio->send(cx, *client, QIO_STR("/c/rang"), QIO_NO_STR, NULL);
}

static void after(qio_cx cx, const qio_event *event, void *user) {
    qio_client *client = malloc(sizeof(qio_client));
    (void)user;
    atomic_fetch_add(&given, 1);
    *client = event->client;
    qio->after(cx, 100, ring, client, give_back);
    qio->answer(cx, QIO_NO_STR);
}

static void tick(qio_cx cx, void *user) {
    (void)user;
    qio->broadcast(cx, QIO_STR("/c/tick"), QIO_STR("\"tick\""));
}

static void close_now(qio_cx cx, const qio_event *event, void *user) {
    (void)user;
    qio->close(cx, event->client);
    qio->answer(cx, QIO_NO_STR);
}

static void move_now(qio_cx cx, const qio_event *event, void *user) {
    (void)user;
    qio->move(cx, event->client, QIO_STR("ws://elsewhere"));
    qio->answer(cx, QIO_NO_STR);
}

/* ---- Settings, log ---- */

static void settings(qio_cx cx, const qio_event *event, void *user) {
    char json[1000];
    size_t len = 0, nth;
    qio_str key, value;
    (void)event, (void)user;
    json[len++] = '"';
    for (nth = 0; qio->setting_nth(self, nth, &key, &value) == QIO_OK; nth++) {
        qio_str again;
        if (qio->setting(self, key, &again) != QIO_OK || !qio_equal(again, value)) return;
        len += (size_t)snprintf(json + len, sizeof(json) - len, "%.*s=%.*s;", (int)key.len, key.ptr, (int)value.len,
                                value.ptr);
    }
    snprintf(json + len, sizeof(json) - len, "\"");
    qio->answer(cx, qio_cstr(json));
}

static void log_all(qio_cx cx, const qio_event *event, void *user) {
    char json[100];
    (void)event, (void)user;
    qio->log(self, QIO_LOG_ERROR, QIO_STR("an error of c"));
    qio->log(self, QIO_LOG_WARN, QIO_STR("a warning of c"));
    qio->log(self, QIO_LOG_INFO, QIO_STR("an info of c, with \xff in it"));
    qio->log(self, QIO_LOG_DEBUG, QIO_STR("a debug of c"));
    qio->log(self, QIO_LOG_TRACE, QIO_STR("a trace of c"));
    snprintf(json, sizeof(json), "[%d,%d]", qio->log_enabled(QIO_LOG_INFO), qio->log_enabled(QIO_LOG_DEBUG));
    qio->answer(cx, qio_cstr(json));
}

/* ---- Misuse ---- */

static qio_cx kept; /* the context of a handler that has returned; one test uses it, with one client at a time */

static void keep_context(qio_cx cx, const qio_event *event, void *user) {
    (void)event, (void)user;
    kept = cx;
    qio->answer(cx, QIO_NO_STR);
}

static qio_cx nested_cx;
static qio_status nested_status;

static void free_and_use(void *user) {
    nested_status = qio->broadcast(nested_cx, QIO_STR("/c/tick"), QIO_NO_STR);
    give_back(user);
}

static void statuses(qio_cx cx, const qio_event *event, void *user) {
    report report = {"", 0};
    char buffer[8];
    char long_path[3000];
    size_t len;
    int before;
    qio_str value;
    qio_promise promise;
    qio_event_spec spec = QIO_EVENT_SPEC;
    qio_answer answer = QIO_ANSWER;
    qio_callback without_run = {NULL, NULL, give_back};
    qio_callback good = offer();
    qio_cx none = {0}, made_up = {0xffffffffffffffffu};
    qio_registrar no_registrar = {0}, cx_as_registrar;
    qio_server no_server = {0}, far_server = {1000};
    qio_str bad_utf8 = QIO_STR("\"\xff\"");
    qio_str bad_pointer = {NULL, 5};
    qio_str too_long = {"x", (size_t)-1};
    (void)user;
    cx_as_registrar.id = cx.id;
    memset(long_path, 'a', sizeof(long_path));

    expect(&report, "context of a handler that has returned", qio->answer(kept, QIO_NO_STR), QIO_STALE);
    expect(&report, "context 0", qio->answer(none, QIO_NO_STR), QIO_STALE);
    expect(&report, "invented context", qio->answer(made_up, QIO_NO_STR), QIO_WRONG_THREAD);
    expect(&report, "shard of context 0", qio->shard(none), UINT32_MAX);
    expect(&report, "take_client_data of context 0", qio->take_client_data(none, event->client) == NULL, 1);

    expect(&report, "answer with invalid UTF-8", qio->answer(cx, bad_utf8), QIO_BAD_TEXT);
    expect(&report, "NULL with a length", qio->answer(cx, bad_pointer), QIO_BAD_POINTER);
    expect(&report, "text with the largest length", qio->answer(cx, too_long), QIO_BAD_POINTER);
    expect(&report, "error with invalid UTF-8", qio->answer_error(cx, 400, bad_utf8), QIO_BAD_TEXT);
    expect(&report, "error code 65536", qio->answer_error(cx, 65536, QIO_NO_STR), QIO_BAD_VALUE);
    expect(&report, "NULL answer", qio->answer_with(cx, NULL), QIO_BAD_POINTER);
    answer.size = 8;
    expect(&report, "answer with a small size", qio->answer_with(cx, &answer), QIO_BAD_VALUE);
    answer.size = sizeof(answer);
    before = atomic_load(&freed);
    without_run.user = give();
    answer.callback = &without_run;
    expect(&report, "callback without function", qio->answer_with(cx, &answer), QIO_BAD_POINTER);
    expect(&report, "callback without function is freed", atomic_load(&freed) - before, 1);
    answer.callback = (const qio_callback *)((uintptr_t)&good | 1);
    expect(&report, "misaligned callback", qio->answer_with(cx, &answer), QIO_BAD_POINTER);

    expect(&report, "empty path", qio->broadcast(cx, QIO_NO_STR, QIO_NO_STR), QIO_BAD_PATH);
    expect(&report, "path without valid characters", qio->broadcast(cx, QIO_STR("/@/"), QIO_NO_STR), QIO_BAD_PATH);
    expect(&report, "long path", qio->broadcast(cx, qio_text(long_path, sizeof(long_path)), QIO_NO_STR), QIO_BAD_PATH);
    expect(&report, "path with invalid UTF-8", qio->broadcast(cx, bad_utf8, QIO_NO_STR), QIO_BAD_TEXT);
    expect(&report, "data with invalid UTF-8", qio->broadcast(cx, QIO_STR("/c/tick"), bad_utf8), QIO_BAD_TEXT);
    before = atomic_load(&freed);
    expect(&report, "send to an empty path", qio->send(cx, event->client, QIO_NO_STR, QIO_NO_STR, &good), QIO_BAD_PATH);
    expect(&report, "send to an empty path frees the callback", atomic_load(&freed) - before, 1);
    good = offer();
    before = atomic_load(&freed);
    expect(&report, "send with context 0", qio->send(none, event->client, QIO_STR("/c/sent"), QIO_NO_STR, &good),
           QIO_STALE);
    expect(&report, "send with context 0 frees the callback", atomic_load(&freed) - before, 1);
    good = offer();
    expect(&report, "send to an unknown client",
           qio->send(cx, no_client(), QIO_STR("/c/sent"), QIO_NO_STR, &good), QIO_OK);
    good = offer();
    expect(&report, "server_send to an unknown client",
           qio->server_send(self, no_client(), QIO_STR("/c/sent"), QIO_NO_STR, &good), QIO_OK);
    good = offer();
    before = atomic_load(&freed);
    expect(&report, "server_send with server 0",
           qio->server_send(no_server, no_client(), QIO_STR("/c"), QIO_NO_STR, &good), QIO_STALE);
    expect(&report, "server_send with server 0 frees the callback", atomic_load(&freed) - before, 1);
    expect(&report, "unknown server", qio->server_broadcast(far_server, QIO_STR("/c"), QIO_NO_STR), QIO_STALE);
    expect(&report, "close an unknown client", qio->close(cx, no_client()), QIO_OK);

    before = atomic_load(&freed);
    expect(&report, "data of an unknown client", qio->set_client_data(cx, no_client(), give(), give_back), QIO_GONE);
    expect(&report, "data of an unknown client is freed", atomic_load(&freed) - before, 1);
    before = atomic_load(&freed);
    expect(&report, "after without function", qio->after(cx, 1, NULL, give(), give_back), QIO_BAD_POINTER);
    expect(&report, "after without function frees its argument", atomic_load(&freed) - before, 1);
    nested_cx = cx;
    nested_status = QIO_OK;
    qio->set_client_data(cx, event->client, give(), free_and_use);
    qio->set_client_data(cx, event->client, NULL, NULL);
    expect(&report, "broadcast in a free function", nested_status, QIO_NESTED);

    spec.path = QIO_STR("/c/too-late");
    expect(&report, "register_event in a handler", qio->register_event(cx_as_registrar, &spec), QIO_STALE);
    expect(&report, "every with registrar 0", qio->every(no_registrar, 1, tick, NULL, NULL), QIO_STALE);
    expect(&report, "shard of registrar 0", qio->registrar_shard(no_registrar), UINT32_MAX);
    expect(&report, "later_decision in a handler", qio->later_decision(cx, &promise), QIO_WRONG_PLACE);

    expect(&report, "unknown setting", qio->setting(self, QIO_STR("nobody"), &value), QIO_NOT_FOUND);
    expect(&report, "setting_nth to NULL", qio->setting_nth(self, 0, NULL, NULL), QIO_NOT_FOUND);
    expect(&report, "setting of server 0", qio->setting(no_server, QIO_STR("a"), &value), QIO_STALE);

    expect(&report, "valid JSON", qio->json_check(QIO_STR("{\"a\":[1,2]}")), QIO_OK);
    expect(&report, "invalid JSON", qio->json_check(QIO_STR("{\"a\":[1,2}")), QIO_BAD_JSON);
    expect(&report, "member", qio->json_member(QIO_STR("{\"a\":1,\"b\":\"x\"}"), QIO_STR("b"), &value), QIO_OK);
    expect(&report, "value of the member", qio_equal(value, QIO_STR("\"x\"")), 1);
    expect(&report, "missing member", qio->json_member(QIO_STR("{}"), QIO_STR("b"), &value), QIO_NOT_FOUND);
    expect(&report, "member of a number", qio->json_member(QIO_STR("1"), QIO_STR("b"), &value), QIO_BAD_JSON);
    expect(&report, "text", qio->json_text(QIO_STR("\"a\\u00e9\\n\""), buffer, sizeof(buffer), &len), QIO_OK);
    expect(&report, "length of the text", (long long)len, 4);
    expect(&report, "bytes of the text", memcmp(buffer, "a\xc3\xa9\n", 5), 0);
    expect(&report, "long text", qio->json_text(QIO_STR("\"12345678\""), buffer, sizeof(buffer), &len), QIO_TOO_LONG);
    expect(&report, "length of the long text", (long long)len, 8);
    expect(&report, "text to NULL", qio->json_text(QIO_STR("\"a\""), NULL, 5, NULL), QIO_BAD_POINTER);
    expect(&report, "string", qio->json_string(QIO_STR("\"\n"), buffer, sizeof(buffer), &len), QIO_OK);
    expect(&report, "escaped string", strcmp(buffer, "\"\\\"\\n\""), 0);
    expect(&report, "text of QIO_OK", strcmp(qio->error_text(QIO_OK), "no error"), 0);
    expect(&report, "text of an unknown status", strcmp(qio->error_text(12345), "an unknown status"), 0);
    qio->fail(no_server, QIO_STR("ignored"));
    qio->log(no_server, 99, bad_pointer);

    /* The first answer counts. All further ones must be refused. */
    answer_report(cx, &report);
    report.len = 0;
    answer.callback = NULL;
    expect(&report, "second answer", qio->answer(cx, QIO_NO_STR), QIO_ANSWERED);
    expect(&report, "error after the answer", qio->answer_error(cx, 400, QIO_NO_STR), QIO_ANSWERED);
    expect(&report, "answer_never after the answer", qio->answer_never(cx), QIO_ANSWERED);
    good = offer();
    answer.callback = &good;
    expect(&report, "answer_with after the answer", qio->answer_with(cx, &answer), QIO_ANSWERED);
    expect(&report, "later after the answer", qio->later(cx, &promise), QIO_ANSWERED);
    if (report.len > 0) qio->log(self, QIO_LOG_ERROR, qio_text(report.text, report.len));
}

/* The promise is written to NULL, so the client must be answered 500. */
static void promise_nowhere(qio_cx cx, const qio_event *event, void *user) {
    (void)event, (void)user;
    qio->later(cx, NULL);
}

/* ---- The application ---- */

static int32_t event(qio_registrar registrar, const char *path, qio_handler handler, uint32_t flags, void *user) {
    qio_event_spec spec = QIO_EVENT_SPEC;
    spec.path = qio_cstr(path);
    spec.handler = handler;
    spec.flags = flags;
    spec.user = user == NULL ? give() : user;
    spec.free = user == NULL ? give_back : NULL;
    return qio->register_event(registrar, &spec);
}

static int32_t register_events(qio_registrar registrar) {
    static const struct {
        const char *path;
        qio_handler handler;
        uint32_t flags;
        const task_function *task;
    } events[] = {
        {"/c/echo", echo, 0, NULL},
        {"/c/null", null, 0, NULL},
        {"/c/who", who, 0, NULL},
        {"/c/error", error, 0, NULL},
        {"/c/error-without-words", error_without_words, 0, NULL},
        {"/c/error-with-data", error_with_data, 0, NULL},
        {"/c/never", never, 0, NULL},
        {"/c/forget", forget, 0, NULL},
        {"/c/no-handler", NULL, 0, NULL},
        {"/c/place", place, QIO_CHILDREN, NULL},
        {"/c/shard", shard, QIO_NO_SUBSCRIPTIONS, NULL},
        {"/c/frees", frees, 0, NULL},
        {"/c/cores", cores, 0, NULL},
        {"/c/dialogue", dialogue, 0, NULL},
        {"/c/receipt", receipt, 0, NULL},
        {"/c/late", hand_over, 0, &on_thread[0]},
        {"/c/late-dialogue", hand_over, 0, &on_thread[1]},
        {"/c/dropped", hand_over, 0, &on_thread[2]},
        {"/c/misuse", hand_over, 0, &on_thread[3]},
        {"/c/unasked", hand_over, 0, &on_thread[4]},
        {"/c/close-later", hand_over, 0, &on_thread[5]},
        {"/c/move-later", hand_over, 0, &on_thread[6]},
        {"/c/visits", visits, 0, NULL},
        {"/c/replace", replace, 0, NULL},
        {"/c/take", take, 0, NULL},
        {"/c/after", after, 0, NULL},
        {"/c/close", close_now, 0, NULL},
        {"/c/move", move_now, 0, NULL},
        {"/c/settings", settings, 0, NULL},
        {"/c/log", log_all, 0, NULL},
        {"/c/keep-context", keep_context, 0, NULL},
        {"/c/statuses", statuses, 0, NULL},
        {"/c/promise-nowhere", promise_nowhere, 0, NULL},
        {"/c/tick", NULL, 0, NULL},
        {"/c/left", NULL, 0, NULL},
        {"/c/misused", NULL, 0, NULL},
    };
    qio_event_spec spec = QIO_EVENT_SPEC;
    size_t nth;
    qio_status status;
    for (nth = 0; nth < sizeof(events) / sizeof(events[0]); nth++) {
        void *user = (void *)(uintptr_t)events[nth].task;
        status = event(registrar, events[nth].path, events[nth].handler, events[nth].flags, user);
        if (status != QIO_OK) return status;
    }
    spec.path = QIO_STR("/c/on");
    spec.flags = QIO_CHILDREN;
    spec.on = may_subscribe;
    spec.off = has_left;
    spec.user = give();
    spec.free = give_back;
    status = qio->register_event(registrar, &spec);
    if (status != QIO_OK) return status;
    if (qio->registrar_shard(registrar) == 0) return qio->every(registrar, 1000, tick, give(), give_back);
    return QIO_OK;
}

static int32_t init(const qio_api *api, qio_server server) {
    qio = api;
    self = server;
    if (api->abi != QIO_ABI_VERSION || api->size < sizeof(qio_api)) return QIO_FAILED;
    if (qio->server_broadcast(self, QIO_STR("/c/tick"), QIO_NO_STR) != QIO_NOT_RUNNING) return QIO_FAILED;
    qio->log(self, QIO_LOG_INFO, QIO_STR("init was called"));
    return QIO_OK;
}

static int32_t start(void) {
    worker_started = pthread_create(&worker, NULL, work, NULL) == 0;
    return worker_started ? QIO_OK : QIO_FAILED;
}

static void stop(void) {
    pthread_mutex_lock(&lock);
    worker_stops = 1;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
    if (worker_started) pthread_join(worker, NULL);
    fprintf(stderr, "stopped with %d given and %d freed\n", atomic_load(&given), atomic_load(&freed));
}

static int32_t self_test(void) { return QIO_OK; }

const qio_app_info qio_app = {QIO_APP_HEAD, "all", init, register_events, start, stop, self_test};
