// Broadcasts an event by the server API, in Go. docs/server-api.md describes the API.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	key, err := os.ReadFile(setting("KEY_FILE", "/etc/quickio/shop.key"))
	if err != nil {
		log.Fatal(err)
	}
	body := strings.NewReader(`[{"path": "/relay/news", "data": {"from": "Go"}}]`)
	request, err := http.NewRequest("POST", setting("API", "http://127.0.0.1:8090")+"/broadcast", body)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		log.Fatal(response.Status, " ", string(answer), err)
	}
	fmt.Print(string(answer))
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
