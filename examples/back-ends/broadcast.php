<?php
// Broadcasts an event by the server API, in PHP. docs/server-api.md describes the API.
$api = getenv('API') ?: 'http://127.0.0.1:8090';
$key = trim(file_get_contents(getenv('KEY_FILE') ?: '/etc/quickio/shop.key'));
$events = [['path' => '/relay/news', 'data' => ['from' => 'PHP']]];
$answer = file_get_contents("$api/broadcast", false, stream_context_create(['http' => [
    'method' => 'POST',
    'header' => ["Authorization: Bearer $key", 'Content-Type: application/json'],
    'content' => json_encode($events),
    'timeout' => 10,
]]));
if ($answer === false) {
    exit(1);
}
echo $answer;
