//! What VirtualServices and DestinationRules become, rule by rule (spec/istio.md), through the public functions.

mod claims;
mod endpoints;
mod hold;
mod lookup;
mod objects;
mod order;
mod policies;
mod rules;
mod services;
mod world;
