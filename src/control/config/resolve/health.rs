//! Probes, readiness and names of a deployment.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::HeaderValue;
use http::uri::PathAndQuery;

use super::super::decode::At;
use super::super::raw::{RawDeployment, RawHealth, RawNames, RawProbe, RawProtocol, RawReadiness};
use super::Resolver;
use super::service::durations;
use crate::proxy::EndpointPaths;
use crate::upstream::{Check, HealthSettings, NamesSettings, ProbeSettings, ReadinessSettings, Statuses};

impl Resolver<'_> {
    /// What the replicas of `deployment`, whose own paths are `paths`, must prove; `None`: nothing.
    pub(super) fn health(
        &mut self,
        deployment: &RawDeployment,
        paths: &EndpointPaths,
    ) -> Option<HealthSettings> {
        let raw: &At<RawHealth> = deployment.health.as_ref()?;
        if raw.probe.is_none() && raw.readiness.is_none() {
            let at = raw.at;
            if !self.report.is_lost(at, "probe") && !self.report.is_lost(at, "readiness") {
                self.report.error(at, "asks nothing of the replicas; add probe or readiness, or remove it");
            }
            return None;
        }
        let probe =
            raw.probe.as_ref().map(|probe| self.probe(probe, deployment.protocol.value, &paths.health));
        let readiness =
            raw.readiness.as_ref().map(|readiness| self.readiness(readiness, paths.score.as_ref()));
        Some(HealthSettings { probe, readiness: readiness.flatten() })
    }

    fn probe(&mut self, raw: &At<RawProbe>, protocol: RawProtocol, health: &PathAndQuery) -> ProbeSettings {
        let threshold = ProbeSettings::THRESHOLD;
        ProbeSettings {
            check: self.check(raw, protocol, health),
            interval: self.duration(&raw.interval, durations(ProbeSettings::INTERVAL)),
            timeout: self.duration(&raw.timeout, durations(ProbeSettings::TIMEOUT)),
            healthy: self.number(&raw.healthy, threshold.clone()),
            unhealthy: self.number(&raw.unhealthy, threshold),
            startup: self.duration(&raw.startup, durations(ProbeSettings::STARTUP)),
        }
    }

    fn check(&mut self, raw: &At<RawProbe>, protocol: RawProtocol, health: &PathAndQuery) -> Check {
        let mut expected: Vec<RangeInclusive<u16>> = Vec::new();
        for field in &raw.status {
            match Statuses::range(&field.0) {
                Ok(range) => expected.push(range),
                Err(problem) => self.report.error(field.at, problem),
            }
        }
        if raw.status.is_empty() {
            self.report.missing(raw.at, "status", "lists no status; write one such as 200, or remove it");
        }
        if let (Some(grpc), Some(_)) = (&raw.grpc, &raw.path) {
            self.report.error(grpc.at, "stands beside path; keep one of them");
        }
        let Some(grpc) = &raw.grpc else {
            let path = self.path(raw.path.as_ref()).unwrap_or_else(|| health.clone());
            return Check::Http { path, expected: Statuses::any_of(expected) };
        };
        if !matches!(protocol, RawProtocol::H2) {
            self.report.error(grpc.at, "gRPC is HTTP/2; set protocol: h2 of the deployment");
        }
        Check::Grpc { service: grpc.as_str().into() }
    }

    fn readiness(
        &mut self,
        raw: &At<RawReadiness>,
        score: Option<&PathAndQuery>,
    ) -> Option<ReadinessSettings> {
        let path = self.path(raw.path.as_ref()).or_else(|| score.cloned());
        if path.is_none() && raw.path.is_none() {
            self.report.missing(
                raw.at,
                "path",
                "is missing; which path scores depends on the model here, so write the model's own path",
            );
        }
        let timeout = self.duration(&raw.timeout, durations(ReadinessSettings::TIMEOUT));
        let content_type = HeaderValue::from_str(&raw.content_type);
        if content_type.is_err() {
            self.report.error(raw.content_type.at, "is no content type; write one such as application/json");
        }
        let (at, body) = match (&raw.body, &raw.body_file) {
            (Some(body), None) => (body.at, Bytes::copy_from_slice(body.as_bytes())),
            (None, Some(file)) => (file.at, self.body_file(file)?),
            (Some(_), Some(file)) => {
                self.report.error(file.at, "stands beside body; keep one of them");
                return None;
            }
            (None, None) => {
                self.report.missing(raw.at, "body", "is missing; write body or body_file");
                return None;
            }
        };
        if let Err(problem) = ReadinessSettings::check_body(&body) {
            self.report.error(at, problem);
        }
        Some(ReadinessSettings { path: path?, body, content_type: content_type.ok()?, timeout })
    }

    fn body_file(&mut self, file: &At<String>) -> Option<Bytes> {
        let path = self.files.locate(file);
        match self.files.read(&path) {
            Ok(content) => Some(Bytes::copy_from_slice(&content)),
            Err(error) => {
                let path = path.display();
                self.report.error(file.at, format!("{path} cannot be read ({error}); check the path"));
                None
            }
        }
    }

    /// How replicas that are given by name are found.
    pub(super) fn names(&mut self, raw: &RawNames) -> NamesSettings {
        NamesSettings { refresh: self.duration(&raw.refresh, durations(NamesSettings::REFRESH)) }
    }
}
