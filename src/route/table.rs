//! From host and path to a service and what is wanted of it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Endpoint, ServiceName};
use crate::error::{Error, Kind};

use super::{Host, OpenPaths, SERVICE_PREFIX, Target};

/// All routes of one snapshot. `S` is whatever a route leads to (the place of a service in its snapshot).
#[derive(Debug)]
pub struct RouteTable<S> {
    by_name: HashMap<ServiceName, Found<S>>,
    by_host: HashMap<Arc<str>, Found<S>>,
}

/// The way to one service.
#[derive(Debug)]
pub struct Route<'a, S> {
    /// Distinct.
    pub name: &'a ServiceName,
    /// Lower case, no port. Distinct as well; should a host not be, it stays with the first service that has it.
    pub hosts: &'a [Arc<str>],
    /// What it opens.
    pub opens: &'a Arc<OpenPaths>,
    /// Where the route leads.
    pub service: S,
}

#[derive(Clone, Debug)]
struct Found<S> {
    service: S,
    opens: Arc<OpenPaths>,
}

/// A service found, and what is wanted of it.
#[derive(Debug)]
pub struct Routed<S> {
    /// The service.
    pub service: S,
    /// The endpoint; an error if the service does not open that path.
    pub endpoint: Result<Endpoint, Error>,
    /// How many bytes of the path name the service; the path under it follows.
    pub prefix: usize,
}

impl<S: Copy> RouteTable<S> {
    /// A table of `routes`.
    pub fn new<'a>(routes: impl IntoIterator<Item = Route<'a, S>, IntoIter: ExactSizeIterator>) -> Self
    where
        S: 'a,
    {
        let routes = routes.into_iter();
        let mut table = Self { by_name: HashMap::with_capacity(routes.len()), by_host: HashMap::new() };
        for Route { name, hosts, opens, service } in routes {
            let found = Found { service, opens: Arc::clone(opens) };
            for host in hosts {
                table.by_host.entry(Arc::clone(host)).or_insert_with(|| found.clone());
            }
            table.by_name.insert(name.clone(), found);
        }
        table
    }

    /// The service of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<S> {
        self.by_name.get(name).map(|found| found.service)
    }

    /// The service of a call. The path form goes before the host form: it names the service itself.
    ///
    /// # Errors
    /// [`Kind::UnknownService`] if neither the path nor the host names one.
    pub fn find(&self, host: &Host, target: &Target) -> Result<Routed<S>, Error> {
        let path = target.path();
        let (found, rest) = match path.strip_prefix(SERVICE_PREFIX) {
            Some(rest) => {
                let (name, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (self.by_name.get(name), rest)
            }
            None => (self.by_host.get(host.as_str()), path),
        };
        let found = found.ok_or_else(|| {
            Error::new(Kind::UnknownService, "no service goes by this host or by the name in this path")
        })?;
        Ok(Routed {
            service: found.service,
            endpoint: found.opens.endpoint(rest),
            prefix: path.len() - rest.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn table() -> RouteTable<&'static str> {
        let name = |text| ServiceName::parse(text).unwrap();
        let hosts = ["iris.example.org".into()];
        let (iris, wine, opens) = (name("iris"), name("wine"), Arc::default());
        RouteTable::new([
            Route { name: &iris, hosts: &hosts, opens: &opens, service: "iris" },
            Route { name: &wine, hosts: &[], opens: &opens, service: "wine" },
        ])
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
