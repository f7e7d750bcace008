//! A real cluster: the article and what it promises.
#![allow(clippy::print_stdout, reason = "what tests measure is read by people")]

mod cluster_admission;
mod cluster_api;
mod cluster_article;
mod cluster_backends;
mod cluster_changes;
mod cluster_controllers;
mod cluster_crash;
mod cluster_fallback;
mod cluster_faults;
mod cluster_firewall;
mod cluster_hold;
mod cluster_load;
mod cluster_order;
mod cluster_policy;
mod cluster_programmed;
mod cluster_prometheus;
mod cluster_proxies;
mod cluster_rollout;
mod cluster_scale;
mod cluster_status;
mod cluster_system;
mod cluster_trust;
mod cluster_uninstall;
mod cluster_upgrade;
mod cluster_users;
