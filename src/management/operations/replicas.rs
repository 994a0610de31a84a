//! Where the replicas of a deployment are: listed, named by a property, or made from the gateway's template.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::catalog::{DeploymentSpec, Protocol, ServiceName, ServiceSpec};
use crate::management::{Cause, Refusal};
use crate::tls::{self, ClientAlpn, ClientTls, ClientTlsSource};
use crate::upstream::{
    AddressPolicy, Origin, ReplicaProtocol, ReplicaSettings, ReplicaTls, ReplicaUrl, certificate_name,
};

/// The property that names replicas, for clients that have no other field for them (the Azure SDKs).
const UPSTREAM: &str = "upstream";
/// Where a service runs in a cluster: a property, or the field that the Azure SDKs send.
const NAMESPACE: &str = "namespace";
const DEFAULT_NAMESPACE: &str = "default";
/// Longest DNS label, in bytes (RFC 1035, section 2.3.4); a Kubernetes namespace is one (RFC 1123).
const MAX_LABEL: usize = 63;
/// Most replicas of one service, over all its deployments.
pub(super) const MAX_REPLICAS: usize = 1000;

/// Finds replicas and gives them what it takes to reach them.
pub(super) struct Replicas {
    template: Option<String>,
    policy: Arc<AddressPolicy>,
    /// One for all that speak HTTP/1.1, one for those that speak HTTP/2: their session caches make reconnects cheap.
    tls: [OnceLock<ClientTls>; 2],
}

/// A URL and the field that it stands in.
type Source = (String, String);

impl Replicas {
    /// `template` makes a URL for services that name none, with `{service}` and `{namespace}`. `policy` says where replicas
    /// may be: addresses are judged here, names at each connect by what they mean then.
    pub(super) const fn new(template: Option<String>, policy: Arc<AddressPolicy>) -> Self {
        Self { template, policy, tls: [const { OnceLock::new() }; 2] }
    }

    /// The replicas of `deployment`, whose field is `place` (`deployments.blue`).
    ///
    /// # Errors
    /// [`Cause::Invalid`] names the field and what to write instead.
    pub(super) fn find(
        &self,
        place: &str,
        service: (&ServiceName, &ServiceSpec),
        deployment: &DeploymentSpec,
    ) -> Result<Vec<ReplicaSettings>, Refusal> {
        let mut found: Vec<ReplicaSettings> = Vec::new();
        for (field, text) in self.sources(place, service, deployment)? {
            let replica = self.replica(&text, deployment.protocol).map_err(|fault| fault.at(&field))?;
            if found.iter().any(|before| before.origin == replica.origin) {
                let problem = format!("{} is named twice; remove one", replica.origin);
                return Err(Refusal::invalid(field, problem));
            }
            found.push(replica);
        }
        Ok(found)
    }

    fn sources(
        &self,
        place: &str,
        (name, spec): (&ServiceName, &ServiceSpec),
        deployment: &DeploymentSpec,
    ) -> Result<Vec<Source>, Refusal> {
        if !deployment.replicas.is_empty() {
            let listed = deployment.replicas.iter().enumerate();
            return Ok(listed.map(|(i, text)| (format!("{place}.replicas[{i}]"), text.clone())).collect());
        }
        let own = format!("{place}.properties.{UPSTREAM}");
        for (field, properties) in
            [(own, &deployment.properties), (format!("properties.{UPSTREAM}"), &spec.properties)]
        {
            if let Some(urls) = properties.get(UPSTREAM) {
                return Ok(urls.split(',').map(|url| (field.clone(), url.trim().to_owned())).collect());
            }
        }
        let Some(template) = &self.template else {
            return Err(Refusal::invalid(
                format!("{place}.replicas"),
                format!(
                    "names no replica; list URLs such as http://10.0.0.7:5001, or set the property '{UPSTREAM}' \
                     of the deployment or the service to them, or set replica_template in the configuration"
                ),
            ));
        };
        let namespace = namespace(spec, deployment)?;
        let url = template.replace("{service}", name.as_str()).replace("{namespace}", namespace);
        Ok(vec![(format!("{place}.replicas"), url)])
    }

    fn replica(&self, text: &str, protocol: Protocol) -> Result<ReplicaSettings, Fault> {
        let ReplicaUrl { origin, encrypted } = ReplicaUrl::parse(text).map_err(Fault::Url)?;
        self.check_address(&origin)?;
        let tls = if encrypted {
            let server_name = certificate_name(&origin.host).map_err(Fault::Url)?;
            Some(ReplicaTls { client: self.tls(protocol)?, server_name })
        } else {
            None
        };
        Ok(ReplicaSettings {
            origin,
            protocol: match protocol {
                Protocol::H1 => ReplicaProtocol::H1,
                Protocol::H2 => ReplicaProtocol::H2,
            },
            tls,
            policy: Some(Arc::clone(&self.policy)),
        })
    }

    /// Refuses an address that no replica may have. Names are not looked up here: what they mean may change.
    fn check_address(&self, origin: &Origin) -> Result<(), Fault> {
        let Ok(address) = origin.host.parse() else { return Ok(()) };
        self.policy.permits(address, origin.port).map_err(|why| {
            Fault::Url(format!("{origin} cannot be a replica: {why}; name an address that is permitted"))
        })
    }

    /// Trust in the system's authorities.
    fn tls(&self, protocol: Protocol) -> Result<ClientTls, Fault> {
        let (made, alpn) = match protocol {
            Protocol::H1 => (&self.tls[0], ClientAlpn::Http1),
            Protocol::H2 => (&self.tls[1], ClientAlpn::Http2),
        };
        if let Some(client) = made.get() {
            return Ok(client.clone());
        }
        let source = ClientTlsSource { alpn, ..ClientTlsSource::default() };
        let client = tls::client_config(&source).map_err(|error| {
            tracing::error!(%error, "https replicas cannot be used");
            Fault::NoTrust
        })?;
        Ok(made.get_or_init(|| client).clone())
    }
}

/// What is wrong with one URL.
enum Fault {
    Url(String),
    /// The gateway's host has no trusted authorities.
    NoTrust,
}

impl Fault {
    fn at(self, field: &str) -> Refusal {
        match self {
            Self::Url(problem) => Refusal::invalid(field, problem),
            Self::NoTrust => Refusal {
                cause: Cause::Unavailable,
                message: "https replicas cannot be used: the gateway's host has no trusted authorities"
                    .into(),
                target: Some(field.to_owned()),
            },
        }
    }
}

/// The nearest namespace that is named: by a property, or as an Azure client sends it.
fn namespace<'a>(spec: &'a ServiceSpec, deployment: &'a DeploymentSpec) -> Result<&'a str, Refusal> {
    let property = |properties: &'a BTreeMap<String, String>| properties.get(NAMESPACE).map(String::as_str);
    let azure = |azure: &'a Map<String, Value>| azure.get(NAMESPACE).and_then(Value::as_str);
    let named = property(&deployment.properties)
        .or_else(|| azure(&deployment.azure))
        .or_else(|| property(&spec.properties))
        .or_else(|| azure(&spec.azure))
        .unwrap_or(DEFAULT_NAMESPACE);
    // It becomes part of a host name: nothing but one label may come through.
    let is_label = (1..=MAX_LABEL).contains(&named.len())
        && named.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !named.starts_with('-')
        && !named.ends_with('-');
    if is_label {
        return Ok(named);
    }
    Err(Refusal::invalid(
        NAMESPACE,
        "is no namespace; write 1 to 63 lower-case letters, digits or '-', such as default",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ComputeType;

    fn name() -> ServiceName {
        ServiceName::parse("iris").unwrap()
    }

    fn spec() -> ServiceSpec {
        ServiceSpec::new(ComputeType::Aks)
    }

    fn find(
        template: Option<&str>,
        spec: &ServiceSpec,
        deployment: &DeploymentSpec,
    ) -> Result<Vec<String>, Refusal> {
        let replicas = Replicas::new(template.map(Into::into), Arc::default());
        let found = replicas.find("deployments.blue", (&name(), spec), deployment)?;
        Ok(found.iter().map(|replica| replica.origin.to_string()).collect())
    }

    fn target(outcome: Result<Vec<String>, Refusal>) -> String {
        let refusal = outcome.unwrap_err();
        assert_eq!(refusal.cause, Cause::Invalid);
        refusal.target.unwrap()
    }

    #[test]
    fn the_nearest_source_of_replicas_counts() {
        let template = Some("http://{service}.{namespace}.svc:5001");
        let (mut spec, mut deployment) = (spec(), DeploymentSpec::default());
        assert_eq!(find(template, &spec, &deployment).unwrap(), ["iris.default.svc:5001"]);
        spec.azure.insert(NAMESPACE.into(), "far".into());
        assert_eq!(find(template, &spec, &deployment).unwrap(), ["iris.far.svc:5001"]);
        spec.properties.insert(NAMESPACE.into(), "prod".into());
        assert_eq!(find(template, &spec, &deployment).unwrap(), ["iris.prod.svc:5001"]);
        deployment.azure.insert(NAMESPACE.into(), "near".into());
        assert_eq!(find(template, &spec, &deployment).unwrap(), ["iris.near.svc:5001"]);
        spec.properties.insert(UPSTREAM.into(), "http://a:1, http://b:2".into());
        assert_eq!(find(template, &spec, &deployment).unwrap(), ["a:1", "b:2"]);
        deployment.properties.insert(UPSTREAM.into(), "http://c".into());
        assert_eq!(find(template, &spec, &deployment).unwrap(), ["c:80"]);
        deployment.replicas = vec!["http://[::1]:7".into()];
        assert_eq!(find(template, &spec, &deployment).unwrap(), ["[::1]:7"]);
    }

    #[test]
    fn a_deployment_without_replicas_is_told_all_three_ways() {
        let refusal = find(None, &spec(), &DeploymentSpec::default()).unwrap_err();
        assert_eq!(refusal.target.as_deref(), Some("deployments.blue.replicas"));
        for way in ["list URLs", "'upstream'", "replica_template"] {
            assert!(refusal.message.contains(way), "{refusal}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let listed = |urls: &[&str]| DeploymentSpec {
            replicas: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..DeploymentSpec::default()
        };
        let refused = |urls| target(find(None, &spec(), &listed(urls)));
        assert_eq!(refused(&["http://a", "ftp://b"]), "deployments.blue.replicas[1]");
        assert_eq!(refused(&["http://a:80", "http://a/"]), "deployments.blue.replicas[1]");
        assert_eq!(refused(&["http://a/score"]), "deployments.blue.replicas[0]");
        assert_eq!(refused(&["http://u:p@a"]), "deployments.blue.replicas[0]");
        let mut by_property = spec();
        by_property.properties.insert(UPSTREAM.into(), "http://a,".into());
        assert_eq!(target(find(None, &by_property, &listed(&[]))), "properties.upstream");
    }

    #[test]
    fn a_namespace_cannot_lead_the_template_elsewhere() {
        for odd in ["", "evil.example.org/", "a.b", "A", "-a", "a@b", &"a".repeat(64)] {
            let mut spec = spec();
            spec.properties.insert(NAMESPACE.into(), odd.into());
            let template = Some("http://{service}.{namespace}.svc");
            assert_eq!(target(find(template, &spec, &DeploymentSpec::default())), "namespace", "{odd}");
        }
    }

    #[test]
    fn https_replicas_are_trusted_as_the_system_trusts() {
        let deployment =
            DeploymentSpec { replicas: vec!["https://a.example".into()], ..DeploymentSpec::default() };
        let replicas = Replicas::new(None, Arc::default());
        let find = || replicas.find("deployments.blue", (&name(), &spec()), &deployment);
        match (find(), find()) {
            (Ok(first), Ok(second)) => {
                let config =
                    |found: &[ReplicaSettings]| Arc::clone(&found[0].tls.as_ref().unwrap().client.config);
                assert!(Arc::ptr_eq(&config(&first), &config(&second)));
                assert_eq!(first[0].origin.port, 443);
            }
            // A host without any trusted authority.
            (Err(first), _) => assert_eq!(first.cause, Cause::Unavailable),
            (Ok(_), Err(second)) => panic!("{second}"),
        }
    }

    #[test]
    fn an_address_that_the_policy_refuses_is_no_replica_and_names_are_judged_at_connect() {
        let policy = Arc::new(AddressPolicy::new(vec!["127.0.0.1:9443".parse().unwrap()]));
        let replicas = Replicas::new(None, Arc::clone(&policy));
        let find = |url: &str| {
            let deployment = DeploymentSpec { replicas: vec![url.into()], ..DeploymentSpec::default() };
            replicas.find("deployments.blue", (&name(), &spec()), &deployment)
        };
        for refused in [
            "http://169.254.169.254",
            "http://0xa9fea9fe",
            "http://[::ffff:169.254.169.254]",
            "http://127.0.0.1:9443",
            "http://0.0.0.0:5001",
        ] {
            let refusal = find(refused).unwrap_err();
            assert_eq!(refusal.target.as_deref(), Some("deployments.blue.replicas[0]"), "{refused}");
        }
        for permitted in ["http://127.0.0.1:5001", "http://metadata.google.internal"] {
            let found = find(permitted).unwrap();
            assert_eq!(
                found[0].policy.as_ref(),
                Some(&policy),
                "{permitted} carries the policy to its connects"
            );
        }
    }
}
