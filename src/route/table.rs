//! From host and path to a service and what is wanted of it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Endpoint, ServiceName};
use crate::error::{Error, Kind};

use super::{Host, SERVICE_PREFIX, Target};

/// All routes of one snapshot. `S` is whatever a route leads to (the place of a service in its snapshot).
#[derive(Debug)]
pub struct RouteTable<S> {
    by_name: HashMap<ServiceName, S>,
    by_host: HashMap<Arc<str>, S>,
}

/// A service found, and what is wanted of it.
#[derive(Debug)]
pub struct Routed<S> {
    /// The service.
    pub service: S,
    /// The endpoint; an error if the service does not open that path.
    pub endpoint: Result<Endpoint, Error>,
}

impl<S: Copy> RouteTable<S> {
    /// A table of `services`, each with its name and hosts (lower case, no port). Names and hosts are distinct; should a host
    /// not be, it stays with the first service that has it.
    pub fn new<'a>(
        services: impl IntoIterator<Item = (&'a ServiceName, &'a [Arc<str>], S), IntoIter: ExactSizeIterator>,
    ) -> Self {
        let services = services.into_iter();
        let mut table = Self { by_name: HashMap::with_capacity(services.len()), by_host: HashMap::new() };
        for (name, hosts, service) in services {
            for host in hosts {
                table.by_host.entry(Arc::clone(host)).or_insert(service);
            }
            table.by_name.insert(name.clone(), service);
        }
        table
    }

    /// The service of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<S> {
        self.by_name.get(name).copied()
    }

    /// The service of a call. The path form goes before the host form: it names the service itself.
    ///
    /// # Errors
    /// [`Kind::UnknownService`] if neither the path nor the host names one.
    pub fn find(&self, host: &Host, target: &Target) -> Result<Routed<S>, Error> {
        let path = target.path();
        let (service, rest) = match path.strip_prefix(SERVICE_PREFIX) {
            Some(rest) => {
                let (name, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (self.by_name.get(name), rest)
            }
            None => (self.by_host.get(host.as_str()), path),
        };
        let service = *service.ok_or_else(|| {
            Error::new(Kind::UnknownService, "no service goes by this host or by the name in this path")
        })?;
        Ok(Routed { service, endpoint: endpoint(rest) })
    }
}

fn endpoint(path: &str) -> Result<Endpoint, Error> {
    match path {
        "/score" => Ok(Endpoint::Score),
        "/swagger.json" => Ok(Endpoint::Swagger),
        "/" => Ok(Endpoint::Health),
        _ => Err(Error::new(Kind::UnknownPath, "a service has the paths score, swagger.json and / only")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn table() -> RouteTable<&'static str> {
        let name = |text| ServiceName::parse(text).unwrap();
        let hosts = ["iris.example.org".into()];
        RouteTable::new([(&name("iris"), &hosts[..], "iris"), (&name("wine"), &[], "wine")])
    }

    fn find(host: &str, path: &'static str) -> Result<(&'static str, Endpoint), Kind> {
        let host = Host::parse(host.as_bytes()).unwrap();
        let target = Target::parse(Bytes::from_static(path.as_bytes())).unwrap();
        let table = table();
        let routed = table.find(&host, &target).map_err(|e| e.kind)?;
        Ok((routed.service, routed.endpoint.map_err(|e| e.kind)?))
    }

    #[test]
    fn path_form_reaches_every_service_and_wins_over_the_host() {
        assert_eq!(find("any", "/api/v1/service/wine/score"), Ok(("wine", Endpoint::Score)));
        assert_eq!(find("iris.example.org", "/api/v1/service/wine/"), Ok(("wine", Endpoint::Health)));
        assert_eq!(
            find("any", "/api/v1/service/wine/swagger.json?version=3"),
            Ok(("wine", Endpoint::Swagger))
        );
    }

    #[test]
    fn host_form_reaches_a_service_that_has_the_host() {
        assert_eq!(find("IRIS.example.org:8443", "/score"), Ok(("iris", Endpoint::Score)));
        assert_eq!(find("wine.example.org", "/score"), Err(Kind::UnknownService));
    }

    #[test]
    fn what_is_not_opened_is_not_found() {
        assert_eq!(find("iris.example.org", "/metrics"), Err(Kind::UnknownPath));
        assert_eq!(find("any", "/api/v1/service/iris/score/"), Err(Kind::UnknownPath));
        assert_eq!(find("any", "/api/v1/service/iris"), Err(Kind::UnknownPath));
        assert_eq!(find("any", "/api/v1/service/nobody/score"), Err(Kind::UnknownService));
        assert_eq!(find("any", "/api/v1/service/"), Err(Kind::UnknownService));
    }
}
