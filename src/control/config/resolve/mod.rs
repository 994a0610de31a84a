//! From the raw shape to the typed settings: every check, every reference read, every default that depends on another
//! field. What is wrong goes to the [`Report`]; nothing here ends at the first problem.

mod auth;
mod balancing;
mod collection;
mod deployment;
mod field;
mod gateway;
mod health;
mod listener;
mod management;
mod otlp;
mod paths;
mod rate;
mod retry;
mod service;
mod split;
mod telemetry;
mod unbuilt;

use std::collections::BTreeMap;

use super::document::PlaceId;
use super::problem::Report;
use super::raw::Raw;
use super::settings::Config;
use super::source::Files;

/// What resolving needs beside the raw shape.
pub(super) struct Resolver<'a> {
    pub report: &'a mut Report,
    pub files: &'a mut Files,
    pub variables: &'a BTreeMap<String, String>,
}

impl Resolver<'_> {
    /// The typed configuration without its list of files; of no use where the report has errors.
    pub fn resolve(&mut self, raw: &Raw, root: PlaceId) -> Config {
        if raw.version.is_none() {
            self.report.missing(root, "version", "is missing; write version: scoregate/v1");
        }
        let listeners = self.listeners(raw, root);
        let observe = self.observe(&raw.observe);
        self.distinct_addresses(raw);
        let tokens = raw.tokens.as_ref().and_then(|tokens| self.tokens(tokens));
        let services = self.services(raw, root, tokens.as_ref());
        self.collected_somewhere(&raw.services, &raw.telemetry);
        Config {
            workspace: self.workspace(&raw.workspace),
            public_url: raw.public_url.as_ref().and_then(|url| self.public_url(url)),
            runtime: self.runtime(&raw.runtime),
            listeners,
            observe,
            tokens,
            services,
            telemetry: self.telemetry(raw),
            drain: self.drain(&raw.drain),
            log: self.log(&raw.log),
            management: self.management(raw),
            uri_templates: raw
                .uri_templates
                .as_ref()
                .map(|templates| self.uri_templates(templates))
                .unwrap_or_default(),
            replica_template: raw.replica_template.as_ref().map(|field| self.replica_template(field)),
            files: Vec::new(),
        }
    }
}
