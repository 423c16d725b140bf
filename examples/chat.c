/* The chat of chat.rs in C: rooms, names that are unique in a room, history, presence, messages to one member with a
 * receipt, statistics. The first lines of chat.rs describe the events.
 *
 *     cc -shared -fPIC -pthread -I src/app/c -o chat.so examples/chat.c
 *     quickio --listen 127.0.0.1:8080 --app ./chat.so
 *
 * All shards use the rooms, so the rooms belong to a thread of the application, the keeper. Handlers check an event,
 * pass it to the keeper with a promise to answer, and return. */
#define _POSIX_C_SOURCE 200809L
#include "quickio.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* The number of messages that a room keeps for members who join later. */
#define HISTORY_MESSAGES_MAX 50
#define TEXT_BYTES_MAX 2000
#define NAME_BYTES_MAX 32
/* The most requests that may wait for the keeper. Further ones are answered 420. */
#define REQUESTS_MAX 10000
/* The most events that one client may send in each period. */
#define EVENTS_PER_PERIOD_MAX 20
#define PERIOD_MS 1000
/* The most bytes of a text as a JSON string: each byte may become \u0000. */
#define JSON_BYTES(bytes) (6 * (bytes) + 3)

#define ROOM_PATH "/chat/room"

static const qio_api *qio;
static qio_server self;

/* The statistics: written by the keeper, read by the timer on shard 0. */
static atomic_ullong rooms_total, members_total, messages_total;

/* ---- The queue from the shards to the keeper ---- */

typedef enum { JOIN, LEAVE, GONE, SAY, HISTORY, TELL } work_kind;

typedef struct work {
    struct work *next;
    work_kind kind;
    qio_client client;
    qio_promise promise;
    char room[QIO_PATH_BYTES_MAX];
    char name[NAME_BYTES_MAX + 1]; /* of the member that joins, or that a message is for */
    char text[TEXT_BYTES_MAX + 1];
} work;

static pthread_t keeper;
static int keeper_started, keeper_stops;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held for a few instructions only: shards must not wait */
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static work *first_work, **last_work = &first_work;
static atomic_int requests_waiting;

/* Copies the only segment of a path such as "/rust". Returns 0 if there is not exactly one. */
static int room_name(qio_str extra, char *room) {
    if (extra.len < 2 || extra.len > QIO_PATH_BYTES_MAX || extra.ptr[0] != '/') return 0;
    if (memchr(extra.ptr + 1, '/', extra.len - 1) != NULL) return 0;
    memcpy(room, extra.ptr + 1, extra.len - 1);
    room[extra.len - 1] = 0;
    return 1;
}

static work *new_work(work_kind kind, qio_client client, qio_str extra) {
    work *work = calloc(1, sizeof(*work));
    if (work == NULL) return NULL;
    work->kind = kind;
    work->client = client;
    if (kind != GONE && !room_name(extra, work->room)) {
        free(work);
        return NULL;
    }
    return work;
}

static void send_to_keeper(work *work) {
    pthread_mutex_lock(&lock);
    *last_work = work;
    last_work = &work->next;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
}

static work *next_work(void) {
    work *work;
    pthread_mutex_lock(&lock);
    while (first_work == NULL && !keeper_stops) pthread_cond_wait(&more, &lock);
    work = first_work;
    if (work != NULL) first_work = work->next;
    if (first_work == NULL) last_work = &first_work;
    pthread_mutex_unlock(&lock);
    return work;
}

/* ---- Code that runs on the shards ---- */

/* The data of a client. It needs no lock, because only the client's shard uses it. */
typedef struct guest {
    qio_client client;
    uint64_t period_began_ms;
    unsigned events;
} guest;

/* Tells the keeper that a client has disconnected. No off-hook runs for a client that disconnects while its
 * subscription is being decided, because it was never subscribed. Its data is always freed. */
static void free_guest(void *data) {
    guest *guest = data;
    work *work = new_work(GONE, guest->client, QIO_NO_STR);
    if (work != NULL) send_to_keeper(work);
    free(guest);
}

/* Counts an event of a client, and returns whether it exceeds the limit. */
static int is_flooding(qio_cx cx, qio_client client) {
    guest *guest = qio->client_data(cx, client);
    uint64_t now_ms = qio->now_ms(cx);
    if (guest == NULL) {
        guest = calloc(1, sizeof(*guest));
        if (guest == NULL) return 1;
        guest->client = client;
        guest->period_began_ms = now_ms;
        guest->events = 1;
        return qio->set_client_data(cx, client, guest, free_guest) != QIO_OK;
    }
    if (now_ms - guest->period_began_ms >= PERIOD_MS) {
        guest->period_began_ms = now_ms;
        guest->events = 0;
    }
    return ++guest->events > EVENTS_PER_PERIOD_MAX;
}

/* Copies a text member of an object. Returns QIO_TOO_LONG if it has `room` bytes or more, and QIO_BAD_JSON if it
 * contains a 0. */
static qio_status member(qio_str json, qio_str name, char *out, size_t room) {
    qio_str value;
    size_t len = 0;
    qio_status status = qio->json_member(json, name, &value);
    if (status == QIO_OK) status = qio->json_text(value, out, room, &len);
    return status == QIO_OK && strlen(out) != len ? QIO_BAD_JSON : status;
}

/* The on-hook. Only the keeper knows whether the name is free, so it decides later. */
static int32_t join(qio_cx cx, const qio_subscription *subscription, void *user) {
    work *work = new_work(JOIN, subscription->client, subscription->extra);
    (void)user;
    if (work == NULL) return QIO_REFUSE;
    if (member(subscription->data, QIO_STR("name"), work->name, sizeof(work->name)) != QIO_OK || work->name[0] == 0 ||
        is_flooding(cx, subscription->client) || qio->later_decision(cx, &work->promise) != QIO_OK) {
        free(work);
        return QIO_REFUSE;
    }
    send_to_keeper(work);
    return QIO_DECIDE_LATER;
}

/* The off-hook. */
static void leave(qio_cx cx, const qio_unsubscribed *unsubscribed, void *user) {
    work *work = new_work(LEAVE, unsubscribed->client, unsubscribed->extra);
    (void)cx, (void)user;
    if (work != NULL) send_to_keeper(work);
}

/* Reads the data of a request into `work`. Returns the message of an error, or NULL. */
static const char *parse(work *work, qio_str data) {
    qio_status text = QIO_OK;
    if (work->kind == HISTORY) return NULL;
    if (work->kind == TELL) {
        qio_status to = member(data, QIO_STR("to"), work->name, sizeof(work->name));
        if (to == QIO_TOO_LONG) work->name[0] = 0; /* no member has such a long name */
        else if (to != QIO_OK) return "{\"to\":NAME,\"text\":STRING} is needed";
    }
    text = member(data, QIO_STR("text"), work->text, sizeof(work->text));
    if (text == QIO_TOO_LONG) return "the text is too long";
    return text == QIO_OK ? NULL : "{\"text\":STRING} is needed";
}

/* The handler of all requests: checks the event, and passes it to the keeper, which answers. `user` is the kind. */
static void ask(qio_cx cx, const qio_event *event, void *user) {
    work *work = new_work(*(const work_kind *)user, event->client, event->extra);
    const char *error;
    if (work == NULL) {
        qio->answer_error(cx, 404, QIO_STR("no such room"));
        return;
    }
    error = parse(work, event->data);
    if (error != NULL) {
        qio->answer_error(cx, 400, qio_cstr(error));
    } else if (is_flooding(cx, event->client) || atomic_load(&requests_waiting) >= REQUESTS_MAX) {
        qio->answer_error(cx, 420, QIO_STR("calm down"));
    } else if (qio->later(cx, &work->promise) == QIO_OK) {
        atomic_fetch_add(&requests_waiting, 1);
        send_to_keeper(work);
        return;
    }
    free(work);
}

static void broadcast_statistics(qio_cx cx, void *user) {
    char json[200];
    (void)user;
    snprintf(json, sizeof(json), "{\"rooms\":%llu,\"members\":%llu,\"messages\":%llu}", atomic_load(&rooms_total),
             atomic_load(&members_total), atomic_load(&messages_total));
    qio->broadcast(cx, QIO_STR("/chat/stats"), qio_cstr(json));
}

/* ---- The keeper: one thread that owns all rooms, so that all changes have one order ---- */

typedef struct room_member {
    struct room_member *next;
    qio_client client;
    char name[NAME_BYTES_MAX + 1];
} room_member;

/* A room. It exists while it has members. */
typedef struct room {
    struct room *next;
    char name[QIO_PATH_BYTES_MAX];
    char path[QIO_PATH_BYTES_MAX + sizeof(ROOM_PATH)];
    room_member *members;
    char *history[HISTORY_MESSAGES_MAX]; /* message n, as JSON, is at n % HISTORY_MESSAGES_MAX */
    unsigned long long last;
} room;

static room *rooms;

/* Answers a request. If the inbox of the shard is full, the client gets no answer, as from a server that is too busy;
 * the server counts that. */
static void answer(qio_promise promise, uint32_t code, const char *message, const char *json) {
    qio_answer answer = QIO_ANSWER;
    answer.code = code;
    answer.message = qio_cstr(message);
    answer.data = qio_cstr(json);
    if (qio->promise_answer(promise, &answer) == QIO_BUSY) qio->promise_drop(promise);
}

static void decide(qio_promise promise, int accepted) {
    if (qio->promise_decide(promise, accepted) == QIO_BUSY) qio->promise_drop(promise);
}

static room *find_room(const char *name) {
    room *room = rooms;
    while (room != NULL && strcmp(room->name, name) != 0) room = room->next;
    return room;
}

static room *make_room(const char *name) {
    room *room = find_room(name);
    if (room != NULL) return room;
    room = calloc(1, sizeof(*room));
    if (room == NULL) return NULL;
    snprintf(room->name, sizeof(room->name), "%s", name);
    snprintf(room->path, sizeof(room->path), ROOM_PATH "/%s", name);
    room->next = rooms;
    rooms = room;
    atomic_fetch_add(&rooms_total, 1);
    return room;
}

static void remove_if_empty(room *room) {
    struct room **place = &rooms;
    size_t nth;
    if (room->members != NULL) return;
    while (*place != room) place = &(*place)->next;
    *place = room->next;
    for (nth = 0; nth < HISTORY_MESSAGES_MAX; nth++) free(room->history[nth]);
    free(room);
    atomic_fetch_sub(&rooms_total, 1);
}

static room_member *find_member(const room *room, qio_client client) {
    room_member *member = room->members;
    while (member != NULL && !qio_same_client(member->client, client)) member = member->next;
    return member;
}

static const room_member *find_name(const room *room, const char *name) {
    const room_member *member = room->members;
    while (member != NULL && strcmp(member->name, name) != 0) member = member->next;
    return member;
}

static void broadcast_presence(const room *room, const char *change, const char *name) {
    char quoted[JSON_BYTES(NAME_BYTES_MAX)], json[sizeof(quoted) + 20];
    qio->json_string(qio_cstr(name), quoted, sizeof(quoted), NULL);
    snprintf(json, sizeof(json), "{\"%s\":%s}", change, quoted);
    qio->server_broadcast(self, qio_cstr(room->path), qio_cstr(json));
}

static void handle_join(const work *work) {
    room *room = make_room(work->room);
    room_member *member = room == NULL ? NULL : find_member(room, work->client);
    if (room == NULL) {
        decide(work->promise, 0);
        return;
    }
    if (find_name(room, work->name) != NULL) {
        decide(work->promise, 0);
        remove_if_empty(room);
        return;
    }
    if (member == NULL) {
        member = calloc(1, sizeof(*member));
        if (member == NULL) {
            decide(work->promise, 0);
            remove_if_empty(room);
            return;
        }
        member->client = work->client;
        member->next = room->members;
        room->members = member;
        atomic_fetch_add(&members_total, 1);
    }
    memcpy(member->name, work->name, sizeof(member->name));
    broadcast_presence(room, "joined", work->name);
    decide(work->promise, 1);
}

static void handle_leave(room *room, qio_client client) {
    room_member **place = &room->members;
    while (*place != NULL && !qio_same_client((*place)->client, client)) place = &(*place)->next;
    if (*place != NULL) {
        room_member *member = *place;
        *place = member->next;
        atomic_fetch_sub(&members_total, 1);
        broadcast_presence(room, "left", member->name);
        free(member);
    }
    remove_if_empty(room);
}

static void handle_gone(qio_client client) {
    room *room = rooms;
    while (room != NULL) {
        struct room *next = room->next;
        if (find_member(room, client) != NULL) handle_leave(room, client);
        room = next;
    }
}

static void say(room *room, const char *from, const work *work) {
    static char name[JSON_BYTES(NAME_BYTES_MAX)], text[JSON_BYTES(TEXT_BYTES_MAX)]; /* only the keeper uses them */
    char number[30];
    size_t bytes = sizeof(name) + sizeof(text) + 60;
    char *json = malloc(bytes), **place;
    if (json == NULL) {
        answer(work->promise, 500, NULL, "");
        return;
    }
    qio->json_string(qio_cstr(from), name, sizeof(name), NULL);
    qio->json_string(qio_cstr(work->text), text, sizeof(text), NULL);
    snprintf(json, bytes, "{\"id\":%llu,\"from\":%s,\"text\":%s}", room->last + 1, name, text);
    if (qio->server_broadcast(self, qio_cstr(room->path), qio_cstr(json)) != QIO_OK) {
        free(json);
        answer(work->promise, 420, "calm down", "");
        return;
    }
    room->last++;
    atomic_fetch_add(&messages_total, 1);
    place = &room->history[room->last % HISTORY_MESSAGES_MAX];
    free(*place);
    *place = json;
    snprintf(number, sizeof(number), "%llu", room->last);
    answer(work->promise, 200, NULL, number);
}

static void answer_history(const room *room, qio_promise promise) {
    unsigned long long nth = room->last > HISTORY_MESSAGES_MAX ? room->last - HISTORY_MESSAGES_MAX : 0;
    size_t bytes = 3, len = 0, at;
    char *json;
    for (at = 0; at < HISTORY_MESSAGES_MAX; at++) {
        if (room->history[at] != NULL) bytes += strlen(room->history[at]) + 1;
    }
    json = malloc(bytes);
    if (json == NULL) {
        answer(promise, 500, NULL, "");
        return;
    }
    json[len++] = '[';
    while (nth++ < room->last) {
        if (len > 1) json[len++] = ',';
        len += (size_t)snprintf(json + len, bytes - len, "%s", room->history[nth % HISTORY_MESSAGES_MAX]);
    }
    json[len++] = ']';
    json[len] = 0;
    answer(promise, 200, NULL, json);
    free(json);
}

/* Runs when the member's client has confirmed the message. */
static void confirmed(qio_cx cx, const qio_reply *reply, void *user) {
    qio_promise *promise = user;
    (void)reply;
    answer(*promise, 200, NULL, "\"delivered\"");
    qio->answer(cx, QIO_NO_STR);
}

/* Runs when the callback is freed. The drop has no effect if the promise has been answered. */
static void free_receipt(void *user) {
    qio_promise *promise = user;
    qio->promise_drop(*promise);
    free(promise);
}

/* Sends a message to one member, and answers the sender when that member's client has confirmed it. If it never does,
 * the callback is freed after clients-cb-max-age, which drops the promise, and the sender is answered 500. */
static void tell(const room *room, const char *from, const work *work) {
    static char name[JSON_BYTES(NAME_BYTES_MAX)], text[JSON_BYTES(TEXT_BYTES_MAX)];
    static char json[sizeof(name) + sizeof(text) + 30];
    const room_member *to = find_name(room, work->name);
    qio_callback receipt = {confirmed, NULL, free_receipt};
    qio_promise *promise;
    if (to == NULL) {
        answer(work->promise, 404, "nobody here has that name", "");
        return;
    }
    promise = malloc(sizeof(*promise));
    if (promise == NULL) {
        answer(work->promise, 500, NULL, "");
        return;
    }
    *promise = work->promise;
    receipt.user = promise;
    qio->json_string(qio_cstr(from), name, sizeof(name), NULL);
    qio->json_string(qio_cstr(work->text), text, sizeof(text), NULL);
    snprintf(json, sizeof(json), "{\"from\":%s,\"text\":%s}", name, text);
    qio->server_send(self, to->client, QIO_STR("/chat/told"), qio_cstr(json), &receipt);
}

static void serve(const work *work) {
    room *room = find_room(work->room);
    const room_member *member = room == NULL ? NULL : find_member(room, work->client);
    atomic_fetch_sub(&requests_waiting, 1);
    if (room == NULL) {
        answer(work->promise, 404, "no such room", "");
    } else if (member == NULL) {
        answer(work->promise, 401, "join the room first", "");
    } else if (work->kind == SAY) {
        say(room, member->name, work);
    } else if (work->kind == HISTORY) {
        answer_history(room, work->promise);
    } else {
        tell(room, member->name, work);
    }
}

static void *run_keeper(void *nothing) {
    work *work;
    (void)nothing;
    while ((work = next_work()) != NULL) {
        room *room = find_room(work->room);
        switch (work->kind) {
        case JOIN: handle_join(work); break;
        case LEAVE:
            if (room != NULL) handle_leave(room, work->client);
            break;
        case GONE: handle_gone(work->client); break;
        default: serve(work);
        }
        free(work);
    }
    return NULL;
}

/* ---- The application ---- */

static int32_t init(const qio_api *api, qio_server server) {
    qio = api;
    self = server;
    return QIO_OK;
}

static int32_t add(qio_registrar registrar, const char *path, uint32_t flags, const work_kind *kind) {
    qio_event_spec spec = QIO_EVENT_SPEC;
    spec.path = qio_cstr(path);
    spec.flags = flags;
    spec.handler = kind == NULL ? NULL : ask;
    spec.user = (void *)(uintptr_t)kind;
    if (kind != NULL && *kind == SAY) {
        spec.on = join;
        spec.off = leave;
    }
    return qio->register_event(registrar, &spec);
}

static int32_t register_events(qio_registrar registrar) {
    static const work_kind say_kind = SAY, history_kind = HISTORY, tell_kind = TELL;
    add(registrar, ROOM_PATH, QIO_CHILDREN, &say_kind);
    add(registrar, "/chat/history", QIO_CHILDREN | QIO_NO_SUBSCRIPTIONS, &history_kind);
    add(registrar, "/chat/tell", QIO_CHILDREN | QIO_NO_SUBSCRIPTIONS, &tell_kind);
    add(registrar, "/chat/stats", 0, NULL); /* if an event cannot be registered, the server does not start */
    if (qio->registrar_shard(registrar) != 0) return QIO_OK;
    return qio->every(registrar, 1000, broadcast_statistics, NULL, NULL);
}

static int32_t start(void) {
    keeper_started = pthread_create(&keeper, NULL, run_keeper, NULL) == 0;
    if (!keeper_started) qio->fail(self, QIO_STR("the keeper's thread cannot be started"));
    return keeper_started ? QIO_OK : QIO_FAILED;
}

static void stop(void) {
    pthread_mutex_lock(&lock);
    keeper_stops = 1;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
    if (keeper_started) pthread_join(keeper, NULL);
}

/* Checks that JSON strings are escaped. */
static int32_t self_test(void) {
    char json[JSON_BYTES(20)];
    if (qio->json_string(QIO_STR("\"\n\x01"), json, sizeof(json), NULL) == QIO_OK &&
        qio->json_check(qio_cstr(json)) == QIO_OK) {
        return QIO_OK;
    }
    qio->fail(self, QIO_STR("JSON strings are not escaped correctly"));
    return QIO_FAILED;
}

const qio_app_info qio_app = {QIO_APP_HEAD, "chat", init, register_events, start, stop, self_test};
