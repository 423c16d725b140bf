// A client of TLS in Go: WebSockets by hand over both versions, resumption, and HTTPS with an event stream.
// Arguments: port, file of the authority.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func expect(found, expected string) {
	if found != expected {
		check(fmt.Errorf("expected %q, found %q", expected, found))
	}
}

// A text frame of a client, with a mask of zeros, which changes nothing (RFC 6455, 5.3).
func frame(opcode byte, payload string) []byte {
	return append([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
}

func receive(from *bufio.Reader) (byte, string) {
	head := make([]byte, 2)
	_, err := io.ReadFull(from, head)
	check(err)
	payload := make([]byte, head[1])
	_, err = io.ReadFull(from, payload)
	check(err)
	return head[0] & 15, string(payload)
}

func webSocket(address string, config *tls.Config, version uint16, isResumed bool) {
	config = config.Clone()
	config.MinVersion, config.MaxVersion = version, version
	config.NextProtos = []string{"http/1.1"}
	stream, err := tls.Dial("tcp", address, config)
	check(err)
	state := stream.ConnectionState()
	expect(state.NegotiatedProtocol, "http/1.1")
	if state.Version != version || state.DidResume != isResumed {
		check(fmt.Errorf("version %x, resumed %v", state.Version, state.DidResume))
	}
	_, err = io.WriteString(stream, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: quickio\r\n\r\n")
	check(err)
	reader := bufio.NewReader(stream)
	response, err := http.ReadResponse(reader, nil)
	check(err)
	expect(response.Status[:3], "101")
	for _, text := range []string{"/qio/ohai", "/qio/ping:1=null"} {
		_, err = stream.Write(frame(1, text))
		check(err)
	}
	_, text := receive(reader)
	expect(text, "/qio/ohai")
	_, text = receive(reader)
	expect(text[:len("/qio/callback/1:0=")], "/qio/callback/1:0=")
	_, err = stream.Write(frame(8, "\x03\xe8"))
	check(err)
	opcode, text := receive(reader)
	expect(fmt.Sprint(opcode)+text, "8\x03\xe8")
	// The server closes TLS: an end without close_notify is an error other than EOF.
	_, err = reader.ReadByte()
	if err != io.EOF {
		check(fmt.Errorf("expected close_notify, found %v", err))
	}
	check(stream.Close())
}

func eventStream(address string, config *tls.Config) {
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone()}}
	url := "https://" + address + "/?sid=000000000000000000000000000060a1"
	request, err := http.NewRequest("GET", url+"&connect=true", nil)
	check(err)
	request.Header.Set("Accept", "text/event-stream")
	stream, err := client.Do(request)
	check(err)
	lines := bufio.NewScanner(stream.Body)
	next := func() string {
		for lines.Scan() {
			if lines.Text() != "" {
				return lines.Text()
			}
		}
		check(fmt.Errorf("the stream has ended: %v", lines.Err()))
		return ""
	}
	expect(next(), ": quickio")
	posted, err := client.Post(url, "text/plain", strings.NewReader("/qio/on:1=\"/relay/go\"\n/relay/go:2=[1]"))
	check(err)
	expect(posted.Status[:3], "200")
	check(posted.Body.Close())
	found := []string{next(), next(), next()}
	expect(strings.Join(found, "\n"), "data:/qio/callback/1:0={\"code\":200,\"data\":null}\n"+
		"data:/qio/callback/2:0={\"code\":200,\"data\":null}\ndata:/relay/go:0=[1]")
	check(stream.Body.Close())
	client.CloseIdleConnections()
}

func main() {
	authority, err := os.ReadFile(os.Args[2])
	check(err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		check(fmt.Errorf("no certificate in %s", os.Args[2]))
	}
	address := "127.0.0.1:" + os.Args[1]
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := tls.Config{RootCAs: roots, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		webSocket(address, &config, version, false)
		webSocket(address, &config, version, true)
	}
	eventStream(address, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	fmt.Println("ok")
}
