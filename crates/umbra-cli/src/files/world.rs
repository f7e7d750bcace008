//! All objects of all files, and what changed since the last look. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use umbra_index::Event;

use super::Texts;
use super::decode::{Decoded, Problem, decode};
use super::object::{Object, ObjectId, ObjectKind};

/// What the files held when they were last looked at.
#[derive(Debug, Default)]
pub struct World {
    objects: BTreeMap<ObjectId, Known>,
    /// Objects that did not decode: in which file, and why.
    broken: Broken,
    listed: bool,
    /// Objects that have come so far.
    came: u64,
}

type Broken = BTreeMap<ObjectId, (PathBuf, String)>;

/// What one look found.
#[derive(Debug, Default)]
pub struct Changes {
    /// Objects that have stopped decoding (at the first look: that do not), and why.
    pub undecodable: Vec<(ObjectId, String)>,
    /// What happened to objects; the first look gives one relist of each kind.
    pub events: Vec<Event>,
    /// Everything that is wrong now.
    pub problems: Vec<Problem>,
    /// Objects of kinds that umbra has no use for.
    pub passed_over: Vec<String>,
}

#[derive(Debug)]
struct Known {
    manifest: Value,
    file: PathBuf,
    generation: i64,
    uid: String,
}

/// One look, before it is compared.
#[derive(Default)]
struct Look {
    objects: BTreeMap<ObjectId, (PathBuf, Object, Value)>,
    broken: Broken,
    /// Files of which some document does not say whose it is.
    broken_files: BTreeSet<PathBuf>,
    changes: Changes,
}

impl World {
    /// Compares the files' texts with the last look.
    pub fn look(&mut self, texts: &Texts) -> Changes {
        let mut look = Look::default();
        for (file, text) in texts {
            match text {
                Ok(text) => look.take(file, decode(file, text)),
                Err(why) => look.unreadable(file, why.clone()),
            }
        }
        let gone = self.gone(&look);
        for id in &gone {
            self.objects.remove(id);
            self.broken.remove(id);
        }
        let changed = look.objects.into_iter().filter_map(|(id, found)| self.changed(id, found));
        let changed: Vec<_> = changed.collect();
        for (id, (file, why)) in look.broken {
            let said = self.broken.insert(id.clone(), (file, why.clone()));
            if said.is_none_or(|(_, said)| said != why) {
                look.changes.undecodable.push((id, why));
            }
        }
        look.changes.events = if self.listed {
            let deleted = gone.into_iter().map(|id| id.kind.delete(id.key));
            changed.into_iter().map(Object::apply).chain(deleted).collect()
        } else {
            ObjectKind::ALL.iter().map(|kind| kind.relist(changed.clone())).collect()
        };
        self.listed = true;
        look.changes
    }

    /// What is in no file any more. An object that is still there but broken keeps its last value.
    fn gone(&self, look: &Look) -> BTreeSet<ObjectId> {
        let there = |id: &ObjectId, file: &PathBuf| {
            look.objects.contains_key(id) || look.broken.contains_key(id) || look.broken_files.contains(file)
        };
        let objects = self.objects.iter().map(|(id, known)| (id, &known.file));
        let broken = self.broken.iter().map(|(id, (file, _))| (id, file));
        let gone = objects.chain(broken).filter(|(id, file)| !there(id, file));
        gone.map(|(id, _)| id.clone()).collect()
    }

    /// The object if it is new or differs, with the generation and the uid that an API server would give it.
    fn changed(
        &mut self,
        id: ObjectId,
        (file, mut object, manifest): (PathBuf, Object, Value),
    ) -> Option<Object> {
        let written = object.metadata_mut().generation;
        let mended = self.broken.remove(&id).is_some();
        // Pods keep an absent one: slices refer to them by it.
        let made = matches!(id.kind, ObjectKind::VirtualService | ObjectKind::DestinationRule);
        let (generation, uid) = match self.objects.entry(id) {
            Entry::Vacant(entry) => {
                let (generation, mut uid) = (written.max(1), object.metadata_mut().uid.clone());
                if made && uid.is_empty() {
                    self.came += 1;
                    uid = format!("file-{}", self.came);
                }
                entry.insert(Known { manifest, file, generation, uid: uid.clone() });
                (generation, uid)
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.file = file;
                if known.manifest == manifest && !mended {
                    return None;
                }
                let other_spec = known.manifest["spec"] != manifest["spec"];
                known.generation = written.max(known.generation + i64::from(other_spec));
                known.manifest = manifest;
                if !object.metadata_mut().uid.is_empty() {
                    known.uid.clone_from(&object.metadata_mut().uid);
                }
                (known.generation, known.uid.clone())
            }
        };
        object.metadata_mut().generation = generation;
        object.metadata_mut().uid = uid;
        Some(object)
    }
}

impl Look {
    fn take(&mut self, file: &Path, decoded: Decoded) {
        for problem in decoded.problems {
            match &problem.object {
                Some(id) => {
                    self.broken.insert(id.clone(), (file.to_owned(), problem.message.clone()));
                }
                None => {
                    self.broken_files.insert(file.to_owned());
                }
            }
            self.changes.problems.push(problem);
        }
        for (id, object, manifest) in decoded.objects {
            match self.objects.entry(id) {
                Entry::Vacant(entry) => {
                    entry.insert((file.to_owned(), object, manifest));
                }
                Entry::Occupied(entry) => {
                    let message = format!("is in {} too; that one counts", entry.get().0.display());
                    let object = Some(entry.key().clone());
                    self.changes.problems.push(Problem { file: file.to_owned(), line: 0, object, message });
                }
            }
        }
        self.changes.passed_over.extend(decoded.passed_over);
    }

    fn unreadable(&mut self, file: &Path, message: String) {
        self.broken_files.insert(file.to_owned());
        self.changes.problems.push(Problem { file: file.to_owned(), line: 0, object: None, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_index::Change;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n";

    fn vs(host: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v}}\nspec: {{hosts: [{host}]}}\n"
        )
    }

    fn texts(files: &[(&str, &str)]) -> Texts {
        files.iter().map(|(file, text)| (PathBuf::from(file), Ok((*text).to_owned()))).collect()
    }

    fn applied(changes: &Changes) -> Vec<(String, i64)> {
        let one = |event: &Event| match event {
            Event::VirtualService(Change::Apply(vs)) => (vs.spec.hosts[0].clone(), vs.metadata.generation),
            other => panic!("{other:?}"),
        };
        changes.events.iter().map(one).collect()
    }

    #[test]
    fn the_first_look_lists_every_kind_once() {
        let changes = World::default().look(&texts(&[("p.yaml", POD)]));
        assert_eq!(changes.events.len(), ObjectKind::ALL.len());
        assert!(matches!(&changes.events[1], Event::Pod(Change::Relist(pods)) if pods.len() == 1));
        assert!(matches!(&changes.events[6], Event::VirtualService(Change::Relist(none)) if none.is_empty()));
    }

    #[test]
    fn a_changed_spec_gets_a_new_generation() {
        let mut world = World::default();
        world.look(&texts(&[("v.yaml", &vs("a"))]));
        assert!(world.look(&texts(&[("v.yaml", &vs("a"))])).events.is_empty());
        assert_eq!(applied(&world.look(&texts(&[("v.yaml", &vs("b"))]))), [("b".to_owned(), 2)]);
        let labelled = vs("b").replace("name: v", "name: v, labels: {x: y}");
        assert_eq!(applied(&world.look(&texts(&[("v.yaml", &labelled)]))), [("b".to_owned(), 2)]);
    }

    #[test]
    fn an_object_that_comes_again_is_another_one() {
        let mut world = World::default();
        let mut uid = |files: &[(&str, &str)]| match world.look(&texts(files)).events.pop().unwrap() {
            Event::VirtualService(Change::Relist(all)) => all[0].metadata.uid.clone(),
            Event::VirtualService(Change::Apply(vs)) => vs.metadata.uid,
            Event::VirtualService(Change::Delete(_)) => String::new(),
            other => panic!("{other:?}"),
        };
        let first = uid(&[("v.yaml", &vs("a"))]);
        assert!(!first.is_empty());
        assert_eq!(uid(&[("v.yaml", &vs("b"))]), first, "a change is no other object");
        uid(&[]);
        assert_ne!(uid(&[("v.yaml", &vs("b"))]), first);
        let written = vs("c").replace("name: v", "name: v, uid: its-own");
        assert_eq!(uid(&[("v.yaml", &written)]), "its-own");
    }

    #[test]
    fn an_object_goes_when_it_is_in_no_file() {
        let mut world = World::default();
        world.look(&texts(&[("a.yaml", POD), ("v.yaml", &vs("a"))]));
        let moved = format!("{POD}---\n{}", vs("a"));
        assert!(world.look(&texts(&[("z.yaml", &moved)])).events.is_empty(), "only moved");
        let changes = world.look(&texts(&[("z.yaml", POD)]));
        assert!(
            matches!(&changes.events[..], [Event::VirtualService(Change::Delete(key))] if key.name == "v")
        );
    }

    #[test]
    fn a_broken_object_keeps_its_last_value_until_it_goes() {
        let mut world = World::default();
        world.look(&texts(&[("p.yaml", POD), ("v.yaml", &vs("a"))]));
        for broken in ["kind: [", &vs("{x: y}"), &vs("[").replace("kind: VirtualService\n", "")] {
            let changes = world.look(&texts(&[("p.yaml", POD), ("v.yaml", broken)]));
            assert!(changes.events.is_empty(), "{broken}: {:?}", changes.events);
            assert_eq!(changes.problems.len(), 1, "{broken}");
        }
        let mut unreadable = texts(&[("p.yaml", POD)]);
        unreadable.insert("v.yaml".into(), Err("permission denied".into()));
        assert!(world.look(&unreadable).events.is_empty());
        assert_eq!(world.look(&texts(&[("p.yaml", POD)])).events.len(), 1, "deleted");
    }

    #[test]
    fn an_object_that_stops_decoding_is_told_once_and_again_when_it_is_mended() {
        let mut world = World::default();
        world.look(&texts(&[("v.yaml", &vs("a"))]));
        let broken = texts(&[("v.yaml", &vs("{x: y}"))]);
        let changes = world.look(&broken);
        assert_eq!(changes.undecodable[0].0.to_string(), "virtualservice default/v");
        assert!(changes.undecodable[0].1.starts_with("spec.hosts"), "{:?}", changes.undecodable);
        assert!(world.look(&broken).undecodable.is_empty());
        assert_eq!(applied(&world.look(&texts(&[("v.yaml", &vs("a"))]))), [("a".to_owned(), 1)]);
    }

    #[test]
    fn an_object_that_never_decoded_goes_too() {
        let mut world = World::default();
        assert_eq!(world.look(&texts(&[("v.yaml", &vs("{x: y}"))])).undecodable.len(), 1);
        let changes = world.look(&texts(&[]));
        assert!(matches!(&changes.events[..], [Event::VirtualService(Change::Delete(_))]));
        assert!(world.look(&texts(&[])).events.is_empty());
    }

    #[test]
    fn of_two_manifests_of_one_object_the_first_counts() {
        let mut world = World::default();
        let changes = world.look(&texts(&[("a.yaml", POD), ("b.yaml", POD)]));
        assert_eq!(
            changes.problems[0].to_string(),
            "b.yaml: pod default/p: is in a.yaml too; that one counts"
        );
    }
}
