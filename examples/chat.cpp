// The chat of chat.rs in C++: rooms, names that are unique in a room, history, presence, messages to one member with a
// receipt, statistics. The first lines of chat.rs describe the events.
//
//     c++ -std=c++17 -shared -fPIC -pthread -I src/app/c -o chat.so examples/chat.cpp
//     quickio --listen 127.0.0.1:8080 --app ./chat.so
//
// All shards use the rooms, so the rooms belong to a thread of the application, the keeper. Handlers check an event,
// pass it to the keeper with a promise to answer, and return.
#include "quickio.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <variant>
#include <vector>

namespace {

// The number of messages that a room keeps for members who join later.
constexpr std::size_t history_messages_max = 50;
constexpr std::size_t text_bytes_max = 2000;
constexpr std::size_t name_bytes_max = 32;
// The most requests that may wait for the keeper. Further ones are answered 420.
constexpr int requests_max = 10000;
// The most events that one client may send in each period.
constexpr unsigned events_per_period_max = 20;
constexpr qio::Milliseconds period(1000);

using ClientKey = std::array<uint32_t, 3>;

ClientKey key(const qio::Client &client) { return {client.shard, client.slot, client.generation}; }

// Returns the only segment of a path such as "/rust", or nothing if there is not exactly one.
std::optional<std::string> room_name(std::string_view extra) {
    if (extra.size() < 2 || extra.front() != '/' || extra.find('/', 1) != extra.npos) return std::nullopt;
    return std::string(extra.substr(1));
}

std::optional<std::string> text_member(std::string_view json, std::string_view name) {
    const auto value = qio::json_member(json, name);
    return value ? qio::json_text(*value) : std::nullopt;
}

// ---- Work for the keeper ----

struct Say {
    std::string text;
};
struct History {};
struct Tell {
    std::string to, text;
};
using Request = std::variant<Say, History, Tell>;

struct Join {
    std::string room, name;
    qio::LaterDecision promise;
};
struct Leave {
    std::string room;
    qio::Client client;
};
struct Gone {
    qio::Client client;
};
struct RequestWork {
    std::string room;
    Request request;
    qio::Later promise;
};
using Work = std::variant<Join, Leave, Gone, RequestWork>;

// The statistics: written by the keeper, read by the timer on shard 0.
struct Totals {
    std::atomic<uint64_t> rooms{0}, members{0}, messages{0};
};

// The queue from the shards to the keeper. It needs no limit of its own: `waiting` limits the requests, and the numbers
// of clients and subscriptions limit the rest.
class Queue {
  public:
    void push(Work work) {
        const std::lock_guard<std::mutex> guard(lock_); // held for a few instructions only: shards must not wait
        work_.push_back(std::move(work));
        more_.notify_one();
    }

    // Waits for work. Returns nothing after the end, when the queue is empty.
    std::optional<Work> pop() {
        std::unique_lock<std::mutex> guard(lock_);
        more_.wait(guard, [this] { return ended_ || !work_.empty(); });
        if (work_.empty()) return std::nullopt;
        std::optional<Work> next(std::move(work_.front()));
        work_.pop_front();
        return next;
    }

    void end() {
        const std::lock_guard<std::mutex> guard(lock_);
        ended_ = true;
        more_.notify_one();
    }

    std::atomic<int> waiting{0};

  private:
    std::mutex lock_;
    std::condition_variable more_;
    std::deque<Work> work_;
    bool ended_ = false;
};

// ---- The keeper: one thread that owns all rooms, so that all changes have one order ----

// Answers a request. If the inbox of the shard is full, the client gets no answer; the server counts that.
void send_answer(qio::Later &promise, const qio::Answer &answer) { (void)promise.answer(answer); }

// A room. It exists while it has members.
struct Room {
    std::string path;
    std::map<ClientKey, std::pair<qio::Client, std::string>> members;
    std::deque<std::string> history; // as JSON
    uint64_t last = 0;

    bool has_name(const std::string &name) const { return find(name) != nullptr; }

    const qio::Client *find(const std::string &name) const {
        for (const auto &[id, member] : members) {
            if (member.second == name) return &member.first;
        }
        return nullptr;
    }

    void broadcast_presence(const char *change, const std::string &name) const {
        (void)qio::broadcast(path, std::string("{\"") + change + "\":" + qio::json_string(name) + "}");
    }
};

class Keeper {
  public:
    Keeper(Queue &queue, Totals &totals) : queue_(queue), totals_(totals) {}

    void run() {
        while (auto work = queue_.pop()) {
            std::visit([this](auto &item) { handle(item); }, *work);
        }
    }

  private:
    void handle(Join &join) {
        Room &room = rooms_[join.room];
        if (room.path.empty()) room.path = "/chat/room/" + join.room;
        if (room.has_name(join.name)) {
            (void)join.promise.decide(false);
        } else {
            const qio::Client client = join.promise.client();
            room.broadcast_presence("joined", join.name);
            if (join.promise.decide(true) == QIO_OK) {
                const auto member = std::make_pair(client, join.name);
                if (room.members.insert_or_assign(key(client), member).second) totals_.members++;
            }
        }
        remove_if_empty(join.room);
    }

    void handle(Leave &leave) {
        const auto room = rooms_.find(leave.room);
        if (room == rooms_.end()) return;
        const auto member = room->second.members.find(key(leave.client));
        if (member != room->second.members.end()) {
            const std::string name = member->second.second;
            room->second.members.erase(member);
            totals_.members--;
            room->second.broadcast_presence("left", name);
        }
        remove_if_empty(leave.room);
    }

    void handle(Gone &gone) {
        std::vector<std::string> in;
        for (const auto &[name, room] : rooms_) {
            if (room.members.count(key(gone.client)) > 0) in.push_back(name);
        }
        for (auto &name : in) {
            Leave leave{name, gone.client};
            handle(leave);
        }
    }

    void handle(RequestWork &work) {
        queue_.waiting--;
        const auto room = rooms_.find(work.room);
        if (room == rooms_.end()) return send_answer(work.promise, qio::Answer::error(404, "no such room"));
        const auto member = room->second.members.find(key(work.promise.client()));
        if (member == room->second.members.end()) {
            return send_answer(work.promise, qio::Answer::error(401, "join the room first"));
        }
        const std::string &from = member->second.second;
        if (const auto *say = std::get_if<Say>(&work.request)) {
            this->say(room->second, from, *say, work.promise);
        } else if (const auto *tell = std::get_if<Tell>(&work.request)) {
            this->tell(room->second, from, *tell, std::move(work.promise));
        } else {
            std::string json;
            for (const auto &message : room->second.history) json += (json.empty() ? "" : ",") + message;
            send_answer(work.promise, qio::Answer::data("[" + json + "]"));
        }
    }

    void say(Room &room, const std::string &from, const Say &say, qio::Later &promise) {
        std::string message = "{\"id\":" + std::to_string(room.last + 1) + ",\"from\":" + qio::json_string(from) +
                              ",\"text\":" + qio::json_string(say.text) + "}";
        if (qio::broadcast(room.path, message) != QIO_OK) {
            return send_answer(promise, qio::Answer::error(420, "calm down"));
        }
        room.last++;
        totals_.messages++;
        room.history.push_back(std::move(message));
        if (room.history.size() > history_messages_max) room.history.pop_front();
        send_answer(promise, qio::Answer::data(std::to_string(room.last)));
    }

    // Sends a message to one member, and answers the sender when that member's client has confirmed it. If it never
    // does, the callback is destroyed after clients-cb-max-age, and the promise with it, which answers the sender 500.
    void tell(const Room &room, const std::string &from, const Tell &tell, qio::Later promise) {
        const qio::Client *to = room.find(tell.to);
        if (to == nullptr) return send_answer(promise, qio::Answer::error(404, "nobody here has that name"));
        const std::string json =
            "{\"from\":" + qio::json_string(from) + ",\"text\":" + qio::json_string(tell.text) + "}";
        // Shared, because std::function copies its closure.
        auto shared = std::make_shared<qio::Later>(std::move(promise));
        (void)qio::send(*to, "/chat/told", json, [shared](qio::Context &, const qio::Reply &) {
            send_answer(*shared, qio::Answer::data("\"delivered\""));
            return qio::Answer::ok();
        });
    }

    void remove_if_empty(const std::string &name) {
        const auto room = rooms_.find(name);
        if (room != rooms_.end() && room->second.members.empty()) rooms_.erase(room);
        totals_.rooms = rooms_.size();
    }

    Queue &queue_;
    Totals &totals_;
    std::map<std::string, Room> rooms_;
};

// ---- Code that runs on the shards ----

// The data of a client. It needs no lock, because only the client's shard uses it. No off-hook runs for a client that
// disconnects while its subscription is being decided, because it was never subscribed. This object is always
// destroyed, and then tells the keeper.
struct Guest {
    Guest(Queue &keeper, qio::Client owner, qio::Milliseconds now)
        : queue(keeper), client(owner), period_began(now) {}
    Guest(const Guest &) = delete;
    Guest &operator=(const Guest &) = delete;
    ~Guest() { queue.push(Gone{client}); }

    Queue &queue;
    qio::Client client;
    qio::Milliseconds period_began;
    unsigned events = 1;
};

} // namespace

class Chat : public qio::Application {
  public:
    void register_events(qio::Registrar &registrar) override {
        registrar.event("/chat/room")
            .children()
            .on([this](qio::Context &cx, const qio::Subscription &subscription) { return join(cx, subscription); })
            .off([this](qio::Context &, const qio::Unsubscribed &ended) {
                if (const auto room = room_name(ended.extra)) queue_.push(Leave{*room, ended.client});
            })
            .handler([this](qio::Context &cx, const qio::Event &event) {
                const auto text = text_member(event.data, "text");
                if (!text) return bad_request(event, "{\"text\":STRING} is needed");
                return ask(cx, event, *text, Say{*text});
            })
            .add();
        registrar.event("/chat/history")
            .children()
            .no_subscriptions()
            .handler([this](qio::Context &cx, const qio::Event &event) { return ask(cx, event, "", History{}); })
            .add();
        registrar.event("/chat/tell")
            .children()
            .no_subscriptions()
            .handler([this](qio::Context &cx, const qio::Event &event) {
                const auto to = text_member(event.data, "to"), text = text_member(event.data, "text");
                if (!to || !text) return bad_request(event, "{\"to\":NAME,\"text\":STRING} is needed");
                return ask(cx, event, *text, Tell{*to, *text});
            })
            .add();
        registrar.event("/chat/stats").add();
        if (registrar.shard() == 0) {
            registrar.every(qio::Milliseconds(1000), [this](qio::Context &cx) {
                cx.broadcast("/chat/stats", "{\"rooms\":" + std::to_string(totals_.rooms) +
                                                ",\"members\":" + std::to_string(totals_.members) +
                                                ",\"messages\":" + std::to_string(totals_.messages) + "}");
            });
        }
    }

    void start() override {
        keeper_ = std::thread([this] { Keeper(queue_, totals_).run(); });
    }

    void stop() override {
        queue_.end();
        if (keeper_.joinable()) keeper_.join();
    }

    // Checks that JSON strings are escaped.
    void self_test() override {
        const auto text = qio::json_text(qio::json_string("\"\n\x01"));
        if (text != "\"\n\x01") throw std::runtime_error("JSON strings are not escaped correctly");
    }

  private:
    // The on-hook. Only the keeper knows whether the name is free, so it decides later.
    qio::Decision join(qio::Context &cx, const qio::Subscription &subscription) {
        const auto room = room_name(subscription.extra);
        const auto name = text_member(subscription.data, "name");
        if (!room || !name || name->empty() || name->size() > name_bytes_max || is_flooding(cx, subscription.client)) {
            return qio::Decision::refuse;
        }
        auto [decision, promise] = cx.later_decision();
        queue_.push(Join{*room, *name, std::move(promise)});
        return decision;
    }

    static qio::Answer bad_request(const qio::Event &event, const char *message) {
        if (!room_name(event.extra)) return qio::Answer::error(404, "no such room");
        return qio::Answer::error(400, message);
    }

    // The common part of all handlers: checks the event, and passes it to the keeper, which answers.
    qio::Answer ask(qio::Context &cx, const qio::Event &event, const std::string &text, Request request) {
        const auto room = room_name(event.extra);
        if (!room) return qio::Answer::error(404, "no such room");
        if (text.size() > text_bytes_max) return qio::Answer::error(400, "the text is too long");
        if (is_flooding(cx, event.client) || queue_.waiting >= requests_max) {
            return qio::Answer::error(420, "calm down");
        }
        auto [answer, promise] = cx.later();
        queue_.waiting++;
        queue_.push(RequestWork{*room, std::move(request), std::move(promise)});
        return std::move(answer);
    }

    // Counts an event of a client, and returns whether it exceeds the limit.
    bool is_flooding(qio::Context &cx, qio::Client client) {
        auto *guest = cx.client_data<Guest>(client);
        if (guest == nullptr) {
            cx.set_client_data(client, std::make_unique<Guest>(queue_, client, cx.now()));
            return false;
        }
        if (cx.now() - guest->period_began >= period) {
            guest->period_began = cx.now();
            guest->events = 0;
        }
        return ++guest->events > events_per_period_max;
    }

    Queue queue_;
    Totals totals_;
    std::thread keeper_;
};

QIO_APPLICATION("chat", Chat)
