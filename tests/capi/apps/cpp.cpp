// An application for tests/capi/cpp.rs that uses the closures, promises and exceptions of quickio.hpp. NAME is the name
// of the application and the first segment of its paths.
#include "quickio.hpp"

#include <atomic>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

std::atomic<int> created{0}, destroyed{0};

// A value captured by closures, which counts its constructions and destructions.
struct Counted {
    Counted() { created++; }
    Counted(const Counted &) { created++; }
    Counted(Counted &&) noexcept { created++; }
    Counted &operator=(const Counted &) = default;
    Counted &operator=(Counted &&) = default;
    ~Counted() { destroyed++; }
};

std::string at(const char *rest) { return std::string("/") + NAME + rest; }

} // namespace

struct App : qio::Application {
    std::mutex lock;
    std::vector<std::thread> threads;

    App() {
        if (qio::setting("fail")) throw std::runtime_error("the constructor threw");
    }

    void on_thread(std::function<void()> run) {
        const std::lock_guard<std::mutex> guard(lock);
        threads.emplace_back(std::move(run));
    }

    void register_events(qio::Registrar &registrar) override {
        using namespace qio;
        registrar.event(at("/name")).handler([counted = Counted()](Context &, const Event &) {
            return Answer::data(json_string(NAME));
        }).add();
        registrar.event(at("/throw")).handler([](Context &, const Event &event) -> Answer {
            if (event.data == "1") throw 1;
            throw std::runtime_error("thrown in a handler");
        }).add();
        registrar.event(at("/bad")).handler([](Context &, const Event &) { return Answer::data("\xff"); }).add();
        registrar.event(at("/never")).handler([](Context &, const Event &) { return Answer::never(); }).add();
        registrar.event(at("/error")).handler([](Context &, const Event &) {
            return Answer::error(418, "a teapot", "[1]");
        }).add();
        registrar.event(at("/dialogue")).handler([](Context &, const Event &event) {
            return Answer::data(std::string(event.data))
                .with_callback([counted = Counted()](Context &, const Reply &reply) -> Answer {
                    if (reply.data == "\"throw\"") throw std::runtime_error("thrown in a callback");
                    return Answer::data(std::string(reply.data));
                });
        }).add();
        registrar.event(at("/who")).handler([](Context &cx, const Event &event) {
            const auto known = [](const std::optional<std::string> &value) {
                return value ? json_string(*value) : std::string("null");
            };
            const auto client = event.client;
            return Answer::data("[" + known(cx.user(client)) + "," + known(cx.claims(client)) + "," +
                                known(cx.header(client, "ORIGIN")) + "," + known(cx.certificate(client)) + "," +
                                known(cx.address(client)) + "]");
        }).add();
        registrar.event(at("/late")).handler([this](Context &cx, const Event &) {
            auto [answer, later] = cx.later();
            auto shared = std::make_shared<Later>(std::move(later));
            on_thread([shared] { (void)shared->answer(Answer::data("\"late\"")); });
            return std::move(answer);
        }).add();
        registrar.event(at("/dropped")).handler([](Context &cx, const Event &) { return cx.later().first; }).add();
        registrar.event(at("/receipt")).handler([](Context &cx, const Event &event) {
            auto [answer, later] = cx.later();
            auto shared = std::make_shared<Later>(std::move(later));
            cx.send(event.client, at("/confirm"), "1", [shared](Context &, const Reply &reply) {
                (void)shared->answer(Answer::data(std::string(reply.data)));
                return Answer::ok();
            });
            return std::move(answer);
        }).add();
        registrar.event(at("/visits")).handler([](Context &cx, const Event &event) {
            int *visits = cx.client_data<int>(event.client);
            if (visits == nullptr) {
                cx.set_client_data(event.client, std::make_unique<int>(1));
                return Answer::data("1");
            }
            return Answer::data(std::to_string(++*visits));
        }).add();
        registrar.event(at("/take")).handler([](Context &cx, const Event &event) {
            auto taken = cx.take_client_data<int>(event.client);
            return Answer::data(taken ? std::to_string(*taken) : "null");
        }).add();
        registrar.event(at("/after")).handler([](Context &cx, const Event &event) {
            cx.after(Milliseconds(100), [client = event.client, counted = Counted()](Context &later) {
                later.send(client, at("/rang"), "1");
                throw std::runtime_error("thrown in a timer");
            });
            return Answer::ok();
        }).add();
        registrar.event(at("/room")).children().no_subscriptions().handler([](Context &, const Event &event) {
            return Answer::data(json_string(event.full_path()));
        }).add();
        registrar.event(at("/on")).children().on([this](Context &cx, const Subscription &subscription) -> Decision {
            const auto word = json_text(subscription.data).value_or("");
            if (word == "throw") throw std::runtime_error("thrown in an on-hook");
            if (word == "late") {
                auto [decision, promise] = cx.later_decision();
                auto shared = std::make_shared<LaterDecision>(std::move(promise));
                on_thread([shared] { (void)shared->decide(true); });
                return decision;
            }
            if (word == "options") cx.send(subscription.client, at("/options"), subscription.options);
            return word == "yes" || word == "options" ? Decision::accept : Decision::refuse;
        }).off([](Context &cx, const Unsubscribed &ended) {
            cx.broadcast(at("/left"), json_string(ended.extra));
        }).add();
        registrar.event(at("/left")).add();
    }

    void stop() override {
        for (auto &thread : threads) thread.join();
        std::fprintf(stderr, "stopped with %d given and %d freed\n", created.load(), destroyed.load());
    }

    void self_test() override {
        const auto text = qio::json_text(qio::json_string("a\n\"b"));
        if (text != "a\n\"b") throw std::runtime_error("JSON strings are not escaped correctly");
        throw std::runtime_error("self_test threw");
    }
};

QIO_APPLICATION(NAME, App)
