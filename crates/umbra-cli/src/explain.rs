//! `umbra explain`: what happens to one request, and why not something else.
//!
//! Takes: a request (method, URL, headers, the client's pod) and where the configuration is: manifests in files or a
//! cluster's objects, compiled as a controller would, or what a node really has. Gives: the rule that serves it, its
//! destinations and mirrors with their endpoints, what a proxy answers itself, and of every rule before it the condition
//! that did not hold. Sends nothing, draws nothing.

mod answer;
mod because;
mod node;
mod own;
mod print;
mod request;
mod source;

use std::net::SocketAddr;

use http::StatusCode;
use umbra_routing::{BackendRef, RequestHead, RouteTable, Rule, Selection};

pub use answer::{Answer, Copies, Place, Share, Skipped};
pub use request::{RequestError, Wanted};
pub use source::Source;

use crate::args::ExplainArgs;
use own::Own;
use source::Known;

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The request makes no sense.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A file cannot be read or understood.
    #[error("{0}")]
    Files(String),
    /// The cluster does not tell.
    #[cfg(feature = "kubernetes")]
    #[error(transparent)]
    Cluster(#[from] crate::cluster::ClusterError),
    /// The node's admin port does not tell.
    #[error(
        "node {address}: {why}; its admin port listens on the node's loopback: forward it, or run this there"
    )]
    Node {
        /// As given.
        address: String,
        /// What went wrong.
        why: String,
    },
    /// The name is nobody's.
    #[error("no Service has the name or address {0}; write sa-logic, sa-logic.default or its ClusterIP")]
    NoService(String),
    /// A condition that a node would refuse.
    #[error("a node would refuse these rules: {0}")]
    Rules(#[from] umbra_routing::RuleError),
    /// The answer cannot be printed.
    #[error("printing: {0}")]
    Print(#[from] std::io::Error),
}

/// Explains one request and prints it.
///
/// # Errors
/// See [`ExplainError`].
pub fn run(args: &ExplainArgs) -> Result<(), ExplainError> {
    let wanted = Wanted::new(args)?;
    let answer = explain(&source(args)?, &wanted)?;
    print::print(&answer, args.output)?;
    Ok(())
}

fn source(args: &ExplainArgs) -> Result<Source, ExplainError> {
    Ok(of_flags(args)?.compiled_with(args.compile.options()))
}

fn of_flags(args: &ExplainArgs) -> Result<Source, ExplainError> {
    #[cfg(feature = "kubernetes")]
    if args.cluster.kubeconfig.is_some() {
        return Source::of_cluster(&args.cluster);
    }
    match &args.node {
        Some(address) => Source::of_node(address),
        None => Source::of_files(&args.files()),
    }
}

/// What happens to a request.
///
/// # Errors
/// The service does not exist, or a node would refuse its rules.
pub fn explain(source: &Source, wanted: &Wanted) -> Result<Answer, ExplainError> {
    let service = source.service(wanted)?;
    let client = source.client(&wanted.from);
    let mut answer = Answer::new(wanted, &service);
    let table = match source.table(&service, &client.namespace, wanted.port) {
        Known::Table(table) => table,
        Known::Not(why) => {
            answer.not_governed = Some(why);
            return Ok(answer);
        }
    };
    let Some(port) = table.ports.iter().find(|port| port.number == wanted.port) else {
        let port = wanted.port;
        answer.not_governed = Some(format!("port {port} of the Service is not for umbra: it passes by"));
        return Ok(answer);
    };
    let rules =
        port.variant(Some(&client.namespace)).map(|variant| variant.rules.as_slice()).unwrap_or_default();
    by_rules(rules, &wanted.head(&client.labels), &mut answer, |backend| source.endpoints(backend))?;
    if let Some(why) = table.leave_alone.clone() {
        answer.leave_alone(why);
    }
    Ok(answer)
}

/// What the first rule that matches does, and why the others do not.
fn by_rules(
    rules: &[Rule],
    head: &RequestHead<'_>,
    answer: &mut Answer,
    endpoints: impl Fn(&BackendRef) -> Option<Vec<SocketAddr>>,
) -> Result<(), ExplainError> {
    let routes = RouteTable::new(rules, BackendRef::clone)?;
    let found = routes.select(head, &mut |_| 0);
    let chosen = found.as_ref().map(|selection| index_of(&routes, selection));
    for (index, rule) in rules.iter().enumerate() {
        if Some(index) == chosen {
            answer.chosen(rule, &endpoints);
        } else {
            let why = if chosen.is_some_and(|chosen| index > chosen) {
                vec!["an earlier rule takes the request".to_owned()]
            } else {
                because::none_holds(rule, head)?
            };
            answer.others.push(Skipped::new(rule, why));
        }
    }
    let own = match found {
        None => Some(Own::said(StatusCode::NOT_FOUND, head)),
        Some(selection) => Own::of(&selection, head, answer.port)
            .or_else(|| answer.asks_nobody().then(|| Own::said(StatusCode::SERVICE_UNAVAILABLE, head))),
    };
    if let Some(own) = own {
        answer.answers_itself(own);
    }
    Ok(())
}

fn index_of(routes: &RouteTable<BackendRef>, selection: &Selection<'_, BackendRef>) -> usize {
    let is_it = |route: &std::sync::Arc<_>| std::sync::Arc::ptr_eq(route, selection.route);
    routes.routes().iter().position(is_it).expect("what was selected is a rule of the table")
}
