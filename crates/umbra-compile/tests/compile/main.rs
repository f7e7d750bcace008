//! What VirtualServices and DestinationRules become, rule by rule (spec/istio.md), through the public functions.

mod actions;
mod admission;
mod audience;
mod claims;
mod conditions;
mod delegates;
mod endpoints;
mod exported;
mod headers;
mod hold;
mod lookup;
mod objects;
mod order;
mod policies;
mod rules;
mod services;
mod world;
