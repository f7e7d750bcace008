//! What goes wrong when people write objects: something else stands somewhere, something is missing, something is there
//! that belongs elsewhere.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// One thing that is wrong with one place of a spec.
#[derive(Clone, Debug)]
pub(crate) struct Blunder {
    object: Index,
    place: Index,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Is(Value),
    IsMissing,
    /// What stands at another place of the same object.
    IsOf(Index),
    HasAlso(&'static str, Value),
}

pub(crate) fn blunders() -> impl Strategy<Value = Vec<Blunder>> {
    let what = prop_oneof![
        4 => value().prop_map(What::Is),
        1 => Just(What::IsMissing),
        2 => any::<Index>().prop_map(What::IsOf),
        1 => (select(FIELDS), value()).prop_map(|(name, value)| What::HasAlso(name, value)),
    ];
    let one = (any::<Index>(), any::<Index>(), what);
    let one = one.prop_map(|(object, place, what)| Blunder { object, place, what });
    prop::collection::vec(one, 1..4)
}

/// Fields that mean something in some places, and one that never does.
const FIELDS: &[&str] = &[
    "x",
    "exact",
    "regex",
    "prefix",
    "uri",
    "port",
    "subset",
    "weight",
    "value",
    "percentage",
    "timeout",
    "set",
    "mirror",
    "redirect",
    "delegate",
    "route",
    "attempts",
    "httpStatus",
    "fixedDelay",
    "host",
    "hosts",
];

/// What is no name, no number, no duration, no regex or no host; or one where none belongs.
const WORDS: &[&str] = &[
    "",
    " ",
    "*",
    "*.",
    ".",
    "(",
    "a|b",
    ")(",
    "(a{1000}){1000}",
    "\\9",
    "\\",
    "%",
    "%%",
    "%REQ(",
    "%REQ()%",
    "a b",
    "a\r\nb",
    "\u{0}",
    "é",
    "?",
    "#",
    "http://",
    "[::1",
    "a:99999",
    "-1",
    "1",
    "0s",
    "1ns",
    "1.5s",
    "99999999999999999999s",
    "-1s",
    "host",
    ":path",
    "content-length",
    "5xx",
    "5xx,",
    "http-1",
    "v1",
    "default",
];

fn value() -> impl Strategy<Value = Value> {
    let mut values: Vec<Value> = WORDS.iter().copied().map(Value::from).collect();
    values.extend([
        json!("x".repeat(1100)),
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!([null]),
        json!([""]),
    ]);
    values.extend([json!(-1), json!(0), json!(0.00001), json!(99), json!(101), json!(600), json!(70000)]);
    values.extend([json!(4_294_967_296_u64), json!(u64::MAX), json!(1e300), json!(-0.5)]);
    select(values)
}

/// The objects with all that is wrong, one after the other.
pub(crate) fn with(mut objects: Vec<Value>, blunders: &[Blunder]) -> Vec<Value> {
    for blunder in blunders {
        let object = blunder.object.get(&objects).clone();
        let places = places(&object["spec"], "/spec".to_owned());
        let place = blunder.place.get(&places);
        let other = |index: &Index| object.pointer(index.get::<String>(&places)).cloned();
        let number = blunder.object.index(objects.len());
        match &blunder.what {
            What::Is(value) => put(&mut objects[number], place, value.clone()),
            What::IsOf(index) => put(&mut objects[number], place, other(index).unwrap_or_default()),
            What::IsMissing => remove(&mut objects[number], place),
            What::HasAlso(name, value) => {
                if let Some(Value::Object(fields)) = objects[number].pointer_mut(place) {
                    fields.insert((*name).to_owned(), value.clone());
                }
            }
        }
    }
    objects
}

fn put(object: &mut Value, place: &str, value: Value) {
    if let Some(there) = object.pointer_mut(place) {
        *there = value;
    }
}

fn remove(object: &mut Value, place: &str) {
    let Some((outer, last)) = place.rsplit_once('/') else { return };
    match object.pointer_mut(outer) {
        Some(Value::Object(fields)) => drop(fields.remove(&last.replace("~1", "/").replace("~0", "~"))),
        Some(Value::Array(items)) => {
            if let Ok(number) = last.parse::<usize>() {
                items.remove(number);
            }
        }
        _ => {}
    }
}

/// A value and all in it, as JSON pointers.
fn places(value: &Value, at: String) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, inner)| (name.replace('~', "~0").replace('/', "~1"), inner)).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().map(|(number, inner)| (number.to_string(), inner)).collect()
        }
        _ => Vec::new(),
    };
    let below = inner.into_iter().flat_map(|(name, inner)| places(inner, format!("{at}/{name}")));
    let below: Vec<String> = below.collect();
    [at].into_iter().chain(below).collect()
}
