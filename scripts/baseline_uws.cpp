// A third baseline for scripts/floor.sh: the same events on uWebSockets, in a straightforward implementation in C++. It
// supports the events that the load generator's ping, fanout and churn need: /qio/ohai, /qio/ping, /qio/on, and
// broadcasts to paths under /relay. scripts/baseline_uws.sh fetches uWebSockets and builds this program.
//
//     scripts/baseline_uws.sh target/uws && target/uws/baseline_uws 127.0.0.1:8080

#include "App.h"

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

struct Client {};

using Socket = uWS::WebSocket<false, true, Client>;

// Handles an event: `PATH:CALLBACK=DATA`.
static void answer(uWS::App &app, Socket *socket, std::string_view event) {
    if (event == "/qio/ohai") {
        socket->send(event, uWS::OpCode::TEXT);
        return;
    }
    const size_t colon = event.find(':');
    const size_t equals = event.find('=', colon);
    if (colon == std::string_view::npos || equals == std::string_view::npos) return socket->end(1002);
    const std::string_view path = event.substr(0, colon);
    const std::string_view callback = event.substr(colon + 1, equals - colon - 1);
    const std::string_view data = event.substr(equals + 1);
    if (path == "/qio/on" && data.size() > 2) {
        socket->subscribe(data.substr(1, data.size() - 2)); // a JSON string without escapes
    } else if (path.starts_with("/relay/")) {
        std::string broadcast(path);
        broadcast.append(":0=").append(data);
        app.publish(path, broadcast, uWS::OpCode::TEXT);
    }
    if (callback != "0") {
        std::string reply("/qio/callback/");
        reply.append(callback).append(":0={\"code\":200,\"data\":null}");
        socket->send(reply, uWS::OpCode::TEXT);
    }
}

int main(int argc, char **argv) {
    const std::string address = argc > 1 ? argv[1] : "127.0.0.1:8080";
    const size_t colon = address.rfind(':');
    const std::string host = address.substr(0, colon);
    const int port = std::atoi(address.c_str() + colon + 1);

    uWS::App app;
    app.ws<Client>("/*", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 64 * 1024,
        .idleTimeout = 60,
        .maxBackpressure = 1024 * 1024,
        .closeOnBackpressureLimit = true,
        .upgrade = [](auto *response, auto *request, auto *context) {
            response->template upgrade<Client>({}, request->getHeader("sec-websocket-key"), "quickio",
                request->getHeader("sec-websocket-extensions"), context);
        },
        .message = [&app](Socket *socket, std::string_view event, uWS::OpCode) { answer(app, socket, event); },
    });
    app.listen(host, port, [&](auto *listener) {
        if (!listener) {
            std::cerr << "baseline_uws: cannot listen on " << address << std::endl;
            std::exit(1);
        }
    });
    app.run();
}
