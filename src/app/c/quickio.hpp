// quickio.hpp: the interface for QuickIO applications in C++17. It is a thin, header-only wrapper of quickio.h, which
// documents where each function may be called, and what must not block.
//
//     #include "quickio.hpp"
//
//     struct Hello : qio::Application {
//         void register_events(qio::Registrar &registrar) override {
//             registrar.event("/hello").handler([](qio::Context &, const qio::Event &) {
//                 return qio::Answer::data(qio::json_string("hello"));
//             }).add();
//         }
//     };
//
//     QIO_APPLICATION("hello", Hello)
//
//     c++ -std=c++17 -shared -fPIC -o hello.so hello.cpp && quickio --app ./hello.so
//
// Closures belong to the shard on which they were registered, and are destroyed with it. A promise that is destroyed
// unanswered answers 500, or refuses the subscription. If a closure throws, the exception is logged, and the event is
// answered 500 or the subscription refused. If the constructor, register_events, start or self_test throws, the server
// does not start, and reports the exception's text.
#ifndef QUICKIO_HPP
#define QUICKIO_HPP

#include "quickio.h"

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#if defined(__GNUC__)
#define QIO_HIDDEN __attribute__((visibility("hidden")))
#else
#define QIO_HIDDEN
#endif

namespace qio {

using Client = qio_client;
using Milliseconds = std::chrono::milliseconds;

// The server's functions and the application's handle. Both are set before any other code runs.
struct Binding {
    const qio_api *api = nullptr;
    qio_server server{0};
};

// Returns the binding of this application. The function is hidden: otherwise g++ would merge its static variable with
// that of every other application in the process.
QIO_HIDDEN inline Binding &binding() noexcept {
    static Binding bound;
    return bound;
}

inline const qio_api &api() noexcept { return *binding().api; }

inline qio_str raw(std::string_view text) noexcept { return qio_text(text.data(), text.size()); }

inline std::string_view view(qio_str text) noexcept {
    return text.len == 0 ? std::string_view() : std::string_view(text.ptr, text.len);
}

// An exception for a status other than QIO_OK.
class Error : public std::runtime_error {
  public:
    explicit Error(qio_status status) : std::runtime_error(api().error_text(status)), status_(status) {}
    Error(qio_status status, const std::string &what)
        : std::runtime_error(what + ": " + api().error_text(status)), status_(status) {}

    qio_status status() const noexcept { return status_; }

  private:
    qio_status status_;
};

inline void check(qio_status status, const char *what) {
    if (status != QIO_OK) throw Error(status, what);
}

enum class Level : int32_t {
    error = QIO_LOG_ERROR,
    warn = QIO_LOG_WARN,
    info = QIO_LOG_INFO,
    debug = QIO_LOG_DEBUG,
    trace = QIO_LOG_TRACE
};

// Writes to the server's log. Any thread may call it.
inline void log(Level level, std::string_view text) noexcept {
    api().log(binding().server, static_cast<int32_t>(level), raw(text));
}

// Returns a setting from [app-settings.NAME], or nothing if it is not set.
inline std::optional<std::string_view> setting(std::string_view key) {
    qio_str value;
    const qio_status status = api().setting(binding().server, raw(key), &value);
    if (status == QIO_NOT_FOUND) return std::nullopt;
    check(status, "setting");
    return view(value);
}

// ---- JSON ----

// Returns a text as a JSON string.
inline std::string json_string(std::string_view text) {
    std::size_t len = 0;
    std::string out(text.size() + 16, '\0');
    qio_status status = api().json_string(raw(text), out.data(), out.size(), &len);
    if (status == QIO_TOO_LONG) {
        out.resize(len + 1);
        status = api().json_string(raw(text), out.data(), out.size(), &len);
    }
    check(status, "json_string");
    out.resize(len);
    return out;
}

// Returns the text of a JSON string, or nothing if `json` is not a string.
inline std::optional<std::string> json_text(std::string_view json) {
    std::size_t len = 0;
    // The text is never longer than its form with quotes and escapes.
    std::string out(json.size() + 1, '\0');
    if (api().json_text(raw(json), out.data(), out.size(), &len) != QIO_OK) return std::nullopt;
    out.resize(len);
    return out;
}

// Returns a member of an object as a part of `json`, or nothing if there is no such member.
inline std::optional<std::string_view> json_member(std::string_view json, std::string_view name) {
    qio_str value;
    if (api().json_member(raw(json), raw(name), &value) != QIO_OK) return std::nullopt;
    return view(value);
}

// ---- Arguments of closures ----

struct Event {
    Client client;
    bool wants_answer;
    std::string_view path, extra, data;

    // A broadcast to this path reaches the clients that subscribed to it.
    std::string full_path() const { return std::string(path).append(extra); }
};

struct Reply {
    Client client;
    bool wants_answer;
    std::string_view data;
};

struct Subscription {
    Client client;
    std::string_view path, extra, data;
    // The earlier events that the client asks for, a JSON object. `null` if it asks for none, or the server is older than 0.4.
    std::string_view options;
};

struct Unsubscribed {
    Client client;
    std::string_view path, extra;
};

class Context;
class Answer;
using Callback = std::function<Answer(Context &, const Reply &)>;

// The answer of a handler, a callback or a promise.
class Answer {
  public:
    static Answer ok() { return Answer(200, std::string()); }
    // Code 200 and one JSON text, which is not validated.
    static Answer data(std::string json) { return Answer(200, std::move(json)); }
    static Answer error(uint32_t code, std::string message, std::string json = std::string()) {
        Answer answer(code, std::move(json));
        answer.message_ = std::move(message);
        return answer;
    }
    // The client gets no answer, even if it waits.
    static Answer never() { return Answer(0, std::string()); }

    // Offers a callback, which runs at most once. Only an answer with code 200 offers it.
    Answer with_callback(Callback callback) && {
        callback_ = std::move(callback);
        return std::move(*this);
    }

  private:
    friend class Context;
    friend class Later;
    friend struct Shims;

    Answer(uint32_t code, std::string json) : code_(code), data_(std::move(json)) {}

    uint32_t code_;
    bool is_later_ = false;
    std::string data_;
    std::optional<std::string> message_;
    Callback callback_;
};

// The part that both kinds of promises have in common. A promise may be moved to any thread.
class Promise {
  public:
    Promise(Promise &&other) noexcept : promise_(std::exchange(other.promise_, qio_promise{0})) {}
    Promise &operator=(Promise &&other) noexcept {
        std::swap(promise_, other.promise_);
        return *this;
    }
    Promise(const Promise &) = delete;
    Promise &operator=(const Promise &) = delete;

    Client client() const {
        Client client{0, 0, 0};
        check(api().promise_client(promise_, &client), "promise_client");
        return client;
    }

  protected:
    explicit Promise(qio_promise promise) noexcept : promise_(promise) {}
    ~Promise() {
        if (promise_.id != 0) api().promise_drop(promise_);
    }

    qio_promise promise_;
};

// A promise to answer. If it is destroyed unanswered, it answers 500.
class Later : public Promise {
  public:
    // Returns QIO_BUSY if the inbox of the shard is full; the promise is then still open.
    [[nodiscard]] qio_status answer(const Answer &answer);

  private:
    friend class Context;
    explicit Later(qio_promise promise) noexcept : Promise(promise) {}
};

// A promise to accept or refuse a subscription. If it is destroyed undecided, it refuses.
class LaterDecision : public Promise {
  public:
    // Returns QIO_BUSY if the inbox of the shard is full; the promise is then still open.
    [[nodiscard]] qio_status decide(bool accepted) {
        const qio_status status = api().promise_decide(promise_, accepted ? 1 : 0);
        if (status != QIO_BUSY) promise_.id = 0;
        return status;
    }

  private:
    friend class Context;
    explicit LaterDecision(qio_promise promise) noexcept : Promise(promise) {}
};

enum class Decision : int32_t { refuse = QIO_REFUSE, accept = QIO_ACCEPT, later = QIO_DECIDE_LATER, fail = QIO_FAIL };

// The context of a closure, through which it sends commands to the server while it runs. Errors are thrown, because
// they are bugs of the caller.
class Context {
  public:
    explicit Context(qio_cx cx) noexcept : cx_(cx) {}
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;

    uint32_t shard() const noexcept { return api().shard(cx_); }
    Milliseconds now() const noexcept { return Milliseconds(static_cast<int64_t>(api().now_ms(cx_))); }

    // In handlers and callbacks: returns the answer to return now, and a promise to answer later.
    std::pair<Answer, Later> later() {
        qio_promise promise{0};
        check(api().later(cx_, &promise), "later");
        Answer answer = Answer::never();
        answer.is_later_ = true;
        return {std::move(answer), Later(promise)};
    }

    // In on-hooks: returns the decision to return now, and a promise to decide later.
    std::pair<Decision, LaterDecision> later_decision() {
        qio_promise promise{0};
        check(api().later_decision(cx_, &promise), "later_decision");
        return {Decision::later, LaterDecision(promise)};
    }

    void broadcast(std::string_view path, std::string_view json) {
        check(api().broadcast(cx_, raw(path), raw(json)), "broadcast");
    }
    void send(Client client, std::string_view path, std::string_view json) {
        check(api().send(cx_, client, raw(path), raw(json), nullptr), "send");
    }
    void send(Client client, std::string_view path, std::string_view json, Callback callback);
    void close(Client client) { check(api().close(cx_, client), "close"); }
    void move(Client client, std::string_view address) { check(api().move(cx_, client, raw(address)), "move"); }
    void after(Milliseconds time, std::function<void(Context &)> run);

    // Returns the application's data for a client, or nullptr. The caller must always use the same type.
    template <typename T> T *client_data(Client client) noexcept {
        return static_cast<T *>(api().client_data(cx_, client));
    }
    // Returns false, and destroys the value, if the client has disconnected or belongs to another shard.
    template <typename T> bool set_client_data(Client client, std::unique_ptr<T> value) {
        const auto destroy = [](void *data) noexcept { delete static_cast<T *>(data); };
        const qio_status status = api().set_client_data(cx_, client, value.release(), destroy);
        if (status != QIO_GONE) check(status, "set_client_data");
        return status == QIO_OK;
    }
    template <typename T> std::unique_ptr<T> take_client_data(Client client) noexcept {
        return std::unique_ptr<T>(static_cast<T *>(api().take_client_data(cx_, client)));
    }

    // What the server knows of a client of this shard. Empty if there is none, or if the client has disconnected. Needs a
    // server of version 0.4.
    std::optional<std::string> user(Client client) { return known(api().client_user, client); }
    std::optional<std::string> claims(Client client) { return known(api().client_claims, client); }
    std::optional<std::string> certificate(Client client) { return known(api().client_certificate, client); }
    std::optional<std::string> header(Client client, std::string_view name) {
        qio_str value{};
        return found(api().client_header(cx_, client, raw(name), &value), value, "client_header");
    }
    std::optional<std::string> address(Client client) {
        char text[64];
        size_t len = 0;
        const qio_status status = api().client_address(cx_, client, text, sizeof text, &len);
        return found(status, qio_str{text, len}, "client_address");
    }

  private:
    friend struct Shims;

    using Known = qio_status (*)(qio_cx, qio_client, qio_str *);
    std::optional<std::string> known(Known find, Client client) {
        qio_str value{};
        return found(find(cx_, client, &value), value, "client_user");
    }
    static std::optional<std::string> found(qio_status status, qio_str value, const char *what) {
        if (status == QIO_NOT_FOUND || status == QIO_GONE) return std::nullopt;
        check(status, what);
        return std::string(value.ptr, value.len);
    }

    qio_cx cx_;
};

using Handler = std::function<Answer(Context &, const Event &)>;
using OnHook = std::function<Decision(Context &, const Subscription &)>;
using OffHook = std::function<void(Context &, const Unsubscribed &)>;
using Timer = std::function<void(Context &)>;

// C functions that call closures. No exception leaves them.
struct Shims {
    struct Functions {
        Handler handler;
        OnHook on;
        OffHook off;
    };

    // Runs a function, and logs what it throws. Returns whether it threw nothing.
    template <typename F> static bool guarded(F &&run) noexcept {
        try {
            run();
            return true;
        } catch (const std::exception &error) {
            log(Level::error, error.what());
        } catch (...) {
            log(Level::error, "a value other than a std::exception was thrown");
        }
        return false;
    }

    template <typename T> static void destroy(void *user) noexcept {
        guarded([user] { delete static_cast<T *>(user); });
    }

    static void handle(qio_cx cx, const qio_event *event, void *user) noexcept {
        guarded([&] {
            Context context(cx);
            const Event argument{event->client, event->wants_answer != 0, view(event->path), view(event->extra),
                                 view(event->data)};
            send_answer(cx, static_cast<Functions *>(user)->handler(context, argument));
        });
    }

    static int32_t on(qio_cx cx, const qio_subscription *subscription, void *user) noexcept {
        Decision decision = Decision::refuse;
        guarded([&] {
            Context context(cx);
            const bool has_options = api().size >= QIO_API_SIZE_0_4;
            const Subscription argument{subscription->client, view(subscription->path), view(subscription->extra),
                                        view(subscription->data),
                                        has_options ? view(subscription->options) : std::string_view("null")};
            decision = static_cast<Functions *>(user)->on(context, argument);
        });
        return static_cast<int32_t>(decision);
    }

    static void off(qio_cx cx, const qio_unsubscribed *unsubscribed, void *user) noexcept {
        guarded([&] {
            Context context(cx);
            const Unsubscribed argument{unsubscribed->client, view(unsubscribed->path), view(unsubscribed->extra)};
            static_cast<Functions *>(user)->off(context, argument);
        });
    }

    static void reply(qio_cx cx, const qio_reply *reply, void *user) noexcept {
        guarded([&] {
            Context context(cx);
            const Reply argument{reply->client, reply->wants_answer != 0, view(reply->data)};
            send_answer(cx, (*static_cast<Callback *>(user))(context, argument));
        });
    }

    static void timer(qio_cx cx, void *user) noexcept {
        guarded([&] {
            Context context(cx);
            (*static_cast<Timer *>(user))(context);
        });
    }

    static qio_callback callback(Callback run) {
        return qio_callback{reply, std::make_unique<Callback>(std::move(run)).release(), destroy<Callback>};
    }

    // Returns an answer without its callback. The caller adds the callback, which the next call gives to the server.
    static qio_answer without_callback(const Answer &answer) noexcept {
        qio_answer result = QIO_ANSWER;
        result.code = answer.code_;
        result.data = raw(answer.data_);
        if (answer.message_) result.message = raw(*answer.message_);
        return result;
    }

    static void send_answer(qio_cx cx, const Answer &answer) {
        if (answer.is_later_) return;
        if (answer.code_ == 0) return check(api().answer_never(cx), "answer_never");
        qio_answer result = Shims::without_callback(answer);
        qio_callback offered{nullptr, nullptr, nullptr};
        if (answer.callback_) {
            offered = callback(answer.callback_);
            result.callback = &offered;
        }
        check(api().answer_with(cx, &result), "answer");
    }
};

inline qio_status Later::answer(const Answer &answer) {
    qio_answer result = Shims::without_callback(answer);
    qio_callback offered{nullptr, nullptr, nullptr};
    if (answer.callback_) {
        offered = Shims::callback(answer.callback_);
        result.callback = &offered;
    }
    const bool is_never = answer.code_ == 0;
    const qio_status status = is_never ? api().promise_drop(promise_) : api().promise_answer(promise_, &result);
    if (status == QIO_OK || status == QIO_GONE) promise_.id = 0;
    return status;
}

inline void Context::send(Client client, std::string_view path, std::string_view json, Callback callback) {
    const qio_callback offered = Shims::callback(std::move(callback));
    check(api().send(cx_, client, raw(path), raw(json), &offered), "send");
}

inline void Context::after(Milliseconds time, Timer run) {
    auto *user = std::make_unique<Timer>(std::move(run)).release();
    check(api().after(cx_, static_cast<uint64_t>(time.count()), Shims::timer, user, Shims::destroy<Timer>), "after");
}

// ---- Any thread ----

// These functions return QIO_BUSY if the inbox of a shard is full.

[[nodiscard]] inline qio_status broadcast(std::string_view path, std::string_view json) noexcept {
    return api().server_broadcast(binding().server, raw(path), raw(json));
}
[[nodiscard]] inline qio_status send(Client client, std::string_view path, std::string_view json) noexcept {
    return api().server_send(binding().server, client, raw(path), raw(json), nullptr);
}
[[nodiscard]] inline qio_status send(Client client, std::string_view path, std::string_view json, Callback callback) {
    const qio_callback offered = Shims::callback(std::move(callback));
    return api().server_send(binding().server, client, raw(path), raw(json), &offered);
}
[[nodiscard]] inline qio_status close(Client client) noexcept { return api().server_close(binding().server, client); }
[[nodiscard]] inline qio_status move(Client client, std::string_view address) noexcept {
    return api().server_move(binding().server, client, raw(address));
}

// ---- Registering ----

// An event to register. It is not registered before `add`.
class EventBuilder {
  public:
    EventBuilder &handler(Handler handler) {
        functions_->handler = std::move(handler);
        return *this;
    }
    // Sets the hook that decides who may subscribe. Without it every client may.
    EventBuilder &on(OnHook hook) {
        functions_->on = std::move(hook);
        return *this;
    }
    EventBuilder &off(OffHook hook) {
        functions_->off = std::move(hook);
        return *this;
    }
    EventBuilder &children() noexcept {
        flags_ |= QIO_CHILDREN;
        return *this;
    }
    EventBuilder &no_subscriptions() noexcept {
        flags_ |= QIO_NO_SUBSCRIPTIONS;
        return *this;
    }
    void add() {
        qio_event_spec spec = QIO_EVENT_SPEC;
        spec.path = raw(path_);
        spec.flags = flags_;
        spec.handler = functions_->handler ? Shims::handle : nullptr;
        spec.on = functions_->on ? Shims::on : nullptr;
        spec.off = functions_->off ? Shims::off : nullptr;
        spec.user = functions_.release();
        spec.free = Shims::destroy<Shims::Functions>;
        functions_ = std::make_unique<Shims::Functions>();
        check(api().register_event(registrar_, &spec), path_.c_str());
    }

  private:
    friend class Registrar;
    EventBuilder(qio_registrar registrar, std::string_view path)
        : registrar_(registrar), path_(path), functions_(std::make_unique<Shims::Functions>()) {}

    qio_registrar registrar_;
    std::string path_;
    uint32_t flags_ = 0;
    std::unique_ptr<Shims::Functions> functions_;
};

// The context of `register_events` on one shard, through which it registers events and timers.
class Registrar {
  public:
    explicit Registrar(qio_registrar registrar) noexcept : registrar_(registrar) {}
    Registrar(const Registrar &) = delete;
    Registrar &operator=(const Registrar &) = delete;

    uint32_t shard() const noexcept { return api().registrar_shard(registrar_); }
    EventBuilder event(std::string_view path) { return EventBuilder(registrar_, path); }
    void every(Milliseconds period, Timer run) {
        auto *user = std::make_unique<Timer>(std::move(run)).release();
        const auto ms = static_cast<uint64_t>(period.count());
        check(api().every(registrar_, ms, Shims::timer, user, Shims::destroy<Timer>), "every");
    }

  private:
    qio_registrar registrar_;
};

// ---- The application ----

// The application: one object for all shards. `init` creates it, and it is destroyed after `stop`.
class Application {
  public:
    Application() = default;
    Application(const Application &) = delete;
    Application &operator=(const Application &) = delete;
    virtual ~Application() = default;

    // Runs on each shard, on its thread.
    virtual void register_events(Registrar &registrar) = 0;
    // Runs once, before the first connection.
    virtual void start() {}
    // Runs once, after the last shard has ended.
    virtual void stop() {}
    // Runs for `quickio test-app`, without a server.
    virtual void self_test() {}
};

template <typename App> struct Exported {
    QIO_HIDDEN static std::unique_ptr<App> &app() noexcept {
        static std::unique_ptr<App> instance;
        return instance;
    }

    template <typename F> static int32_t attempt(F &&run) noexcept {
        const char *unknown = "a value other than a std::exception was thrown";
        try {
            run();
            return QIO_OK;
        } catch (const std::exception &error) {
            api().fail(binding().server, qio_cstr(error.what()));
        } catch (...) {
            api().fail(binding().server, qio_cstr(unknown));
        }
        return QIO_FAILED;
    }

    static int32_t init(const qio_api *api, qio_server server) noexcept {
        binding() = Binding{api, server};
        return attempt([] { app() = std::make_unique<App>(); });
    }
    static int32_t register_events(qio_registrar registrar) noexcept {
        return attempt([registrar] {
            Registrar wrapper(registrar);
            app()->register_events(wrapper);
        });
    }
    static int32_t start() noexcept {
        return attempt([] { app()->start(); });
    }
    static void stop() noexcept {
        Shims::guarded([] { app()->stop(); });
        Shims::guarded([] { app().reset(); });
    }
    static int32_t self_test() noexcept {
        return attempt([] { app()->self_test(); });
    }
};

} // namespace qio

// Exports an application. It must be used once, outside any namespace.
#define QIO_APPLICATION(name, App)                                                                                     \
    const qio_app_info qio_app = {QIO_APP_HEAD,                                                                        \
                                  name,                                                                                \
                                  qio::Exported<App>::init,                                                            \
                                  qio::Exported<App>::register_events,                                                 \
                                  qio::Exported<App>::start,                                                           \
                                  qio::Exported<App>::stop,                                                            \
                                  qio::Exported<App>::self_test};

#endif
