// A client of TLS in Java: raw TLS over both versions, resumption, HTTPS, and the WebSocket of java.net.http.
// Arguments: port, file of the authority.

import java.io.DataInputStream;
import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.WebSocket;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public class Tls {
    static final byte[] OHAI = "/qio/ohai".getBytes(StandardCharsets.UTF_8);

    static void expect(Object found, Object expected) {
        if (!found.equals(expected)) throw new AssertionError("expected " + expected + ", found " + found);
    }

    static SSLContext context(String file) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (var input = new FileInputStream(file)) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(input));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    /** Returns when the session began. */
    static long raw(SSLContext context, int port, String version) throws Exception {
        try (var socket = (SSLSocket) context.getSocketFactory().createSocket("localhost", port)) {
            socket.setSoTimeout(60_000);
            var parameters = socket.getSSLParameters();
            parameters.setProtocols(new String[] {version});
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            expect(socket.getSession().getProtocol(), version);
            socket.getOutputStream().write(OHAI);
            var input = new DataInputStream(socket.getInputStream());
            expect(new String(input.readNBytes(OHAI.length), StandardCharsets.UTF_8), "/qio/ohai");
            socket.shutdownOutput();
            // The server closes TLS too: an end without close_notify is an exception.
            expect(input.read(), -1);
            return socket.getSession().getCreationTime();
        }
    }

    static void webSocket(HttpClient client, int port) throws Exception {
        var received = new LinkedBlockingQueue<String>();
        var listener = new WebSocket.Listener() {
            private final StringBuilder text = new StringBuilder();

            @Override
            public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
                text.append(data);
                if (last) {
                    received.add(text.toString());
                    text.setLength(0);
                }
                socket.request(1);
                return null;
            }

            @Override
            public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
                received.add("closed " + code);
                return null;
            }
        };
        var socket = client.newWebSocketBuilder().subprotocols("quickio")
            .buildAsync(URI.create("wss://localhost:" + port + "/"), listener).get(60, TimeUnit.SECONDS);
        expect(socket.getSubprotocol(), "quickio");
        socket.sendText("/qio/ohai", true).get(60, TimeUnit.SECONDS);
        expect(received.poll(60, TimeUnit.SECONDS), "/qio/ohai");
        socket.sendText("/relay/java:1=\"" + "x".repeat(50_000) + "\"", true).get(60, TimeUnit.SECONDS);
        expect(received.poll(60, TimeUnit.SECONDS), "/qio/callback/1:0={\"code\":200,\"data\":null}");
        socket.sendClose(1000, "").get(60, TimeUnit.SECONDS);
        expect(received.poll(60, TimeUnit.SECONDS), "closed 1000");
    }

    static void https(HttpClient client, int port) throws Exception {
        var request = HttpRequest.newBuilder(URI.create("https://localhost:" + port + "/quickio.js")).build();
        var response = client.send(request, HttpResponse.BodyHandlers.ofString());
        expect(response.statusCode(), 200);
        expect(response.version(), HttpClient.Version.HTTP_1_1);
        expect(response.body().contains("QuickIO"), true);
    }

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        for (var version : new String[] {"TLSv1.2", "TLSv1.3"}) {
            var context = context(arguments[1]);
            var began = raw(context, port, version);
            expect(raw(context, port, version), began);
        }
        var client = HttpClient.newBuilder().sslContext(context(arguments[1])).connectTimeout(Duration.ofSeconds(60)).build();
        https(client, port);
        webSocket(client, port);
        System.out.println("ok");
    }
}
