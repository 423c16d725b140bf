/* The handlers of benches/apps.rs in C, and the relay that scripts/apps.sh measures in each language. */
#include "quickio.h"

static const qio_api *qio;

static void nothing(qio_cx cx, const qio_event *event, void *user) {
    (void)event, (void)user;
    qio->answer(cx, QIO_NO_STR);
}

static void broadcast(qio_cx cx, const qio_event *event, void *user) {
    (void)user;
    qio->broadcast(cx, QIO_STR("/bench/room"), event->data);
    qio->answer(cx, QIO_NO_STR);
}

static void relay(qio_cx cx, const qio_event *event, void *user) {
    char path[QIO_PATH_BYTES_MAX];
    (void)user;
    qio->broadcast(cx, qio_full_path(path, event->path, event->extra), event->data);
    qio->answer(cx, QIO_NO_STR);
}

static int32_t init(const qio_api *api, qio_server server) {
    (void)server;
    qio = api;
    return QIO_OK;
}

static int32_t register_events(qio_registrar registrar) {
    qio_event_spec spec = QIO_EVENT_SPEC;
    spec.path = QIO_STR("/bench/room");
    qio->register_event(registrar, &spec);
    spec.path = QIO_STR("/bench/nothing");
    spec.handler = nothing;
    qio->register_event(registrar, &spec);
    spec.path = QIO_STR("/bench/broadcast");
    spec.handler = broadcast;
    qio->register_event(registrar, &spec);
    spec.path = QIO_STR("/relay");
    spec.flags = QIO_CHILDREN;
    spec.handler = relay;
    return qio->register_event(registrar, &spec);
}

const qio_app_info qio_app = {QIO_APP_HEAD, "bench", init, register_events, NULL, NULL, NULL};
