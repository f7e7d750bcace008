//! The recorded cases: objects, requests, and what Istio did.
//!
//! Recorded from istiod 1.31 and Envoy 1.40 on a real API server. `base.yaml` has the objects under every case. A case has
//! `objects`, `requests` and, for each request, what happened: for one the client's status and headers and every request
//! that any backend saw (`first`), for several how often what happened (`tally`). umbra-compile's tests ask the same cases
//! of tables alone.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One case.
pub(crate) struct Case {
    pub(crate) file: String,
    pub(crate) name: String,
    /// As a person would apply them: apiVersion and namespace may be absent.
    pub(crate) objects: Vec<Value>,
    /// They were made more than a second apart.
    pub(crate) spread: bool,
    /// They were made within a second, as a List: here all of the case are.
    pub(crate) together: bool,
    pub(crate) requests: Vec<Request>,
    pub(crate) expected: Vec<Expected>,
    /// `Kind/name` of those that the API server refused.
    pub(crate) refused: Vec<String>,
}

/// One request, or several that are alike.
pub(crate) struct Request(Value);

/// What Istio did.
pub(crate) struct Expected(Value);

/// `[status, group that answered, groups of all others that saw it]`.
pub(crate) type Drawn = (u16, Option<String>, Vec<String>);

/// The objects under every case.
pub(crate) fn base() -> Result<String> {
    read("base")
}

/// Every case of every file, in order.
pub(crate) fn all() -> Result<Vec<Case>> {
    let folder = std::fs::read_dir(folder())?;
    let mut files: Vec<String> = folder
        .filter_map(|entry| {
            entry.ok()?.file_name().into_string().ok()?.strip_suffix(".yaml").map(str::to_owned)
        })
        .filter(|name| name != "base")
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let recorded: Vec<Value> = serde_saphyr::from_str(&read(&file)?).with_context(|| file.clone())?;
        for value in recorded {
            cases.push(case(&file, &value).with_context(|| format!("{file}: {}", value["name"]))?);
        }
    }
    Ok(cases)
}

fn folder() -> String {
    format!("{}/istio-cases", env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> Result<String> {
    let path = format!("{}/{file}.yaml", folder());
    std::fs::read_to_string(&path).context(path)
}

fn case(file: &str, value: &Value) -> Result<Case> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let refused = list(&value["expect"]["refused"]);
    let named = refused.iter().filter_map(|refused| refused.as_str()?.split(": ").next());
    let documents: Vec<Value> = serde_saphyr::from_multiple(value["objects"].as_str().context("objects")?)?;
    let together = documents.iter().any(|document| document["items"].is_array());
    let objects = documents.into_iter().flat_map(|document| match document["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![document],
    });
    Ok(Case {
        file: file.to_owned(),
        name: value["name"].as_str().context("a name")?.to_owned(),
        objects: objects.filter(|object| !object.is_null()).map(complete).collect(),
        spread: value["spread"].as_bool().unwrap_or(false),
        together,
        requests: list(&value["requests"]).into_iter().map(Request).collect(),
        expected: list(&value["expect"]["requests"]).into_iter().map(Expected).collect(),
        refused: named.map(str::to_owned).collect(),
    })
}

fn complete(mut object: Value) -> Value {
    if object["apiVersion"].is_null() {
        object["apiVersion"] = "networking.istio.io/v1".into();
    }
    if object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "default".into();
    }
    object
}

/// `Kind/name`.
pub(crate) fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

impl Request {
    /// How often it is asked, at least.
    pub(crate) fn repeats(&self) -> u64 {
        self.0["n"].as_u64().unwrap_or(1)
    }

    /// `web` or `tester`.
    pub(crate) fn client(&self) -> &str {
        self.text("client").unwrap_or("web")
    }

    /// Service and port.
    pub(crate) fn to(&self) -> Result<(&str, u16)> {
        let (service, port) = self.text("to").and_then(|to| to.split_once(':')).context("to")?;
        Ok((service, port.parse()?))
    }

    /// The method.
    pub(crate) fn method(&self) -> &str {
        self.text("method").unwrap_or("GET")
    }

    /// Sent as it is.
    pub(crate) fn path(&self) -> &str {
        self.text("path").unwrap_or("/")
    }

    /// The Host header.
    pub(crate) fn host(&self) -> Result<&str> {
        Ok(self.text("host").unwrap_or(self.to()?.0))
    }

    /// It is asked in HTTP/2.
    pub(crate) fn is_h2c(&self) -> bool {
        self.0["h2c"] == true
    }

    /// The client's patience in seconds.
    pub(crate) fn patience(&self) -> f64 {
        self.0["max"].as_f64().unwrap_or(6.0)
    }

    /// The body, if it has one.
    pub(crate) fn body(&self) -> Option<Vec<u8>> {
        let many = self.0["bytes"].as_u64().and_then(|bytes| usize::try_from(bytes).ok());
        self.text("body").map(|text| text.as_bytes().to_vec()).or(many.map(|many| vec![b'x'; many]))
    }

    /// Its headers in order, names as written.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match &self.0["headers"] {
            Value::Object(map) => {
                // Copies of one header are written with names of different case, in this order; a map loses it.
                let mut map: Vec<_> = map.iter().collect();
                map.sort_by_key(|(name, _)| {
                    (name.to_lowercase(), name.starts_with(char::is_uppercase), (*name).clone())
                });
                let copies = map.into_iter().flat_map(|(name, value)| {
                    let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                    values.into_iter().map(move |value| (name.clone(), value))
                });
                copies.map(|(name, value)| (name, text(&value))).collect()
            }
            Value::Array(pairs) => pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
            _ => Vec::new(),
        }
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.0[field].as_str()
    }
}

impl Expected {
    /// Status, headers and what backends saw, of one request.
    pub(crate) fn first(&self) -> &Value {
        &self.0["first"]
    }

    /// How often Istio was asked.
    pub(crate) fn draws(&self) -> u64 {
        self.tally().values().sum()
    }

    /// How often each outcome came.
    pub(crate) fn tally(&self) -> BTreeMap<Drawn, u64> {
        let counts = self.0["tally"].as_object().into_iter().flatten();
        counts
            .filter_map(|(drawn, count)| Some((serde_json::from_str(drawn).ok()?, count.as_u64()?)))
            .collect()
    }
}
