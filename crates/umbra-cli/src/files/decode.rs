//! One file's text to objects: YAML with any number of documents, JSON, and `List`s as `kubectl get -o` prints them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use umbra_api::ObjectKey;

use super::object::{Object, ObjectId, ObjectKind};

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    /// Objects of the kinds that umbra reads, with their manifests; also those that make no sense, which whoever uses
    /// them finds.
    pub objects: Vec<(ObjectId, Object, Value)>,
    /// What could not be understood.
    pub problems: Vec<Problem>,
    /// Objects of other kinds, which umbra has no use for: `Deployment sa-logic`.
    pub passed_over: Vec<String>,
}

/// Something in a file that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub file: PathBuf,
    /// The first line of the document, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Whose document it is, when that much is known. What was known of it stays in force.
    pub object: Option<ObjectId>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if let Some(object) = &self.object {
            write!(f, " {object}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// Reads all of a file's documents.
pub fn decode(file: &Path, text: &str) -> Decoded {
    let mut decoded = Decoded::default();
    for (line, document) in documents(text) {
        let problem = |object, message| Problem { file: file.to_owned(), line, object, message };
        // Blank lines in front keep the parser's line numbers those of the file.
        let padded = "\n".repeat(line - 1) + document;
        // As YAML 1.2 and the API server's JSON have it: `y`, `on` and `no` are strings.
        let options = serde_saphyr::options! { strict_booleans: true };
        match serde_saphyr::from_str_with_options::<Value>(&padded, options) {
            Ok(value) => decoded.document(value, &problem),
            Err(error) => decoded.problems.push(problem(None, error.without_snippet().to_string())),
        }
    }
    decoded
}

/// Splits at document markers, YAML 1.2 section 9.1.2: `---` at a line's beginning is one wherever it stands, so a
/// bad document cannot hide the next. Gives each with its first line's number; leaves out those of comments only.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut first_line, mut begin, mut at) = (1, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            documents.push((first_line, &text[begin..at]));
            (first_line, begin) = (number + 1, at);
        }
        at += line.len();
    }
    documents.push((first_line, &text[begin..]));
    documents.retain(|(_, document)| document.lines().any(meaningful));
    documents
}

fn meaningful(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#') && line != "---"
}

impl Decoded {
    fn document(&mut self, value: Value, problem: &dyn Fn(Option<ObjectId>, String) -> Problem) {
        let Some(kind) = value["kind"].as_str() else {
            self.problems.push(problem(None, "no kind: not a Kubernetes object".to_owned()));
            return;
        };
        if kind.ends_with("List") && value["items"].is_array() {
            let item_kind = kind.trim_end_matches("List").to_owned();
            self.list(value, &item_kind, problem);
            return;
        }
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        let api_version = value["apiVersion"].as_str().unwrap_or_default();
        let Some(object_kind) = ObjectKind::of(api_version, kind) else {
            self.passed_over.push(format!("{kind} {name}"));
            return;
        };
        if name.is_empty() {
            self.problems.push(problem(None, format!("{object_kind}: metadata.name: missing")));
            return;
        }
        let id = ObjectId { kind: object_kind, key: ObjectKey::new(namespace(object_kind, &value), name) };
        match Object::decode(object_kind, &value) {
            Ok(mut object) => {
                object.metadata_mut().namespace.clone_from(&id.key.namespace);
                self.objects.push((id, object, value));
            }
            Err(message) => self.problems.push(problem(Some(id), message)),
        }
    }

    /// Items of a typed list (`PodList`) leave out their own kind.
    fn list(&mut self, mut list: Value, kind: &str, problem: &dyn Fn(Option<ObjectId>, String) -> Problem) {
        let api_version = list["apiVersion"].take();
        let Value::Array(items) = list["items"].take() else { return };
        for mut item in items {
            if let Value::Object(fields) = &mut item
                && !kind.is_empty()
            {
                fields.entry("kind").or_insert_with(|| kind.into());
                fields.entry("apiVersion").or_insert_with(|| api_version.clone());
            }
            self.document(item, problem);
        }
    }
}

/// `default` where none is written, as `kubectl apply` does.
fn namespace(kind: ObjectKind, value: &Value) -> String {
    match value["metadata"]["namespace"].as_str() {
        _ if kind == ObjectKind::Node => String::new(),
        Some(namespace) if !namespace.is_empty() => namespace.to_owned(),
        _ => "default".to_owned(),
    }
}

#[cfg(test)]
mod tests;
