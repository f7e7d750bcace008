//! Generated VirtualServices, DestinationRules and requests: what `umbra explain` says of files and of a node is what a real
//! proxy does; the order in which objects come changes no byte; and nothing that can be written brings anybody down.
//!
//! The same ones each time, so that what was met is met again; `PROPTEST_CASES=5000 cargo test -p umbra-cli --test generated`
//! draws new ones. What fails is kept in `regressions.txt`, which each run begins with.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; counts are for people"
)]

mod alike;
mod blunders;
mod node;
mod objects;
mod requests;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;

use alike::Outcomes;
use node::Node;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use requests::{Asked, CLIENTS};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use umbra_cli::explain::{Answer, RequestError, Source, Wanted, explain};
use umbra_cli::files::Object;
use umbra_routing::{Config, Key, Reply};
use umbra_testkit::generated::runner;
use world::{Pods, decoded, one_by_one, put};

/// Some seconds in a debug build.
const CASES: u32 = 64;
const KEPT: &str = "tests/generated/regressions.txt";

/// Requests of a configuration that are explained by what the node has, too: that it has the same is seen by few.
const ASKED_OF_NODE: usize = 3;

/// A proxy for a whole run: what it was pushed last is all it has.
struct Stage {
    runtime: Runtime,
    tasks: LocalSet,
    node: RefCell<Node>,
    outcomes: RefCell<Outcomes>,
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tasks = LocalSet::new();
        let node = RefCell::new(tasks.block_on(&runtime, Node::start()));
        Self { runtime, tasks, node, outcomes: RefCell::default() }
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.tasks.block_on(&self.runtime, future)
    }

    /// What `umbra explain --node` asks, while the node goes on.
    fn node_source(&self) -> Source {
        let address = self.node.borrow().proxy.admin_addr().to_string();
        let asking = self.runtime.spawn_blocking(move || Source::of_node(&address));
        self.block_on(asking).unwrap().unwrap()
    }
}

fn told(source: &Source, asked: &Asked) -> Result<Answer, RequestError> {
    let (namespace, pod, _) = CLIENTS[asked.client];
    let headers: Vec<String> = asked.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let url = format!("http://{}{}", asked.host, asked.target);
    let wanted = Wanted::of(asked.method, &url, &headers, &format!("{namespace}/{pod}"))?;
    Ok(explain(source, &wanted).expect("a service that is there, and rules that a node takes"))
}

/// The push is understood and its digest is that of the same bytes anywhere; nothing of it is refused.
fn taken(put: &umbra_routing::Put, reply: &Reply) -> Result<(), TestCaseError> {
    prop_assert_eq!(&reply.refused, &[]);
    let mut same = Config::default();
    same.put(put).expect("what a node takes");
    prop_assert_eq!(reply.digest, same.digest());
    Ok(())
}

fn decide_alike(stage: &Stage, pods: &Pods, rules: &[Value], all: &[Asked]) -> Result<(), TestCaseError> {
    let mut node = stage.node.borrow_mut();
    let objects = decoded(&world::objects(pods, rules, &node.backends));
    let put = put(&one_by_one(objects.iter()));
    let reply = stage.block_on(node.push(&put));
    taken(&put, &reply)?;
    let happened = stage.block_on(node.ask(all));
    drop(node);
    let (of_files, of_node) = (Source::of_objects(objects.iter()), stage.node_source());
    let mut outcomes = stage.outcomes.borrow_mut();
    for (number, (asked, happened)) in all.iter().zip(happened).enumerate() {
        let told = match told(&of_files, asked) {
            Ok(told) => told,
            Err(RequestError::Path(_)) => {
                prop_assert_eq!(happened.status, 400);
                outcomes.count("bad path");
                continue;
            }
            Err(other) => return Err(TestCaseError::fail(format!("{asked:?}: {other}"))),
        };
        if told.not_governed.is_some() {
            // A node hears nothing of it; without interception it is nobody's.
            outcomes.count("not governed");
            continue;
        }
        alike::check(&told, &happened, &mut outcomes).map_err(|why| {
            TestCaseError::fail(format!("{why}: {asked:?}\ntold: {told:#?}\n{happened:#?}"))
        })?;
        if number < ASKED_OF_NODE {
            prop_assert_eq!(crate::told(&of_node, asked).expect("as before"), told);
        }
    }
    Ok(())
}

#[test]
fn explain_and_the_proxy_decide_alike() {
    let (stage, mut runner) = (Stage::new(), runner(CASES, KEPT));
    let cases = runner.config().cases;
    let generated = (world::pods(), objects::rules(), requests::requests());
    let run =
        runner.run(&generated, |(pods, rules, requests)| decide_alike(&stage, &pods, &rules, &requests));
    println!("measured: {cases} generated configurations: {:?}", stage.outcomes.borrow());
    run.unwrap_or_else(|failed| panic!("{failed}"));
    let missing = stage.outcomes.borrow().missing();
    assert!(cases < CASES || missing.is_empty(), "never met: {missing:?}");
}

/// The resources that are pushed, as bytes.
fn bytes(put: &umbra_routing::Put) -> Vec<(&Key, &str)> {
    put.resources.iter().map(|(key, value)| (key, value.get())).collect()
}

#[test]
fn the_order_in_which_objects_come_changes_no_byte() {
    let at = vec![[([127, 0, 0, 1], 5000).into(), ([127, 0, 0, 1], 5001).into()]; world::PODS];
    let generated = (world::pods(), objects::rules()).prop_flat_map(move |(pods, rules)| {
        let objects = decoded(&world::objects(&pods, &rules, &at));
        (Just(objects.clone()), Just(objects).prop_shuffle())
    });
    let run = runner(CASES, KEPT).run(&generated, |(objects, shuffled)| {
        let (first, second) = (put(&one_by_one(objects.iter())), put(&one_by_one(shuffled.iter())));
        prop_assert_eq!(bytes(&first), bytes(&second));
        let listed = put(&Object::index(shuffled.iter()));
        prop_assert_eq!(bytes(&first), bytes(&listed));
        Ok(())
    });
    run.unwrap_or_else(|failed| panic!("{failed}"));
}

/// How often what came of an object that was written wrong.
#[derive(Debug, Default)]
struct Blundered {
    /// Some object did not decode, or its own checks found an error.
    refused: u64,
    /// None was, and some service is held all the same: a regex, most likely, which only the compiler reads.
    held: BTreeMap<String, u64>,
    /// Nothing to say.
    taken: u64,
}

impl Blundered {
    fn count(&mut self, written: usize, objects: &[Object]) {
        let is_error = |problem: &umbra_api::Problem| problem.is_error();
        if objects.len() < written || objects.iter().any(|object| object.validate().iter().any(is_error)) {
            self.refused += 1;
            return;
        }
        let index = Object::index(objects.iter());
        let findings = umbra_compile::findings(index.view(), &umbra_compile::Options::default());
        let held = findings.iter().filter(|finding| finding.reason == umbra_compile::Reason::Invalid);
        let said: Vec<String> =
            held.map(|finding| format!("{}: {}", finding.path, finding.message)).collect();
        self.taken += u64::from(said.is_empty());
        said.into_iter().for_each(|what| *self.held.entry(what).or_default() += 1);
    }
}

fn harmless(
    stage: &Stage,
    pods: &Pods,
    rules: &[Value],
    all: &[Asked],
) -> Result<Vec<Object>, TestCaseError> {
    let node = stage.node.borrow();
    let objects = decoded(&world::objects(pods, rules, &node.backends));
    let put = put(&one_by_one(objects.iter()));
    taken(&put, &stage.block_on(node.push(&put)))?;
    let source = Source::of_objects(objects.iter());
    // A bad path is the request's own fault; rules that a node would not take would panic here.
    all.iter().for_each(|asked| drop(told(&source, asked)));
    Ok(objects)
}

#[test]
fn whatever_is_written_brings_nobody_down_and_what_is_pushed_is_taken() {
    let stage = Stage::new();
    let counts = RefCell::new(Blundered::default());
    let generated = (world::pods(), objects::rules(), blunders::blunders(), requests::requests());
    let run = runner(CASES, KEPT).run(&generated, |(pods, rules, blunders, requests)| {
        let rules = blunders::with(rules, &blunders);
        let written = world::objects(&pods, &rules, &stage.node.borrow().backends).len();
        let objects = harmless(&stage, &pods, &rules, &requests)?;
        counts.borrow_mut().count(written, &objects);
        Ok(())
    });
    let counts = counts.into_inner();
    println!("measured: written wrong: {counts:#?}");
    run.unwrap_or_else(|failed| panic!("{failed}"));
    assert!(counts.refused > 0 && counts.taken > 0, "{counts:?}");
}

#[test]
fn whatever_is_asked_is_explained_or_refused() {
    let at = vec![[([127, 0, 0, 1], 5000).into(), ([127, 0, 0, 1], 5001).into()]; world::PODS];
    let url = prop_oneof![
        "http://s0.default/\\PC{0,12}",
        "http://\\PC{0,8}:[0-9]{0,6}/",
        "\\PC{0,12}",
        any::<String>()
    ];
    let header = prop_oneof!["(x-a|host|x-forwarded-proto|origin): \\PC{0,6}", any::<String>()];
    let from = prop_oneof!["(default|other)/(web|x)", any::<String>()];
    let asked = ("(GET|OPTIONS|\\PC{0,4})", url, prop::collection::vec(header, 0..3), from);
    let generated = (world::pods(), objects::rules(), prop::collection::vec(asked, 20));
    let explained = std::cell::Cell::new(0);
    let run = runner(CASES, KEPT).run(&generated, |(pods, rules, all)| {
        let objects = decoded(&world::objects(&pods, &rules, &at));
        let source = Source::of_objects(objects.iter());
        for (method, url, headers, from) in all {
            let answer = Wanted::of(&method, &url, &headers, &from).map(|wanted| explain(&source, &wanted));
            explained.set(explained.get() + u64::from(matches!(answer, Ok(Ok(_)))));
        }
        Ok(())
    });
    run.unwrap_or_else(|failed| panic!("{failed}"));
    assert!(explained.get() > 0, "all was refused");
}
