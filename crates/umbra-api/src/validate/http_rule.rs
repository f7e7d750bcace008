//! One http rule: what it does, and what goes together.

use super::problem::Field;
use super::{actions, cors, fault, headers, matching, mirrors, retries, route};
use crate::HttpRoute;

/// What the VirtualService around a rule is for.
#[derive(Clone, Copy)]
pub(super) struct Role {
    /// It has no hosts: others delegate to it.
    pub(super) delegate: bool,
    /// It applies to calls between pods.
    pub(super) mesh: bool,
}

pub(super) fn check(rule: &HttpRoute, role: Role, field: &mut Field<'_>) {
    for (index, block) in rule.matches.iter().enumerate() {
        matching::block(block, role.mesh, &mut field.item("match", index));
    }
    one_answer(rule, role, field);
    no_destination_no_change(rule, field);
    route::check(&rule.route, field);
    mirrors::check(rule, field);
    if let Some(operations) = &rule.headers {
        headers::check(operations, &mut field.at("headers"));
    }
    actions::check(rule, field);
    if let Some(retry) = &rule.retries {
        retries::check(retry, &mut field.at("retries"));
    }
    if let Some(injected) = &rule.fault {
        fault::check(injected, &mut field.at("fault"));
    }
    if let Some(policy) = &rule.cors_policy {
        cors::check(policy, &mut field.at("corsPolicy"));
    }
}

/// Exactly one of route, redirect, directResponse and delegate; but a delegate's rules inherit a direct response
/// (spec/istio.md 1A).
fn one_answer(rule: &HttpRoute, role: Role, field: &mut Field<'_>) {
    let given: Vec<_> = [
        ("route", !rule.route.is_empty()),
        ("redirect", rule.redirect.is_some()),
        ("directResponse", rule.direct_response.is_some() && rule.delegate.is_none()),
        ("delegate", rule.delegate.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    match given[..] {
        _ if rule.delegate.is_some() => {
            for name in given.iter().filter(|name| **name != "delegate") {
                field.at(name).error(format!(
                    "root HTTP route must not specify {name}; remove it, the rules of the delegate serve"
                ));
            }
        }
        [] => field.at("route").error(
            "is empty; HTTP route, redirect or direct_response is required: name the destination that users' answers \
             come from",
        ),
        [first, ref others @ ..] => {
            for other in others {
                field.at(other).error(format!("HTTP route cannot contain both {first} and {other}; keep one"));
            }
        }
    }
    if role.delegate && rule.delegate.is_some() {
        field
            .at("delegate")
            .error("a virtual service without hosts is a delegate and cannot delegate; add hosts, or rules");
    }
}

/// An answer that comes from no destination leaves nothing to rewrite or to disturb; but delegates inherit all three.
fn no_destination_no_change(rule: &HttpRoute, field: &mut Field<'_>) {
    if rule.delegate.is_some() {
        return;
    }
    let answers = [("redirect", rule.redirect.is_some()), ("directResponse", rule.direct_response.is_some())];
    let Some((answer, _)) = answers.into_iter().find(|(_, given)| *given) else { return };
    for (name, given) in [("fault", rule.fault.is_some()), ("rewrite", rule.rewrite.is_some())] {
        if given {
            field.at(name).error(format!("HTTP route cannot contain both {name} and {answer}; keep one"));
        }
    }
}
