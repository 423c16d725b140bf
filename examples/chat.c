/* The chat of chat.rs in C: rooms, names that are unique in a room, history, presence, messages to one member with a
 * receipt, statistics. The head of chat.rs says what clients send.
 *
 *     cc -shared -fPIC -pthread -I src/app/c -o chat.so examples/chat.c
 *     quickio --listen 127.0.0.1:8080 --app ./chat.so
 *
 * Rooms are the business of all shards, so none of them owns one: a thread of the application's own does, the keeper.
 * Handlers check what they are given, pass it on with the promise to answer, and return. */
#define _POSIX_C_SOURCE 200809L
#include "quickio.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* Messages that a room keeps for those who come later. */
#define HISTORY_MESSAGES_MAX 50
#define TEXT_BYTES_MAX 2000
#define NAME_BYTES_MAX 32
/* Requests that wait for the keeper; one more is answered 420. */
#define REQUESTS_MAX 10000
/* Events that one client may send in each of these periods. */
#define EVENTS_PER_PERIOD_MAX 20
#define PERIOD_MS 1000
/* Bytes of a text as a JSON string: each may become \u0000. */
#define JSON_BYTES(bytes) (6 * (bytes) + 3)

#define ROOM_PATH "/chat/room"

static const qio_api *qio;
static qio_server self;

/* What the timer tells: written by the keeper, read by shard 0. */
static atomic_ullong rooms_total, members_total, messages_total;

/* ---- The way from the shards to the keeper ---- */

typedef enum { JOIN, LEAVE, GONE, SAY, HISTORY, TELL } what;

typedef struct work {
    struct work *next;
    what what;
    qio_client client;
    qio_promise promise;
    char room[QIO_PATH_BYTES_MAX];
    char name[NAME_BYTES_MAX + 1]; /* of who joins; of whom something is for */
    char text[TEXT_BYTES_MAX + 1];
} work;

static pthread_t keeper;
static int keeper_runs, keeper_ends;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held for a few instructions only */
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static work *first_work, **last_work = &first_work;
static atomic_int requests_waiting;

/* The one segment of "/rust", terminated; 0 where there is none. */
static int room_name(qio_str extra, char *room) {
    if (extra.len < 2 || extra.len > QIO_PATH_BYTES_MAX || extra.ptr[0] != '/') return 0;
    if (memchr(extra.ptr + 1, '/', extra.len - 1) != NULL) return 0;
    memcpy(room, extra.ptr + 1, extra.len - 1);
    room[extra.len - 1] = 0;
    return 1;
}

static work *new_work(what what, qio_client client, qio_str extra) {
    work *work = calloc(1, sizeof(*work));
    if (work == NULL) return NULL;
    work->what = what;
    work->client = client;
    if (what != GONE && !room_name(extra, work->room)) {
        free(work);
        return NULL;
    }
    return work;
}

static void tell_keeper(work *work) {
    pthread_mutex_lock(&lock);
    *last_work = work;
    last_work = &work->next;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
}

static work *next_work(void) {
    work *work;
    pthread_mutex_lock(&lock);
    while (first_work == NULL && !keeper_ends) pthread_cond_wait(&more, &lock);
    work = first_work;
    if (work != NULL) first_work = work->next;
    if (first_work == NULL) last_work = &first_work;
    pthread_mutex_unlock(&lock);
    return work;
}

/* ---- What runs on the shards ---- */

/* What a shard keeps for a client: no lock, since nobody else sees it. */
typedef struct guest {
    qio_client client;
    uint64_t period_began_ms;
    unsigned events;
} guest;

/* A client whose connection ended while its subscription was still being decided never was subscribed, so no off-hook
 * runs for it. Its data is freed in any case. */
static void guest_gone(void *data) {
    guest *guest = data;
    work *work = new_work(GONE, guest->client, QIO_NO_STR);
    if (work != NULL) tell_keeper(work);
    free(guest);
}

/* Counts an event of a client; whether it was one too many. */
static int is_flooding(qio_cx cx, qio_client client) {
    guest *guest = qio->client_data(cx, client);
    uint64_t now_ms = qio->now_ms(cx);
    if (guest == NULL) {
        guest = calloc(1, sizeof(*guest));
        if (guest == NULL) return 1;
        guest->client = client;
        guest->period_began_ms = now_ms;
        guest->events = 1;
        return qio->set_client_data(cx, client, guest, guest_gone) != QIO_OK;
    }
    if (now_ms - guest->period_began_ms >= PERIOD_MS) {
        guest->period_began_ms = now_ms;
        guest->events = 0;
    }
    return ++guest->events > EVENTS_PER_PERIOD_MAX;
}

/* Takes a text member of an object. QIO_TOO_LONG where it has `room` bytes or more. A text with a 0 in it is none here. */
static qio_status member(qio_str json, qio_str name, char *out, size_t room) {
    qio_str value;
    size_t len = 0;
    qio_status status = qio->json_member(json, name, &value);
    if (status == QIO_OK) status = qio->json_text(value, out, room, &len);
    return status == QIO_OK && strlen(out) != len ? QIO_BAD_JSON : status;
}

/* Whether the name is free only the keeper knows: it decides later. */
static int32_t join(qio_cx cx, const qio_subscription *subscription, void *user) {
    work *work = new_work(JOIN, subscription->client, subscription->extra);
    (void)user;
    if (work == NULL) return QIO_REFUSE;
    if (member(subscription->data, QIO_STR("name"), work->name, sizeof(work->name)) != QIO_OK || work->name[0] == 0 ||
        is_flooding(cx, subscription->client) || qio->later_decision(cx, &work->promise) != QIO_OK) {
        free(work);
        return QIO_REFUSE;
    }
    tell_keeper(work);
    return QIO_DECIDE_LATER;
}

static void leave(qio_cx cx, const qio_unsubscribed *unsubscribed, void *user) {
    work *work = new_work(LEAVE, unsubscribed->client, unsubscribed->extra);
    (void)cx, (void)user;
    if (work != NULL) tell_keeper(work);
}

/* What is wrong with the data of a request; NULL where nothing is. */
static const char *parse(work *work, qio_str data) {
    qio_status text = QIO_OK;
    if (work->what == HISTORY) return NULL;
    if (work->what == TELL) {
        qio_status to = member(data, QIO_STR("to"), work->name, sizeof(work->name));
        if (to == QIO_TOO_LONG) work->name[0] = 0; /* nobody has such a name */
        else if (to != QIO_OK) return "{\"to\":NAME,\"text\":STRING} is needed";
    }
    text = member(data, QIO_STR("text"), work->text, sizeof(work->text));
    if (text == QIO_TOO_LONG) return "the text is too long";
    return text == QIO_OK ? NULL : "{\"text\":STRING} is needed";
}

/* What all handlers do: check, pass it to the keeper, and let that answer. `user` is what is asked for. */
static void ask(qio_cx cx, const qio_event *event, void *user) {
    work *work = new_work(*(const what *)user, event->client, event->extra);
    const char *wrong;
    if (work == NULL) {
        qio->answer_error(cx, 404, QIO_STR("no such room"));
        return;
    }
    wrong = parse(work, event->data);
    if (wrong != NULL) {
        qio->answer_error(cx, 400, qio_cstr(wrong));
    } else if (is_flooding(cx, event->client) || atomic_load(&requests_waiting) >= REQUESTS_MAX) {
        qio->answer_error(cx, 420, QIO_STR("calm down"));
    } else if (qio->later(cx, &work->promise) == QIO_OK) {
        atomic_fetch_add(&requests_waiting, 1);
        tell_keeper(work);
        return;
    }
    free(work);
}

static void tell_statistics(qio_cx cx, void *user) {
    char json[200];
    (void)user;
    snprintf(json, sizeof(json), "{\"rooms\":%llu,\"members\":%llu,\"messages\":%llu}", atomic_load(&rooms_total),
             atomic_load(&members_total), atomic_load(&messages_total));
    qio->broadcast(cx, QIO_STR("/chat/stats"), qio_cstr(json));
}

/* ---- The keeper: one thread that owns all rooms, so that what it does to them has one order ---- */

typedef struct room_member {
    struct room_member *next;
    qio_client client;
    char name[NAME_BYTES_MAX + 1];
} room_member;

/* A room lasts while somebody is in it. */
typedef struct room {
    struct room *next;
    char name[QIO_PATH_BYTES_MAX];
    char path[QIO_PATH_BYTES_MAX + sizeof(ROOM_PATH)];
    room_member *members;
    char *history[HISTORY_MESSAGES_MAX]; /* the message of number n at n % HISTORY_MESSAGES_MAX, as JSON */
    unsigned long long last;
} room;

static room *rooms;

/* A full inbox has counted it: the client waits in vain, as it would for a server that is too busy. */
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

static void end_if_empty(room *room) {
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

static void tell_presence(const room *room, const char *what, const char *name) {
    char quoted[JSON_BYTES(NAME_BYTES_MAX)], json[sizeof(quoted) + 20];
    qio->json_string(qio_cstr(name), quoted, sizeof(quoted), NULL);
    snprintf(json, sizeof(json), "{\"%s\":%s}", what, quoted);
    qio->server_broadcast(self, qio_cstr(room->path), qio_cstr(json));
}

static void keep_join(const work *work) {
    room *room = make_room(work->room);
    room_member *member = room == NULL ? NULL : find_member(room, work->client);
    if (room == NULL) {
        decide(work->promise, 0);
        return;
    }
    if (find_name(room, work->name) != NULL) {
        decide(work->promise, 0);
        end_if_empty(room);
        return;
    }
    if (member == NULL) {
        member = calloc(1, sizeof(*member));
        if (member == NULL) {
            decide(work->promise, 0);
            end_if_empty(room);
            return;
        }
        member->client = work->client;
        member->next = room->members;
        room->members = member;
        atomic_fetch_add(&members_total, 1);
    }
    memcpy(member->name, work->name, sizeof(member->name));
    tell_presence(room, "joined", work->name);
    decide(work->promise, 1);
}

static void keep_leave(room *room, qio_client client) {
    room_member **place = &room->members;
    while (*place != NULL && !qio_same_client((*place)->client, client)) place = &(*place)->next;
    if (*place != NULL) {
        room_member *member = *place;
        *place = member->next;
        atomic_fetch_sub(&members_total, 1);
        tell_presence(room, "left", member->name);
        free(member);
    }
    end_if_empty(room);
}

static void keep_gone(qio_client client) {
    room *room = rooms;
    while (room != NULL) {
        struct room *next = room->next;
        if (find_member(room, client) != NULL) keep_leave(room, client);
        room = next;
    }
}

static void say(room *room, const char *from, const work *work) {
    static char name[JSON_BYTES(NAME_BYTES_MAX)], text[JSON_BYTES(TEXT_BYTES_MAX)]; /* the keeper's alone */
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

static void tell_history(const room *room, qio_promise promise) {
    unsigned long long nth = room->last > HISTORY_MESSAGES_MAX ? room->last - HISTORY_MESSAGES_MAX : 0;
    size_t bytes = 3, len = 0, at;
    char *json;
    for (at = 0; at < HISTORY_MESSAGES_MAX; at++) bytes += room->history[at] == NULL ? 0 : strlen(room->history[at]) + 1;
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

/* The member's client has confirmed it. */
static void confirmed(qio_cx cx, const qio_reply *reply, void *user) {
    qio_promise *promise = user;
    (void)reply;
    answer(*promise, 200, NULL, "\"delivered\"");
    qio->answer(cx, QIO_NO_STR);
}

/* It has confirmed it, or never will: a promise that was kept cannot be dropped any more. */
static void receipt_gone(void *user) {
    qio_promise *promise = user;
    qio->promise_drop(*promise);
    free(promise);
}

/* Sends to one member, and answers the sender when that member's client has confirmed it. Where it never does the
 * callback is freed after clients-cb-max-age, the promise dropped with it, and the sender answered 500. */
static void tell(const room *room, const char *from, const work *work) {
    static char name[JSON_BYTES(NAME_BYTES_MAX)], text[JSON_BYTES(TEXT_BYTES_MAX)];
    static char json[sizeof(name) + sizeof(text) + 30];
    const room_member *to = find_name(room, work->name);
    qio_callback receipt = {confirmed, NULL, receipt_gone};
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
    } else if (work->what == SAY) {
        say(room, member->name, work);
    } else if (work->what == HISTORY) {
        tell_history(room, work->promise);
    } else {
        tell(room, member->name, work);
    }
}

static void *keep(void *nothing) {
    work *work;
    (void)nothing;
    while ((work = next_work()) != NULL) {
        room *room = find_room(work->room);
        switch (work->what) {
        case JOIN: keep_join(work); break;
        case LEAVE:
            if (room != NULL) keep_leave(room, work->client);
            break;
        case GONE: keep_gone(work->client); break;
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

static int32_t add(qio_registrar registrar, const char *path, uint32_t flags, const what *what) {
    qio_event_spec spec = QIO_EVENT_SPEC;
    spec.path = qio_cstr(path);
    spec.flags = flags;
    spec.handler = what == NULL ? NULL : ask;
    spec.user = (void *)(uintptr_t)what;
    if (what != NULL && *what == SAY) {
        spec.on = join;
        spec.off = leave;
    }
    return qio->register_event(registrar, &spec);
}

static int32_t register_events(qio_registrar registrar) {
    static const what says = SAY, wants_history = HISTORY, tells = TELL;
    add(registrar, ROOM_PATH, QIO_CHILDREN, &says);
    add(registrar, "/chat/history", QIO_CHILDREN | QIO_NO_SUBSCRIPTIONS, &wants_history);
    add(registrar, "/chat/tell", QIO_CHILDREN | QIO_NO_SUBSCRIPTIONS, &tells);
    add(registrar, "/chat/stats", 0, NULL); /* an event that cannot be registered stops the server in any case */
    if (qio->registrar_shard(registrar) != 0) return QIO_OK;
    return qio->every(registrar, 1000, tell_statistics, NULL, NULL);
}

static int32_t start(void) {
    keeper_runs = pthread_create(&keeper, NULL, keep, NULL) == 0;
    if (!keeper_runs) qio->fail(self, QIO_STR("the keeper's thread cannot be made"));
    return keeper_runs ? QIO_OK : QIO_FAILED;
}

static void stop(void) {
    pthread_mutex_lock(&lock);
    keeper_ends = 1;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
    if (keeper_runs) pthread_join(keeper, NULL);
}

/* That what the keeper writes is JSON. */
static int32_t self_test(void) {
    char json[JSON_BYTES(20)];
    if (qio->json_string(QIO_STR("\"\n\x01"), json, sizeof(json), NULL) == QIO_OK &&
        qio->json_check(qio_cstr(json)) == QIO_OK) {
        return QIO_OK;
    }
    qio->fail(self, QIO_STR("JSON strings are not written right"));
    return QIO_FAILED;
}

const qio_app_info qio_app = {QIO_APP_HEAD, "chat", init, register_events, start, stop, self_test};
