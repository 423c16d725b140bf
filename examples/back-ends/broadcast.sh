#!/bin/sh
# Broadcasts an event by the server API, with curl. docs/server-api.md describes the API.
curl --fail-with-body --silent --show-error "${API:-http://127.0.0.1:8090}/broadcast" \
    -H "Authorization: Bearer $(cat "${KEY_FILE:-/etc/quickio/shop.key}")" -H 'Content-Type: text/plain' \
    --data-binary '/relay/news:0={"from":"curl"}'
