//! A controller that began after an object became invalid.

use std::collections::BTreeSet;

use umbra_routing::Mirror;

use super::*;

fn invalid(rule: &mut Value) {
    rule["fault"] = json!({"abort": {}});
}

fn sa_logic() -> ServiceName {
    ServiceName::new("default", "sa-logic")
}

/// What the controller before this one had published.
fn before() -> Published {
    tables(article()).publish(Instant::now())
}

/// A new controller; it finds the object with this rule, at generation 2.
fn new_controller(change: impl FnOnce(&mut Value)) -> Publisher {
    let mut inputs = article();
    inputs[5] = vs(Of::Relist(vec![virtual_service("sa-logic", 2, change)]));
    tables(inputs)
}

fn recovered(table: &ServiceTable) -> Input {
    Input::Recovered(table.clone())
}

/// What the hold of the published snapshot says of the service.
fn holders(published: &Published) -> Vec<&str> {
    let holders = published.snapshot.hold.get(&Key::Service(sa_logic()));
    holders.into_iter().flatten().map(String::as_str).collect()
}

fn part(published: &Published) -> Part {
    published.objects[&vs_name()].services[&sa_logic()].clone()
}

fn mirrors(table: &ServiceTable) -> &[Mirror] {
    &table.ports[0].variants[0].rules[0].mirrors
}

#[test]
fn nodes_keep_what_a_new_controller_does_not_know() {
    let old = before();
    let published = new_controller(invalid).publish(Instant::now());
    assert_eq!((table(&published), holders(&published)), (None, vec!["sa-logic-uid"]));
    assert_eq!(part(&published), Part::Sought);
    let mut node = config(&old);
    let all = node.iter().map(|(key, _)| key.clone()).collect::<BTreeSet<_>>();
    node.put(&published.snapshot.node("node1").put()).unwrap();
    assert_eq!(node.digest(), published.snapshot.node("node1").digest());
    assert_eq!(node.iter().map(|(key, _)| key.clone()).collect::<BTreeSet<_>>(), all);
}

#[test]
fn what_a_node_has_is_published_and_followed_again() {
    let old = table(&before()).unwrap();
    let mut tables = new_controller(invalid);
    tables.publish(Instant::now());
    let foreign = ServiceTable { rules_of: BTreeSet::from(["another".to_owned()]), ..old.clone() };
    assert_eq!(tables.apply(recovered(&foreign)), Change::Nothing, "rules of another object");
    assert_eq!(tables.apply(recovered(&old)), Change::Config);
    let other = ServiceTable { addresses: Vec::new(), ..old.clone() };
    assert_eq!(tables.apply(recovered(&other)), Change::Nothing, "the first one that fits wins");
    let published = tables.publish(Instant::now());
    assert_eq!((table(&published).unwrap(), holders(&published)), (old.clone(), vec![]));
    assert_eq!(part(&published), Part::Held);
    assert_eq!(tables.apply(recovered(&old)), Change::Nothing, "nothing is sought any more");
    // As before the restart: endpoints are followed, and copies stop when the newest spec no longer names the mirror.
    tables.apply(Input::Event(Event::EndpointSlice(Of::Apply(slice("sa-logic", &["10.0.0.2"])))));
    assert_eq!(v1(&tables.publish(Instant::now())), ["10.0.0.2:5000"]);
    tables.apply(vs(Of::Apply(virtual_service("sa-logic", 3, |rule| {
        invalid(rule);
        rule.as_object_mut().unwrap().remove("mirror");
    }))));
    assert_eq!(mirrors(&table(&tables.publish(Instant::now())).unwrap()), []);
    tables.apply(vs(Of::Delete(key())));
    let published = tables.publish(Instant::now());
    assert_eq!((table(&published), holders(&published)), (None, vec![]));
}

#[test]
fn a_mirror_that_went_while_nobody_looked_stops_with_what_is_recovered() {
    let old = table(&before()).unwrap();
    assert_eq!(mirrors(&old).len(), 1);
    let mut tables = new_controller(|rule| {
        invalid(rule);
        rule.as_object_mut().unwrap().remove("mirror");
    });
    tables.publish(Instant::now());
    tables.apply(recovered(&old));
    assert_eq!(mirrors(&table(&tables.publish(Instant::now())).unwrap()), []);
}

#[test]
fn deletion_and_mending_end_the_search() {
    let old = table(&before()).unwrap();
    for (change, is_published) in
        [(Of::Delete(key()), false), (Of::Apply(virtual_service("sa-logic", 3, |_| {})), true)]
    {
        let mut tables = new_controller(invalid);
        tables.publish(Instant::now());
        tables.apply(vs(change));
        let published = tables.publish(Instant::now());
        assert_eq!((table(&published).is_some(), holders(&published)), (is_published, vec![]));
        assert_eq!(tables.apply(recovered(&old)), Change::Nothing);
    }
}

/// An object of the same name that came after the deletion holds its own rules only, and it has none.
#[test]
fn a_successor_does_not_inherit() {
    let old = table(&before()).unwrap();
    let mut inputs = article();
    let mut successor = virtual_service("sa-logic", 1, invalid);
    successor.metadata.uid = "successor".into();
    inputs[5] = vs(Of::Relist(vec![successor]));
    let mut tables = tables(inputs);
    let published = tables.publish(Instant::now());
    assert_eq!(holders(&published), ["successor"]);
    let mut node = config(&before());
    node.put(&published.snapshot.node("node1").put()).unwrap();
    assert!(node.get(&Key::Service(sa_logic())).is_none(), "the node lets go at once");
    assert_eq!(tables.apply(recovered(&old)), Change::Nothing);
}

#[test]
fn a_service_that_has_lost_its_ports_is_not_sought_again_and_again() {
    let old = table(&before()).unwrap();
    let mut inputs = article();
    inputs[5] = vs(Of::Relist(vec![virtual_service("sa-logic", 2, invalid)]));
    let mut moved = service("sa-logic", 0);
    moved.spec.ports[0].port = 81;
    inputs[0] = Input::Event(Event::Service(Of::Relist(vec![moved])));
    let mut tables = tables(inputs);
    tables.publish(Instant::now());
    tables.apply(recovered(&old));
    let published = tables.publish(Instant::now());
    assert_eq!((table(&published), holders(&published), part(&published)), (None, vec![], Part::Invalid));
}

/// A valid object for all clients, and an invalid one for those of its own namespace.
fn shared(own: impl FnOnce(&mut Value)) -> Vec<Input> {
    let theirs = |change: fn(&mut Value)| {
        let host = "sa-logic.default.svc.cluster.local";
        let mut object = virtual_service("theirs", 1, |rule| {
            *rule = json!({"route": [{"destination": {"host": host, "subset": "v2"}}]});
            change(rule);
        });
        (object.metadata.namespace, object.spec.hosts) = ("theirs".into(), vec![host.into()]);
        // The older one has its clients.
        object.metadata.creation_timestamp = "2026-11-22T09:00:00Z".into();
        object
    };
    let mut inputs = article();
    let own = virtual_service("sa-logic", 1, own);
    inputs[5] = vs(Of::Relist(vec![own.clone(), theirs(|_| {})]));
    inputs.push(vs(Of::Relist(vec![own, theirs(invalid)])));
    inputs
}

fn subset_of(published: &Published, client: &str) -> Option<String> {
    let table = table(published)?;
    table.ports[0].variant(Some(client))?.rules[0].destinations[0].backend.subset.clone()
}

#[test]
fn rules_of_others_wait_a_little_for_what_nodes_hold() {
    let mut old_inputs = shared(|_| {});
    let _invalid = old_inputs.pop();
    let old = table(&tables(old_inputs).publish(Instant::now())).unwrap();
    let new = || {
        let mut inputs = shared(|_| {});
        let invalid = inputs.pop().unwrap();
        inputs[5] = invalid;
        tables(inputs)
    };
    let start = Instant::now();
    // Found in time: its clients keep their rules.
    let mut tables = new();
    let published = tables.publish(start);
    assert_eq!((table(&published), holders(&published)), (None, vec!["theirs-uid"]));
    assert_eq!(tables.wait_ends(), Some(start + PATIENCE));
    tables.apply(recovered(&old));
    let published = tables.publish(start + PATIENCE / 2);
    assert_eq!((subset_of(&published, "theirs"), tables.wait_ends()), (Some("v2".into()), None));
    assert_eq!(subset_of(&published, "default"), Some("v1".into()));

    // Nobody had them: everybody has the valid rules, and nothing waits for them a second time.
    let mut tables = new();
    tables.publish(start);
    let published = tables.publish(start + PATIENCE);
    assert_eq!((subset_of(&published, "theirs"), holders(&published)), (Some("v1".into()), vec![]));
    tables.apply(vs(Of::Apply(virtual_service("sa-logic", 2, |rule| {
        rule["route"][0]["destination"]["subset"] = json!("v2");
    }))));
    assert_eq!(subset_of(&tables.publish(start + PATIENCE), "theirs"), Some("v2".into()));
    let theirs = ObjectName::new(Kind::VirtualService, ObjectKey::new("theirs", "theirs"));
    let state = &tables.publish(start + PATIENCE).objects[&theirs];
    assert_eq!(state.services[&sa_logic()], Part::Invalid);
}
