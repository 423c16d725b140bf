# Broadcasts an event by the server API, in Ruby. docs/server-api.md describes the API.
require 'json'
require 'net/http'

api = URI(ENV.fetch('API', 'http://127.0.0.1:8090'))
key = File.read(ENV.fetch('KEY_FILE', '/etc/quickio/shop.key')).strip
events = [{ path: '/relay/news', data: { from: 'Ruby' } }]
headers = { 'Authorization' => "Bearer #{key}", 'Content-Type' => 'application/json' }
response = Net::HTTP.post(api + '/broadcast', events.to_json, headers)
abort response.body unless response.is_a?(Net::HTTPOK)
print response.body
