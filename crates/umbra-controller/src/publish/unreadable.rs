//! Objects that the API server holds and umbra cannot read: reported, and their last readable value stays in force.

use umbra_index::{Dirty, Event, Kind, ObjectName};

use super::objects::Undecodable;
use super::publisher::Publisher;

impl Publisher {
    /// A relist leaves out what cannot be read; its last value stays until it is deleted.
    pub(super) fn with_last_values(&self, event: Event) -> Event {
        use umbra_index::Change::Relist;
        let view = self.index.view();
        let unread = |kind| self.undecodable.keys().filter(move |name| name.kind == kind);
        match event {
            Event::VirtualService(Relist(mut all)) => {
                let last = unread(Kind::VirtualService).filter_map(|name| view.virtual_service(&name.key));
                all.extend(last.cloned());
                Event::VirtualService(Relist(all))
            }
            Event::DestinationRule(Relist(mut all)) => {
                let last = unread(Kind::DestinationRule).filter_map(|name| view.destination_rule(&name.key));
                all.extend(last.cloned());
                Event::DestinationRule(Relist(all))
            }
            event => event,
        }
    }

    /// An object that can be read again, or has gone. Its state differs even when the index sees its old value.
    pub(super) fn read_again(&mut self, event: &Event) -> Dirty {
        use umbra_index::Change::{Apply, Delete};
        let (kind, key) = match event {
            Event::VirtualService(Apply(object)) => (Kind::VirtualService, object.metadata.key()),
            Event::VirtualService(Delete(key)) => (Kind::VirtualService, key.clone()),
            Event::DestinationRule(Apply(object)) => (Kind::DestinationRule, object.metadata.key()),
            Event::DestinationRule(Delete(key)) => (Kind::DestinationRule, key.clone()),
            _ => return Dirty::default(),
        };
        let name = ObjectName::new(kind, key);
        let was = self.undecodable.remove(&name).is_some();
        Dirty { objects: was.then_some(name).into_iter().collect(), ..Dirty::default() }
    }

    pub(super) fn set_undecodable(&mut self, undecodable: Undecodable) -> Dirty {
        let name = undecodable.object.name();
        let before = self.undecodable.insert(name.clone(), undecodable);
        let changed = before.as_ref() != self.undecodable.get(&name);
        Dirty { objects: changed.then_some(name).into_iter().collect(), ..Dirty::default() }
    }

    pub(super) fn relist_undecodable(&mut self, kind: Kind, all: Vec<Undecodable>) -> Dirty {
        let before: Vec<_> = self.undecodable.keys().filter(|name| name.kind == kind).cloned().collect();
        self.undecodable.retain(|name, _| name.kind != kind);
        let mut dirty = Dirty::default();
        dirty.objects.extend(before);
        for undecodable in all {
            dirty.objects.insert(undecodable.object.name());
            self.undecodable.insert(undecodable.object.name(), undecodable);
        }
        dirty
    }
}
