//! Bodies of the server API: the parsers of lines and of JSON, beside twins with simd-json.
//!
//! simd-json changes the body while it parses, and keeps neither the text of a value nor its place. A twin must therefore write
//! the data anew, which is no longer the text that the back end has sent: `1.0e2` becomes `100.0`. The last twin only finds the
//! structure and does nothing with it, so that it is the least that any parser with simd-json takes.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quickio::api::{EventList, bench};
use quickio::event::path::PathRef;
use simd_json::prelude::{ValueIntoString, Writable};
use std::str;

/// Events in a request.
const EVENTS: usize = 1_000;

/// Paths to which they go.
const PATHS: usize = 100;

/// Parses a body with simd-json, and writes the data anew.
fn parse_by_simd_json(body: &mut [u8]) -> Option<EventList> {
    let tape = simd_json::to_tape(body).ok()?;
    let (mut list, mut data) = (EventList::default(), Vec::new());
    for event in tape.as_value().as_array()?.iter() {
        let event = event.as_object()?;
        let path = event.get("path")?.into_string()?;
        data.clear();
        event.get("data")?.write(&mut data).ok()?;
        list.push(PathRef::exact(path)?, str::from_utf8(&data).ok()?);
    }
    Some(list)
}

/// Data of about 30 bytes, as that of a chat, or of about 1,000 bytes, as that of a document.
fn data(number: usize, is_large: bool) -> String {
    if !is_large {
        return format!(r#"{{"id":{number},"text":"hello world"}}"#);
    }
    let item = |at: usize| {
        format!(r#"{{"id":{at},"name":"Somebody {at}","tags":["a","b"],"score":{at}.25,"is_new":true}}"#)
    };
    let items: Vec<_> = (number..number + 10).map(item).collect();
    let text = "A sentence of some length, without anything special. ".repeat(4);
    format!(r#"{{"items":[{}],"text":"{text}"}}"#, items.join(","))
}

/// Returns the same events as lines and as JSON.
fn bodies(is_large: bool) -> (Vec<u8>, Vec<u8>) {
    let (mut lines, mut json) = (String::new(), Vec::new());
    for number in 0..EVENTS {
        let (path, data) = (number % PATHS, data(number, is_large));
        lines.push_str(&format!("/relay/{path}:0={data}\n"));
        json.push(format!(r#"{{"path":"/relay/{path}","data":{data}}}"#));
    }
    (lines.into_bytes(), format!("[{}]", json.join(",")).into_bytes())
}

fn parse(c: &mut Criterion) {
    for (name, is_large) in [("small", false), ("large", true)] {
        let (lines, json) = bodies(is_large);
        let mut group = c.benchmark_group(format!("parse {name} events"));
        group.throughput(Throughput::Elements(EVENTS as u64));
        let copy = |body: &Vec<u8>| body.clone();
        group.bench_function("lines", |b| {
            b.iter_batched(|| copy(&lines), |body| bench::parse_lines(body).unwrap(), BatchSize::LargeInput);
        });
        group.bench_function("JSON", |b| {
            b.iter_batched(|| copy(&json), |body| bench::parse_json(&body).unwrap(), BatchSize::LargeInput);
        });
        group.bench_function("JSON by simd-json, written anew", |b| {
            b.iter_batched(
                || copy(&json),
                |mut body| parse_by_simd_json(&mut body).unwrap(),
                BatchSize::LargeInput,
            );
        });
        group.bench_function("the structure by simd-json", |b| {
            b.iter_batched(
                || copy(&json),
                |mut body| simd_json::to_tape(&mut body).unwrap().0.len(),
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, parse);
criterion_main!(benches);
