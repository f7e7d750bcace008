//! Reading `cases/*.yaml`.
//!
//! A file is a list of cases, each a sentence (`name`), the rows of `rows.yaml` that it proves (`rows`: `+row` that it
//! works, `-row` that it does not where it must not, `row` both), objects and requests:
//! - `match`: the blocks of a rule that sends to v2, before one that sends all else to v1; with `yes` and `no`, the
//!   requests that it takes and leaves.
//! - `http`: the rules of VirtualService default/sa-logic. In them `to: v2` is short for a route to subset v2 of sa-logic.
//! - `objects`: in full, or `{vs: namespace/name, made: 2, ...spec}` and `dr` likewise; `made` is the second of creation.
//! - `asks`: requests ([`Ask`]) and what comes of each.
//! - `says`: parts of what `umbra lint` says; an error that is not among them is one too many.
//! - `held`: an object is invalid, so that a node does not take the service over.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// One case.
pub(crate) struct Case {
    pub(crate) file: String,
    pub(crate) name: String,
    /// Row, and whether the case shows it at work (`true`) or its absence.
    pub(crate) rows: Vec<(String, bool)>,
    /// As YAML documents.
    pub(crate) objects: Vec<Value>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) says: Vec<String>,
    pub(crate) held: bool,
}

/// A request, and what comes of it. Written as text alone it is the path.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ask {
    /// Service and port; the client connects to its ClusterIP.
    pub(crate) to: Option<String>,
    /// The client: `client-NAME` is its pod.
    pub(crate) from: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    /// Values, or lists of them.
    pub(crate) headers: BTreeMap<String, Value>,
    pub(crate) body: String,
    /// In place of `body`: one of so many bytes.
    pub(crate) bytes: Option<usize>,
    /// How often, with `shares` or `percent`.
    pub(crate) n: Option<u32>,

    /// The group of pods that answers; `v1|v2`: any of them; `plain`: umbra decides nothing, any pod of the service.
    pub(crate) by: Option<String>,
    /// 200 when there is a `by`.
    pub(crate) status: Option<u16>,
    /// How often each of these groups answers of 100; `503` stands for nobody.
    pub(crate) shares: BTreeMap<String, u32>,
    /// Groups that got it beside the one that answers: copies, and whoever was asked and never answered.
    pub(crate) copies: Vec<String>,
    /// The rule has mirrors, and what the request is keeps it from them.
    pub(crate) uncopied: bool,
    /// How many of 100 requests each of these groups gets a copy of.
    pub(crate) percent: BTreeMap<String, f64>,
    /// How many of 100 requests all of `percent` get a copy of.
    pub(crate) together: Option<f64>,
    /// What everybody who got the request saw.
    pub(crate) sees: Sees,
    /// The answer's headers: a value, a list of them, or null for a header that must not be there.
    pub(crate) gets: BTreeMap<String, Value>,
    /// The answer's body.
    pub(crate) body_is: Option<String>,
    /// How often the answering group was asked.
    pub(crate) tries: Option<usize>,
    /// The answer takes at least so long.
    pub(crate) at_least_ms: Option<u64>,
    /// `namespace/name[index]` of the rule.
    pub(crate) rule: Option<String>,
    /// Part of the rule as a node has it.
    pub(crate) decides: Value,
}

/// What a backend saw; of the headers as in [`Ask::gets`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sees {
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) headers: BTreeMap<String, Value>,
    pub(crate) len: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    rows: Vec<String>,
    r#match: Option<Value>,
    http: Option<Vec<Value>>,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default, deserialize_with = "asks")]
    yes: Vec<Ask>,
    #[serde(default, deserialize_with = "asks")]
    no: Vec<Ask>,
    #[serde(default, deserialize_with = "asks")]
    asks: Vec<Ask>,
    #[serde(default)]
    says: Vec<String>,
    #[serde(default)]
    held: bool,
}

/// Files of the folder that are not lists of cases.
const OTHERS: [&str; 4] = ["world", "subsets", "bystander", "rows"];

/// The text of a file in `cases/`.
pub(crate) fn text(file: &str) -> Result<String> {
    let path = format!("{}/cases/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).context(path)
}

/// Every case of every file, in order.
pub(crate) fn all() -> Result<Vec<Case>> {
    let folder = std::fs::read_dir(format!("{}/cases", env!("CARGO_MANIFEST_DIR")))?;
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut files: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned)).collect();
    files.retain(|file| !OTHERS.contains(&file.as_str()));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let written: Vec<Written> = serde_saphyr::from_str(&text(&file)?).with_context(|| file.clone())?;
        for one in written {
            let name = one.name.clone();
            cases.push(case(&file, one).with_context(|| format!("{file}: {name}"))?);
        }
    }
    Ok(cases)
}

fn case(file: &str, written: Written) -> Result<Case> {
    let rows = written.rows.iter().flat_map(|row| claims(row)).collect();
    let mut objects = written.objects.iter().map(object).collect::<Result<Vec<_>>>()?;
    if let Some(blocks) = written.r#match {
        let rules = vec![json!({"match": blocks, "to": "v2"}), json!({"to": "v1"})];
        objects.push(sa_logic(rules)?);
    }
    if let Some(rules) = written.http {
        objects.push(sa_logic(rules)?);
    }
    let by =
        |group: &'static str| move |ask: Ask| Ask { by: Some(ask.by.unwrap_or(group.to_owned())), ..ask };
    let mut asks: Vec<Ask> = written.yes.into_iter().map(by("v2")).collect();
    asks.extend(written.no.into_iter().map(by("v1")));
    asks.extend(written.asks);
    ensure!(!asks.is_empty() || !written.says.is_empty(), "nothing is asked");
    for ask in &asks {
        ensure!(ask.by.is_some() || ask.status.is_some() || !ask.shares.is_empty(), "{ask:?}: who answers?");
    }
    let Written { name, says, held, .. } = written;
    Ok(Case { file: file.to_owned(), name, rows, objects, asks, says, held })
}

fn claims(row: &str) -> Vec<(String, bool)> {
    match (row.strip_prefix('+'), row.strip_prefix('-')) {
        (Some(row), _) => vec![(row.to_owned(), true)],
        (_, Some(row)) => vec![(row.to_owned(), false)],
        _ => vec![(row.to_owned(), true), (row.to_owned(), false)],
    }
}

fn sa_logic(rules: Vec<Value>) -> Result<Value> {
    object(&json!({"vs": "default/sa-logic", "hosts": ["sa-logic"], "http": rules}))
}

/// The manifest that a short form stands for.
fn object(written: &Value) -> Result<Value> {
    let Value::Object(fields) = written else { bail!("{written} is no object") };
    let mut spec = fields.clone();
    let (kind, name) = match (spec.remove("vs"), spec.remove("dr")) {
        (Some(name), None) => ("VirtualService", name),
        (None, Some(name)) => ("DestinationRule", name),
        _ => return Ok(written.clone()),
    };
    let (namespace, name) = name.as_str().and_then(|name| name.split_once('/')).context("namespace/name")?;
    let made = spec.remove("made").and_then(|second| second.as_u64()).unwrap_or_default();
    for rule in spec.get_mut("http").and_then(Value::as_array_mut).into_iter().flatten() {
        expand(rule);
    }
    Ok(json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {
            "namespace": namespace,
            "name": name,
            "creationTimestamp": format!("2026-01-01T00:00:{made:02}Z"),
        },
        "spec": spec,
    }))
}

fn expand(rule: &mut Value) {
    if let Some(subset) = rule.as_object_mut().and_then(|rule| rule.remove("to")) {
        let host = "sa-logic.default.svc.cluster.local";
        rule["route"] = json!([{"destination": {"host": host, "subset": subset}}]);
    }
}

fn asks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Ask>, D::Error> {
    let all = Vec::<Value>::deserialize(from)?.into_iter().map(|one| match one {
        Value::String(path) => Ok(Ask { path: Some(path), ..Ask::default() }),
        one => serde_json::from_value(one).map_err(D::Error::custom),
    });
    all.collect()
}

impl Ask {
    pub(crate) fn service_and_port(&self) -> Result<(&str, u16)> {
        let to = self.to.as_deref().unwrap_or("sa-logic:80");
        let (service, port) = to.split_once(':').context("to")?;
        Ok((service, port.parse()?))
    }

    pub(crate) fn body(&self) -> String {
        self.bytes.map_or_else(|| self.body.clone(), |bytes| "x".repeat(bytes))
    }

    /// All that is expected, as text.
    pub(crate) fn outcome(&self) -> String {
        let Self { by, status, shares, copies, percent, uncopied, sees, gets, .. } = self;
        let Self { body_is, tries, decides, .. } = self;
        format!(
            "{by:?} {status:?} {shares:?} {copies:?} {percent:?} {uncopied} {sees:?} {gets:?} {body_is:?} {tries:?} {decides}"
        )
    }

    pub(crate) fn client(&self) -> String {
        format!("client-{}", self.from.as_deref().unwrap_or("web"))
    }

    pub(crate) fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("GET")
    }

    pub(crate) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    /// With Host, each copy of a header by itself.
    pub(crate) fn headers(&self) -> Result<Vec<(&str, &str)>> {
        let host =
            self.host.as_deref().map_or_else(|| Ok(self.service_and_port()?.0), Ok::<_, anyhow::Error>)?;
        let mut all = vec![("host", host)];
        for (name, value) in &self.headers {
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                all.push((name, value.as_str().with_context(|| format!("{name}: a text"))?));
            }
        }
        Ok(all)
    }
}

/// Whether headers are as wanted: a value, a list of them, or null for one that must not be there.
pub(crate) fn unlike(wanted: &BTreeMap<String, Value>, have: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let differing = wanted.iter().filter(|(name, value)| {
        let have = have.get(&name.to_lowercase()).map(Vec::as_slice).unwrap_or_default();
        match value {
            Value::Null => !have.is_empty(),
            Value::Array(values) => values.iter().map(Value::as_str).ne(have.iter().map(|one| Some(&**one))),
            one => have != [one.as_str().unwrap_or_default()],
        }
    });
    differing
        .map(|(name, value)| format!("{name} is {:?}, not {value}", have.get(&name.to_lowercase())))
        .collect()
}
