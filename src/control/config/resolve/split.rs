//! Which deployment a call goes to beside the weights, and which gets a copy of it.

use http::HeaderName;

use super::super::decode::At;
use super::super::raw::{RawMirror, RawService, RawSticky};
use super::Resolver;
use super::service::sizes;
use crate::catalog::ServiceName;
use crate::proxy::{MirrorSettings, SplitSettings};

impl Resolver<'_> {
    pub(super) fn split_settings(&mut self, raw: &At<RawService>) -> SplitSettings {
        let sticky = raw.sticky.as_ref().and_then(|sticky| self.sticky(sticky));
        let mirror = raw.mirror.as_ref().and_then(|mirror| self.mirror(raw, mirror));
        SplitSettings { unknown: raw.unknown_deployment.value.into(), sticky, mirror }
    }

    fn sticky(&mut self, raw: &At<RawSticky>) -> Option<HeaderName> {
        let field = self.required(raw.at, "header", &raw.header)?;
        match SplitSettings::sticky_header(field) {
            Ok(name) => Some(name),
            Err(problem) => {
                self.report.error(field.at, problem);
                None
            }
        }
    }

    fn mirror(&mut self, service: &RawService, raw: &At<RawMirror>) -> Option<MirrorSettings> {
        let body_bytes = self.size(&raw.body_bytes, sizes(MirrorSettings::BODY_BYTES));
        let concurrent = self.number(&raw.concurrent, MirrorSettings::CONCURRENT);
        let percent = self.required(raw.at, "percent", &raw.percent).map(|field| {
            let percent = self.number(field, bounds_of_percent());
            u8::try_from(percent).unwrap_or(u8::MAX)
        });
        let field = self.required(raw.at, "deployment", &raw.deployment)?;
        let mut all = service.deployments.iter().filter_map(|deployment| deployment.name.as_ref());
        if !all.any(|name| name.value == field.value) {
            let message = format!("the service has no deployment '{}'; name one that it has", field.value);
            self.report.error(field.at, message);
        }
        Some(MirrorSettings {
            deployment: ServiceName::parse(field).ok()?,
            percent: percent?,
            body_bytes: usize::try_from(body_bytes).unwrap_or(usize::MAX),
            concurrent,
        })
    }
}

fn bounds_of_percent() -> std::ops::RangeInclusive<u32> {
    u32::from(*MirrorSettings::PERCENT.start())..=u32::from(*MirrorSettings::PERCENT.end())
}
