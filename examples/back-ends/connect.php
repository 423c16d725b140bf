<?php
// A back end in plain PHP that tells QuickIO who clients are: the event connect of docs/webhooks.md. The settings of the server:
//
//     auth = "required"
//     app = ["webhook"]
//     app-headers = ["origin", "cookie"]
//
//     [app-settings.webhook]
//     url = "http://127.0.0.1:8000/connect.php"
//     secret-file = "webhook.key"
//     events = "connect"
//
// SESSIONS_FILE has {"session": "user"} as JSON. To try it: php -S 127.0.0.1:8000

function reply(int $status, array $data): never
{
    http_response_code($status);
    header('Content-Type: application/json');
    exit(json_encode($data));
}

$secret = trim(file_get_contents(getenv('SECRET_FILE') ?: 'webhook.key'));
$body = file_get_contents('php://input');
$signed_at = $_SERVER['HTTP_QUICKIO_TIMESTAMP'] ?? '';
$signature = 'v1=' . hash_hmac('sha256', "$signed_at.$body", $secret);
if (!hash_equals($signature, $_SERVER['HTTP_QUICKIO_SIGNATURE'] ?? '') || abs(time() - (int) $signed_at) > 60) {
    // Not 401, which would be an answer about the client.
    reply(400, ['error' => 'the signature is wrong or old']);
}

$event = json_decode($body, true);
$session = $event['token'];
if ($session === null && preg_match('/(?:^|; )session=([^;]*)/', $event['headers']['cookie'] ?? '', $found)) {
    $session = $found[1];
}
if ($session === null) {
    reply(200, ['user' => null]);
}
$sessions = json_decode(file_get_contents(getenv('SESSIONS_FILE') ?: 'sessions.json'), true);
$user = $sessions[$session] ?? null;
if ($user === null) {
    reply(401, ['error' => 'there is no such session']);
}
reply(200, ['user' => $user, 'expires' => time() + 3600]);
